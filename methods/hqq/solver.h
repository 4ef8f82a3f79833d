// The half-quadratic solver for a group's zero (Badri and Shaji, Half-Quadratic
// Quantization of Large Machine Learning Models, 2023, equations 3 to 6).
#ifndef NIBBLE_METHODS_HQQ_SOLVER_H_
#define NIBBLE_METHODS_HQQ_SOLVER_H_

#include "absl/types/span.h"
#include "core/quant/formats/affine/affine.h"

namespace nibble {

struct HqqSettings {
  int iterations = 20;
  double norm = 0.7;
  double beta = 10, growth = 1.01;
  bool round_zero = false;
};

// Sum of |w - decode(encode(w))|^norm over the group.
double HqqError(const AffineGrid& grid, int bits, absl::Span<const float> group, double norm);

// The grid of a group: its range, then in turns
//   e = shrink(w - scale (q - zero)),  shrink(x) = sign(x) max(|x| - |x|^(norm - 1) / beta, 0)
//   zero = mean(q - (w - e) / scale),  beta <- growth beta
// while the error falls. Of all zeros the best, so never worse than the range itself.
AffineGrid SolveHqq(const QuantScheme& scheme, const HqqSettings& settings, absl::Span<const float> group);

}  // namespace nibble

#endif  // NIBBLE_METHODS_HQQ_SOLVER_H_
