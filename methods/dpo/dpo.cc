// dpo: direct preference optimization of backbone and adapters.

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "methods/dpo/dpo.pb.h"
#include "methods/method.h"
#include "methods/training/training.h"

namespace nibble {
namespace {

class DpoMethod : public Method {
 public:
  explicit DpoMethod(const DpoOptions& options) : options_(options) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const DpoOptions& options) {
    NIBBLE_RETURN_IF_ERROR(CheckTraining(options.training()));
    NIBBLE_RETURN_IF_ERROR(CheckPreferences(options.data()));
    if (!(options.beta() > 0)) return absl::InvalidArgumentError(absl::StrCat("beta: ", options.beta(), ", expected more than 0"));
    if (!(options.label_smoothing() >= 0 && options.label_smoothing() < 0.5)) {
      return absl::InvalidArgumentError(absl::StrCat("label_smoothing: ", options.label_smoothing(), ", expected 0 to below 0.5"));
    }
    return std::make_unique<DpoMethod>(options);
  }

  // Quantized weights multiply as rounded copies.
  LearningCost Learning() const override {
    return TrainingCost(2 * options_.data().window(), options_.training(), kTrainingCopies + 1);
  }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    NIBBLE_ASSIGN_OR_RETURN(const train::Sequences pairs, ReadPreferenceData(context, options_.data()));
    NIBBLE_ASSIGN_OR_RETURN(const auto ids, SelectParameters(graph, {options_.layers().begin(), options_.layers().end()}));
    NIBBLE_ASSIGN_OR_RETURN(auto masters, MastersOf(context, graph, ids, /*round_floats=*/true));
    const train::DpoOptions dpo = {options_.beta(), options_.label_smoothing()};
    const Lesson lesson = {"dpo", options_.training(), absl::StrCat(dpo.beta, " ", dpo.label_smoothing), &pairs};
    const auto objective = [&](train::Learner& learner, const train::BatchOptions& batch) -> absl::StatusOr<std::unique_ptr<train::Objective>> {
      // Before the first update policy and reference are one model.
      const std::vector<int64_t> seen = train::Preferences::SequencesSeen(pairs, batch, options_.training().steps());
      NIBBLE_ASSIGN_OR_RETURN(std::vector<double> references, train::SumLogProbs(learner, pairs, seen, batch.micro_tokens));
      NIBBLE_ASSIGN_OR_RETURN(auto preferences, train::Preferences::Create(pairs, std::move(references), batch, dpo));
      return std::unique_ptr<train::Objective>(std::move(preferences));
    };
    return Learn(context, lesson, std::move(masters), objective, graph);
  }

 private:
  const DpoOptions options_;
};

const MethodRegistrar<DpoMethod> kRegistrar(dpo);

}  // namespace
}  // namespace nibble
