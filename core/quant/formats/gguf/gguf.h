// GGUF's block types as number formats: q4_0, q4_1, q5_0, q5_1, q8_0, iq4_nl, q2_k,
// q3_k, q4_k, q5_k, q6_k. blocks.h gives their layouts, encode.h how they are encoded.
//
// An encoded tensor has one buffer "blocks" U8 [rows, bytes of a row], exactly the
// bytes that a GGUF file holds. A scheme says the format and nothing else.
#ifndef NIBBLE_CORE_QUANT_FORMATS_GGUF_GGUF_H_
#define NIBBLE_CORE_QUANT_FORMATS_GGUF_GGUF_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/quant/encoded.h"

namespace nibble {

// Encodes row-major finite `values` of `shape`, rows in parallel on `pool` (may be
// null). importance: of each column, the mean square of what it is multiplied with, or
// empty; it decides which errors count, see formats/gguf/encode.h. Errors: an unknown
// type, a row that blocks do not divide, importance that is not one finite number of 0
// or more a column, a value whose scale leaves fp16.
absl::StatusOr<EncodedTensor> EncodeGgufBlocks(const std::string& type, const Shape& shape, absl::Span<const float> values,
                                               absl::Span<const float> importance, ThreadPool* pool);

// A tensor of one of these formats taken apart:
//
//   w = scales[b] scale_codes[g] value(code) - mins[b] min_codes[g]
//
// for column c in group g = c / group of its row and block b = g / groups_per_block.
struct GgufParts {
  int bits = 0;
  int32_t zero = 0;                // value(code) = code - zero; for iq4_nl what its table says
  int64_t group = 0, groups = 0;   // columns of a sub-block; sub-blocks of a row
  int64_t groups_per_block = 0;
  bool has_mins = false;
  Tensor codes;                    // U8 [rows, PackedRowBytes(bits, cols)], as in a CodeView
  Tensor scales, mins;             // F16 [rows, blocks]; mins are zeros without has_mins
  Tensor scale_codes;              // I8 [rows, groups]; ones where a block has one scale
  Tensor min_codes;                // U8 [rows, groups]
};

// `tensor` is of one of these formats and its buffers fit.
GgufParts SplitGgufBlocks(const EncodedTensor& tensor);

// Whether a format is one of these.
bool IsGgufFormat(const std::string& format);

}  // namespace nibble

#endif  // NIBBLE_CORE_QUANT_FORMATS_GGUF_GGUF_H_
