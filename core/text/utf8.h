// Well-formed UTF-8 (Unicode 15, table 3-7): no overlong forms, no surrogates,
// nothing above U+10FFFF.
#ifndef NIBBLE_CORE_TEXT_UTF8_H_
#define NIBBLE_CORE_TEXT_UTF8_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace nibble::text {

// Bytes of the well-formed character that `text` starts with, 1 to 4, or 0 where
// it starts with none.
size_t Utf8CharacterLength(absl::string_view text);

// Bytes of the longest well-formed beginning of `text`.
size_t Utf8PrefixLength(absl::string_view text);

// `text` with U+FFFD for each byte that is no part of a well-formed character.
std::string WellFormed(absl::string_view text);

inline bool IsUtf8(absl::string_view text) { return Utf8PrefixLength(text) == text.size(); }

// An error that names the file, the line and the first byte that is no UTF-8.
absl::Status CheckUtf8(absl::string_view text, absl::string_view file);

}  // namespace nibble::text

#endif  // NIBBLE_CORE_TEXT_UTF8_H_
