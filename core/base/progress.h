// Progress of long work on standard error: "label 12/40 30% 0:12 left".
// On a terminal one line is rewritten; elsewhere a line appears at most every
// ten seconds, so that a log stays readable.
#ifndef NIBBLE_CORE_BASE_PROGRESS_H_
#define NIBBLE_CORE_BASE_PROGRESS_H_

#include <chrono>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace nibble {

// An environment variable for child processes whose standard error a parent passes on to a
// terminal.
inline constexpr char kTerminalVariable[] = "NIBBLE_TERMINAL";

class Progress {
 public:
  // `already` of `total` units were done before and tell nothing of the speed.
  Progress(std::string label, int64_t total, int64_t already = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` of `total` units are finished; `note` follows the line.
  void Update(int64_t done, absl::string_view note = "");

 private:
  using Clock = std::chrono::steady_clock;
  const std::string label_;
  const int64_t total_, already_;
  const bool terminal_;
  const Clock::time_point start_;
  Clock::time_point last_print_;
  bool printed_ = false;
};

// "1:02:03" or "2:03".
std::string FormatSeconds(double seconds);

// Turns all progress output off (tests, --quiet).
void SetProgressEnabled(bool enabled);

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_PROGRESS_H_
