// static_int8: int8 weights and int8 activations with calibrated ranges.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/progress.h"
#include "core/base/status.h"
#include "core/calibration/block_runner.h"
#include "core/calibration/range_observer.h"
#include "core/ir/passes.h"
#include "methods/encode_ops.h"
#include "methods/method.h"
#include "methods/options.h"
#include "methods/static_int8/static_int8.pb.h"
#include "methods/training/training.h"

namespace nibble {
namespace {

using calibration::Batch;
using calibration::BlockRunner;
using calibration::RangeObserver;

constexpr int kBits = 8;

absl::Status Check(const StaticInt8Options& options) {
  const auto error = [](auto... parts) { return absl::InvalidArgumentError(absl::StrCat(parts...)); };
  NIBBLE_RETURN_IF_ERROR(CheckCalibration(options, "static_int8"));
  const double momentum = options.moving_average().momentum(), share = options.percentile().share();
  if (!(momentum >= 0 && momentum < 1)) return error("moving_average.momentum: ", momentum, " must be from 0 to below 1");
  if (!(share > 0 && share <= 1)) return error("percentile.share: ", share, " must be above 0 and at most 1");
  if (options.per() == QuantScheme::PER_ROW || options.per() == QuantScheme::PER_TENSOR) return absl::OkStatus();
  return error("per: ", QuantScheme::Granularity_Name(options.per()), " is not for static_int8; give PER_ROW or PER_TENSOR");
}

// The scheme of activations but for the range.
QuantScheme ActivationScheme(const StaticInt8Options& options) {
  QuantScheme scheme = IntegerScheme(kBits, 0, options.asymmetric_activations());
  scheme.set_per(QuantScheme::PER_TENSOR);
  return scheme;
}

absl::StatusOr<FixedRange> RangeOf(const StaticInt8Options& options, const RangeObserver& observer) {
  switch (options.rule_case()) {
    case StaticInt8Options::kMovingAverage: return observer.MovingAverage();
    case StaticInt8Options::kPercentile: return observer.Percentile(options.percentile().share());
    case StaticInt8Options::kMse: return observer.LeastSquares(ActivationScheme(options), kBits);
    case StaticInt8Options::kKl: return observer.LeastDivergence(kBits);
    default: return observer.AbsMax();
  }
}

class StaticInt8Method : public Method {
 public:
  explicit StaticInt8Method(const StaticInt8Options& options) : options_(options) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const StaticInt8Options& options) {
    NIBBLE_RETURN_IF_ERROR(Check(options));
    return std::make_unique<StaticInt8Method>(options);
  }

  bool learns() const override { return true; }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<size_t> selected, SelectBlockLinears(graph, options_.layers()));
    NIBBLE_RETURN_IF_ERROR(Calibrate(context, graph, selected));
    QuantScheme weights = IntegerScheme(kBits, 0, false);
    weights.set_per(options_.per());
    return EncodeOps(context, graph, LayersOrBlocks(options_.layers()), weights);
  }

 private:
  // Sets the activation schemes, with ranges from the model as it is.
  absl::Status Calibrate(Context& context, ir::Graph& graph, const std::vector<size_t>& selected) const {
    NIBBLE_ASSIGN_OR_RETURN(std::vector<Batch> batches, CalibrationBatches(context, graph, options_.data(), options_.samples(), options_.seed()));
    NIBBLE_ASSIGN_OR_RETURN(const train::Machine machine, TrainingMachine(context));
    Progress progress("calibrating", graph.num_layers());
    for (int layer = 0; layer < graph.num_layers(); ++layer) {
      NIBBLE_ASSIGN_OR_RETURN(BlockRunner runner, BlockRunner::Create(graph, layer, machine));
      const std::vector<std::vector<size_t>> groups = runner.LinearsByInput();
      std::vector<RangeObserver> observers(groups.size(), RangeObserver(options_.moving_average().momentum()));
      for (Batch& batch : batches) {
        runner.Run(batch.starts, &batch.hidden, [&](size_t op, absl::Span<const float> x) {
          for (size_t g = 0; g < groups.size(); ++g) {
            if (groups[g][0] == op) observers[g].Add(x);
          }
        });
      }
      for (size_t g = 0; g < groups.size(); ++g) NIBBLE_RETURN_IF_ERROR(Attach(graph, groups[g], observers[g], selected));
      progress.Update(layer + 1);
    }
    return absl::OkStatus();
  }

  absl::Status Attach(ir::Graph& graph, const std::vector<size_t>& readers, const RangeObserver& observer, const std::vector<size_t>& selected) const {
    const std::vector<size_t> group = SelectedOf(readers, selected);
    if (group.empty()) return absl::OkStatus();
    QuantScheme scheme = ActivationScheme(options_);
    NIBBLE_ASSIGN_OR_RETURN(*scheme.mutable_fixed(), RangeOf(options_, observer));
    return ir::AttachActivation(graph, group, scheme);
  }

  const StaticInt8Options options_;
};

const MethodRegistrar<StaticInt8Method> kRegistrar(static_int8);

}  // namespace
}  // namespace nibble
