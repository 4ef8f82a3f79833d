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
  QuantScheme scheme;
  NIBBLE_ASSIGN_OR_RETURN(*scheme.mutable_format(), IntegerFormat(options.bits()));
  scheme.set_per(options.per());
  if (options.group_size() != 0) {
    if (options.has_per() && options.per() != QuantScheme::PER_GROUP) {
      return absl::InvalidArgumentError("group_size needs per: PER_GROUP (or no per)");
    }
    scheme.set_per(QuantScheme::PER_GROUP);
    scheme.set_group_size(options.group_size());
  }
  if (scheme.per() == QuantScheme::PER_TOKEN) return absl::InvalidArgumentError("per: PER_TOKEN is for activations");
  if (options.asymmetric()) scheme.set_asymmetric(true);
  if (options.has_divisor()) scheme.set_divisor(options.divisor());
  if (options.has_range()) *scheme.mutable_range() = options.range();
  if (options.has_scale_type()) scheme.set_scale_type(options.scale_type());
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
