// sft: supervised fine-tuning, the full-precision control of trained variants.

#include "core/base/status.h"
#include "methods/method.h"
#include "methods/sft/sft.pb.h"
#include "methods/training/training.h"

namespace nibble {
namespace {

class SftMethod : public Method {
 public:
  explicit SftMethod(const SftOptions& options) : options_(options) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const SftOptions& options) {
    NIBBLE_RETURN_IF_ERROR(CheckTraining(options.training()));
    NIBBLE_RETURN_IF_ERROR(CheckData(options.data()));
    return std::make_unique<SftMethod>(options);
  }

  LearningCost Learning() const override { return TrainingCost(options_.data().window(), options_.training(), kTrainingCopies); }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    NIBBLE_ASSIGN_OR_RETURN(const train::Sequences sequences, ReadTrainingData(context, options_.data()));
    NIBBLE_ASSIGN_OR_RETURN(const auto ids, SelectParameters(graph, {options_.layers().begin(), options_.layers().end()}));
    NIBBLE_ASSIGN_OR_RETURN(auto masters, MastersOf(context, graph, ids, /*round_floats=*/false));
    const Lesson lesson = {"sft", options_.training(), "", &sequences};
    return Learn(context, lesson, std::move(masters), LanguageModelOf(sequences), graph);
  }

 private:
  const SftOptions options_;
};

const MethodRegistrar<SftMethod> kRegistrar(sft);

}  // namespace
}  // namespace nibble
