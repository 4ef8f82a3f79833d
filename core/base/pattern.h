// Patterns over names, with * for any run of characters.
#ifndef NIBBLE_CORE_BASE_PATTERN_H_
#define NIBBLE_CORE_BASE_PATTERN_H_

#include "absl/strings/string_view.h"

namespace nibble {

// Whether `text` is `pattern`, in which * stands for any run of characters.
bool MatchesPattern(absl::string_view pattern, absl::string_view text);

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_PATTERN_H_
