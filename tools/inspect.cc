// nibble inspect: what a model is and where its size and outliers are.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/calibration/block_runner.h"
#include "datasets/registry.h"
#include "eval/size.h"
#include "experiments/expand.h"
#include "experiments/model.h"
#include "experiments/text_config.h"
#include "methods/method.h"
#include "methods/training/data.h"
#include "tools/command.h"

namespace nibble::tools {
namespace {

void PrintArchitecture(const OpenedModel& model) {
  const LlamaConfig& c = model.source.config;
  std::printf("source        %s\n", model.source.source.c_str());
  if (!model.source.note.empty()) std::printf("note          %s\n", model.source.note.c_str());
  if (!model.source.pipeline.empty()) std::printf("pipeline      %s\n", model.source.pipeline.c_str());
  std::printf("type          %s, %lld layers, hidden %lld, ffn %lld\n", c.model_type.c_str(), static_cast<long long>(c.num_hidden_layers),
              static_cast<long long>(c.hidden_size), static_cast<long long>(c.intermediate_size));
  std::printf("attention     %lld heads, %lld KV heads, head size %lld\n", static_cast<long long>(c.num_attention_heads),
              static_cast<long long>(c.num_key_value_heads), static_cast<long long>(c.head_dim));
  std::printf("vocabulary    %lld, head %s\n", static_cast<long long>(c.vocab_size), model.graph.tied() ? "tied" : "untied");
  std::printf("positions     %lld, rope theta %g%s\n", static_cast<long long>(c.max_position_embeddings), c.rope_theta,
              c.rope_scaling.has_value() ? ", llama3 scaling" : "");
  std::printf("parameters    %lld\n", static_cast<long long>(c.ParameterCount()));
}

absl::Status PrintSize(const ir::Graph& graph) {
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Metric> metrics, eval::MeasureSize(graph));
  for (const Metric& metric : metrics) std::printf("%-13s %.2f\n", metric.name().c_str(), metric.value());
  for (const Metric::Part& part : metrics[0].part()) {
    std::printf("  %-11s %10.2f MiB\n", part.name().c_str(), static_cast<double>(part.bytes()) / 1048576.0);
  }
  return absl::OkStatus();
}

struct Moments {
  double max = 0, mean_magnitude = 0, kurtosis = 0;
  int64_t bad = 0;  // NaN or infinite, in none of the others
};

Moments MomentsOf(absl::Span<const float> values) {
  double mean = 0, magnitude = 0, max = 0;
  int64_t bad = 0;
  for (const float v : values) {
    if (!std::isfinite(v)) {
      ++bad;
      continue;
    }
    mean += v;
    magnitude += std::fabs(v);
    max = std::max<double>(max, std::fabs(v));
  }
  const double n = std::max(1.0, static_cast<double>(static_cast<int64_t>(values.size()) - bad));
  mean /= n;
  double second = 0, fourth = 0;
  for (const float v : values) {
    if (!std::isfinite(v)) continue;
    const double d = (v - mean) * (v - mean);
    second += d;
    fourth += d * d;
  }
  return {max, magnitude / n, second > 0 ? (fourth / n) / (second / n * second / n) : 0, bad};
}

// A normal distribution has kurtosis 3; heavy tails have more, and cost a
// quantizer its range. Of what is no linear only weights that are no numbers are told.
absl::Status PrintOutliers(const ir::Graph& graph) {
  std::printf("\n%-44s %-14s %10s %10s %10s  %s\n", "linear", "shape", "max|w|", "max/mean", "kurtosis", "scheme");
  for (const ir::Op& op : graph.ops()) {
    if (!op.weight.has_value()) continue;
    const ir::Parameter& parameter = graph.parameter(*op.weight);
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor value, parameter.Load());
    const Moments m = MomentsOf(Decode(value));
    if (!op.is_linear() && m.bad == 0) continue;
    const std::string scheme = absl::StrCat(SchemeToString(value.scheme), op.activation.has_value() ? "; A " : "",
                                            op.activation.has_value() ? SchemeToString(*op.activation) : "");
    std::printf("%-44s %-14s %10.4f %10.2f %10.2f  %s", op.name.c_str(), ShapeToString(parameter.shape()).c_str(), m.max,
                m.mean_magnitude > 0 ? m.max / m.mean_magnitude : 0, m.kurtosis, scheme.c_str());
    if (m.bad > 0) std::printf("  %lld weights are NaN or infinite", static_cast<long long>(m.bad));
    std::printf("\n");
  }
  return absl::OkStatus();
}

// Moments of what each group of linears that share an input reads, by the first of them.
using InputMoments = std::vector<std::pair<std::string, Moments>>;

absl::StatusOr<InputMoments> MeasureInputs(const ir::Graph& graph, absl::Span<const int32_t> tokens, train::Machine machine) {
  InputMoments inputs;
  NIBBLE_ASSIGN_OR_RETURN(std::vector<float> hidden, ir::EmbedTokens(graph, tokens));
  for (int layer = 0; layer < graph.num_layers(); ++layer) {
    NIBBLE_ASSIGN_OR_RETURN(calibration::BlockRunner runner, calibration::BlockRunner::Create(graph, layer, machine));
    std::set<size_t> first;
    for (const std::vector<size_t>& group : runner.LinearsByInput()) first.insert(group[0]);
    runner.Run({0, static_cast<int64_t>(tokens.size())}, &hidden, [&](size_t op, absl::Span<const float> x) {
      if (first.count(op) > 0) inputs.emplace_back(graph.ops()[op].name, MomentsOf(x));
    });
  }
  return inputs;
}

