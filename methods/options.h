// Options that several methods read alike.
#ifndef NIBBLE_METHODS_OPTIONS_H_
#define NIBBLE_METHODS_OPTIONS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/repeated_field.h"

namespace nibble {

// "int2" … "int8", the registered integer formats. Error: other bits.
absl::StatusOr<std::string> IntegerFormat(int bits);

// A step's `layers`, or the blocks' linears where it names none.
std::vector<std::string> LayersOrBlocks(const google::protobuf::RepeatedPtrField<std::string>& layers);

}  // namespace nibble

#endif  // NIBBLE_METHODS_OPTIONS_H_
