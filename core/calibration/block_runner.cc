#include "core/calibration/block_runner.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status.h"

namespace nibble::calibration {

using ir::Op;
using ir::OpKind;
using ir::ValueId;

namespace {

void Ignore(size_t, absl::Span<const float>) {}

bool AllFinite(absl::Span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

}  // namespace

absl::StatusOr<BlockRunner> BlockRunner::Create(const ir::Graph& graph, int layer, train::Machine machine) {
  BlockRunner runner(graph, machine);
  const auto& ops = graph.ops();
  while (runner.first_ < ops.size() && ops[runner.first_].layer != layer) ++runner.first_;
  if (runner.first_ == ops.size()) return absl::InvalidArgumentError(absl::StrCat("the model has no block ", layer));
  runner.end_ = runner.first_;
  while (ops[runner.end_].layer == layer) ++runner.end_;
  runner.input_ = ops[runner.first_].inputs[0];
  for (size_t i = runner.first_; i < runner.end_; ++i) {
    if (ops[i].weight.has_value()) NIBBLE_RETURN_IF_ERROR(runner.Reload(i));
    if (ops[i].kind == OpKind::kMul) NIBBLE_RETURN_IF_ERROR(graph.SiluBefore(ops[i]).status());
    if (ops[i].kind != OpKind::kRotate) continue;
    NIBBLE_ASSIGN_OR_RETURN(Hadamard hadamard, Hadamard::Create(ops[i].block));
    runner.hadamards_.emplace(ops[i].block, std::move(hadamard));
  }
  return runner;
}

absl::Status BlockRunner::Reload(size_t op) {
  const ir::ParameterId id = *graph_.ops()[op].weight;
  NIBBLE_ASSIGN_OR_RETURN(weights_[id], graph_.parameter(id).LoadFloats());
  return absl::OkStatus();
}

void BlockRunner::SetWeight(size_t op, std::vector<float> values) {
  std::vector<float>& weight = weights_.at(*graph_.ops()[op].weight);
  NIBBLE_CHECK(values.size() == weight.size());
  weight = std::move(values);
}

std::vector<std::vector<size_t>> BlockRunner::LinearsByInput() const {
  std::vector<std::vector<size_t>> groups;
  for (size_t i = first_; i < end_; ++i) {
    const Op& op = graph_.ops()[i];
    if (op.kind != OpKind::kLinear) continue;
    const auto group = std::find_if(groups.begin(), groups.end(),
                                    [&](const std::vector<size_t>& g) { return graph_.ops()[g[0]].inputs[0] == op.inputs[0]; });
    if (group == groups.end()) groups.push_back({i});
    else group->push_back(i);
  }
  return groups;
}

int64_t BlockRunner::State::bytes() const {
  size_t floats = 0;
  for (const auto& [id, value] : values) floats += value.size();
  return static_cast<int64_t>(floats * sizeof(float));
}

BlockRunner::State BlockRunner::Begin(std::vector<float> hidden) const {
  State state;
  state.next = first_;
  state.values[input_] = std::move(hidden);
  return state;
}

absl::Status BlockRunner::Run(absl::Span<const int64_t> starts, std::vector<float>* hidden, Observer observe) {
  State state = Begin(std::move(*hidden));
  std::string bad;
  RunOps(end_, starts, [&](size_t op, absl::Span<const float> x) {
    if (bad.empty() && !AllFinite(x)) bad = absl::StrCat(graph_.ops()[op].name, ": what it reads");
    if (bad.empty()) observe(op, x);
  }, &state);
  *hidden = std::move(state.values.at(graph_.ops()[end_ - 1].output));
  if (bad.empty() && !AllFinite(*hidden)) bad = absl::StrCat("what ", graph_.ops()[end_ - 1].name, " gives");
  if (bad.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(bad, " on the calibration text is not finite: a weight is not, or a value overflowed"));
}

absl::Span<const float> BlockRunner::Advance(size_t last, absl::Span<const int64_t> starts, State* state) {
  NIBBLE_CHECK(state->next <= last && last < end_);
  RunOps(last, starts, Ignore, state);
  return state->values.at(graph_.ops()[last].inputs[0]);
}

std::vector<float> BlockRunner::Finish(absl::Span<const int64_t> starts, State state) {
  RunOps(end_, starts, Ignore, &state);
  return std::move(state.values.at(graph_.ops()[end_ - 1].output));
}

BlockRunner::State BlockRunner::Before(size_t first, size_t last, absl::Span<const int64_t> starts, std::vector<float> hidden) {
  NIBBLE_CHECK(first_ <= first && first <= last && last < end_);
  State state = Begin(std::move(hidden));
  RunOps(first, starts, Ignore, &state);
  for (auto value = state.values.begin(); value != state.values.end();) {
    value = IsRead(value->first, first, last + 1) ? std::next(value) : state.values.erase(value);
  }
  return state;
}

std::vector<float> BlockRunner::OutputOf(size_t last, absl::Span<const int64_t> starts, State state) {
  NIBBLE_CHECK(state.next <= last && last < end_);
  RunOps(last + 1, starts, Ignore, &state);
  return std::move(state.values.at(graph_.ops()[last].output));
}

bool BlockRunner::IsRead(ValueId value, size_t begin, size_t end) const {
  for (size_t i = begin; i < end; ++i) {
    const auto& inputs = graph_.ops()[i].inputs;
    if (std::find(inputs.begin(), inputs.end(), value) != inputs.end()) return true;
  }
  return false;
}

void BlockRunner::RunOps(size_t end, absl::Span<const int64_t> starts, Observer observe, State* state) {
  for (; state->next < end; ++state->next) {
    const Op& op = graph_.ops()[state->next];
    if (op.kind == OpKind::kLinear) observe(state->next, state->values.at(op.inputs[0]));
    RunOp(op, starts, state);
    for (const ValueId input : op.inputs) {
      if (!IsRead(input, state->next + 1, end_)) state->values.erase(input);
    }
  }
}

void BlockRunner::RunOp(const Op& op, absl::Span<const int64_t> starts, State* state) {
  auto* const values = &state->values;
  const int64_t tokens = starts.back(), width = graph_.values()[op.output].width;
  const std::vector<float>& x = values->at(op.inputs[0]);
  const auto second = [&] { return values->at(op.inputs[1]).data(); };
  std::vector<float> y(tokens * width);
  switch (op.kind) {
    case OpKind::kRmsNorm:
      train::RmsNorm(machine_, tokens, width, x.data(), weights_.at(*op.weight).data(), op.eps, y.data());
      break;
    case OpKind::kLinear:
      train::Multiply(machine_, {false, true, tokens, width, graph_.values()[op.inputs[0]].width}, x.data(), weights_.at(*op.weight).data(),
                      false, y.data());
      break;
    case OpKind::kRope: {
      train::RopeAngles<float>& angles = angles_[op.inverse_frequencies];
      angles.Extend(op.inverse_frequencies, train::LongestSequence(starts));
      train::Rope<float>(machine_, {op.heads, op.head_dim, &angles}, starts, false, x.data(), y.data());
      break;
    }
    case OpKind::kAttention: {
      std::vector<float> log_sums(tokens * op.heads);
      train::Attention<float>(machine_, {op.heads, op.kv_heads, op.head_dim, op.sliding_window}, starts, x.data(), second(),
                              values->at(op.inputs[2]).data(), y.data(), log_sums.data());
      break;
    }
    case OpKind::kSilu:
      y = x;  // computed by the product that reads it
      break;
    case OpKind::kMul:
      train::SiluMul(machine_, static_cast<int64_t>(y.size()), x.data(), second(), y.data());
      break;
    case OpKind::kAdd:
      y = x;
      train::Accumulate(machine_, static_cast<int64_t>(y.size()), op.scale, second(), y.data());
      break;
    case OpKind::kRotate:
      train::Rotate(machine_, hadamards_.at(op.block), static_cast<int64_t>(y.size()), false, x.data(), y.data());
      break;
    case OpKind::kEmbed:
    case OpKind::kLogits:
      NIBBLE_CHECK(false);  // never inside a block
  }
  (*values)[op.output] = std::move(y);
}

}  // namespace nibble::calibration
