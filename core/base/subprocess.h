// Programs as child processes.
#ifndef NIBBLE_CORE_BASE_SUBPROCESS_H_
#define NIBBLE_CORE_BASE_SUBPROCESS_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

// Runs `program` (a path, or a name that PATH finds) with `arguments`; its
// standard output. One that cannot be started is NotFound where there is no such
// program; an exit status other than 0 or a signal is Aborted, under the name
// `title`. Standard error goes where ours does.
absl::StatusOr<std::string> RunProgram(const std::string& program, const std::vector<std::string>& arguments, const std::string& title);

// A word as a shell reads it back: in quotes unless every character stands for itself.
std::string ShellWord(absl::string_view word);

// Runs this executable: what is measured in a fresh process did nothing else.
absl::StatusOr<std::string> RunSelf(const std::vector<std::string>& arguments);

// How a process ended.
struct Ending {
  int status = 0;          // of its exit
  int signal = 0;          // that killed it, or 0
  std::string last_words;  // the last line of its standard error

  bool ok() const { return status == 0 && signal == 0; }
  // "killed by signal 9 (Killed; out of memory?)", "ended with status 3: LAST WORDS".
  std::string Text() const;
};

// Takes what a child writes to its standard error, as it comes.
using Listener = std::function<void(absl::string_view)>;

// Writes it to ours.
void PassOn(absl::string_view text);

// Runs a program, or this executable. An error: it cannot be started.
absl::StatusOr<Ending> RunToEnd(const std::string& program, const std::vector<std::string>& arguments, const std::string& title,
                                const Listener& listener = PassOn);
absl::StatusOr<Ending> RunSelfToEnd(const std::vector<std::string>& arguments, const Listener& listener = PassOn);

// The last line of a stream that has something in it; a carriage return ends a line too.
class LastLine {
 public:
  void Take(absl::string_view text);
  const std::string& Get() const { return line_.empty() ? last_ : line_; }

 private:
  std::string line_, last_;
};

// For a child process: ends it when the process that started it, `parent`, ends. Linux
// alone; elsewhere the child goes on.
void EndWithParent(int parent);

// Bytes of private memory that this process may have from now on; an allocation beyond
// them fails. An error: the limit is not accepted.
absl::Status LimitMemory(int64_t bytes);

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_SUBPROCESS_H_
