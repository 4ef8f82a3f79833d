// nibble run: an experiment from config to report.

#include <cstdio>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/file.h"
#include "core/base/progress.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "core/base/subprocess.h"
#include "core/base/suggest.h"
#include "core/kernels/machine.h"
#include "experiments/estimate.h"
#include "experiments/model_store.h"
#include "experiments/result_log.h"
#include "experiments/runner.h"
#include "experiments/run_plan.h"
#include "methods/method.h"
#include "reports/gate.h"
#include "reports/report.h"
#include "reports/run_log.h"
#include "tools/command.h"

namespace nibble::tools {
namespace {

namespace po = boost::program_options;

// Of the fp32 peak that products of a whole model reach.
constexpr double kUsualShare = 0.5;

void PrintVariants(const ExpandedExperiment& experiment) {
  for (const ExpandedVariant& variant : experiment.variants) {
    std::printf("%s%s: %s\n", variant.name.c_str(), variant.is_baseline ? " (baseline)" : "", PipelineToString(variant.pipeline.step()).c_str());
  }
  for (const MetricRequest& metric : experiment.metrics) std::printf("metric: %s\n", ProtoToLine(metric).c_str());
}

std::string Mib(double bytes) { return absl::StrFormat("%.0f MiB", bytes / (1 << 20)); }

// The jobs that the run's folder has no results of, with what each is thought to need on
// this machine.
absl::Status PrintJobs(const RunPlan& plan, const std::string& out) {
  NIBBLE_ASSIGN_OR_RETURN(const ResultLog log, ResultLog::Open(out));
  const ModelStore store(out + "/models");
  TimeEstimator estimator(plan, kUsualShare * 1e9 * kernels::MeasureFmaPeak(plan.threads()));
  const double bytes = static_cast<double>(plan.model().source.weight_bytes);
  double seconds = 0;
  int known = 0;
  const auto print = [&](const std::string& job, double time, double memory) {
    std::printf("job: %-60s about %8s, %s\n", job.c_str(), FormatSeconds(time).c_str(), Mib(memory).c_str());
    seconds += time;
  };
  for (const PlannedVariant& variant : plan.variants()) {
    const std::string& name = variant.variant->name;
    const auto is_known = [&](const PlannedMeasurement& measurement) { return log.Finished(measurement.key); };
    known += static_cast<int>(absl::c_count_if(variant.measurements, is_known));
    if (absl::c_all_of(variant.measurements, is_known)) continue;
    if (!store.Has(variant.model_key())) print(absl::StrCat("build ", name), estimator.OfBuild(variant), BuildMemory(plan.model(), variant.variant->pipeline));
    for (size_t i = 0; i < variant.measurements.size(); ++i) {
      if (is_known(variant.measurements[i])) continue;
      const double models = RunPlan::IsBeside(variant, variant.measurements[i]) ? 2 : 1;
      print(absl::StrCat("measure ", name, " ", plan.columns()[i].names[0]), estimator.OfMeasurement(variant, variant.measurements[i]),
            MeasurementMemory(*variant.measurements[i].request, models * bytes));
    }
  }
  if (known > 0) std::printf("done: %d measurements have results in %s\n", known, out.c_str());
  std::printf("about %s in all on this machine (by counts of operations: within a factor of two or three)\n", FormatSeconds(seconds).c_str());
  return absl::OkStatus();
}

// What would run. Everything is checked; a model that is not there leaves the jobs out.
absl::Status PrintPlan(const ExpandedExperiment& experiment, const RunPlanOptions& options, const std::string& out) {
  auto model = OpenModel(experiment.config.model().source());
  if (model.ok()) {
    NIBBLE_ASSIGN_OR_RETURN(const RunPlan plan, RunPlan::Make(experiment, options, *std::move(model)));
    PrintVariants(experiment);
    NIBBLE_RETURN_IF_ERROR(PrintJobs(plan, out));
  } else {
    NIBBLE_RETURN_IF_ERROR(RunPlan::Check(experiment, options));
    PrintVariants(experiment);
    std::printf("no estimates: %s\n", std::string(model.status().message()).c_str());
  }
  const auto variants = absl::c_count_if(experiment.variants, [&](const ExpandedVariant& variant) { return options.Takes(variant); });
  const auto measurements = static_cast<size_t>(variants) * experiment.metrics.size();
  std::printf("%zu variants, %zu metrics, %d gates; %zu measurements\n", static_cast<size_t>(variants), experiment.metrics.size(),
              experiment.config.gate_size(), measurements);
  return absl::OkStatus();
}

absl::Status SetBackend(const Options& options, RunOptions* run) {
  const std::string name = options.Has("backend") ? options.Text("backend") : "local";
  if (name != "local" && name != "slurm") return absl::InvalidArgumentError(UnknownName("backend", name, {"local", "slurm"}));
  run->backend = name == "slurm" ? RunOptions::Backend::kSlurm : RunOptions::Backend::kLocal;
  run->slurm_arguments = options.Text("slurm");
  if (name == "slurm" || !options.Has("slurm")) return absl::OkStatus();
  return absl::InvalidArgumentError("--slurm is of no use without --backend slurm");
}

absl::Status SetMemoryLimit(const Options& options, RunOptions* run) {
  if (!options.Has("memory-limit")) return absl::OkStatus();
  const int64_t mib = options.Get<int64_t>("memory-limit");
  if (mib < 1) return absl::InvalidArgumentError(absl::StrCat("--memory-limit ", mib, ": expected MiB, 1 or more"));
  run->memory_limit = mib << 20;
  return absl::OkStatus();
}

absl::StatusOr<int> Run(const Options& options) {
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Override> overrides, OverridesOf(options));
  NIBBLE_ASSIGN_OR_RETURN(const ExpandedExperiment experiment, LoadExperiment(options.Text("config"), overrides));
  RunOptions run;
  run.out = OutFolderOf(options);
  run.plan.only = options.List("only");
  NIBBLE_ASSIGN_OR_RETURN(run.plan.threads, ThreadsOf(options));
  NIBBLE_RETURN_IF_ERROR(SetBackend(options, &run));
  NIBBLE_RETURN_IF_ERROR(SetMemoryLimit(options, &run));
  if (options.Has("dry-run")) {
    NIBBLE_RETURN_IF_ERROR(PrintPlan(experiment, run.plan, run.out));
    return kDone;
  }
  run.plan.commit = SourceCommit();
  run.plan.command = CommandLine(absl::StrCat("./nibble run ", ShellWord(options.Text("config")), " --out ", ShellWord(run.out)), options, {"only", "set"});
  run.plan.work = options.Has("work") ? options.Text("work") : CacheDirectory() + "/training";
  NIBBLE_ASSIGN_OR_RETURN(const FolderLock lock, FolderLock::Take(run.out));
  NIBBLE_ASSIGN_OR_RETURN(const RunSummary summary, RunExperiment(experiment, run, lock));
  const absl::Status reported = WriteReport(run.out);
  NIBBLE_ASSIGN_OR_RETURN(const RunLog log, ReadRunLog(run.out));
  const auto gates = EvaluateGates(log.run, log.results);
  std::printf("%s", FormatGates(gates).c_str());
  std::printf("%d measured, %d reused, %d failed; %s\n", summary.done, summary.reused, summary.failed,
              reported.ok() ? absl::StrCat("report: ", run.out, "/report.md").c_str() : "no report");
  NIBBLE_RETURN_IF_ERROR(reported);  // after what there is to say without it
  return summary.failed == 0 && AllPassed(gates) ? kDone : kFailed;
}

}  // namespace

