// Element types of stored tensors, and the conversions between fp32 and the
// 16-bit floats. Rounding is to nearest, ties to even, as IEEE 754 and every
// framework do it; NaN stays NaN (quiet), overflow becomes infinity.
#ifndef NIBBLE_CORE_TENSOR_DTYPE_H_
#define NIBBLE_CORE_TENSOR_DTYPE_H_

#include <bit>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

enum class DType { kF32, kF16, kBF16, kF64, kI8, kU8, kI16, kI32, kI64, kBool };

// Bytes of one element.
int64_t DTypeSize(DType dtype);

// The safetensors spelling: "F32", "F16", "BF16", "F64", "I8", "U8", ...
absl::string_view DTypeName(DType dtype);
absl::StatusOr<DType> DTypeFromName(absl::string_view name);

inline float Bf16ToFloat(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

inline uint16_t FloatToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((bits >> 16) | 0x0040u);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

float Fp16ToFloat(uint16_t bits);
uint16_t FloatToFp16(float value);

}  // namespace nibble

#endif  // NIBBLE_CORE_TENSOR_DTYPE_H_
