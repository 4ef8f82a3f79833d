// QuantSchemes as one line of protobuf text format, the form in which
// checkpoints hold them: "format: \"int4\" per: PER_GROUP group_size: 32".
#ifndef NIBBLE_CORE_IO_SCHEME_TEXT_H_
#define NIBBLE_CORE_IO_SCHEME_TEXT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/quant/encoded.h"

namespace nibble::io {

std::string SchemeToText(const QuantScheme& scheme);

// Errors: text that is no QuantScheme, or a scheme that its format refuses.
absl::StatusOr<QuantScheme> SchemeFromText(absl::string_view text);

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_SCHEME_TEXT_H_
