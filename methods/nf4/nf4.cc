// nf4: rounding to the 4-bit data types of bitsandbytes. The types are number
// formats (core/quant/formats/nf4); the method chooses scheme and layers.

#include "core/base/status.h"
#include "core/quant/formats/nf4/nf4.pb.h"
#include "methods/encode_ops.h"
#include "methods/method.h"
#include "methods/nf4/nf4.pb.h"
#include "methods/options.h"

namespace nibble {
namespace {

QuantScheme SchemeFrom(const Nf4Options& options) {
  QuantScheme scheme;
  scheme.set_format(options.type() == Nf4Options::FP4 ? "fp4" : "nf4");
  scheme.set_per(QuantScheme::PER_GROUP);
  scheme.set_group_size(options.block_size());
  if (options.double_quantization()) scheme.MutableExtension(double_quantization);
  return scheme;
}

class Nf4Method : public Method {
 public:
  Nf4Method(QuantScheme scheme, std::vector<std::string> layers) : scheme_(std::move(scheme)), layers_(std::move(layers)) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const Nf4Options& options) {
    QuantScheme scheme = SchemeFrom(options);
    NIBBLE_RETURN_IF_ERROR(ValidateScheme(scheme));
    return std::make_unique<Nf4Method>(std::move(scheme), LayersOrBlocks(options.layers()));
  }

  absl::Status Apply(Context& context, ir::Graph& graph) const override { return EncodeOps(context, graph, layers_, scheme_); }

 private:
  const QuantScheme scheme_;
  const std::vector<std::string> layers_;
};

const MethodRegistrar<Nf4Method> kRegistrar(nf4);

}  // namespace
}  // namespace nibble
