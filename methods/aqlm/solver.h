// AQLM on one weight matrix (Egiazarian et al., "Extreme Compression of Large Language
// Models via Additive Quantization", ICML 2024, sections 3.2 and 3.3): codes by beam
// search and codebooks by Adam, in turn, on the squared error of the layer's outputs.
#ifndef NIBBLE_METHODS_AQLM_SOLVER_H_
#define NIBBLE_METHODS_AQLM_SOLVER_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/thread_pool.h"
#include "core/quant/formats/aqlm/additive.h"

namespace nibble {

struct AqlmSettings {
  int kmeans_iterations = 100;
  int beam = 1;
  // The alternation ends after a round that gains less than this share, or after
  // `rounds`.
  double tolerance = 0.01;
  int rounds = 20;
  // Of codewords and scales, between beam searches.
  enum class Fit { kAdam, kLeastSquares } fit = Fit::kAdam;
  int adam_steps = 100;
  double learning_rate = 1e-4;
  double beta1 = 0, beta2 = 0.95;
  int least_squares_steps = 20;  // of conjugate gradients
  uint64_t seed = 0;
};

struct AqlmSolution {
  additive::AdditiveTensor tensor;  // as it is stored
  // Half of tr(D H D^T), D the change of the weights: with H = 2/n sum of x x^T the
  // mean squared change of the layer's outputs.
  double loss = 0;
  double initial_loss = 0;  // of the encoding without data
  int rounds = 0;
};

// weights: [rows, n], hessian [n, n], symmetric. `seen` is told the loss after each
// fit and each beam search; it never grows. Errors: numbers that do not fit the scheme's types, a
// Hessian that is not finite.
absl::StatusOr<AqlmSolution> SolveAqlm(const QuantScheme& scheme, int64_t rows, absl::Span<const float> weights, absl::Span<const double> hessian,
                                       const AqlmSettings& settings, ThreadPool& pool, absl::FunctionRef<void(double loss)> seen);

// A tensor and what a step on it starts from.
struct AqlmState {
  additive::AdditiveTensor tensor;
  std::vector<float> gradient;     // D H [rows, n], the loss's with respect to the decoded weights
  std::vector<double> row_losses;  // [rows]

  double loss() const;
};

// The loss of a tensor and the steps that lower it, for SolveAqlm and for tests. None makes it
// larger.
class AqlmProblem {
 public:
  AqlmProblem(int64_t rows, absl::Span<const float> weights, absl::Span<const double> hessian, ThreadPool& pool);

  AqlmState StateOf(additive::AdditiveTensor tensor) const;

  // Goes through the groups of each row in order and through the codebooks of each
  // group, keeping the `beam` best rows of codes (section 3.3). A row for which that
  // gives no less stays as it was.
  void SearchCodes(int beam, AqlmState* state) const;

  // Adam with the running maximum of second moments (AMSGrad) on codewords and scales; the best
  // of all steps is kept.
  void FitByAdam(const AqlmSettings& settings, AqlmState* state) const;

  // Conjugate gradients on the codewords, for which the loss is quadratic, then the best
  // scale of each row.
  void FitByLeastSquares(int steps, AqlmState* state) const;

 private:
  class Search;

  // change H, `change` what the tensor decodes to, less the weights where asked.
  std::vector<float> TimesHessian(const additive::AdditiveTensor& tensor, bool scaled, bool less_weights, std::vector<float>* change) const;
  void FitScales(additive::AdditiveTensor* tensor) const;

  const int64_t rows_, n_;
  const absl::Span<const float> weights_;
  const std::vector<float> hessian_;
  ThreadPool& pool_;
};

}  // namespace nibble

#endif  // NIBBLE_METHODS_AQLM_SOLVER_H_
