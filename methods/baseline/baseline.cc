// baseline: the floating-point model that quantized variants are compared with.

#include "core/base/status.h"
#include "core/ir/passes.h"
#include "methods/baseline/baseline.pb.h"
#include "methods/method.h"

namespace nibble {
namespace {

QuantScheme SchemeOf(BaselineOptions::Type type) {
  static constexpr const char* kNames[] = {"bf16", "fp16", "fp32"};
  return FloatScheme(kNames[type]);
}

class BaselineMethod : public Method {
 public:
  explicit BaselineMethod(const BaselineOptions& options) : options_(options) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const BaselineOptions& options) {
    return std::make_unique<BaselineMethod>(options);
  }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    const QuantScheme scheme = SchemeOf(options_.dtype());
    for (size_t i = 0; i < graph.parameters().size(); ++i) {
      ir::Parameter& parameter = graph.mutable_parameter(static_cast<ir::ParameterId>(i));
      NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor value, parameter.Load());
      if (SameScheme(value.scheme, scheme)) continue;
      auto encoded = Encode(scheme, parameter.shape(), Decode(value), &context.pool());
      if (!encoded.ok()) return Annotate(encoded.status(), parameter.name());
      NIBBLE_RETURN_IF_ERROR(parameter.Replace(*std::move(encoded)));
    }
    if (!options_.has_activations()) return absl::OkStatus();
    NIBBLE_ASSIGN_OR_RETURN(const auto ops, ir::SelectOps(graph, {"blocks", "head"}));
    return ir::AttachActivation(graph, ops, SchemeOf(options_.activations()));
  }

 private:
  const BaselineOptions options_;
};

const MethodRegistrar<BaselineMethod> kRegistrar(baseline);

}  // namespace
}  // namespace nibble
