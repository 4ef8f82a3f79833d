// nibble train: a model from a config.

#include <cstdio>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/file.h"
#include "core/base/progress.h"
#include "core/base/status.h"
#include "core/kernels/machine.h"
#include "experiments/model_training.h"
#include "experiments/text_config.h"
#include "reports/curve.h"
#include "tools/command.h"

namespace nibble::tools {
namespace {

namespace po = boost::program_options;

std::string Name(const ModelTraining& config, const std::string& path) {
  return config.has_name() ? config.name() : std::filesystem::path(path).stem().string();
}

// One window has no standard error.
std::string Shown(const Metric& metric, const absl::FormatSpec<double>& format, absl::string_view plus_minus) {
  const std::string value = absl::StrFormat(format, metric.value());
  return metric.has_stderr() ? absl::StrCat(value, plus_minus, absl::StrFormat(format, metric.stderr())) : value;
}

// The model card: what the model is, from what, and how good.
std::string Card(const std::string& name, const std::string& path, const ModelTraining& config, const ModelTrainingResult& result) {
  const LossCurve& curve = result.curve;
  const kernels::MachineInfo machine = kernels::DescribeMachine();
  std::string text = absl::StrCat("# ", name, "\n\nA Llama of ", result.parameters, " parameters, trained by `nibble train ", path, "`.\n\n");
  if (config.has_data_note()) absl::StrAppend(&text, "Data: ", config.data_note(), "\n\n");
  absl::StrAppendFormat(&text, "| | |\n|---|---:|\n| updates | %d |\n| tokens | %d |\n| time | %s |\n| tokens/s | %.0f |\n| first loss | %.4f |\n"
                        "| last loss (mean of the last tenth) | %.4f |\n",
                        curve.loss.size(), curve.tokens, FormatSeconds(curve.seconds), static_cast<double>(curve.tokens) / curve.seconds,
                        curve.loss.front(), LastLoss(curve.loss));
  for (const Metric& metric : result.held_out) {
    absl::StrAppend(&text, "| ", metric.name(), metric.has_stderr() ? " (held out; ± standard error) | " : " (held out) | ", Shown(metric, "%.3f", " ± "), " |\n");
  }
  for (const auto& [what, event] : result.events) absl::StrAppend(&text, "| ", what, " (", event.detail, ") | ", event.count, " |\n");
  absl::StrAppend(&text, "\nMachine: ", machine.cpu, ", ", machine.cpus, " CPUs.\n\n![loss](loss.svg)\n");
  return text;
}

absl::StatusOr<int> Run(const Options& options) {
  const std::string path = options.Text("config");
  ModelTraining config;
  NIBBLE_RETURN_IF_ERROR(ReadTextFile(path, &config));
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Override> overrides, OverridesOf(options));
  for (const auto& [field, value] : overrides) NIBBLE_RETURN_IF_ERROR(Annotate(SetField(&config, field, value), "--set"));
  const std::string directory = DirectoryOf(path);
  NIBBLE_RETURN_IF_ERROR(Annotate(ResolveIncludedData(&config, directory), path));
  const std::string name = Name(config, path);
  const std::string out = options.Has("out") ? options.Text("out") : absl::StrCat("out/", name);
  NIBBLE_ASSIGN_OR_RETURN(const int threads, ThreadsOf(options));
  NIBBLE_ASSIGN_OR_RETURN(const ModelTrainingResult result, TrainModel(config, directory, out, threads));
  NIBBLE_RETURN_IF_ERROR(WriteFile(out + "/loss.svg", CurveSvg({{name, result.curve.loss}})));
  NIBBLE_ASSIGN_OR_RETURN(const std::string steps, ReadFile(result.curve.log));
  NIBBLE_RETURN_IF_ERROR(WriteFile(out + "/steps.csv", steps));
  NIBBLE_RETURN_IF_ERROR(WriteFile(out + "/README.md", Card(name, path, config, result)));
  std::printf("%s: %d updates, loss %.4f -> %.4f\n", name.c_str(), static_cast<int>(result.curve.loss.size()), result.curve.loss.front(),
              LastLoss(result.curve.loss));
  PrintEvents(result.events);
  for (const Metric& metric : result.held_out) std::printf("%s %s\n", metric.name().c_str(), Shown(metric, "%.4f", " +- ").c_str());
  std::printf("model: %s\n", out.c_str());
  return kDone;
}

}  // namespace

Command TrainCommand() {
  Command command;
  command.name = "train";
  command.summary = "Trains a model from a config; a killed training goes on where it was.";
  command.usage = "train CONFIG [--out DIR] [--set FIELD=VALUE] [--threads N]";
  command.examples =
      "  nibble train configs/novelist.textproto\n"
      "  nibble train configs/novelist.textproto --set training.steps=100 --out /tmp/novelist\n";
  command.options.add_options()("config", po::value<std::string>(), "what to train, a text nibble.ModelTraining")(
      "out", po::value<std::string>(), "the model's folder (default out/<name>)")(
      "set", po::value<std::vector<std::string>>()->composing(), "override a field of the config; may be repeated")(
      "threads", po::value<int>(), "threads (default: all CPUs)");
  command.positional = {"config"};
  command.required = {"config"};
  command.run = Run;
  return command;
}

}  // namespace nibble::tools
