// White space as Python's str.isspace() has it, which lm-evaluation-harness
// strips and counts words by: U+001C to U+001F besides Unicode's White_Space.
#ifndef NIBBLE_DATASETS_WHITESPACE_H_
#define NIBBLE_DATASETS_WHITESPACE_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace nibble::datasets {

absl::string_view StripLeadingWhitespace(absl::string_view text);
absl::string_view StripTrailingWhitespace(absl::string_view text);
absl::string_view StripWhitespace(absl::string_view text);

// Parts of `text` between runs of white space, as re.split(r"\s+", text) counts
// them: white space at an end bounds an empty part.
int64_t CountWords(absl::string_view text);

}  // namespace nibble::datasets

#endif  // NIBBLE_DATASETS_WHITESPACE_H_
