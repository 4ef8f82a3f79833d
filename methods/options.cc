#include "methods/options.h"

#include <algorithm>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/ir/passes.h"

namespace nibble {

absl::StatusOr<std::string> IntegerFormat(int bits) {
  if (bits < 2 || bits > 8) return absl::InvalidArgumentError(absl::StrCat("bits: ", bits, " is not in 2..8"));
  return absl::StrCat("int", bits);
}

absl::StatusOr<std::vector<size_t>> SelectBlockLinears(const ir::Graph& graph, const google::protobuf::RepeatedPtrField<std::string>& layers) {
  NIBBLE_ASSIGN_OR_RETURN(std::vector<size_t> selected, ir::SelectOps(graph, LayersOrBlocks(layers)));
  for (const size_t i : selected) {
    if (graph.ops()[i].kind == ir::OpKind::kLinear && !graph.ops()[i].adapter) continue;
    return absl::InvalidArgumentError(absl::StrCat("layers: ", graph.ops()[i].name, " is no linear inside the blocks; give it to rtn"));
  }
  return selected;
}

std::vector<size_t> SelectedOf(const std::vector<size_t>& ops, const std::vector<size_t>& selected) {
  std::vector<size_t> both;
  std::copy_if(ops.begin(), ops.end(), std::back_inserter(both),
               [&](size_t op) { return std::find(selected.begin(), selected.end(), op) != selected.end(); });
  return both;
}

std::vector<std::string> LayersOrBlocks(const google::protobuf::RepeatedPtrField<std::string>& layers) {
  if (layers.empty()) return {"blocks"};
  return {layers.begin(), layers.end()};
}

}  // namespace nibble
