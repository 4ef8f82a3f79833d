#include "core/ir/passes.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/pattern.h"
#include "core/base/status.h"
#include "core/ir/weight_transform.h"

namespace nibble::ir {
namespace {

// W diag(gain), row by row, in fp64.
absl::Status ScaleColumns(Parameter& weight, absl::Span<const float> gain) {
  return TransformRows(weight, nullptr, [&](absl::Span<double> row) {
    for (size_t c = 0; c < row.size(); ++c) row[c] *= static_cast<double>(gain[c]);
  });
}

// The weights of the linears that read a norm.
absl::StatusOr<std::vector<ParameterId>> NormReaders(const Graph& graph, const Op& norm) {
  std::vector<ParameterId> readers;
  for (const Op& op : graph.ops()) {
    if (std::find(op.inputs.begin(), op.inputs.end(), norm.output) == op.inputs.end()) continue;
    if (!op.is_linear()) {
      return absl::FailedPreconditionError(absl::StrCat(norm.name, " is read by ", op.name, ", which is not a linear"));
    }
    readers.push_back(*op.weight);
  }
  return readers;
}

absl::Status FoldNorm(Graph& graph, const Op& norm) {
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<ParameterId> consumers, NormReaders(graph, norm));
  Parameter& gain = graph.mutable_parameter(*norm.weight);
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<float> gains, gain.LoadFloats());
  for (const ParameterId id : consumers) NIBBLE_RETURN_IF_ERROR(ScaleColumns(graph.mutable_parameter(id), gains));
  return ReplaceFloats(gain, std::vector<float>(gains.size(), 1.0f));
}

bool Selects(absl::string_view selector, const Op& op) {
  if (selector == "adapters") return op.adapter && op.kind == OpKind::kLinear;
  if (op.adapter) return false;
  const bool in_block = op.kind == OpKind::kLinear;
  if (selector == "blocks") return in_block;
  if (selector == "attention") return in_block && absl::StrContains(op.name, ".self_attn.");
  if (selector == "mlp") return in_block && absl::StrContains(op.name, ".mlp.");
  if (selector == "embedding") return op.kind == OpKind::kEmbed;
  if (selector == "head") return op.kind == OpKind::kLogits;
  return (op.is_linear() || op.kind == OpKind::kEmbed) && MatchesPattern(selector, op.name);
}

absl::Status CheckUnshared(const Graph& graph, ParameterId id) {
  if (graph.Users(id).size() == 1) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(graph.parameter(id).name(), " is shared by several ops; untie it first"));
}

}  // namespace

absl::Status UntieHead(Graph& graph) {
  if (!graph.tied()) return absl::OkStatus();
  const Parameter shared = graph.parameter(*graph.head().weight);
  const ParameterId own = graph.AddParameter("lm_head.weight", shared.shape(), [shared] { return shared.Load(); });
  if (shared.rewritten()) graph.mutable_parameter(own).MarkRewritten();
  graph.mutable_ops().back().weight = own;
  return absl::OkStatus();
}

absl::Status FoldNorms(Graph& graph) {
  NIBBLE_RETURN_IF_ERROR(UntieHead(graph));
  for (const Op& op : graph.ops()) {
    if (op.kind == OpKind::kRmsNorm) NIBBLE_RETURN_IF_ERROR(FoldNorm(graph, op));
  }
  return absl::OkStatus();
}

absl::Status ScaleNorm(Graph& graph, const Op& norm, absl::Span<const double> factors) {
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<ParameterId> readers, NormReaders(graph, norm));
  for (const ParameterId id : readers) NIBBLE_RETURN_IF_ERROR(CheckUnshared(graph, id));
  const auto divide = [&](size_t, size_t c, double v) { return v / factors[c]; };
  for (const ParameterId id : readers) NIBBLE_RETURN_IF_ERROR(MapValues(graph.mutable_parameter(id), divide));
  return MapValues(graph.mutable_parameter(*norm.weight), [&](size_t, size_t c, double v) { return v * factors[c]; });
}

absl::Status ScaleChannels(Graph& graph, size_t writer, const std::vector<size_t>& readers, absl::Span<const double> factors) {
  const ParameterId rows = *graph.ops()[writer].weight;
  NIBBLE_RETURN_IF_ERROR(CheckUnshared(graph, rows));
  for (const size_t reader : readers) NIBBLE_RETURN_IF_ERROR(CheckUnshared(graph, *graph.ops()[reader].weight));
  NIBBLE_RETURN_IF_ERROR(MapValues(graph.mutable_parameter(rows), [&](size_t r, size_t, double v) { return v * factors[r]; }));
  for (const size_t reader : readers) {
    const ParameterId columns = *graph.ops()[reader].weight;
    NIBBLE_RETURN_IF_ERROR(MapValues(graph.mutable_parameter(columns), [&](size_t, size_t c, double v) { return v / factors[c]; }));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<size_t>> SelectOps(const Graph& graph, const std::vector<std::string>& selectors) {
  std::vector<size_t> selected;
  std::vector<bool> used(selectors.size(), false);
  for (size_t i = 0; i < graph.ops().size(); ++i) {
    bool match = false;
    for (size_t s = 0; s < selectors.size(); ++s) {
      if (Selects(selectors[s], graph.ops()[i])) used[s] = match = true;
    }
    if (match) selected.push_back(i);
  }
  for (size_t s = 0; s < selectors.size(); ++s) {
    if (!used[s]) {
      return absl::InvalidArgumentError(absl::StrCat("layers: \"", selectors[s], "\" selects nothing; use blocks, attention, mlp, "
                                                     "embedding, head, adapters or a pattern over module names such as \"*.down_proj\""));
    }
  }
  return selected;
}

absl::Status AttachActivation(Graph& graph, const std::vector<size_t>& ops, const QuantScheme& scheme) {
  NIBBLE_RETURN_IF_ERROR(ValidateScheme(scheme));
  for (const size_t i : ops) {
    Op& op = graph.mutable_ops()[i];
    if (!op.is_linear()) {
      return absl::InvalidArgumentError(absl::StrCat(op.name, " is a table look-up and has no activation to quantize"));
    }
    const bool quantized = op.activation.has_value() && !IsFloatFormat(*op.activation);
    if (quantized && op.activation->SerializeAsString() != scheme.SerializeAsString()) {
      return absl::FailedPreconditionError(absl::StrCat(op.name, ": an earlier step quantized what it reads (", SchemeToString(*op.activation), "), this one would as ",
                                                     SchemeToString(scheme), "; leave one of them out"));
    }
    op.activation = scheme;
  }
  return absl::OkStatus();
}

}  // namespace nibble::ir