Command RunCommand() {
  Command command;
  command.name = "run";
  command.summary = "Runs an experiment: builds every variant, measures it, writes the report.";
  command.usage = "run CONFIG [--out DIR] [--only VARIANT] [--set FIELD=VALUE] [--work DIR] [--threads N] [--memory-limit MIB] [--backend slurm] [--slurm ARGS] [--dry-run]";
  command.examples =
      "  nibble run configs/quickstart.textproto\n"
      "  nibble run configs/smollm2.textproto --only w4 --out out/w4\n"
      "  nibble run configs/quickstart.textproto --set 'variant[int4].step[0].group_size=64'\n"
      "  nibble run configs/quickstart.textproto --set metric[0].perplexity.limit=4\n"
      "  nibble run configs/llama32.textproto --dry-run\n"
      "  nibble run configs/llama32.textproto --backend slurm --slurm '--partition=cpu --time=4:00:00'\n";
  command.options.add_options()("config", po::value<std::string>(), "the experiment, a text nibble.Experiment")(
      "out", po::value<std::string>(), "the run's folder (default out/<config's name>); a run on an existing folder does what is missing")(
      "only", po::value<std::vector<std::string>>()->composing(), "run this variant beside the baseline; may be repeated")(
      "set", po::value<std::vector<std::string>>()->composing(), "override a field of the config; may be repeated")(
      "dry-run", "check the config, print variants, metrics and the jobs that are left to do, with estimates of their time and memory, and stop")(
      "work", po::value<std::string>(),
      "where trainings are kept: a killed one goes on, a finished one is used again (default ~/.cache/nibble/training)")(
      "backend", po::value<std::string>(), "where jobs run: local (default), or slurm, as job arrays of a cluster that sees this folder")(
      "slurm", po::value<std::string>(), "more arguments of sbatch, after nibble's own --cpus-per-task, --mem (of the estimates, unless these say it) and "
                                         "--exclusive (of latency and memory)")(
      "memory-limit", po::value<int64_t>(),
      "MiB of private memory that each job may take, free or not: a job that is thought to need more, or takes more, fails (default: a job that is "
      "thought to need more than is free on its machine fails)")(
      "threads", po::value<int>(), "threads for building and quality metrics (default: the config's, or all CPUs)");
  command.positional = {"config"};
  command.required = {"config"};
  command.run = Run;
  return command;
}

}  // namespace nibble::tools
