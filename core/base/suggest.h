// "Did you mean ...?": the nearest of the known names to one that is unknown.
#ifndef NIBBLE_CORE_BASE_SUGGEST_H_
#define NIBBLE_CORE_BASE_SUGGEST_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace nibble {

// "; did you mean 'x'?" when a candidate is within a third of the name's
// length (Levenshtein distance), else "". Appended to an error message.
std::string DidYouMean(absl::string_view name, const std::vector<std::string>& candidates);

// "unknown <kind> 'name'; did you mean 'x'? Known: a, b, c".
std::string UnknownName(absl::string_view kind, absl::string_view name, const std::vector<std::string>& candidates);

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_SUGGEST_H_
