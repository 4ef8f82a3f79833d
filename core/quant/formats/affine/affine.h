// affine1 .. affine8: grids whose zero is a real number, w = scale * (code - zero), as
// HQQ and optimum-quanto store them. The range need not hold 0, and its least value is
// met exactly, which an integer zero point gives up.
#ifndef NIBBLE_CORE_QUANT_FORMATS_AFFINE_AFFINE_H_
#define NIBBLE_CORE_QUANT_FORMATS_AFFINE_AFFINE_H_

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/thread_pool.h"
#include "core/quant/encoded.h"

namespace nibble {

// A grid as it is stored: both numbers rounded to the scheme's scale type. scale > 0.
struct AffineGrid {
  float scale = 1, zero = 0;

  float Decode(uint8_t code) const { return scale * (static_cast<float>(code) - zero); }
};

// The bits of "affine<bits>".
int AffineBits(const QuantScheme& scheme);

// scale and zero rounded to the scheme's type, the zero so that the least code stands
// for `least`. A scale of which `least` is more than 2^14 steps away grows until it is
// not: fp16 holds no larger zero to half a step.
AffineGrid AffineGridFrom(const QuantScheme& scheme, float least, float scale);

// From the least to the largest of `values`; of equal values the grid that holds them.
AffineGrid AffineRange(const QuantScheme& scheme, absl::Span<const float> values);

// An error for a scale that its type does not hold.
absl::Status CheckScales(absl::Span<const AffineGrid> grids);

// The code nearest to x, ties to even.
uint8_t AffineCode(const AffineGrid& grid, int bits, float x);

// Encodes on grids that were chosen before, [rows, groups] in order (one for
// PER_TENSOR). `pool` may be null.
EncodedTensor EncodeAffine(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values, absl::Span<const AffineGrid> grids,
                           ThreadPool* pool);

}  // namespace nibble

#endif  // NIBBLE_CORE_QUANT_FORMATS_AFFINE_AFFINE_H_
