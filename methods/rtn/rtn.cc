// rtn: round-to-nearest weight quantization. The rounding itself is the number
// format's (core/quant); the method chooses the scheme and the layers.

#include "core/base/status.h"
#include "methods/encode_ops.h"
#include "methods/method.h"
#include "methods/options.h"
#include "methods/rtn/rtn.pb.h"

namespace nibble {
namespace {

absl::StatusOr<QuantScheme> SchemeFrom(const RtnOptions& options) {
  NIBBLE_ASSIGN_OR_RETURN(QuantScheme scheme, WeightSchemeFrom(options));
  if (options.group_size() == 0) scheme.set_per(options.per());
  if (options.has_per() && options.group_size() != 0 && options.per() != QuantScheme::PER_GROUP) {
    return absl::InvalidArgumentError("group_size needs per: PER_GROUP (or no per)");
  }
  if (scheme.per() == QuantScheme::PER_TOKEN) return absl::InvalidArgumentError("per: PER_TOKEN is for activations");
  if (options.has_rounding()) scheme.set_rounding(options.rounding());
  NIBBLE_RETURN_IF_ERROR(ValidateScheme(scheme));
  return scheme;
}

class RtnMethod : public Method {
 public:
  RtnMethod(QuantScheme scheme, std::vector<std::string> layers) : scheme_(std::move(scheme)), layers_(std::move(layers)) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const RtnOptions& options) {
    NIBBLE_ASSIGN_OR_RETURN(QuantScheme scheme, SchemeFrom(options));
    return std::make_unique<RtnMethod>(std::move(scheme), LayersOrBlocks(options.layers()));
  }

  absl::Status Apply(Context& context, ir::Graph& graph) const override { return EncodeOps(context, graph, layers_, scheme_); }

 private:
  const QuantScheme scheme_;
  const std::vector<std::string> layers_;
};

const MethodRegistrar<RtnMethod> kRegistrar(rtn);

}  // namespace
}  // namespace nibble
