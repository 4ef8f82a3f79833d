// Encoders of GGUF's blocks: one block of values to its parts.
//
// The types of 32 columns without importance take their scale from the extremes, as
// ggml's reference quantizers do, to the bit. The others search: a sub-block's scale
// (and offset) by weighted squares (fit.h), then codes for the sub-blocks' scales
// against one fp16 scale of the block, then each column's code anew against what is
// stored. Without importance the weights are
//
//   q2_k |x|, q4_k and q5_k sqrt(mean x^2) + |x|, q3_k, q6_k and iq4_nl x^2
//
// and with importance v of a column (mean square of what the column is multiplied
// with) v sqrt(s + x^2), s from the mean square of the block (the row for types of
// 32 columns); q6_k takes v itself, q8_0 ignores it.
//
// q3_k's plain fit (FitSymmetricByDescent) is llama.cpp's: on Gaussian values its mean
// square is 2 % below that of the other symmetric types' fit.
//
// Source: ggml-quants.c of llama.cpp (quantize_row_*_ref and quantize_row_*_impl).
#ifndef NIBBLE_CORE_QUANT_FORMATS_GGUF_ENCODE_H_
#define NIBBLE_CORE_QUANT_FORMATS_GGUF_ENCODE_H_

#include "absl/types/span.h"
#include "core/quant/formats/gguf/blocks.h"

namespace nibble::gguf {

// Values of a greater magnitude have no scale in fp16 in any type.
inline constexpr float kGreatestMagnitude = 0x1p30f;

// x: [type.columns], magnitudes below kGreatestMagnitude. importance: as long, or empty.
// row_mean_square: of the row that x is from, used with importance. The scales that
// come out may be beyond fp16: infinite in `parts`.
void EncodeBlock(const BlockType& type, absl::Span<const float> x, absl::Span<const float> importance, float row_mean_square,
                 BlockParts* parts);

}  // namespace nibble::gguf

#endif  // NIBBLE_CORE_QUANT_FORMATS_GGUF_ENCODE_H_
