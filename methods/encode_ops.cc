#include "methods/encode_ops.h"

#include <set>

#include "core/base/progress.h"
#include "core/base/status.h"
#include "core/ir/passes.h"

namespace nibble {

absl::Status EncodeOps(Context& context, ir::Graph& graph, const std::vector<std::string>& selectors, const QuantScheme& scheme) {
  NIBBLE_RETURN_IF_ERROR(ValidateScheme(scheme));
  return EncodeOps(graph, selectors, [&](size_t, const Shape& shape, absl::Span<const float> values) {
    return Encode(scheme, shape, values, &context.pool());
  });
}

absl::Status EncodeOps(ir::Graph& graph, const std::vector<std::string>& selectors, const Encoder& encode) {
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<size_t> ops, ir::SelectOps(graph, selectors));
  const size_t head = graph.ops().size() - 1;
  const std::set<size_t> selected(ops.begin(), ops.end());
  if (selected.count(0) != selected.count(head)) NIBBLE_RETURN_IF_ERROR(ir::UntieHead(graph));
  std::set<ir::ParameterId> done;
  Progress progress("encoding", static_cast<int64_t>(ops.size()));
  for (const size_t i : ops) {
    const ir::ParameterId id = *graph.ops()[i].weight;
    if (done.insert(id).second) {
      ir::Parameter& parameter = graph.mutable_parameter(id);
      NIBBLE_ASSIGN_OR_RETURN(const auto weight, parameter.LoadUnquantized(kOneMethodALayer));
      auto encoded = encode(i, parameter.shape(), weight.values);
      if (!encoded.ok()) return Annotate(encoded.status(), parameter.name());
      NIBBLE_RETURN_IF_ERROR(parameter.Replace(*std::move(encoded)));
    }
    progress.Update(static_cast<int64_t>(done.size()));
  }
  return absl::OkStatus();
}

}  // namespace nibble
