// Checkpoints as compressed-tensors' folders, which vLLM and transformers load; the
// layout is in core/io/quantized/compressed_tensors.cc.
#ifndef NIBBLE_CORE_IO_COMPRESSED_TENSORS_WRITER_H_
#define NIBBLE_CORE_IO_COMPRESSED_TENSORS_WRITER_H_

#include <string>

#include "core/io/hf_folder.h"

namespace nibble::io {

// Integer weights of 2 to 8 bits in groups, by row or by tensor: "pack-quantized" with
// float inputs; int8 by row or tensor with int8 inputs, dynamic by token:
// "int-quantized". All quantized linears share one scheme of weights and one of
// inputs, those in floats are on the "ignore" list. Everything else is an error: a
// quantized embedding, adapters, transforms at run time, a quantized cache, groups
// that do not divide a row, inputs in another arithmetic. A symmetric input's divisor
// is the library's, (2^b - 1) / 2; one by absmax / (2^(b-1) - 1) is refused.
absl::Status WriteCompressedTensors(const std::string& folder, const Checkpoint& checkpoint);

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_COMPRESSED_TENSORS_WRITER_H_
