// dynamic_int8: int8 weights and dynamic int8 activations.

#include "methods/activations/activations.pb.h"
#include "methods/dynamic_int8/dynamic_int8.pb.h"
#include "methods/recipe.h"
#include "methods/rtn/rtn.pb.h"

namespace nibble {
namespace {

struct DynamicInt8 {
  static absl::StatusOr<std::unique_ptr<Method>> Create(const DynamicInt8Options& options) {
    Pipeline pipeline;
    RtnOptions& weights = *pipeline.add_step()->MutableExtension(rtn);
    weights.set_bits(8);
    weights.set_divisor(options.divisor());
    *weights.mutable_layers() = options.layers();
    ActivationsOptions& inputs = *pipeline.add_step()->MutableExtension(activations);
    inputs.set_bits(8);
    inputs.set_asymmetric(options.asymmetric_activations());
    *inputs.mutable_layers() = options.layers();
    return Recipe::Of(std::move(pipeline));
  }
};

const MethodRegistrar<DynamicInt8> kRegistrar(dynamic_int8);

}  // namespace
}  // namespace nibble
