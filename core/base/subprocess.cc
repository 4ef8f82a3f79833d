#include "core/base/subprocess.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "core/base/status.h"

extern char** environ;

namespace nibble {
namespace {

constexpr char kSelf[] = "/proc/self/exe";
constexpr size_t kMostWords = 1000;  // bytes of last words

// Gives everything that can be read from `fd`, which is closed, piece by piece.
void Drain(int fd, const std::function<void(absl::string_view)>& take) {
  char buffer[4096];
  while (true) {
    const ssize_t n = ::read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    take({buffer, static_cast<size_t>(n)});
  }
  ::close(fd);
}

absl::Status CannotStart(const std::string& title, int error) {
  const std::string message = absl::StrCat("cannot start '", title, "': ", std::strerror(error));
  return error == ENOENT ? absl::NotFoundError(message) : absl::ResourceExhaustedError(message);
}

// A child with its file descriptor `stream` on a pipe.
struct Child {
  pid_t pid = 0;
  int pipe = -1;
};

absl::StatusOr<Child> Spawn(const std::string& program, const std::vector<std::string>& arguments, const std::string& title, int stream) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return absl::ResourceExhaustedError(absl::StrCat("pipe: ", std::strerror(errno)));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], stream);
  std::vector<std::string> words = {program};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  Child child;
  const int error = ::posix_spawnp(&child.pid, program.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  child.pipe = ends[0];
  if (error == 0) return child;
  ::close(ends[0]);
  return CannotStart(title, error);
}

Ending Await(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status)) return {0, WTERMSIG(status), ""};
  return {WEXITSTATUS(status), 0, ""};
}

std::string TitleOf(const std::vector<std::string>& arguments) { return absl::StrCat("nibble ", arguments.empty() ? "" : arguments[0]); }

}  // namespace

std::string Ending::Text() const {
  const std::string words = last_words.empty() ? "" : absl::StrCat(": ", last_words);
  if (signal == 0) return absl::StrCat("ended with status ", status, words);
  return absl::StrCat("killed by signal ", signal, " (", strsignal(signal), signal == SIGKILL ? "; out of memory?" : "", ")",
                      signal == SIGKILL ? "" : words);
}

std::string ShellWord(absl::string_view word) {
  const auto is_plain = [](char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("_-./:=,+@%", c); };
  if (!word.empty() && absl::c_all_of(word, is_plain)) return std::string(word);
  return absl::StrCat("'", absl::StrReplaceAll(word, {{"'", "'\\''"}}), "'");
}

absl::StatusOr<std::string> RunProgram(const std::string& program, const std::vector<std::string>& arguments, const std::string& title) {
  NIBBLE_ASSIGN_OR_RETURN(const Child child, Spawn(program, arguments, title, STDOUT_FILENO));
  std::string text;
  Drain(child.pipe, [&](absl::string_view piece) { text.append(piece.data(), piece.size()); });
  const Ending ending = Await(child.pid);
  if (!ending.ok()) return absl::AbortedError(absl::StrCat("'", title, "' ", ending.signal != 0 ? "was " : "", ending.Text()));
  return text;
}

absl::StatusOr<std::string> RunSelf(const std::vector<std::string>& arguments) { return RunProgram(kSelf, arguments, TitleOf(arguments)); }

void LastLine::Take(absl::string_view text) {
  for (const char c : text) {
    if (c == '\n' || c == '\r') {
      if (!line_.empty()) last_ = std::move(line_);
      line_.clear();
    } else if (line_.size() < kMostWords) {
      line_.push_back(c);
    }
  }
}

void PassOn(absl::string_view text) {
  // Nobody may be there to read it.
  while (!text.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    if (written <= 0) return;
    text.remove_prefix(static_cast<size_t>(written));
  }
}

absl::StatusOr<Ending> RunToEnd(const std::string& program, const std::vector<std::string>& arguments, const std::string& title,
                                const Listener& listener) {
  NIBBLE_ASSIGN_OR_RETURN(const Child child, Spawn(program, arguments, title, STDERR_FILENO));
  LastLine last;
  Drain(child.pipe, [&](absl::string_view text) {
    last.Take(text);
    listener(text);
  });
  Ending ending = Await(child.pid);
  ending.last_words = last.Get();
  return ending;
}

absl::StatusOr<Ending> RunSelfToEnd(const std::vector<std::string>& arguments, const Listener& listener) {
  return RunToEnd(kSelf, arguments, TitleOf(arguments), listener);
}

void EndWithParent(int parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);  // it ended before
}

absl::Status LimitMemory(int64_t bytes) {
  const rlimit limit = {static_cast<rlim_t>(bytes), static_cast<rlim_t>(bytes)};
  if (::setrlimit(RLIMIT_DATA, &limit) == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a memory limit of ", bytes, " bytes: ", std::strerror(errno)));
}

}  // namespace nibble
