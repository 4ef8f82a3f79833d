// Element types of GGUF tensors. A row is stored as blocks of a fixed number
// of elements and bytes (one element for the plain floats). What the blocks mean is
// the number format's to say: core/quant/formats/gguf.
#ifndef NIBBLE_CORE_IO_GGUF_BLOCKS_H_
#define NIBBLE_CORE_IO_GGUF_BLOCKS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "core/tensor/dtype.h"

namespace nibble::io {

struct GgufBlockType {
  uint32_t id;  // in the file
  absl::string_view name;
  int64_t elements, bytes;     // of a block
  std::optional<DType> dtype;  // for plain floats

  // The number format of such a tensor; "" when Nibble has none.
  std::string format() const;
};

// The type with that number, or null. Types that cannot be decoded are known
// by size, so that a file which holds some is still checked and listed.
const GgufBlockType* FindGgufBlockType(uint32_t id);
const GgufBlockType* FindGgufBlockType(absl::string_view name);

// The type that holds tensors of a number format, or null.
const GgufBlockType* GgufTypeOfFormat(absl::string_view format);

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_GGUF_BLOCKS_H_
