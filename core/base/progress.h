// Progress of long work on standard error: "label 12/40 30% 0:12 left".
// On a terminal one line is rewritten; elsewhere a line appears at most every
// ten seconds, so that a log stays readable.
#ifndef NIBBLE_CORE_BASE_PROGRESS_H_
#define NIBBLE_CORE_BASE_PROGRESS_H_

#include <chrono>
#include <cstdint>
#include <string>

namespace nibble {

class Progress {
 public:
  Progress(std::string label, int64_t total);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` of `total` units are finished.
  void Update(int64_t done);

 private:
  using Clock = std::chrono::steady_clock;
  const std::string label_;
  const int64_t total_;
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
