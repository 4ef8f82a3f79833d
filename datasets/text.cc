#include "datasets/text.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/text/utf8.h"

namespace nibble::datasets {

absl::StatusOr<std::string> ReadUtf8(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(std::string text, ReadFile(path));
  NIBBLE_RETURN_IF_ERROR(text::CheckUtf8(text, path));
  return text;
}

absl::StatusOr<std::string> ReadText(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(std::string text, ReadUtf8(path));
  if (text.empty()) return absl::InvalidArgumentError(absl::StrCat(path, " is empty"));
  return text;
}

absl::StatusOr<std::vector<absl::Span<const int32_t>>> CutWindows(absl::Span<const int32_t> tokens, int64_t window,
                                                                  int64_t limit) {
  if (window < 1 || limit < 0) {
    return absl::InvalidArgumentError(absl::StrCat("cannot cut ", limit, " windows of ", window, " tokens"));
  }
  const int64_t whole = static_cast<int64_t>(tokens.size()) / window;
  if (whole == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text has ", tokens.size(), " tokens; one window needs ", window, ": take a longer text or a smaller window"));
  }
  std::vector<absl::Span<const int32_t>> windows;
  const int64_t count = limit == 0 ? whole : std::min(limit, whole);
  for (int64_t i = 0; i < count; ++i) windows.push_back(tokens.subspan(i * window, window));
  return windows;
}

}  // namespace nibble::datasets
