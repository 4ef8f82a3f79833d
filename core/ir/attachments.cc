#include "core/ir/attachments.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"

namespace nibble::ir {
namespace {

absl::Status SetActivation(Graph& graph, const std::string& module, const QuantScheme& scheme) {
  auto& ops = graph.mutable_ops();
  const auto op = std::find_if(ops.begin(), ops.end(), [&](const Op& o) { return o.name == module && (o.is_linear() || o.kind == OpKind::kAttention); });
  if (op == ops.end()) return absl::InvalidArgumentError(absl::StrCat("activation scheme for '", module, "', which is no linear or attention of the model"));
  op->activation = scheme;
  return absl::OkStatus();
}

absl::Status SetCache(Graph& graph, const std::string& module, const Attachments::CacheSchemes& schemes) {
  auto& ops = graph.mutable_ops();
  const auto op = std::find_if(ops.begin(), ops.end(), [&](const Op& o) { return o.name == module && o.kind == OpKind::kAttention; });
  if (op == ops.end()) return absl::InvalidArgumentError(absl::StrCat("cache schemes for '", module, "', which is no attention of the model"));
  op->keys = schemes.keys;
  op->values = schemes.values;
  return absl::OkStatus();
}

}  // namespace

Attachments AttachmentsOf(const Graph& graph) {
  Attachments attachments;
  for (const Op& op : graph.ops()) {
    if (op.activation.has_value()) attachments.activations[op.name] = *op.activation;
    if (op.keys.has_value() || op.values.has_value()) attachments.caches[op.name] = {op.keys, op.values};
  }
  attachments.rotations = OnlineRotationsOf(graph);
  attachments.adapters = AdaptersOf(graph);
  return attachments;
}

absl::Status Attach(Graph& graph, const Attachments& attachments, const AdapterSource& source) {
  NIBBLE_RETURN_IF_ERROR(AttachOnlineRotations(graph, attachments.rotations));
  NIBBLE_RETURN_IF_ERROR(AttachAdapters(graph, attachments.adapters, source));
  for (const auto& [module, scheme] : attachments.activations) NIBBLE_RETURN_IF_ERROR(SetActivation(graph, module, scheme));
  for (const auto& [module, schemes] : attachments.caches) NIBBLE_RETURN_IF_ERROR(SetCache(graph, module, schemes));
  return Verify(graph);
}

}  // namespace nibble::ir
