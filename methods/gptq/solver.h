// GPTQ for one weight matrix (Frantar et al., ICLR 2023, section 3 and
// algorithm 1): the Hessian's factor, then codes column by column.
#ifndef NIBBLE_METHODS_GPTQ_SOLVER_H_
#define NIBBLE_METHODS_GPTQ_SOLVER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/thread_pool.h"
#include "core/quant/encoded.h"

namespace nibble {

struct GptqSettings {
  double damping = 0.01;      // share of the mean diagonal
  bool act_order = true;      // columns by falling diagonal
  bool static_groups = true;  // groups' grids from the weights as given
  int64_t block = 128;
};

// What the matrices that read one input share. With H damped and its columns in
// order, U is the upper triangle with H^-1 = U^T U. H itself is not kept: it has
// U's memory.
struct HessianFactor {
  int64_t size = 0;
  std::vector<int64_t> order;   // the column at each place
  std::vector<bool> dead;       // columns that never see an input
  std::vector<double> upper;    // [size, size] U, in `order`
  double damping = 0;           // what it took
  int retries = 0;              // with ten times the damping each
};

// hessian: [size, size], symmetric, not damped. An error when it cannot be
// factored with a damping of 1 either, or is not finite.
absl::StatusOr<HessianFactor> FactorHessian(std::vector<double> hessian, const GptqSettings& settings, ThreadPool& pool);

struct GptqSolution {
  EncodedTensor encoded;
  // Half of tr(D H D^T) with the damped H and D the change of the weights: with
  // H = 2/n sum of x x^T the mean squared change of the layer's outputs. Counted from
  // the weights as they were given here.
  double loss = 0;
  double rounding_loss = 0;  // the same of rounding to nearest on the same scheme
};

// weights: [rows, size]; dead columns become 0. Any integer scheme.
absl::StatusOr<GptqSolution> SolveGptq(const QuantScheme& scheme, int64_t rows, absl::Span<const float> weights, const HessianFactor& factor,
                               const GptqSettings& settings, ThreadPool& pool);

// W + share W C H^-1, C = 2/n sum of (x - x') x'^T: the weights that undo that
// share of the inputs' change from x to x' (QEP, Arai & Ichikawa, NeurIPS 2025).
// H is the factor's, of x'.
std::vector<float> PropagateError(absl::Span<const float> weights, int64_t rows, absl::Span<const double> change, double share,
                                  const HessianFactor& factor, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_METHODS_GPTQ_SOLVER_H_
