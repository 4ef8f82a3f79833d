// fp8: rounding to 8-bit floats. The types are number formats
// (core/quant/formats/fp8); the method chooses schemes and layers.

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/ir/passes.h"
#include "methods/encode_ops.h"
#include "methods/fp8/fp8.pb.h"
#include "methods/method.h"
#include "methods/options.h"

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
  explicit Fp8Method(const Fp8Options& options) : options_(options) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const Fp8Options& options) {
    if (options.per() == QuantScheme::PER_ROW || options.per() == QuantScheme::PER_TENSOR) return std::make_unique<Fp8Method>(options);
    return absl::InvalidArgumentError(
        absl::StrCat("per: ", QuantScheme::Granularity_Name(options.per()), " is not for fp8; give PER_ROW or PER_TENSOR"));
  }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    const std::vector<std::string> layers = LayersOrBlocks(options_.layers());
    NIBBLE_RETURN_IF_ERROR(EncodeOps(context, graph, layers, SchemeOf(options_.weights(), options_.per())));
    if (!options_.dynamic_activations()) return absl::OkStatus();
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<size_t> ops, ir::SelectOps(graph, layers));
    QuantScheme activation = SchemeOf(options_.activations(), QuantScheme::PER_TOKEN);
    activation.set_dynamic(true);
    return ir::AttachActivation(graph, ops, activation);
  }

 private:
  const Fp8Options options_;
};

const MethodRegistrar<Fp8Method> kRegistrar(fp8);

}  // namespace
}  // namespace nibble
