// nibble inspect: what a model is and where its size and outliers are.

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "eval/size.h"
#include "experiments/model.h"
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
};

Moments MomentsOf(const std::vector<float>& values) {
  double mean = 0, magnitude = 0, max = 0;
  for (const float v : values) {
    mean += v;
    magnitude += std::fabs(v);
    max = std::max<double>(max, std::fabs(v));
  }
  mean /= static_cast<double>(values.size());
  double second = 0, fourth = 0;
  for (const float v : values) {
    const double d = (v - mean) * (v - mean);
    second += d;
    fourth += d * d;
  }
  const double n = static_cast<double>(values.size());
  return {max, magnitude / n, second > 0 ? (fourth / n) / (second / n * second / n) : 0};
}

// A normal distribution has kurtosis 3; heavy tails have more, and cost a
// quantizer its range.
absl::Status PrintOutliers(const ir::Graph& graph) {
  std::printf("\n%-44s %-14s %10s %10s %10s  %s\n", "linear", "shape", "max|w|", "max/mean", "kurtosis", "scheme");
  for (const ir::Op& op : graph.ops()) {
    if (!op.is_linear()) continue;
    const ir::Parameter& parameter = graph.parameter(*op.weight);
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor value, parameter.Load());
    const Moments m = MomentsOf(Decode(value));
    const std::string scheme = absl::StrCat(SchemeToString(value.scheme), op.activation.has_value() ? "; A " : "",
                                            op.activation.has_value() ? SchemeToString(*op.activation) : "");
    std::printf("%-44s %-14s %10.4f %10.2f %10.2f  %s\n", op.name.c_str(), ShapeToString(parameter.shape()).c_str(), m.max,
                m.mean_magnitude > 0 ? m.max / m.mean_magnitude : 0, m.kurtosis, scheme.c_str());
  }
  return absl::OkStatus();
}

absl::StatusOr<int> Inspect(const Options& options) {
  NIBBLE_ASSIGN_OR_RETURN(const OpenedModel model, OpenModel(options.Text("model")));
  PrintArchitecture(model);
  NIBBLE_RETURN_IF_ERROR(PrintSize(model.graph));
  if (options.Has("ops")) {
    NIBBLE_ASSIGN_OR_RETURN(const std::string text, ir::Print(model.graph));
    std::printf("\n%s", text.c_str());
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
  command.usage = "inspect M [--brief | --ops]";
  command.examples =
      "  nibble inspect smollm2-135m\n"
      "  nibble inspect synthetic:llama-3.2-1b --brief\n"
      "  nibble inspect out/smollm2-w4a8 --ops\n";
  command.options.add_options()("model", po::value<std::string>(),
                                "a folder, a .gguf or llama2.c .bin file, synthetic:<preset>, or a fetched name")(
      "brief", "architecture and size only")("ops", "print the graph, an op a line, in place of outliers");
  command.positional = {"model"};
  command.required = {"model"};
  command.run = Inspect;
  return command;
}

}  // namespace nibble::tools
