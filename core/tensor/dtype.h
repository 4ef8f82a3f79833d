// Element types of stored tensors.
#ifndef NIBBLE_CORE_TENSOR_DTYPE_H_
#define NIBBLE_CORE_TENSOR_DTYPE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/tensor/half.h"

namespace nibble {

enum class DType { kF32, kF16, kBF16, kF64, kI8, kU8, kI16, kI32, kI64, kBool };

// Bytes of one element.
int64_t DTypeSize(DType dtype);

// The safetensors spelling: "F32", "F16", "BF16", "F64", "I8", "U8", ...
absl::string_view DTypeName(DType dtype);
absl::StatusOr<DType> DTypeFromName(absl::string_view name);

}  // namespace nibble

#endif  // NIBBLE_CORE_TENSOR_DTYPE_H_
