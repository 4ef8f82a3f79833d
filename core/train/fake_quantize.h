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

}  // namespace nibble::train

#endif  // NIBBLE_CORE_TRAIN_FAKE_QUANTIZE_H_
