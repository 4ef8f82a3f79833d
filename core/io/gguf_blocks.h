// Element types of GGUF tensors. A row is stored as blocks of a fixed number
// of elements and bytes (one element for the plain floats). Quantized blocks
// of 32 elements, fields in file order, d and m fp16:
//
//   Q4_0  d, 16 bytes of nibbles             x = (q - 8) * d
//   Q4_1  d, m, 16 bytes of nibbles          x = q * d + m
//   Q5_0  d, u32 fifth bits, 16 bytes        x = (q - 16) * d
//   Q5_1  d, m, u32 fifth bits, 16 bytes     x = q * d + m
//   Q8_0  d, 32 int8                         x = q * d
//
// Byte j of the nibbles holds element j (low) and element j + 16 (high); bit j
// of the u32 is the fifth bit of element j. Arithmetic is fp32.
#ifndef NIBBLE_CORE_IO_GGUF_BLOCKS_H_
#define NIBBLE_CORE_IO_GGUF_BLOCKS_H_

#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"
#include "core/tensor/dtype.h"

namespace nibble::io {

struct GgufBlockType {
  uint32_t id;  // in the file
  absl::string_view name;
  int64_t elements, bytes;                                               // of a block
  std::optional<DType> dtype;                                            // for plain floats
  void (*decode)(const uint8_t* blocks, int64_t count, float* out) = nullptr;  // null: not supported
};

// The type with that number, or null. Types that cannot be decoded are known
// by size, so that a file which holds some is still checked and listed.
const GgufBlockType* FindGgufBlockType(uint32_t id);
const GgufBlockType* FindGgufBlockType(absl::string_view name);

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_GGUF_BLOCKS_H_