// The first tokens of a text.
absl::StatusOr<std::vector<int32_t>> ReadTokens(const OpenedModel& model, const std::string& name, size_t count) {
  if (model.source.tokenizer == nullptr) return absl::InvalidArgumentError("--activations needs a model with a tokenizer");
  NIBBLE_ASSIGN_OR_RETURN(const datasets::ResolvedDataset text, datasets::ResolveDataset(name, "."));
  NIBBLE_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, TokenStream(*model.source.tokenizer, {text.path}));
  tokens.resize(std::min(tokens.size(), count));
  if (tokens.empty()) return absl::InvalidArgumentError(absl::StrCat(text.path, ": no tokens"));
  return tokens;
}

// `after` may be null.
void PrintMoments(const InputMoments& before, const InputMoments* after) {
  const auto ratio = [](const Moments& m) { return m.mean_magnitude > 0 ? m.max / m.mean_magnitude : 0; };
  std::printf("\n%-44s %10s %10s", "input of", "max/mean", "kurtosis");
  std::printf(after != nullptr ? " %14s %14s\n" : "\n", "max/mean after", "kurtosis after");
  for (size_t i = 0; i < before.size(); ++i) {
    std::printf("%-44s %10.2f %10.2f", before[i].first.c_str(), ratio(before[i].second), before[i].second.kurtosis);
    if (after != nullptr) std::printf(" %14.2f %14.2f", ratio((*after)[i].second), (*after)[i].second.kurtosis);
    std::printf("\n");
  }
}

// What linears read on a text, before and after the steps of a pipeline.
absl::Status PrintInputOutliers(const OpenedModel& model, const Options& options) {
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, ReadTokens(model, options.Text("activations"), options.Get<int>("tokens")));
  ThreadPool pool(AvailableCpus());
  NIBBLE_ASSIGN_OR_RETURN(const auto* table, kernels::ChooseTable());
  const train::Machine machine{pool, *table};
  NIBBLE_ASSIGN_OR_RETURN(const InputMoments before, MeasureInputs(model.graph, tokens, machine));
  if (!options.Has("pipeline")) {
    PrintMoments(before, nullptr);
    return absl::OkStatus();
  }
  NIBBLE_ASSIGN_OR_RETURN(const Pipeline pipeline, LoadPipeline(options.Text("pipeline")));
  ir::Graph changed = model.graph;
  Context context(pool, WorkplaceOf(model, DirectoryOf(options.Text("pipeline")), "", ""));
  NIBBLE_RETURN_IF_ERROR(ApplyPipeline(context, pipeline.step(), changed));
  PrintEvents(context.events());
  NIBBLE_ASSIGN_OR_RETURN(const InputMoments after, MeasureInputs(changed, tokens, machine));
  PrintMoments(before, &after);
  return absl::OkStatus();
}

absl::StatusOr<int> Inspect(const Options& options) {
  if (options.Get<int>("tokens") < 1) return absl::InvalidArgumentError(absl::StrCat("--tokens ", options.Get<int>("tokens"), ": expected 1 or more"));
  if (options.Has("pipeline") && !options.Has("activations")) {
    return absl::InvalidArgumentError("--pipeline shows what steps do to activations: give --activations TEXT too");
  }
  NIBBLE_ASSIGN_OR_RETURN(const OpenedModel model, OpenModel(options.Text("model")));
  PrintArchitecture(model);
  NIBBLE_RETURN_IF_ERROR(PrintSize(model.graph));
  if (options.Has("ops")) {
    NIBBLE_ASSIGN_OR_RETURN(const std::string text, ir::Print(model.graph));
    std::printf("\n%s", text.c_str());
    return kDone;
  }
  if (options.Has("activations")) {
    NIBBLE_RETURN_IF_ERROR(PrintInputOutliers(model, options));
    return kDone;
  }
  if (!options.Has("brief")) NIBBLE_RETURN_IF_ERROR(PrintOutliers(model.graph));
  return kDone;
}

}  // namespace

Command InspectCommand() {
  namespace po = boost::program_options;
  Command command;
  command.name = "inspect";
  command.summary = "Shows a model's architecture, size by part, and weight outliers by layer.";
  command.usage = "inspect M [--brief | --ops | --activations TEXT [--tokens N] [--pipeline FILE]]";
  command.examples =
      "  nibble inspect smollm2-135m\n"
      "  nibble inspect synthetic:llama-3.2-1b --brief\n"
      "  nibble inspect out/smollm2-w4a8 --ops\n"
      "  nibble inspect smollm2-135m --activations quickstart/passages --pipeline configs/pipelines/hadamard.textproto\n";
  command.options.add_options()("model", po::value<std::string>(),
                                "a folder, a .gguf or llama2.c .bin file, synthetic:<preset>, or a fetched name; decoded: before it for floats")(
      "brief", "architecture and size only")("ops", "print the graph, an op a line, in place of outliers")(
      "activations", po::value<std::string>(), "a text: outliers of what linears read on it, in place of weights'")(
      "pipeline", po::value<std::string>(), "steps whose effect on activations is shown beside")(
      "tokens", po::value<int>()->default_value(512), "tokens of the text");
  command.positional = {"model"};
  command.required = {"model"};
  command.run = Inspect;
  return command;
}

}  // namespace nibble::tools
