// qat: quantization-aware training of whatever schemes its `quantize` steps
// give. Those steps run once, on a copy: the schemes that they leave in the
// graph are what training passes weights and activations through, and what the
// result is stored in.

#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "methods/method.h"
#include "methods/qat/qat.pb.h"
#include "methods/training/training.h"

namespace nibble {
namespace {

absl::Status CheckDistill(const DistillOptions& options) {
  const auto bad = [](absl::string_view field, double value, absl::string_view expected) {
    return absl::InvalidArgumentError(absl::StrCat("distill.", field, ": ", value, ", expected ", expected));
  };
  if (!(options.weight() >= 0 && options.weight() <= 1)) return bad("weight", options.weight(), "0 to 1");
  if (!(options.temperature() > 0 && std::isfinite(options.temperature()))) return bad("temperature", options.temperature(), "more than 0");
  if (!(options.hidden_weight() >= 0 && std::isfinite(options.hidden_weight()))) return bad("hidden_weight", options.hidden_weight(), "0 or more");
  return absl::OkStatus();
}

class QatMethod : public Method {
 public:
  explicit QatMethod(const QatOptions& options) : options_(options) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const QatOptions& options) {
    NIBBLE_RETURN_IF_ERROR(CheckTraining(options.training()));
    NIBBLE_RETURN_IF_ERROR(CheckData(options.data()));
    if (options.quantize_after() < 0 || options.quantize_after() >= options.training().steps()) {
      return absl::InvalidArgumentError(absl::StrCat("quantize_after: ", options.quantize_after(), ", expected 0 to below training.steps ", options.training().steps()));
    }
    if (options.quantize().empty()) {
      return absl::InvalidArgumentError("quantize is empty: say what to train for, quantize { [nibble.llama32_ptq] {} }");
    }
    NIBBLE_RETURN_IF_ERROR(CheckDistill(options.distill()));
    NIBBLE_RETURN_IF_ERROR(CheckQuantizeSteps(options.quantize()));
    return std::make_unique<QatMethod>(options);
  }

  // The weights of the forward pass are rounded copies.
  LearningCost Learning() const override {
    const double teacher = options_.has_distill() ? kFrozenCopies : 0;
    return TrainingCost(options_.data().window(), options_.training(), kTrainingCopies + 1 + teacher);
  }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    NIBBLE_ASSIGN_OR_RETURN(const train::Sequences sequences, ReadTrainingData(context, options_.data()));
    ir::Graph quantized = graph;
    NIBBLE_RETURN_IF_ERROR(ApplyPipeline(context, options_.quantize(), quantized));
    std::vector<train::TrainedParameter> masters;
    bool learns_scales = false;
    for (const ir::ParameterId id : AllParameters(quantized)) {
      NIBBLE_ASSIGN_OR_RETURN(std::vector<float> values, ValuesBeforeRounding(context, graph, quantized, id, "qat"));
      NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor stored, quantized.parameter(id).Load());
      train::TrainedParameter master{id, std::move(values), std::nullopt};
      if (stored.scheme.format() != "fp32") master.scheme = stored.scheme;
      master.learn_scales = options_.learn_scales() && train::CanLearnScales(master);
      learns_scales |= master.learn_scales;
      masters.push_back(std::move(master));
    }
    if (options_.learn_scales() && !learns_scales) {
      return absl::InvalidArgumentError("learn_scales: no weight has scales to learn; they are those of symmetric integers per row or group, so leave learn_scales or asymmetric out");
    }
    std::unique_ptr<train::WeightLearner> teacher;
    std::string teacher_hash;
    if (options_.has_distill()) {
      NIBBLE_ASSIGN_OR_RETURN(teacher_hash, ir::ContentHash(graph));
      NIBBLE_ASSIGN_OR_RETURN(const train::Machine machine, TrainingMachine(context));
      NIBBLE_ASSIGN_OR_RETURN(teacher, train::WeightLearner::Create(graph, machine, {}, {}));
    }
    const std::string specification = absl::StrCat(PipelineToString(options_.quantize()), "\n", ProtoToLine(options_.distill()),
                                                   options_.learn_scales() ? "\nlearned scales" : "", teacher_hash);
    const Lesson lesson = {"qat", options_.training(), specification, &sequences, options_.quantize_after()};
    NIBBLE_RETURN_IF_ERROR(
        Learn(context, lesson, std::move(masters), LanguageModelOf(sequences, teacher.get(), options_.distill()), quantized));
    graph = std::move(quantized);
    return absl::OkStatus();
  }

 private:
  const QatOptions options_;
};

const MethodRegistrar<QatMethod> kRegistrar(qat);

}  // namespace
}  // namespace nibble
