// AdamW (Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR
// 2019, algorithm 2), clipping by the global norm, and learning-rate schedules.
#ifndef NIBBLE_CORE_TRAIN_ADAMW_H_
#define NIBBLE_CORE_TRAIN_ADAMW_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "core/train/ops.h"

namespace nibble::train {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95;
  double epsilon = 1e-8;
};

// The moments of one parameter.
struct Moments {
  std::vector<float> first, second;
};

// One update, `step` counted from 1:
//   m = b1 m + (1 - b1) s g,  v = b2 v + (1 - b2) (s g)^2
//   w -= rate (m / (1 - b1^step) / (sqrt(v / (1 - b2^step)) + epsilon) + decay w)
// for gradients g scaled by s (clipping, averages).
void AdamWUpdate(Machine machine, const AdamWOptions& options, int64_t step, double rate, double decay, double gradient_scale,
                 absl::Span<const float> gradient, Moments* moments, absl::Span<float> weights);

// Sum of squares in fp64, the same for every number of threads.
double SumOfSquares(Machine machine, absl::Span<const float> values);

enum class Decay { kConstant, kLinear, kCosine };

// A linear rise over `warmup` steps, then a fall from `peak` that would reach `floor` times
// `peak` in the update after the last, so that each one learns.
struct Schedule {
  double peak = 1e-3;
  int64_t warmup = 0;
  int64_t steps = 1;
  Decay decay = Decay::kCosine;
  double floor = 0.1;

  // Of update `step`, counted from 1.
  double Rate(int64_t step) const;
};

}  // namespace nibble::train

#endif  // NIBBLE_CORE_TRAIN_ADAMW_H_
