// JSON that comes from a model file: nesting is limited, a key that appears
// twice in one object is an error (which of the two is meant decides what the
// model computes), and a number must be representable.
#ifndef NIBBLE_CORE_IO_STRICT_JSON_H_
#define NIBBLE_CORE_IO_STRICT_JSON_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace nibble::io {

// Parses one JSON object. `source` starts every message.
absl::StatusOr<nlohmann::json> ParseStrictObject(absl::string_view text, absl::string_view source);

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_STRICT_JSON_H_
