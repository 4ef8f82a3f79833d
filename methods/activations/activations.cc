// activations: dynamic per-token quantization of linears' inputs.

#include "core/base/status.h"
#include "core/ir/passes.h"
#include "methods/activations/activations.pb.h"
#include "methods/method.h"
#include "methods/options.h"

namespace nibble {
namespace {

absl::StatusOr<QuantScheme> SchemeFrom(const ActivationsOptions& options) {
  QuantScheme scheme;
  NIBBLE_ASSIGN_OR_RETURN(*scheme.mutable_format(), IntegerFormat(options.bits()));
  scheme.set_per(QuantScheme::PER_TOKEN);
  if (options.group_size() != 0) {
    scheme.set_per(QuantScheme::PER_GROUP);
    scheme.set_group_size(options.group_size());
  }
  if (options.asymmetric()) scheme.set_asymmetric(true);
  if (options.has_divisor()) scheme.set_divisor(options.divisor());
  scheme.set_scale_floor(options.scale_floor());
  scheme.set_dynamic(true);
  NIBBLE_RETURN_IF_ERROR(ValidateScheme(scheme));
  return scheme;
}

class ActivationsMethod : public Method {
 public:
  ActivationsMethod(QuantScheme scheme, std::vector<std::string> layers) : scheme_(std::move(scheme)), layers_(std::move(layers)) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const ActivationsOptions& options) {
    NIBBLE_ASSIGN_OR_RETURN(QuantScheme scheme, SchemeFrom(options));
    return std::make_unique<ActivationsMethod>(std::move(scheme), LayersOrBlocks(options.layers()));
  }

  absl::Status Apply(Context&, ir::Graph& graph) const override {
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<size_t> ops, ir::SelectOps(graph, layers_));
    return ir::AttachActivation(graph, ops, scheme_);
  }

 private:
  const QuantScheme scheme_;
  const std::vector<std::string> layers_;
};

const MethodRegistrar<ActivationsMethod> kRegistrar(activations);

}  // namespace
}  // namespace nibble
