#include "experiments/search/costs.h"

#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/kernels/machine.h"
#include "core/runtime/plan.h"
#include "eval/latency.h"
#include "eval/size.h"

namespace nibble {
namespace {

constexpr double kMib = 1 << 20;

struct DecodeTime {
  double seconds = 0;                // of a token
  std::vector<double> step_seconds;  // of a token, a plan step each; the head last
};

absl::StatusOr<DecodeTime> TimeDecode(const Plan& plan, const DecodeTiming& timing, ThreadPool& pool) {
  NIBBLE_ASSIGN_OR_RETURN(const auto probe,
                          eval::LatencyProbe::Create(plan, pool, {.prefill = timing.depth, .decode = timing.tokens, .profile = true}));
  const auto tokens = static_cast<double>(timing.tokens);
  DecodeTime best{std::numeric_limits<double>::infinity(), {}};
  for (int round = 0; round < timing.rounds; ++round) {
    probe->session().ClearProfile();
    NIBBLE_ASSIGN_OR_RETURN(const double seconds, probe->DecodeSeconds());
    if (seconds / tokens >= best.seconds) continue;
    best = {seconds / tokens, {}};
    for (const StepProfile& step : probe->session().profile()) best.step_seconds.push_back(step.seconds / tokens);
  }
  return best;
}

// "q_proj [576, 576] {weight} {activation}": ops that do the same.
std::string KindOf(const ir::Op& op, const EncodedTensor& weight) {
  return absl::StrCat(op.name.substr(op.name.rfind('.') + 1), " ", ShapeToString(weight.shape), " ", SchemeToString(weight.scheme), " ",
                      op.activation.has_value() ? SchemeToString(*op.activation) : "");
}

// `kinds`: of each op of `cost`.
absl::Status AddTimes(const ir::Graph& graph, const std::map<std::string, std::string>& kinds, const DecodeTiming& timing, ThreadPool& pool, ModelCost* cost) {
  NIBBLE_ASSIGN_OR_RETURN(const auto* table, kernels::ChooseTable());
  NIBBLE_ASSIGN_OR_RETURN(const auto plan, Plan::Create(graph, *table));
  if (!plan->simulated_ops().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(plan->simulated_ops()[0], " has no native kernel for its schemes on this machine, so its time says nothing; ",
                                                   "leave out what gives it them, or search for a size"));
  }
  NIBBLE_ASSIGN_OR_RETURN(const DecodeTime time, TimeDecode(*plan, timing, pool));
  cost->whole.seconds = time.seconds;
  struct Mean {
    double sum = 0;
    int count = 0;
  };
  std::map<std::string, Mean> means;
  const auto add = [&](const std::string& name, double seconds) {
    Mean& mean = means[kinds.at(name)];
    mean.sum += seconds;
    ++mean.count;
  };
  for (size_t i = 0; i < plan->steps().size(); ++i) {
    const PlanStep& step = plan->steps()[i];
    const bool is_part = step.kind == PlanStep::Kind::kLinear || step.kind == PlanStep::Kind::kEmbed;
    if (is_part && kinds.count(step.op.name) > 0) add(step.op.name, time.step_seconds[i]);
  }
  add(graph.head().name, time.step_seconds[plan->steps().size()]);
  for (const auto& [name, kind] : kinds) cost->ops.at(name).seconds = means.at(kind).sum / means.at(kind).count;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelCost> MeasureModelCost(const ir::Graph& graph, const std::optional<DecodeTiming>& timing, ThreadPool& pool) {
  ModelCost cost;
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Metric> size, eval::MeasureSize(graph));
  cost.whole.bytes = size[0].value() * kMib;
  std::map<std::string, std::string> kinds;
  for (const ir::Op& op : graph.ops()) {
    if (!(op.is_linear() || op.kind == ir::OpKind::kEmbed) || op.adapter) continue;
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor weight, graph.parameter(*op.weight).Load());
    const bool shares = op.kind == ir::OpKind::kLogits && graph.tied();
    cost.ops[op.name].bytes = shares ? 0 : static_cast<double>(weight.byte_size());
    kinds[op.name] = KindOf(op, weight);
  }
  if (timing.has_value()) NIBBLE_RETURN_IF_ERROR(AddTimes(graph, kinds, *timing, pool, &cost));
  return cost;
}

}  // namespace nibble
