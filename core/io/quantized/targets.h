// Which modules a text of compressed-tensors' "targets" or "ignore" means.
#ifndef NIBBLE_CORE_IO_QUANTIZED_TARGETS_H_
#define NIBBLE_CORE_IO_QUANTIZED_TARGETS_H_

#include <string>

#include "absl/status/statusor.h"

namespace nibble::io {

// How well `target` fits a linear of that name: 0 not at all, 1 as a class
// ("Linear"), 2 by a pattern ("re:.*down_proj", matched from the start of the name),
// 3 by its name. Errors: a pattern that is none or takes too long.
absl::StatusOr<int> TargetFit(const std::string& target, const std::string& module);

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_QUANTIZED_TARGETS_H_
