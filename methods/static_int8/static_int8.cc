// static_int8: int8 weights and int8 activations with calibrated ranges.

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "methods/encode_ops.h"
#include "methods/method.h"
#include "methods/options.h"
#include "methods/static_int8/static_int8.pb.h"
#include "methods/training/static_ranges.h"

namespace nibble {
namespace {

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

  LearningCost Learning() const override { return CalibrationCost(options_, 1); }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<size_t> selected, SelectBlockLinears(graph, options_.layers()));
    const StaticRanges ranges = {.data = options_.data(),
                                 .samples = options_.samples(),
                                 .seed = options_.seed(),
                                 .momentum = options_.moving_average().momentum(),
                                 .scheme = ActivationScheme(options_),
                                 .range = [this](const RangeObserver& observer) { return RangeOf(options_, observer); }};
    NIBBLE_RETURN_IF_ERROR(AttachStaticRanges(context, graph, selected, ranges));
    QuantScheme weights = IntegerScheme(kBits, 0, false);
    weights.set_per(options_.per());
    return EncodeOps(context, graph, LayersOrBlocks(options_.layers()), weights);
  }

 private:
  const StaticInt8Options options_;
};

const MethodRegistrar<StaticInt8Method> kRegistrar(static_int8);

}  // namespace
}  // namespace nibble
