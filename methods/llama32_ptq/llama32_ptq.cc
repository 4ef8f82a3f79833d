// llama32_ptq: the published Llama 3.2 scheme, rounded to nearest. Norm gains
// go to fp32, the type in which the published runtime keeps them.

#include "core/base/status.h"
#include "core/ir/passes.h"
#include "methods/activations/activations.pb.h"
#include "methods/llama32_ptq/llama32_ptq.pb.h"
#include "methods/recipe.h"
#include "methods/rtn/rtn.pb.h"

namespace nibble {
namespace {

Pipeline StepsFrom(const Llama32PtqOptions& options) {
  Pipeline pipeline;
  RtnOptions& blocks = *pipeline.add_step()->MutableExtension(rtn);
  blocks.set_bits(4);
  blocks.set_group_size(options.group_size());
  blocks.set_divisor(options.divisor());
  blocks.set_scale_type(options.scale());
  if (options.has_range()) *blocks.mutable_range() = options.range();
  RtnOptions& tables = *pipeline.add_step()->MutableExtension(rtn);
  tables.set_bits(8);
  tables.set_divisor(options.divisor());
  tables.set_scale_type(options.scale());
  tables.add_layers("embedding");
  tables.add_layers("head");
  ActivationsOptions& inputs = *pipeline.add_step()->MutableExtension(activations);
  inputs.add_layers("blocks");
  inputs.add_layers("head");
  return pipeline;
}

class Llama32Ptq : public Method {
 public:
  Llama32Ptq(std::unique_ptr<Method> recipe, bool tied_table) : recipe_(std::move(recipe)), tied_table_(tied_table) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const Llama32PtqOptions& options) {
    NIBBLE_ASSIGN_OR_RETURN(auto recipe, Recipe::Of(StepsFrom(options)));
    return std::make_unique<Llama32Ptq>(std::move(recipe), options.tied_table());
  }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    if (!tied_table_) NIBBLE_RETURN_IF_ERROR(ir::UntieHead(graph));
    for (const ir::Op& op : graph.ops()) {
      if (op.kind != ir::OpKind::kRmsNorm) continue;
      ir::Parameter& gain = graph.mutable_parameter(*op.weight);
      NIBBLE_ASSIGN_OR_RETURN(const std::vector<float> values, gain.LoadFloats());
      NIBBLE_ASSIGN_OR_RETURN(EncodedTensor encoded, Encode(FloatScheme("fp32"), gain.shape(), values));
      NIBBLE_RETURN_IF_ERROR(gain.Replace(std::move(encoded)));
    }
    return recipe_->Apply(context, graph);
  }

 private:
  const std::unique_ptr<Method> recipe_;
  const bool tied_table_;
};

const MethodRegistrar<Llama32Ptq> kRegistrar(llama32_ptq);

}  // namespace
}  // namespace nibble
