// JSON text to nlohmann::json with errors that name the source and the place.
#ifndef NIBBLE_CORE_BASE_JSON_H_
#define NIBBLE_CORE_BASE_JSON_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace nibble {

// Parses one document. `source` (a path, or "path:line") starts the message. What is
// nested deeper than 100 levels is an error: the library copies, compares and writes
// values by recursion.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, absl::string_view source);

// What the library says of a text, cut short: it quotes the whole of what it could not
// read.
std::string JsonProblem(const nlohmann::json::exception& error);

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_JSON_H_
