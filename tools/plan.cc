// nibble plan, nibble gather: an experiment's jobs as files, and the report of what they
// left, for Bazel (experiments/defs.bzl).

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/base/subprocess.h"
#include "experiments/expand.h"
#include "experiments/gather.h"
#include "experiments/run_plan.h"
#include "reports/report.h"
#include "tools/command.h"

namespace nibble::tools {
namespace {

namespace po = boost::program_options;

// A build file has to say what its actions are before it can read the config.
absl::Status CheckList(const ExpandedExperiment& experiment, const std::vector<std::string>& listed, int metrics) {
  std::vector<std::string> names;
  for (const ExpandedVariant& variant : experiment.variants) names.push_back(variant.name);
  const int count = static_cast<int>(experiment.metrics.size());
  if (names == listed && count == metrics) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(experiment.path, ": its build target lists the variants [\"", absl::StrJoin(listed, "\", \""), "\"] and ",
                                                 metrics, " metrics, it has variants = [\"", absl::StrJoin(names, "\", \""), "\"], metrics = ", count,
                                                 "; nibble plan --starlark writes such lists"));
}

absl::Status WriteStarlark(const Options& options) {
  std::vector<ExpandedExperiment> experiments;
  for (const std::string& config : options.List("config")) {
    NIBBLE_ASSIGN_OR_RETURN(ExpandedExperiment experiment, LoadExperiment(config, {}));
    experiments.push_back(std::move(experiment));
  }
  NIBBLE_ASSIGN_OR_RETURN(const std::string text, StarlarkJobs(experiments));
  return WriteFile(options.Text("starlark"), text);
}

absl::Status WriteJobs(const Options& options) {
  const std::string config = options.List("config")[0];
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Override> overrides, OverridesOf(options));
  NIBBLE_ASSIGN_OR_RETURN(const ExpandedExperiment experiment, LoadExperiment(config, overrides));
  if (options.Has("metrics")) NIBBLE_RETURN_IF_ERROR(CheckList(experiment, options.List("variant"), options.Get<int>("metrics")));
  RunPlanOptions plan_options;
  NIBBLE_ASSIGN_OR_RETURN(plan_options.threads, ThreadsOf(options));
  plan_options.command = CommandLine(absl::StrCat("./nibble run ", ShellWord(config)), options, {"set"});
  NIBBLE_ASSIGN_OR_RETURN(const RunPlan plan, RunPlan::Make(experiment, std::move(plan_options)));
  return WritePlan(plan, options.Text("out"));
}

absl::StatusOr<int> Plan(const Options& options) {
  if (options.Has("out") == options.Has("starlark")) return absl::InvalidArgumentError("plan needs --out or --starlark, and not both");
  if (options.Has("starlark")) {
    for (const char* name : {"set", "threads", "variant", "metrics"}) {
      if (options.Has(name)) return absl::InvalidArgumentError(absl::StrCat("--", name, " goes with --out: a list holds what the configs say"));
    }
    NIBBLE_RETURN_IF_ERROR(WriteStarlark(options));
    return kDone;
  }
  const size_t configs = options.List("config").size();
  if (configs != 1) return absl::InvalidArgumentError(absl::StrCat("--out takes the jobs of one experiment, got ", configs, " configs"));
  NIBBLE_RETURN_IF_ERROR(WriteJobs(options));
  return kDone;
}

absl::StatusOr<int> Gather(const Options& options) {
  const std::string out = options.Text("out");
  NIBBLE_RETURN_IF_ERROR(GatherReports(options.Text("dir"), out));
  NIBBLE_RETURN_IF_ERROR(WriteReport(out));
  return kDone;
}

}  // namespace

Command PlanCommand() {
  Command command;
  command.name = "plan";
  command.summary = "Writes a file for each job of an experiment, for `nibble job`, and plan.json, for `nibble gather`.";
  command.usage = "plan (CONFIG --out DIR [--set FIELD=VALUE] [--threads N] [--variant NAME ... --metrics N] | CONFIG ... --starlark FILE)";
  command.examples =
      "  nibble plan configs/quickstart.textproto --out jobs\n"
      "  nibble job jobs/int4.build.textproto --store models\n"
      "  nibble job jobs/int4.0.textproto --store models\n"
      "  nibble plan configs/gate_passes.textproto configs/novelist_gate.textproto --starlark configs/jobs.bzl\n";
  command.hidden = true;
  command.options.add_options()("config", po::value<std::vector<std::string>>(), "an experiment, a text nibble.Experiment")(
      "out", po::value<std::string>(), "the folder of the jobs")(
      "starlark", po::value<std::string>(), "write instead what nibble_experiment has to know of the configs (experiments/defs.bzl)")("set", po::value<std::vector<std::string>>()->composing(),
                                                                 "override a field of the config; may be repeated")(
      "threads", po::value<int>(), "threads of each job (default: the config's, or all CPUs of this machine)")(
      "variant", po::value<std::vector<std::string>>()->composing(), "a variant that the config must have, the baseline first; repeated for all")(
      "metrics", po::value<int>(), "how many metrics the config must have");
  command.positional = {"config"};
  command.positional_repeats = true;
  command.required = {"config"};
  command.run = Plan;
  return command;
}

Command GatherCommand() {
  Command command;
  command.name = "gather";
  command.summary = "Makes a run's folder and its report from the jobs of a plan when all have left their reports.";
  command.usage = "gather DIR --out DIR";
  command.examples = "  nibble gather jobs --out out/quickstart\n";
  command.hidden = true;
  command.options.add_options()("dir", po::value<std::string>(), "the folder of `nibble plan`")("out", po::value<std::string>(), "the run's folder");
  command.positional = {"dir"};
  command.required = {"dir", "out"};
  command.run = Gather;
  return command;
}

}  // namespace nibble::tools
