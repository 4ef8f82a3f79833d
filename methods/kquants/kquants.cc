// kquants: a type for each tensor by a mix, the importance of columns from calibration
// text where there is some.

#include <map>

#include "absl/strings/str_cat.h"
#include "core/base/progress.h"
#include "core/base/status.h"
#include "core/calibration/block_runner.h"
#include "core/ir/passes.h"
#include "core/quant/formats/gguf/gguf.h"
#include "methods/encode_ops.h"
#include "methods/kquants/kquants.pb.h"
#include "methods/kquants/mixes.h"
#include "methods/method.h"
#include "methods/training/training.h"

namespace nibble {
namespace {

using calibration::Batch;
using calibration::BlockRunner;

// Of the columns of each linear's weight, by its op's index.
using Importance = std::map<size_t, std::vector<float>>;

// The mean square of what each linear in the blocks reads, in full precision.
absl::StatusOr<Importance> MeasureImportance(Context& context, const ir::Graph& graph, std::vector<Batch> batches) {
  NIBBLE_ASSIGN_OR_RETURN(const train::Machine machine, TrainingMachine(context));
  int64_t tokens = 0;
  for (const Batch& batch : batches) tokens += batch.starts.back();
  std::map<size_t, std::vector<double>> sums;
  Progress progress("importance", graph.num_layers());
  for (int layer = 0; layer < graph.num_layers(); ++layer) {
    NIBBLE_ASSIGN_OR_RETURN(BlockRunner runner, BlockRunner::Create(graph, layer, machine));
    for (Batch& batch : batches) {
      NIBBLE_RETURN_IF_ERROR(runner.Run(batch.starts, &batch.hidden, [&](size_t op, absl::Span<const float> x) {
        std::vector<double>& sum = sums[op];
        sum.resize(graph.values()[graph.ops()[op].inputs[0]].width);
        for (size_t i = 0; i < x.size(); ++i) sum[i % sum.size()] += static_cast<double>(x[i]) * x[i];
      }));
    }
    progress.Update(layer + 1);
  }
  Importance importance;
  for (const auto& [op, sum] : sums) {
    std::vector<float>& means = importance[op];
    for (const double s : sum) means.push_back(static_cast<float>(s / static_cast<double>(tokens)));
  }
  return importance;
}

class KquantsMethod : public Method {
 public:
  explicit KquantsMethod(KquantsOptions options) : options_(std::move(options)) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const KquantsOptions& options) {
    if (options.has_mix() && options.has_pure()) return absl::InvalidArgumentError("mix and pure exclude each other; give one of them");
    if (options.has_pure() && !IsGgufFormat(options.pure())) {
      return absl::InvalidArgumentError(absl::StrCat("pure: '", options.pure(), "' is no GGUF block format; name one such as \"q4_k\" or \"iq4_nl\""));
    }
    if (options.has_data()) NIBBLE_RETURN_IF_ERROR(CheckCalibration(options, "kquants"));
    if (!options.has_data() && (options.has_samples() || options.has_seed())) {
      return absl::InvalidArgumentError(absl::StrCat(options.has_samples() ? "samples" : "seed", ": of no use without data"));
    }
    return std::make_unique<KquantsMethod>(options);
  }

  LearningCost Learning() const override { return options_.has_data() ? CalibrationCost(options_, 1) : LearningCost(); }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    Importance importance;
    if (options_.has_data()) {
      NIBBLE_ASSIGN_OR_RETURN(std::vector<Batch> batches, CalibrationBatches(context, graph, options_.data(), options_.samples(), options_.seed()));
      NIBBLE_ASSIGN_OR_RETURN(importance, MeasureImportance(context, graph, std::move(batches)));
    }
    std::vector<std::string> layers(options_.layers().begin(), options_.layers().end());
    if (layers.empty()) layers = {"blocks", "embedding", "head"};
    return EncodeOps(graph, layers, [&](size_t i, const Shape& shape, absl::Span<const float> values) -> absl::StatusOr<EncodedTensor> {
      const ir::Op& op = graph.ops()[i];
      NIBBLE_ASSIGN_OR_RETURN(const ChosenType type, TypeOf(graph, op));
      if (!type.instead.empty()) {
        context.CountEvent(absl::StrCat("kquants.", type.instead, "_became_", type.format), 1,
                           absl::StrCat(op.name, ": blocks of ", type.instead, " do not divide rows of ", shape.back()));
      }
      if (!IsGgufFormat(type.format)) return Encode(FloatScheme(type.format), shape, values, &context.pool());
      return EncodeGgufBlocks(type.format, shape, values, importance[i], &context.pool());
    });
  }

 private:
  absl::StatusOr<ChosenType> TypeOf(const ir::Graph& graph, const ir::Op& op) const {
    if (options_.has_pure()) return FittingType(options_.pure(), graph.parameter(*op.weight).shape().back());
    NIBBLE_ASSIGN_OR_RETURN(const TensorInModel tensor, PlaceOf(graph, op));
    return TypeInMix(KquantsOptions::Mix_Name(options_.mix()), tensor);
  }

  const KquantsOptions options_;
};

const MethodRegistrar<KquantsMethod> kRegistrar(kquants);

}  // namespace
}  // namespace nibble
