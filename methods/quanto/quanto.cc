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

QuantScheme WeightScheme(const QuantoOptions& options) {
  if (options.weights() == QuantoOptions::QINT8) return IntegerScheme(8, 0, false);
  QuantScheme scheme;
  scheme.set_per(QuantScheme::PER_ROW);
  if (options.weights() == QuantoOptions::QFLOAT8) {
    scheme.set_format("fp8_e4m3");
    return scheme;
  }
  scheme.set_format(options.weights() == QuantoOptions::QINT2 ? "affine2" : "affine4");
  scheme.set_scale_type(QuantScheme::BF16);
  if (options.group_size() == 0) return scheme;
  scheme.set_per(QuantScheme::PER_GROUP);
  scheme.set_group_size(options.group_size());
  return scheme;
}

QuantScheme ActivationScheme(const QuantoOptions& options) {
  QuantScheme scheme;
  scheme.set_format(options.activations() == QuantoOptions::FLOAT8 ? "fp8_e4m3" : "int8");
  scheme.set_per(QuantScheme::PER_TENSOR);
  return scheme;
}

class QuantoMethod : public Method {
 public:
  QuantoMethod(const QuantoOptions& options, std::optional<StaticRanges> ranges) : options_(options), ranges_(std::move(ranges)) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const QuantoOptions& options) {
    if (options.has_group_size() && (options.weights() == QuantoOptions::QINT8 || options.weights() == QuantoOptions::QFLOAT8)) {
      return absl::InvalidArgumentError(absl::StrCat("group_size: ", options.group_size(), " is for QINT2 and QINT4; ",
                                                     QuantoOptions::Weights_Name(options.weights()), " has a scale a row; leave it out"));
    }
    NIBBLE_RETURN_IF_ERROR(ValidateScheme(WeightScheme(options)));
    const bool activations = options.activations() != QuantoOptions::NONE;
    if (!activations && options.has_calibration()) {
      return absl::InvalidArgumentError("calibration: only activations are calibrated; give activations: INT8 or FLOAT8");
    }
    if (!activations) return std::make_unique<QuantoMethod>(options, std::nullopt);
    NIBBLE_ASSIGN_OR_RETURN(StaticRanges ranges, StaticRangesFrom(options.calibration(), "calibration", ActivationScheme(options)));
    return std::make_unique<QuantoMethod>(options, std::move(ranges));
  }

  double LearningTokens() const override { return ranges_.has_value() ? ranges_->LearningTokens() : 0; }

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
