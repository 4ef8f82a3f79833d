#include "experiments/estimate.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/memory.h"
#include "core/base/status.h"
#include "core/calibration/block_walk.h"
#include "core/kernels/machine.h"
#include "datasets/registry.h"
#include "datasets/text.h"
#include "experiments/tasks.h"
#include "methods/method.h"

namespace nibble {
namespace {

// Of a model's folder, when it runs: pages of weights that were packed are given back, but
// not at once.
constexpr double kMeasurementFactor = 1.5;

// Of each job: its process starts, reads its files and loads its models; what it holds
// beside weights, the mapping that weights begin with (core/tensor) among it.
constexpr double kStartSeconds = 0.5, kProcessBytes = 80 << 20;
// That measuring the machine's peaks takes, after the rounds of a timing (eval/peaks.h).
constexpr double kPeaksSeconds = 1;
// A build that learns nothing rounds, encodes and writes every weight: as long as so many
// tokens take.
constexpr double kEncodingTokens = 500;
// Values that wait between two linears of a block, of the size of hidden states.
constexpr double kKeptOfHidden = 4;
// Decoding reads all weights for a token, which takes as long as the arithmetic of so many.
constexpr double kTokensOfADecode = 12;

// Tokens of a text of so many bytes, by the share that its beginning gives.
double TokensOfBytes(const text::Tokenizer& tokenizer, absl::string_view beginning, double bytes) {
  const absl::string_view sample = beginning.substr(0, 1 << 14);
  if (sample.empty()) return 0;
  return bytes * static_cast<double>(tokenizer.Encode(sample).size()) / static_cast<double>(sample.size());
}

double SizeOf(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), 1.0, [](double product, int64_t size) { return product * static_cast<double>(size); });
}

// That a token is multiplied with.
double WeightsOf(const ir::Graph& graph) {
  double weights = 0;
  for (const ir::Op& op : graph.ops()) {
    if (op.is_linear()) weights += SizeOf(graph.parameter(*op.weight).shape());
  }
  return weights;
}

double LargestParameter(const ir::Graph& graph) {
  double largest = 0;
  for (const ir::Parameter& parameter : graph.parameters()) largest = std::max(largest, SizeOf(parameter.shape()));
  return largest;
}

// What a method holds that calibrates a block at a time (core/calibration): the block's
// weights in fp32, second moments of its widest input and their factors in fp64, and of its
// text the hidden states between blocks and the values that wait for the next linear.
double CalibrationMemory(const ir::Graph& graph, double tokens) {
  std::map<int, double> blocks;  // weights
  double width = 0;
  for (const ir::Op& op : graph.ops()) {
    if (op.kind != ir::OpKind::kLinear) continue;
    const Shape& shape = graph.parameter(*op.weight).shape();
    blocks[op.layer] += SizeOf(shape);
    width = std::max(width, static_cast<double>(shape.back()));
  }
  double block = 0;
  for (const auto& [layer, weights] : blocks) block = std::max(block, weights);
  const double hidden = 4 * static_cast<double>(graph.hidden_size()) * tokens;
  return 4 * block + 2 * 8 * width * width + hidden + std::min<double>(calibration::BlockWalk::kMostKept, kKeptOfHidden * hidden);
}

double BytesOf(const std::vector<std::string>& texts) {
  double bytes = 0;
  for (const std::string& text : texts) bytes += static_cast<double>(text.size());
  return bytes;
}

}  // namespace

// A result in 8 bits or fewer and its packed form, for the plan that every build tries, take
// together no more than a source in 16; plans read a result in 16 bits in place.
double BuildMemory(const OpenedModel& model, const Pipeline& pipeline) {
  double learning = 0;
  for (const Step& step : pipeline.step()) {
    const auto method = MakeMethod(step);
    if (!method.ok()) continue;
    const LearningCost cost = (*method)->Learning();
    const double calibration = cost.held_tokens > 0 ? CalibrationMemory(model.graph, cost.held_tokens) : 0;
    learning = std::max(learning, cost.copies * 4 * WeightsOf(model.graph) + calibration);
  }
  return kProcessBytes + static_cast<double>(model.source.weight_bytes) + 4 * LargestParameter(model.graph) + learning;
}

// Timings measure the machine's bandwidth too.
double MeasurementMemory(const MetricRequest& request, double model_bytes) {
  return kProcessBytes + kMeasurementFactor * model_bytes + (request.has_latency() ? kernels::kBandwidthMegabytes * 1e6 : 0);
}

absl::Status CheckJobMemory(double bytes, int64_t limit) {
  const int64_t most = limit > 0 ? limit : AvailableMemory();
  if (bytes <= static_cast<double>(most)) return absl::OkStatus();
  const std::string needs = absl::StrFormat("it is thought to need %.0f MiB, more than the %d MiB ", bytes / (1 << 20), most >> 20);
  return absl::ResourceExhaustedError(absl::StrCat(needs, limit > 0 ? "of --memory-limit; raise the limit"
                                                                    : "that are free on its machine; close other programs, or let it start "
                                                                      "all the same with --memory-limit and the MiB that it may take"));
}

TimeEstimator::TimeEstimator(const RunPlan& plan, double operations_per_second)
    : plan_(plan), operations_per_second_(operations_per_second), weights_(WeightsOf(plan.model().graph)) {}

double TimeEstimator::OfBuild(const PlannedVariant& variant) const {
  double tokens = kEncodingTokens;
  for (const Step& step : variant.variant->pipeline.step()) {
    const auto method = MakeMethod(step);
    if (method.ok()) tokens += (*method)->Learning().tokens;
  }
  return kStartSeconds + 2 * weights_ * tokens / operations_per_second_;
}

double TimeEstimator::OfMeasurement(const PlannedVariant& variant, const PlannedMeasurement& measurement) {
  const double models = RunPlan::IsBeside(variant, measurement) ? 2 : 1;
  const double peaks = measurement.request->has_latency() ? kPeaksSeconds : 0;
  return models * (kStartSeconds + 2 * weights_ * Tokens(*measurement.request) / operations_per_second_) + peaks;
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
