// RotationLearner: learns the rotations R1 and R2 (core/ir/rotations.h) of a
// frozen model by Cayley SGD on the loss of its fake-quantized network
// (SpinQuant, Liu et al. 2024, section 3.2). What the ops multiply by are the
// rotated weights; a gradient of W' = L^T W R gives
//   dR = (L^T W)^T dW',  dL = (W R) dW'^T,
// summed over all weights that a rotation enters and over its blocks.
#ifndef NIBBLE_CORE_TRAIN_ROTATION_LEARNER_H_
#define NIBBLE_CORE_TRAIN_ROTATION_LEARNER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/ir/rotations.h"
#include "core/train/cayley.h"
#include "core/train/learner.h"

namespace nibble::train {

struct LearnedRotations {
  std::optional<ir::SquareMatrix> r1;
  std::vector<ir::SquareMatrix> r2;  // by layer; empty: none
};

// Tensors "R1" and "model.layers.<i>.self_attn.R2", fp64, as SpinQuant names
// them. Errors of reading name the file and the tensor.
absl::Status WriteRotations(const std::string& path, const LearnedRotations& rotations);
absl::StatusOr<LearnedRotations> ReadRotations(const std::string& path);

struct RotationOptions {
  CayleyOptions cayley;
  // Updates between QR factorizations, which take away what rounding leaves of
  // non-orthogonality.
  int64_t orthogonalize_every = 100;
  bool recompute_blocks = false;
};

class RotationLearner : public Learner {
 public:
  // `graph` gives the structure and the schemes of weights and activations to
  // learn for; `base` the same parameters in floating point, norms folded and
  // the head untied, not yet rotated by what is learned. `graph` outlives the
  // learner. Errors: a graph that cannot be rotated (core/ir/rotations.h).
  static absl::StatusOr<std::unique_ptr<RotationLearner>> Create(const ir::Graph& graph, const ir::Graph& base, Machine machine,
                                                                 const LearnedRotations& start, const RotationOptions& options);

  LearnedRotations rotations() const;

  // Of the last update: the step of R1 (of the first R2 where there is no R1),
  // and the largest |R R^T - I| of all.
  const CayleyStep& last_step() const { return last_step_; }
  double OrthogonalityError() const;
  // Of the last update, with respect to R1 and then each R2.
  const std::vector<double>& last_gradient(size_t rotation) const { return gradients_[rotation]; }

  absl::StatusOr<double> Update(double rate, double gradient_scale) override;
  absl::Status Save(const std::string& path, const std::string& note) const override;
  absl::StatusOr<std::string> Restore(const std::string& path) override;

 private:
  // A weight and the rotations that enter it, as indices into rotations_.
  struct Merged {
    ir::ParameterId id = -1;
    int64_t rows = 0, cols = 0;
    std::optional<size_t> left, right;
    std::optional<QuantScheme> scheme;
    std::vector<float> weight, effective, gradient;
    std::vector<uint8_t> in_range;  // empty: all
  };

  RotationLearner(const ir::Graph& graph, Machine machine, const RotationOptions& options) : Learner(graph, machine), options_(options) {}
  absl::Status AddWeights(const ir::Graph& base);
  absl::Status AddWeight(const ir::Graph& base, ir::ParameterId id, std::optional<size_t> left, std::optional<size_t> right);
  void TakeFloats();
  // A weight times its rotation on one side, in `product`; the weight itself
  // where that side has none.
  absl::Span<const float> TimesRight(const Merged& merged, absl::Span<const float> weight, std::vector<float>* product) const;
  absl::Span<const float> TimesLeft(const Merged& merged, absl::Span<const float> weight, std::vector<float>* product) const;
  absl::Status Remake() override;
  void AddGradients(Merged& merged);
  std::string NameOf(size_t rotation) const;

  const RotationOptions options_;
  std::optional<size_t> r1_;            // its place
  std::vector<std::optional<size_t>> r2_;  // by layer
  std::vector<RotationParameter> rotations_;
  std::vector<std::vector<float>> floats_;      // of rotations_, for products
  std::vector<std::vector<double>> gradients_;  // of rotations_
  std::vector<Merged> merged_;
  CayleyStep last_step_;
};

}  // namespace nibble::train

#endif  // NIBBLE_CORE_TRAIN_ROTATION_LEARNER_H_
