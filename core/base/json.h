// JSON text to nlohmann::json with errors that name the source and the place.
#ifndef NIBBLE_CORE_BASE_JSON_H_
#define NIBBLE_CORE_BASE_JSON_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace nibble {

// Parses one document. `source` (a path, or "path:line") starts the message.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, absl::string_view source);

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_JSON_H_
