#include "methods/options.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace nibble {

absl::StatusOr<std::string> IntegerFormat(int bits) {
  if (bits < 2 || bits > 8) return absl::InvalidArgumentError(absl::StrCat("bits: ", bits, " is not in 2..8"));
  return absl::StrCat("int", bits);
}

std::vector<std::string> LayersOrBlocks(const google::protobuf::RepeatedPtrField<std::string>& layers) {
  if (layers.empty()) return {"blocks"};
  return {layers.begin(), layers.end()};
}

}  // namespace nibble
