// Cayley SGD on orthogonal matrices (Li, Li & Todorovic, "Efficient Riemannian
// Optimization on the Stiefel Manifold via the Cayley Transform", ICLR 2020,
// algorithm 1), with the settings of SpinQuant's optimizer.
#ifndef NIBBLE_CORE_TRAIN_CAYLEY_H_
#define NIBBLE_CORE_TRAIN_CAYLEY_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace nibble::train {

struct CayleyOptions {
  double momentum = 0;
  int fixed_point_steps = 5;
};

// What one step did.
struct CayleyStep {
  double alpha = 0;      // the step size: the rate, or 1 / ||W||_1 where that is smaller
  double skew_norm = 0;  // ||W||_1, W the skew-symmetric direction: zero at a stationary point
};

// A square matrix that stays orthogonal while it learns, fp64.
class RotationParameter {
 public:
  // value: [size, size], row-major, orthogonal.
  RotationParameter(int64_t size, std::vector<double> value);

  int64_t size() const { return size_; }
  const std::vector<double>& value() const { return value_; }
  const std::vector<double>& momentum() const { return momentum_; }

  // One update against `gradient` dL/dR, [size, size]. With X = R, rows
  // normalized:
  //   V <- momentum V - G^T,  M = V X,  W' = M - X^T (X M) / 2,  W = W' - W'^T,
  //   alpha = min(rate, 1 / ||W||_1),
  //   Y <- X^T + alpha V, then Y <- X^T + alpha / 2 W (X^T + Y) a few times
  // (the Cayley transform by fixed point), R <- Y^T, V <- W X^T.
  CayleyStep Update(absl::Span<const double> gradient, double rate, const CayleyOptions& options);

  // Replaces R by its orthogonal factor (core/ir/rotations.h): takes away what
  // rounding has left of non-orthogonality.
  void Orthogonalize();

  // The largest entry of |R R^T - I|.
  double OrthogonalityError() const;

  // Both arrays of a checkpoint.
  void Restore(std::vector<double> value, std::vector<double> momentum);

 private:
  int64_t size_;
  std::vector<double> value_, momentum_;
};

}  // namespace nibble::train

#endif  // NIBBLE_CORE_TRAIN_CAYLEY_H_
