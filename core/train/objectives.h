// What training minimizes.
#ifndef NIBBLE_CORE_TRAIN_OBJECTIVES_H_
#define NIBBLE_CORE_TRAIN_OBJECTIVES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/train/sequences.h"
#include "core/train/trainer.h"

namespace nibble::train {

// Which sequences an update sees, and how many tokens pass through the model at
// a time: memory grows with the latter, gradients are summed over the parts.
struct BatchOptions {
  int64_t batch = 8;            // sequences of an update
  int64_t micro_tokens = 2048;  // at least one sequence
  uint64_t seed = 0;
};

// What the trained model is held to beside, or in place of, the text.
struct Distillation {
  double weight = 1;         // of the divergence; 1 - weight of the text's cross-entropy
  double temperature = 1;
  double hidden_weight = 0;  // of the mean squared difference of what the head reads
};

// Mean cross-entropy of the learned tokens of an update (each token weighs the
// same), or the divergence from a teacher over those positions: KL(teacher ||
// student) of the next-token distributions, times temperature^2.
class LanguageModel : public Objective {
 public:
  // `teacher` may be null; it and the sequences outlive the objective. Errors:
  // no sequence.
  static absl::StatusOr<std::unique_ptr<LanguageModel>> Create(const Sequences& sequences, const BatchOptions& options,
                                                               Learner* teacher = nullptr, const Distillation& distillation = {});

  absl::StatusOr<Observation> Accumulate(Learner& learner, int64_t step) override;

 private:
  struct Part;
  LanguageModel(const Sequences& sequences, const BatchOptions& options, Learner* teacher, const Distillation& distillation)
      : sequences_(sequences), options_(options), teacher_(teacher), distillation_(distillation) {}
  absl::StatusOr<double> AccumulatePart(Learner& learner, const Part& part, double weight);
  absl::StatusOr<double> Distill(Learner& learner, const Part& part, double weight, std::vector<float>* gradient);

  const Sequences& sequences_;
  const BatchOptions options_;
  Learner* const teacher_;
  const Distillation distillation_;
};

// Direct preference optimization (Rafailov et al., NeurIPS 2023). With pi and
// ref the summed log-probabilities of the learned tokens under the policy and
// the frozen reference:
//   z = (pi_chosen - pi_rejected) - (ref_chosen - ref_rejected)
//   loss = -(1 - e) log sigmoid(beta z) - e log sigmoid(-beta z)
struct DpoOptions {
  double beta = 0.1;
  double label_smoothing = 0;  // e
};
struct DpoLoss {
  double loss = 0;
  double gradient = 0;  // d loss / d z
};
DpoLoss DpoLossOf(const DpoOptions& options, double z);

class Preferences : public Objective {
 public:
  // Sequence 2 i is chosen over sequence 2 i + 1. `references` are their summed
  // log-probabilities, as SumLogProbs gives them for SequencesSeen. An update
  // sees `options.batch` pairs.
  static absl::StatusOr<std::unique_ptr<Preferences>> Create(const Sequences& pairs, std::vector<double> references, const BatchOptions& options,
                                                             const DpoOptions& dpo);

  // The sequences that the first `steps` updates see, each once, in order.
  static std::vector<int64_t> SequencesSeen(const Sequences& pairs, const BatchOptions& options, int64_t steps);

  absl::StatusOr<Observation> Accumulate(Learner& learner, int64_t step) override;

 private:
  Preferences(const Sequences& pairs, std::vector<double> references, const BatchOptions& options, const DpoOptions& dpo)
      : pairs_(pairs), references_(std::move(references)), options_(options), dpo_(dpo) {}
  absl::Status AccumulatePair(Learner& learner, int64_t pair, double weight, Observation* observation) const;

  const Sequences& pairs_;
  const std::vector<double> references_;
  const BatchOptions options_;
  const DpoOptions dpo_;
};

// The sum of log-probabilities of the learned tokens of the sequences `which`, by
// sequence; NaN for the others.
absl::StatusOr<std::vector<double>> SumLogProbs(Learner& learner, const Sequences& sequences, absl::Span<const int64_t> which,
                                                int64_t micro_tokens);

}  // namespace nibble::train

#endif  // NIBBLE_CORE_TRAIN_OBJECTIVES_H_
