// JSON text to nlohmann::json with errors that name the source and the place.
#ifndef NIBBLE_CORE_BASE_JSON_H_
#define NIBBLE_CORE_BASE_JSON_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace nibble {

// Parses one document. `source` (a path, or "path:line") starts the message. What is
// nested deeper than 100 levels is an error: the library copies, compares and writes
// values by recursion.
// So is a NUL byte: the library would end the document there and not look at the rest.
// `watch`, where there is one, sees the parse as nlohmann::json::parse tells of it.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, absl::string_view source, const nlohmann::json::parser_callback_t& watch = nullptr);

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_JSON_H_
