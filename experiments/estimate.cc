#include "experiments/estimate.h"

#include <algorithm>
#include <numeric>

#include "core/base/status.h"
#include "datasets/registry.h"
#include "datasets/text.h"
#include "experiments/tasks.h"
#include "methods/method.h"

namespace nibble {
namespace {

// Of what a build reads and holds, and of a model's folder, when it runs: pages of weights
// that were packed are given back, but not at once.
constexpr double kBuildFactor = 2, kMeasurementFactor = 1.5;

// Of each job: its process starts, reads its files and loads its models; what it holds
// beside weights.
constexpr double kStartSeconds = 0.5, kProcessBytes = 64 << 20;
// A build that learns nothing rounds, encodes and writes every weight: as long as so many
// tokens take.
constexpr double kEncodingTokens = 500;
// Decoding reads all weights for a token, which takes as long as the arithmetic of so many.
constexpr double kTokensOfADecode = 12;

// Tokens of a text of so many bytes, by the share that its beginning gives.
double TokensOfBytes(const text::Tokenizer& tokenizer, absl::string_view beginning, double bytes) {
  const absl::string_view sample = beginning.substr(0, 1 << 14);
  if (sample.empty()) return 0;
  return bytes * static_cast<double>(tokenizer.Encode(sample).size()) / static_cast<double>(sample.size());
}

// That a token is multiplied with.
double WeightsOf(const ir::Graph& graph) {
  double weights = 0;
  for (const ir::Op& op : graph.ops()) {
    if (!op.is_linear()) continue;
    const Shape& shape = graph.parameter(*op.weight).shape();
    weights += std::accumulate(shape.begin(), shape.end(), 1.0, [](double product, int64_t size) { return product * static_cast<double>(size); });
  }
  return weights;
}

double BytesOf(const std::vector<std::string>& texts) {
  double bytes = 0;
  for (const std::string& text : texts) bytes += static_cast<double>(text.size());
  return bytes;
}

}  // namespace

double BuildMemory(const RunPlan& plan, const PlannedVariant& variant) {
  double copies = 0;
  for (const Step& step : variant.variant->pipeline.step()) {
    const auto method = MakeMethod(step);
    if (method.ok()) copies = std::max(copies, (*method)->LearningCopies());
  }
  return kProcessBytes + kBuildFactor * static_cast<double>(plan.model().source.weight_bytes) + copies * 4 * WeightsOf(plan.model().graph);
}

double MeasurementMemory(double model_bytes) { return kProcessBytes + kMeasurementFactor * model_bytes; }

TimeEstimator::TimeEstimator(const RunPlan& plan, double operations_per_second)
    : plan_(plan), operations_per_second_(operations_per_second), weights_(WeightsOf(plan.model().graph)) {}

double TimeEstimator::OfBuild(const PlannedVariant& variant) const {
  double tokens = kEncodingTokens;
  for (const Step& step : variant.variant->pipeline.step()) {
    const auto method = MakeMethod(step);
    if (method.ok()) tokens += (*method)->LearningTokens();
  }
  return kStartSeconds + 2 * weights_ * tokens / operations_per_second_;
}

double TimeEstimator::OfMeasurement(const PlannedVariant& variant, const PlannedMeasurement& measurement) {
  const double models = RunPlan::IsBeside(variant, measurement) ? 2 : 1;
  return models * (kStartSeconds + 2 * weights_ * Tokens(*measurement.request) / operations_per_second_);
}

double TimeEstimator::Tokens(const MetricRequest& request) {
  const auto [it, is_new] = tokens_.emplace(&request, 0);
  if (is_new) it->second = CountTokens(request);
  return it->second;
}

double TimeEstimator::CountTokens(const MetricRequest& request) const {
  if (request.has_memory()) return request.memory().prefill();
  if (request.has_latency()) {
    const Latency& latency = request.latency();
    return (latency.rounds() + 1) * (latency.prefill() + kTokensOfADecode * latency.decode());
  }
  if (request.has_size() || plan_.model().source.tokenizer == nullptr) return 0;
  if (request.has_divergence()) return TokensOfText(request.divergence().text(), request.divergence().window(), request.divergence().limit());
  if (IsTask(request)) return TokensOfTask(request);
  const bool llamacpp = request.perplexity().convention() == LLAMACPP;
  const int64_t window = request.perplexity().has_window() ? request.perplexity().window() : llamacpp ? 512 : 2048;
  return TokensOfText(request.perplexity().text(), window, request.perplexity().limit());
}

// What cannot be read is the measurement's to say.
double TimeEstimator::TokensOfText(const std::string& name, int64_t window, int64_t limit) const {
  const auto resolved = datasets::ResolveDataset(name, plan_.experiment().directory);
  const auto text = resolved.ok() ? datasets::ReadText(resolved->path) : absl::StatusOr<std::string>(resolved.status());
  if (!text.ok()) return 0;
  const double all = TokensOfBytes(*plan_.model().source.tokenizer, *text, static_cast<double>(text->size()));
  return limit > 0 ? std::min(all, static_cast<double>(window * limit)) : all;
}

double TimeEstimator::TokensOfTask(const MetricRequest& request) const {
  const auto task = LoadTask(request, plan_.experiment().directory);
  if (!task.ok()) return 0;
  double bytes = 0;
  std::string sample;
  for (const datasets::TaskItem& item : task->items) {
    bytes += static_cast<double>(task->preambles[item.preamble].size()) + BytesOf(item.contexts) + BytesOf(item.continuations);
    if (sample.size() < 1 << 12) sample += item.context(0) + (item.continuations.empty() ? "" : item.continuations[0]);
  }
  return TokensOfBytes(*plan_.model().source.tokenizer, sample, bytes);
}

}  // namespace nibble
