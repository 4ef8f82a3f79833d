// fp8: rounding to 8-bit floats. The types are number formats
// (core/quant/formats/fp8); the method chooses schemes and layers.

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/ir/passes.h"
#include "methods/encode_ops.h"
#include "methods/fp8/fp8.pb.h"
#include "methods/method.h"
#include "methods/options.h"
#include "methods/training/static_ranges.h"

namespace nibble {
namespace {

QuantScheme SchemeOf(Fp8Options::Type type, QuantScheme::Granularity per) {
  QuantScheme scheme;
  scheme.set_format(type == Fp8Options::E5M2 ? "fp8_e5m2" : "fp8_e4m3");
  scheme.set_per(per);
  return scheme;
}

class Fp8Method : public Method {
 public:
  Fp8Method(const Fp8Options& options, std::optional<StaticRanges> ranges) : options_(options), ranges_(std::move(ranges)) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const Fp8Options& options) {
    if (options.per() != QuantScheme::PER_ROW && options.per() != QuantScheme::PER_TENSOR) {
      return absl::InvalidArgumentError(
          absl::StrCat("per: ", QuantScheme::Granularity_Name(options.per()), " is not for fp8; give PER_ROW or PER_TENSOR"));
    }
    if (options.has_activations() && !options.dynamic_activations() && !options.has_static_activations()) {
      return absl::InvalidArgumentError("activations: of no use without dynamic_activations or static_activations");
    }
    const auto names = [&](absl::string_view layer) { return absl::c_linear_search(options.layers(), layer); };
    if ((options.dynamic_activations() || options.has_static_activations()) && names("embedding")) {
      return absl::InvalidArgumentError("layers: \"embedding\" has no activations to quantize; give it to an fp8 step without them");
    }
    if (options.has_static_activations() && names("head")) {
      return absl::InvalidArgumentError("layers: \"head\": static_activations are of linears inside the blocks; give it to an fp8 step with dynamic_activations");
    }
    if (!options.has_static_activations()) return std::make_unique<Fp8Method>(options, std::nullopt);
    if (options.dynamic_activations()) return absl::InvalidArgumentError("static_activations: the inputs are already dynamic_activations");
    const QuantScheme scheme = SchemeOf(options.activations(), QuantScheme::PER_TENSOR);
    NIBBLE_ASSIGN_OR_RETURN(StaticRanges ranges, StaticRangesFrom(options.static_activations(), "static_activations", scheme));
    return std::make_unique<Fp8Method>(options, std::move(ranges));
  }

  LearningCost Learning() const override { return ranges_.has_value() ? ranges_->Cost() : LearningCost(); }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    const std::vector<std::string> layers = LayersOrBlocks(options_.layers());
    if (ranges_.has_value()) {
      NIBBLE_ASSIGN_OR_RETURN(const std::vector<size_t> selected, SelectBlockLinears(graph, options_.layers()));
      NIBBLE_RETURN_IF_ERROR(AttachStaticRanges(context, graph, selected, *ranges_));
    }
    NIBBLE_RETURN_IF_ERROR(EncodeOps(context, graph, layers, SchemeOf(options_.weights(), options_.per())));
    if (!options_.dynamic_activations()) return absl::OkStatus();
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<size_t> ops, ir::SelectOps(graph, layers));
    QuantScheme activation = SchemeOf(options_.activations(), QuantScheme::PER_TOKEN);
    activation.set_dynamic(true);
    return ir::AttachActivation(graph, ops, activation);
  }

 private:
  const Fp8Options options_;
  const std::optional<StaticRanges> ranges_;
};

const MethodRegistrar<Fp8Method> kRegistrar(fp8);

}  // namespace
}  // namespace nibble
