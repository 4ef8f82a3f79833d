#include "methods/encode_ops.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "core/base/progress.h"
#include "core/base/status.h"
#include "core/ir/passes.h"

namespace nibble {
namespace {

absl::Status EncodeParameter(Context& context, ir::Parameter& parameter, const QuantScheme& scheme) {
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<float> values, LoadUnquantized(parameter));
  auto encoded = Encode(scheme, parameter.shape(), values, &context.pool());
  if (!encoded.ok()) return Annotate(encoded.status(), parameter.name());
  return parameter.Replace(*std::move(encoded));
}

}  // namespace

absl::StatusOr<std::vector<float>> LoadUnquantized(const ir::Parameter& parameter) {
  NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor value, parameter.Load());
  if (IsFloatFormat(value.scheme)) return parameter.LoadFloats();
  return absl::FailedPreconditionError(absl::StrCat(parameter.name(), " is already quantized (", SchemeToString(value.scheme),
                                                    "); give each layer to one weight method, or narrow layers"));
}

absl::Status EncodeOps(Context& context, ir::Graph& graph, const std::vector<std::string>& selectors, const QuantScheme& scheme) {
  NIBBLE_RETURN_IF_ERROR(ValidateScheme(scheme));
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<size_t> ops, ir::SelectOps(graph, selectors));
  const size_t head = graph.ops().size() - 1;
  const std::set<size_t> selected(ops.begin(), ops.end());
  if (selected.count(0) != selected.count(head)) NIBBLE_RETURN_IF_ERROR(ir::UntieHead(graph));
  std::set<ir::ParameterId> done;
  Progress progress("encoding", static_cast<int64_t>(ops.size()));
  for (const size_t i : ops) {
    const ir::ParameterId id = *graph.ops()[i].weight;
    if (done.insert(id).second) NIBBLE_RETURN_IF_ERROR(EncodeParameter(context, graph.mutable_parameter(id), scheme));
    progress.Update(static_cast<int64_t>(done.size()));
  }
  return absl::OkStatus();
}

}  // namespace nibble
