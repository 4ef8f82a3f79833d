#include "experiments/search/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/progress.h"
#include "core/base/status.h"
#include "eval/divergence.h"

namespace nibble {
namespace {

// Logits of two models that are held at a time.
constexpr int64_t kLogitBytes = int64_t{64} << 20;

void Ignore(size_t, absl::Span<const float>) {}

}  // namespace

absl::StatusOr<std::unique_ptr<OutputProbe>> OutputProbe::Create(const ir::Graph& graph, train::Machine machine,
                                                                 std::vector<calibration::Batch> batches) {
  std::unique_ptr<OutputProbe> probe(new OutputProbe(graph, machine));
  const ir::Op& head = graph.head();
  const std::optional<size_t> norm = graph.ProducerOf(head.inputs[0]);
  if (!norm.has_value() || graph.ops()[*norm].kind != ir::OpKind::kRmsNorm) {
    return absl::UnimplementedError("a search needs a model whose head reads a norm");
  }
  probe->eps_ = graph.ops()[*norm].eps;
  NIBBLE_ASSIGN_OR_RETURN(probe->gain_, graph.parameter(*graph.ops()[*norm].weight).LoadFloats());
  NIBBLE_ASSIGN_OR_RETURN(probe->head_, graph.parameter(*head.weight).LoadFloats());
  for (const calibration::Batch& batch : batches) {
    probe->starts_.push_back(batch.starts);
    probe->tokens_.push_back(batch.tokens);
  }
  probe->reads_.resize(batches.size());
  Progress progress("original", graph.num_layers());
  for (int layer = 0; layer < graph.num_layers(); ++layer) {
    NIBBLE_ASSIGN_OR_RETURN(calibration::BlockRunner runner, calibration::BlockRunner::Create(graph, layer, machine));
    for (size_t b = 0; b < batches.size(); ++b) {
      probe->reads_[b].push_back(batches[b].hidden);
      NIBBLE_RETURN_IF_ERROR(runner.Run(batches[b].starts, &batches[b].hidden, Ignore));
    }
    probe->runners_.push_back(std::move(runner));
    progress.Update(layer + 1);
  }
  for (size_t b = 0; b < batches.size(); ++b) probe->reads_[b].push_back(std::move(batches[b].hidden));
  return probe;
}

std::vector<float> OutputProbe::FinalNorm(const std::vector<float>& hidden) const {
  const int64_t width = graph_.hidden_size();
  std::vector<float> normed(hidden.size());
  train::RmsNorm(machine_, static_cast<int64_t>(hidden.size()) / width, width, hidden.data(), gain_.data(), eps_, normed.data());
  return normed;
}

void OutputProbe::Logits(const std::vector<float>& head, const std::vector<float>& normed, int64_t first, int64_t count, float* logits) const {
  const int64_t width = graph_.hidden_size();
  train::Multiply(machine_, {false, true, count, graph_.vocab_size(), width}, normed.data() + first * width, head.data(), false, logits);
}

absl::StatusOr<double> OutputProbe::SumOfDivergences(size_t batch, const std::vector<float>& head, const std::vector<float>& hidden) const {
  const std::vector<float> own = FinalNorm(reads_[batch].back()), normed = FinalNorm(hidden);
  const int64_t vocab = graph_.vocab_size(), tokens = starts_[batch].back();
  const int64_t chunk = std::max<int64_t>(1, kLogitBytes / (2 * 4 * vocab));
  std::vector<float> p(chunk * vocab), q(chunk * vocab);
  std::vector<double> kl(tokens);
  for (int64_t first = 0; first < tokens; first += chunk) {
    const int64_t count = std::min(chunk, tokens - first);
    Logits(head_, own, first, count, p.data());
    Logits(head, normed, first, count, q.data());
    machine_.pool.ParallelFor(count, [&](int64_t i, int) { kl[first + i] = eval::KlDivergence(p.data() + i * vocab, q.data() + i * vocab, vocab); });
  }
  const auto bad = std::find_if(kl.begin(), kl.end(), [](double v) { return !std::isfinite(v); });
  if (bad != kl.end()) return absl::OutOfRangeError(absl::StrCat("the output of token ", bad - kl.begin(), " is not finite"));
  return std::accumulate(kl.begin(), kl.end(), 0.0);
}

absl::StatusOr<std::vector<std::vector<float>>> OutputProbe::ReadsOf(const ir::Graph& changed, const ModelPart& part) const {
  std::vector<std::vector<float>> all;
  for (size_t b = 0; b < reads_.size(); ++b) {
    if (!part.embedding) {
      all.push_back(reads_[b][part.first]);
      continue;
    }
    NIBBLE_ASSIGN_OR_RETURN(std::vector<float> rows, ir::EmbedTokens(changed, tokens_[b]));
    all.push_back(std::move(rows));
  }
  return all;
}

absl::StatusOr<double> OutputProbe::Divergence(const ir::Graph& changed, const ModelPart& part) {
  NIBBLE_CHECK(!part.embedding || part.first == 0);
  NIBBLE_ASSIGN_OR_RETURN(std::vector<std::vector<float>> hidden, ReadsOf(changed, part));
  const auto run = [&](calibration::BlockRunner& runner) -> absl::Status {
    for (size_t b = 0; b < hidden.size(); ++b) NIBBLE_RETURN_IF_ERROR(runner.Run(starts_[b], &hidden[b], Ignore));
    return absl::OkStatus();
  };
  for (int layer = part.first; layer < part.end; ++layer) {
    NIBBLE_ASSIGN_OR_RETURN(calibration::BlockRunner own, calibration::BlockRunner::Create(changed, layer, machine_));
    NIBBLE_RETURN_IF_ERROR(run(own));
  }
  for (size_t layer = part.end; layer < runners_.size(); ++layer) NIBBLE_RETURN_IF_ERROR(run(runners_[layer]));
  std::vector<float> own_head;
  if (part.head) {
    NIBBLE_ASSIGN_OR_RETURN(own_head, changed.parameter(*changed.head().weight).LoadFloats());
  }
  double sum = 0;
  int64_t tokens = 0;
  for (size_t b = 0; b < hidden.size(); ++b) {
    NIBBLE_ASSIGN_OR_RETURN(const double part, SumOfDivergences(b, part.head ? own_head : head_, hidden[b]));
    sum += part;
    tokens += starts_[b].back();
  }
  return sum / static_cast<double>(tokens);
}

}  // namespace nibble
