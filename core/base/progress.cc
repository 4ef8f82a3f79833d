#include "core/base/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_format.h"

namespace nibble {
namespace {

bool g_enabled = true;

}  // namespace

void SetProgressEnabled(bool enabled) { g_enabled = enabled; }

std::string FormatSeconds(double seconds) {
  const int64_t s = static_cast<int64_t>(std::max(0.0, seconds) + 0.5);
  if (s >= 3600) return absl::StrFormat("%d:%02d:%02d", s / 3600, s / 60 % 60, s % 60);
  return absl::StrFormat("%d:%02d", s / 60, s % 60);
}

Progress::Progress(std::string label, int64_t total, int64_t already)
    : label_(std::move(label)), total_(total), already_(already), terminal_(::isatty(2) != 0 || std::getenv(kTerminalVariable) != nullptr), start_(Clock::now()), last_print_(start_) {}

Progress::~Progress() {
  if (printed_ && terminal_) std::fprintf(stderr, "\r\033[K");
}

void Progress::Update(int64_t done, absl::string_view note) {
  if (!g_enabled || total_ <= 0) return;
  const Clock::time_point now = Clock::now();
  const double since = std::chrono::duration<double>(now - last_print_).count();
  if (since < (terminal_ ? 0.2 : 10.0)) return;
  last_print_ = now;
  printed_ = true;
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const double left = done > already_ ? elapsed * static_cast<double>(total_ - done) / static_cast<double>(done - already_) : 0;
  const std::string line = absl::StrFormat("%s %d/%d %d%% %s left%s%s", label_, done, total_, 100 * done / total_, FormatSeconds(left),
                                           note.empty() ? "" : ", ", note);
  std::fprintf(stderr, terminal_ ? "\r\033[K%s" : "%s\n", line.c_str());
}

}  // namespace nibble
