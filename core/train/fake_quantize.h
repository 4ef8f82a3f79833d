// Fake quantization with straight-through gradients: values become what their
// scheme's codes decode to, and a gradient passes where the code was not cut
// off (Jacob et al., CVPR 2018; torchao's fake quantizers). Scales and zero
// points count as constants.
#ifndef NIBBLE_CORE_TRAIN_FAKE_QUANTIZE_H_
#define NIBBLE_CORE_TRAIN_FAKE_QUANTIZE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "core/quant/encoded.h"
#include "core/train/ops.h"

namespace nibble::train {

// y [tokens, width] from x. Errors: an activation that is not finite, a scale
// that leaves its type.
absl::Status FakeQuantizeActivations(Machine machine, const QuantScheme& scheme, int64_t tokens, int64_t width, const float* x, float* y);
// dx += dy where x lies inside its grid.
absl::Status StraightThroughActivations(Machine machine, const QuantScheme& scheme, int64_t tokens, int64_t width, const float* x,
                                        const float* dy, float* dx);

// decoded = Decode(Encode(scheme, master)) to the bit. `in_range` [rows, cols]
// is resized to 0 when every code lies inside the grid.
absl::Status FakeQuantizeWeights(Machine machine, const QuantScheme& scheme, int64_t rows, int64_t cols, const float* master,
                                 float* decoded, std::vector<uint8_t>* in_range);

// Zeroes the gradients of weights that were cut off, as FakeQuantizeWeights left
// `in_range`.
void MaskGradients(Machine machine, absl::Span<const uint8_t> in_range, absl::Span<float> gradient);

// Learned step sizes (LSQ: Esser et al., ICLR 2020) are for symmetric integers
// per row or group.
bool CanLearnScales(const QuantScheme& scheme);

// The scales of a symmetric integer scheme as `master` and the scheme's range
// rule choose them, [rows, groups] in order.
absl::StatusOr<std::vector<float>> FirstScales(const QuantScheme& scheme, int64_t rows, int64_t cols, absl::Span<const float> master);

// decoded = DecodeValue(EncodeValue(master)) on grids of the given scales.
void FakeQuantizeWithScales(Machine machine, const QuantScheme& scheme, int64_t rows, int64_t cols, const float* master,
                            absl::Span<const float> scales, float* decoded);

// Given gradients of decoded weights, adds those of log(scale),
//   s / sqrt(n q_max) * sum over the group of n weights of
//     g (q - w / s) where the code lies inside the grid, g q where it was cut off,
// and leaves the weights' own straight-through gradients in `gradient`.
void LearnedScaleGradients(Machine machine, const QuantScheme& scheme, int64_t rows, int64_t cols, const float* master,
                           absl::Span<const float> scales, float* gradient, absl::Span<float> scale_gradient);

}  // namespace nibble::train

#endif  // NIBBLE_CORE_TRAIN_FAKE_QUANTIZE_H_
