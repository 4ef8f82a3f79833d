// quanto: optimum-quanto's choices of formats and ranges.

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "methods/encode_ops.h"
#include "methods/method.h"
#include "methods/options.h"
#include "methods/quanto/quanto.pb.h"
#include "methods/training/static_ranges.h"

namespace nibble {
namespace {

constexpr double kMomentum = 0.9;  // of optimum-quanto's Calibration

bool IsSubByte(QuantoOptions::Weights weights) { return weights == QuantoOptions::QINT2 || weights == QuantoOptions::QINT4; }

const char* FormatOf(QuantoOptions::Weights weights) {
  switch (weights) {
    case QuantoOptions::QINT2: return "affine2";
    case QuantoOptions::QINT4: return "affine4";
    case QuantoOptions::QINT8: return "int8";
    case QuantoOptions::QFLOAT8: return "fp8_e4m3";
  }
  return "";
}

QuantScheme::Granularity GranularityOf(const QuantoOptions& options) {
  if (options.has_per()) return options.per();
  const bool groups = options.has_group_size() || IsSubByte(options.weights());
  return groups && options.group_size() != 0 ? QuantScheme::PER_GROUP : QuantScheme::PER_ROW;
}

QuantScheme WeightScheme(const QuantoOptions& options) {
  QuantScheme scheme;
  scheme.set_format(FormatOf(options.weights()));
  scheme.set_per(GranularityOf(options));
  if (scheme.per() == QuantScheme::PER_GROUP) scheme.set_group_size(options.group_size());
  if (IsSubByte(options.weights())) scheme.set_scale_type(QuantScheme::BF16);
  return scheme;
}

absl::Status CheckWeights(const QuantoOptions& options) {
  const std::string per = absl::StrCat("per: ", QuantScheme::Granularity_Name(options.per()));
  if (options.per() == QuantScheme::PER_TOKEN) {
    return absl::InvalidArgumentError(absl::StrCat(per, " is not for weights; give PER_TENSOR, PER_ROW or PER_GROUP"));
  }
  if (options.has_per() && options.per() != QuantScheme::PER_GROUP && options.has_group_size() && options.group_size() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("group_size: ", options.group_size(), " is for per: PER_GROUP, got ", per, "; leave one of them out"));
  }
  return ValidateScheme(WeightScheme(options));
}

QuantScheme ActivationScheme(const QuantoOptions& options) {
  QuantScheme scheme;
  scheme.set_format(options.activations() == QuantoOptions::FLOAT8 ? "fp8_e4m3" : "int8");
  scheme.set_per(QuantScheme::PER_TENSOR);
  return scheme;
}

// What the ranges are calibrated by, quanto's average where the options say nothing else.
absl::StatusOr<CalibratedRanges> CalibrationOf(const QuantoOptions& options) {
  CalibratedRanges calibration = options.calibration();
  if (options.ranges() == QuantoOptions::MOVING_AVERAGE) {
    if (!calibration.has_momentum()) calibration.set_momentum(kMomentum);
  } else if (calibration.has_momentum()) {
    return absl::InvalidArgumentError(
        absl::StrCat("calibration.momentum: ", calibration.momentum(), " is of an average, ranges: ABSMAX takes none; leave one of them out"));
  }
  return calibration;
}

class QuantoMethod : public Method {
 public:
  QuantoMethod(const QuantoOptions& options, std::optional<StaticRanges> ranges) : options_(options), ranges_(std::move(ranges)) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const QuantoOptions& options) {
    NIBBLE_RETURN_IF_ERROR(CheckWeights(options));
    const bool activations = options.activations() != QuantoOptions::NONE;
    if (!activations && (options.has_calibration() || options.has_ranges())) {
      return absl::InvalidArgumentError("calibration and ranges are of activations alone; give activations: INT8 or FLOAT8, or leave them out");
    }
    if (!activations) return std::make_unique<QuantoMethod>(options, std::nullopt);
    NIBBLE_ASSIGN_OR_RETURN(const CalibratedRanges calibration, CalibrationOf(options));
    NIBBLE_ASSIGN_OR_RETURN(StaticRanges ranges, StaticRangesFrom(calibration, "calibration", ActivationScheme(options)));
    return std::make_unique<QuantoMethod>(options, std::move(ranges));
  }

  LearningCost Learning() const override { return ranges_.has_value() ? ranges_->Cost() : LearningCost(); }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    NIBBLE_RETURN_IF_ERROR(EncodeOps(context, graph, LayersOrBlocks(options_.layers()), WeightScheme(options_)));
    if (!ranges_.has_value()) return absl::OkStatus();
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<size_t> selected, SelectBlockLinears(graph, options_.layers()));
    return AttachStaticRanges(context, graph, selected, *ranges_);
  }

 private:
  const QuantoOptions options_;
  const std::optional<StaticRanges> ranges_;
};

const MethodRegistrar<QuantoMethod> kRegistrar(quanto);

}  // namespace
}  // namespace nibble
