#include "core/ir/adapters.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/base/status.h"

namespace nibble::ir {
namespace {

constexpr absl::string_view kA = ".lora_A", kB = ".lora_B", kSum = ".lora_sum";

// The ops in their new order; what a linear gave is renamed in all later ops to
// what its sum gives.
class Attacher {
 public:
  Attacher(Graph& graph, const AdapterSource& source) : graph_(graph), source_(source) {}

  absl::Status Run(const std::map<std::string, Adapter>& adapters) {
    const std::vector<Op> ops = graph_.ops();
    std::vector<std::pair<Op, Adapter>> waiting;  // linears whose adapters are not yet placed
    for (size_t i = 0; i < ops.size(); ++i) {
      Op op = ops[i];
      for (ValueId& input : op.inputs) {
        const auto renamed = renamed_.find(input);
        if (renamed != renamed_.end()) input = renamed->second;
      }
      const auto adapter = adapters.find(op.name);
      if (adapter != adapters.end()) waiting.emplace_back(op, adapter->second);
      const bool together = i + 1 < ops.size() && ops[i + 1].kind == OpKind::kLinear && !ops[i + 1].inputs.empty() &&
                            !op.inputs.empty() && op.kind == OpKind::kLinear && ops[i + 1].inputs[0] == ops[i].inputs[0];
      placed_.push_back(std::move(op));
      if (together) continue;
      Place(waiting);
      waiting.clear();
    }
    graph_.mutable_ops() = std::move(placed_);
    return Verify(graph_);
  }

 private:
  Op Part(const Op& linear, absl::string_view suffix, OpKind kind, std::vector<ValueId> inputs, int64_t width) {
    Op op{kind, absl::StrCat(linear.name, suffix), std::move(inputs)};
    op.layer = linear.layer;
    op.adapter = true;
    op.output = graph_.AddValue(op.name, width);
    return op;
  }

  Op Linear(const Op& linear, absl::string_view suffix, ValueId input, int64_t out) {
    Op op = Part(linear, suffix, OpKind::kLinear, {input}, out);
    const std::string name = op.name + ".weight";
    const Shape shape = {out, graph_.values()[input].width};
    op.weight = graph_.AddParameter(name, shape, source_(name, shape));
    return op;
  }

  void Place(const std::vector<std::pair<Op, Adapter>>& linears) {
    std::vector<Op> sums;
    std::vector<ValueId> inner;
    for (const auto& [linear, adapter] : linears) {
      placed_.push_back(Linear(linear, kA, linear.inputs[0], adapter.rank));
      inner.push_back(placed_.back().output);
    }
    for (size_t i = 0; i < linears.size(); ++i) {
      const auto& [linear, adapter] = linears[i];
      const int64_t width = graph_.values()[linear.output].width;
      placed_.push_back(Linear(linear, kB, inner[i], width));
      Op sum = Part(linear, kSum, OpKind::kAdd, {linear.output, placed_.back().output}, width);
      sum.scale = adapter.scale;
      renamed_[linear.output] = sum.output;
      placed_.push_back(std::move(sum));
    }
  }

  Graph& graph_;
  const AdapterSource& source_;
  std::vector<Op> placed_;
  std::map<ValueId, ValueId> renamed_;
};

absl::Status MergeOne(Graph& graph, const Op& linear, const Op& sum, ThreadPool& pool) {
  const auto find = [&](absl::string_view suffix) { return graph.FindOp(absl::StrCat(linear.name, suffix)); };
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<float> a, graph.parameter(*find(kA)->weight).LoadFloats());
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<float> b, graph.parameter(*find(kB)->weight).LoadFloats());
  Parameter& weight = graph.mutable_parameter(*linear.weight);
  NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor encoded, weight.Load());
  std::vector<float> merged = Decode(encoded);
  const int64_t rows = encoded.rows(), cols = encoded.cols(), rank = static_cast<int64_t>(a.size()) / cols;
  pool.ParallelFor(rows, [&](int64_t r, int) {
    std::vector<double> sums(cols);
    for (int64_t k = 0; k < rank; ++k) {
      const double factor = static_cast<double>(b[r * rank + k]);
      for (int64_t c = 0; c < cols; ++c) sums[c] += factor * static_cast<double>(a[k * cols + c]);
    }
    for (int64_t c = 0; c < cols; ++c) {
      float& w = merged[r * cols + c];
      w = static_cast<float>(static_cast<double>(w) + static_cast<double>(sum.scale) * sums[c]);
    }
  });
  auto value = Encode(encoded.scheme, weight.shape(), merged, &pool);
  if (!value.ok()) return Annotate(value.status(), weight.name());
  return weight.Replace(*std::move(value));
}

}  // namespace

absl::Status AttachAdapters(Graph& graph, const std::vector<Adapter>& adapters, const AdapterSource& source) {
  std::map<std::string, Adapter> by_module;
  for (const Adapter& adapter : adapters) {
    const Op* op = graph.FindOp(adapter.module);
    if (op == nullptr || op->kind != OpKind::kLinear || op->adapter) {
      return absl::InvalidArgumentError(absl::StrCat("adapter for '", adapter.module, "', which is no linear inside the model's blocks"));
    }
    if (adapter.rank < 1 || adapter.rank > (int64_t{1} << 20)) {
      return absl::InvalidArgumentError(absl::StrCat(adapter.module, ": adapter of rank ", adapter.rank, ", expected 1 or more"));
    }
    if (graph.FindOp(absl::StrCat(adapter.module, kA)) != nullptr || !by_module.emplace(adapter.module, adapter).second) {
      return absl::FailedPreconditionError(absl::StrCat(adapter.module, " has an adapter already"));
    }
  }
  return Attacher(graph, source).Run(by_module);
}

std::vector<Adapter> AdaptersOf(const Graph& graph) {
  std::vector<Adapter> adapters;
  for (const Op& op : graph.ops()) {
    if (!op.adapter || op.kind != OpKind::kAdd) continue;
    const std::string module(absl::StripSuffix(op.name, kSum));
    adapters.push_back({module, graph.parameter(*graph.FindOp(absl::StrCat(module, kA))->weight).shape()[0], op.scale});
  }
  return adapters;
}

absl::Status MergeAdapters(Graph& graph, ThreadPool& pool) {
  std::map<ValueId, ValueId> renamed;  // back from sums to linears
  for (const Op& op : graph.ops()) {
    if (!op.adapter || op.kind != OpKind::kAdd) continue;
    const Op* linear = graph.FindOp(std::string(absl::StripSuffix(op.name, kSum)));
    NIBBLE_RETURN_IF_ERROR(MergeOne(graph, *linear, op, pool));
    renamed[op.output] = linear->output;
  }
  std::vector<Op> kept;
  for (const Op& op : graph.ops()) {
    if (op.adapter) continue;
    kept.push_back(op);
    for (ValueId& input : kept.back().inputs) {
      const auto back = renamed.find(input);
      if (back != renamed.end()) input = back->second;
    }
  }
  graph.mutable_ops() = std::move(kept);
  return Verify(graph);
}

}  // namespace nibble::ir
