// Plain text: a UTF-8 file as one string, and its tokens cut into windows.
#ifndef NIBBLE_DATASETS_TEXT_H_
#define NIBBLE_DATASETS_TEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace nibble::datasets {

// The file's bytes as they stand, which may be none. Errors: no such file, bytes
// that are not UTF-8 (with line and offset).
absl::StatusOr<std::string> ReadUtf8(const std::string& path);

// The same; an empty file is an error too.
absl::StatusOr<std::string> ReadText(const std::string& path);

// Windows [0, window), [window, 2 window), ... that do not overlap; a tail
// shorter than a window is dropped. `limit` keeps the first windows only, 0
// all. The spans point into `tokens`. Error: no whole window.
absl::StatusOr<std::vector<absl::Span<const int32_t>>> CutWindows(absl::Span<const int32_t> tokens, int64_t window,
                                                                  int64_t limit = 0);

}  // namespace nibble::datasets

#endif  // NIBBLE_DATASETS_TEXT_H_
