// lora: low-rank adapters on a frozen backbone. They begin as Hugging Face's
// PEFT and torchtune begin them: A uniform in +-1/sqrt(in) (Kaiming with a =
// sqrt 5), B zero, so that the first output is the backbone's.

#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/rng.h"
#include "core/base/status.h"
#include "core/ir/adapters.h"
#include "core/ir/passes.h"
#include "methods/lora/lora.pb.h"
#include "methods/method.h"
#include "methods/options.h"
#include "methods/training/training.h"

namespace nibble {
namespace {

QuantScheme SchemeOf(LoraOptions::DType dtype) {
  switch (dtype) {
    case LoraOptions::FP32: return FloatScheme("fp32");
    case LoraOptions::FP16: return FloatScheme("fp16");
    default: return FloatScheme("bf16");
  }
}

// A parameter's first values depend on its name and the seed only.
absl::StatusOr<EncodedTensor> FirstValues(const QuantScheme& scheme, const std::string& name, const Shape& shape, uint64_t seed) {
  std::vector<float> values(shape[0] * shape[1], 0.0f);
  if (absl::EndsWith(name, ".lora_A.weight")) {
    uint64_t mixed = seed;
    for (const char c : name) mixed = Rng(mixed ^ static_cast<unsigned char>(c)).Next();
    Rng rng(mixed);
    const double bound = 1 / std::sqrt(static_cast<double>(shape[1]));
    for (float& v : values) v = static_cast<float>(bound * (2 * rng.Uniform() - 1));
  }
  return Encode(scheme, shape, values);
}

class LoraMethod : public Method {
 public:
  explicit LoraMethod(const LoraOptions& options) : options_(options) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const LoraOptions& options) {
    if (options.rank() < 1) return absl::InvalidArgumentError(absl::StrCat("rank: ", options.rank(), ", expected 1 or more"));
    if (!std::isfinite(options.alpha()) || options.alpha() == 0) return absl::InvalidArgumentError("alpha must be a number other than 0");
    NIBBLE_RETURN_IF_ERROR(CheckTraining(options.training()));
    if (options.has_data()) NIBBLE_RETURN_IF_ERROR(CheckData(options.data()));
    if (!options.has_data() && options.has_training()) return absl::InvalidArgumentError("training is given without data, from which adapters learn");
    return std::make_unique<LoraMethod>(options);
  }

  LearningCost Learning() const override {
    if (!options_.has_data()) return {};
    return TrainingCost(options_.data().window(), options_.training(), kFrozenCopies);
  }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    if (options_.has_data() && !ir::AdaptersOf(graph).empty()) {
      return absl::FailedPreconditionError("the model has adapters already, which this step would train too; merge them in their own step (merge: true), "
                                           "or name all linears in one");
    }
    NIBBLE_RETURN_IF_ERROR(Attach(graph));
    if (options_.has_data()) NIBBLE_RETURN_IF_ERROR(Train(context, graph));
    return options_.merge() ? ir::MergeAdapters(graph, context.pool()) : absl::OkStatus();
  }

 private:
  absl::Status Attach(ir::Graph& graph) const {
    NIBBLE_ASSIGN_OR_RETURN(const auto ops, ir::SelectOps(graph, LayersOrBlocks(options_.layers())));
    std::vector<ir::Adapter> adapters;
    for (const size_t i : ops) {
      adapters.push_back({graph.ops()[i].name, options_.rank(), static_cast<float>(options_.alpha() / options_.rank())});
    }
    const QuantScheme scheme = SchemeOf(options_.dtype());
    const uint64_t seed = options_.seed();
    return ir::AttachAdapters(graph, adapters, [&](const std::string& name, const Shape& shape) {
      return [=] { return FirstValues(scheme, name, shape, seed); };
    });
  }

  absl::Status Train(Context& context, ir::Graph& graph) const {
    NIBBLE_ASSIGN_OR_RETURN(const train::Sequences sequences, ReadTrainingData(context, options_.data()));
    NIBBLE_ASSIGN_OR_RETURN(const auto ids, SelectParameters(graph, {"adapters"}));
    NIBBLE_ASSIGN_OR_RETURN(auto masters, MastersOf(context, graph, ids, /*round_floats=*/true));
    const std::string specification =
        absl::StrCat(options_.rank(), " ", options_.alpha(), " ", LoraOptions::DType_Name(options_.dtype()), " ", options_.seed());
    const Lesson lesson = {"lora", options_.training(), specification, &sequences};
    return Learn(context, lesson, std::move(masters), LanguageModelOf(sequences), graph);
  }

  const LoraOptions options_;
};

const MethodRegistrar<LoraMethod> kRegistrar(lora);

}  // namespace
}  // namespace nibble
