#include "experiments/run_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "core/base/file.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "core/base/suggest.h"
#include "core/base/thread_pool.h"
#include "core/kernels/machine.h"
#include "core/text/utf8.h"
#include "methods/method.h"

namespace nibble {
namespace {

absl::Status CheckOnly(const ExpandedExperiment& experiment, const RunPlanOptions& options) {
  std::vector<std::string> names;
  for (const ExpandedVariant& variant : experiment.variants) names.push_back(variant.name);
  for (const std::string& name : options.only) {
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      return absl::InvalidArgumentError(absl::StrCat("--only: ", UnknownName("variant", name, names)));
    }
  }
  return absl::OkStatus();
}

// What timings depend on beside the program.
std::string TimingMachine(int threads) {
  const kernels::MachineInfo machine = kernels::DescribeMachine();
  return absl::StrCat(machine.cpu, " ", machine.kernel_table, " ", threads);
}

}  // namespace

bool RunPlanOptions::Takes(const ExpandedVariant& variant) const {
  return variant.is_baseline || only.empty() || std::find(only.begin(), only.end(), variant.name) != only.end();
}

bool NeedsBaseline(const MetricRequest& request) { return request.has_latency() || request.has_divergence(); }

bool RunPlan::IsBeside(const PlannedVariant& variant, const PlannedMeasurement& measurement) {
  return !variant.variant->is_baseline && NeedsBaseline(*measurement.request);
}

RunPlan::RunPlan(const ExpandedExperiment& experiment, RunPlanOptions options, OpenedModel model)
    : experiment_(experiment),
      options_(std::move(options)),
      model_(std::move(model)),
      threads_(ThreadsOrAll(options_.threads > 0 ? options_.threads : experiment.config.threads())) {}

absl::Status RunPlan::Check(const ExpandedExperiment& experiment, const RunPlanOptions& options) {
  InputHashes hashes(experiment.directory);
  return Check(experiment, options, hashes);
}

absl::Status RunPlan::Check(const ExpandedExperiment& experiment, const RunPlanOptions& options, InputHashes& hashes) {
  NIBBLE_RETURN_IF_ERROR(CheckOnly(experiment, options));
  if (experiment.config.allow_test_data()) return absl::OkStatus();
  for (const ExpandedVariant& variant : experiment.variants) {
    NIBBLE_RETURN_IF_ERROR(Annotate(hashes.CheckHeldOut(variant.pipeline, experiment.metrics), absl::StrCat("variant ", variant.name)));
  }
  return absl::OkStatus();
}

absl::StatusOr<RunPlan> RunPlan::Make(const ExpandedExperiment& experiment, RunPlanOptions options) {
  NIBBLE_ASSIGN_OR_RETURN(OpenedModel model, OpenModel(experiment.config.model().source()));
  return Make(experiment, std::move(options), std::move(model));
}

absl::StatusOr<RunPlan> RunPlan::Make(const ExpandedExperiment& experiment, RunPlanOptions options, OpenedModel model) {
  InputHashes hashes(experiment.directory);
  NIBBLE_RETURN_IF_ERROR(Check(experiment, options, hashes));
  NIBBLE_RETURN_IF_ERROR(CheckFitsMemory(model));
  RunPlan plan(experiment, std::move(options), std::move(model));
  NIBBLE_ASSIGN_OR_RETURN(plan.model_hash_, plan.model_.source.Hash());
  // The program's own bytes are the code version: any change may move a number.
  NIBBLE_ASSIGN_OR_RETURN(plan.code_version_, Sha256OfFile("/proc/self/exe"));
  NIBBLE_RETURN_IF_ERROR(plan.NameColumns());
  NIBBLE_RETURN_IF_ERROR(plan.PlanVariants(hashes));
  return plan;
}

absl::Status RunPlan::NameColumns() {
  size_t first = 0;
  for (const MetricRequest& request : experiment_.metrics) {
    NIBBLE_ASSIGN_OR_RETURN(std::vector<std::string> names, MetricNames(request, experiment_.directory));
    columns_.push_back({first, std::move(names)});
    first += columns_.back().names.size();
  }
  return absl::OkStatus();
}

// Those that do not run have keys too: by them a report tells which of their earlier results
// still hold.
absl::Status RunPlan::PlanVariants(InputHashes& hashes) {
  const std::string root = Sha256(absl::StrCat(model_hash_, "\n", code_version_, "\n", kernels::DescribeMachine().kernel_table));
  for (const ExpandedVariant& variant : experiment_.variants) {
    NIBBLE_ASSIGN_OR_RETURN(PlannedVariant planned, PlanVariant(variant, root, hashes));
    if (variant.is_baseline) baseline_key_ = planned.model_key();
    NIBBLE_RETURN_IF_ERROR(AddMeasurements(planned, hashes));
    for (const PlannedMeasurement& measurement : planned.measurements) result_keys_.push_back(measurement.key);
    if (options_.Takes(variant)) variants_.push_back(std::move(planned));
  }
  return absl::OkStatus();
}

// Everything that can move what a step makes names its model, those before it included.
absl::StatusOr<PlannedVariant> RunPlan::PlanVariant(const ExpandedVariant& variant, const std::string& root, InputHashes& hashes) const {
  PlannedVariant planned;
  planned.variant = &variant;
  std::string made = root;
  for (const Step& step : variant.pipeline.step()) {
    const auto inputs = hashes.OfOptions(step);
    if (!inputs.ok()) return Annotate(inputs.status(), absl::StrCat("variant ", variant.name));
    NIBBLE_ASSIGN_OR_RETURN(const auto method, MakeMethod(step));
    std::string parts = absl::StrCat(made, "\n", ProtoToLine(step), "\n", *inputs);
    if (method->depends_on_machine()) absl::StrAppend(&parts, "\n", TimingMachine(threads_));
    made = Sha256(parts);
    planned.keys.push_back(made);
    planned.learns.push_back(method->learns());
  }
  return planned;
}

absl::Status RunPlan::AddMeasurements(PlannedVariant& variant, InputHashes& hashes) const {
  for (const MetricRequest& request : experiment_.metrics) {
    PlannedMeasurement measurement;
    measurement.request = &request;
    NIBBLE_ASSIGN_OR_RETURN(measurement.data_hash, hashes.OfMetric(request));
    std::string parts = absl::StrCat(variant.variant->name, "\n", variant.model_key(), "\n", ProtoToLine(request), "\n", measurement.data_hash);
    if (NeedsBaseline(request)) absl::StrAppend(&parts, "\n", baseline_key_);
    if (request.has_latency() || request.has_memory()) absl::StrAppend(&parts, "\n", TimingMachine(threads_));
    measurement.key = Sha256(parts);
    variant.measurements.push_back(std::move(measurement));
  }
  return absl::OkStatus();
}

RunInfo RunPlan::Head() const {
  RunInfo info;
  info.set_name(experiment_.config.name());
  info.set_config_path(experiment_.path);
  info.set_config(ProtoToText(experiment_.config));
  info.set_command(options_.command);
  info.set_model(model_.source.source);
  info.set_model_hash(model_hash_);
  if (!model_.source.note.empty()) info.set_model_note(model_.source.note);
  if (!options_.commit.empty()) info.set_commit(options_.commit);
  for (const ExpandedVariant& variant : experiment_.variants) {
    info.add_variant(variant.name);
    if (variant.repetition.has_value()) *info.add_repetition() = *variant.repetition;
    if (variant.untrained.empty()) continue;
    Lineage* lineage = info.add_lineage();
    lineage->set_variant(variant.name);
    lineage->set_untrained(variant.untrained);
    if (!variant.twin.empty()) lineage->set_twin(variant.twin);
  }
  for (const Gate& gate : experiment_.config.gate()) *info.add_gate() = gate;
  *info.mutable_contrast() = experiment_.config.contrast();
  for (const EarlierResult& earlier : experiment_.earlier) *info.add_earlier() = earlier;
  for (const std::string& name : experiment_.metric_names) info.add_metric_order(name);
  *info.mutable_key() = {result_keys_.begin(), result_keys_.end()};
  return info;
}

Job RunPlan::NewJob() const {
  Job job;
  job.set_model(model_.source.source);
  job.set_model_hash(model_hash_);
  job.set_directory(experiment_.directory);
  job.set_threads(threads_);
  if (!options_.store.empty()) job.set_store(options_.store);
  return job;
}

Job RunPlan::BuildJob(const PlannedVariant& variant, const std::set<std::string>& keep) const {
  Job job = NewJob();
  Build& build = *job.mutable_build();
  *build.mutable_pipeline() = variant.variant->pipeline;
  build.set_work(options_.work);
  for (size_t i = 0; i < variant.keys.size(); ++i) {
    build.add_key(variant.keys[i]);
    if (variant.learns[i] && keep.count(variant.keys[i]) > 0) build.add_keep(variant.keys[i]);
  }
  return job;
}

Job RunPlan::MeasurementJob(const PlannedVariant& variant, const PlannedMeasurement& measurement) const {
  Job job = NewJob();
  *job.mutable_measurement()->mutable_metric() = *measurement.request;
  job.mutable_measurement()->set_model_key(variant.model_key());
  if (IsBeside(variant, measurement)) job.mutable_measurement()->set_baseline_key(baseline().model_key());
  return job;
}

JobResult RunPlan::ResultOf(const PlannedVariant& variant, const PlannedMeasurement& measurement) const {
  JobResult result;
  result.set_key(measurement.key);
  result.set_variant(variant.variant->name);
  result.set_is_baseline(variant.variant->is_baseline);
  result.set_pipeline(PipelineToString(variant.variant->pipeline.step()));
  result.set_job(ProtoToLine(*measurement.request));
  result.set_code_version(code_version_);
  result.set_data_hash(measurement.data_hash);
  return result;
}

std::string BuildError(const BuildReport& build, const BuildReport* baseline) {
  if (build.has_error()) return build.error();
  if (baseline != nullptr && baseline->has_error()) return absl::StrCat("the baseline could not be built: ", baseline->error());
  return "";
}

void Complete(const BuildReport& build, const BuildReport* baseline, const absl::StatusOr<MeasurementReport>& measurement, JobResult* result) {
  *result->mutable_event() = build.event();
  result->set_build_seconds(build.seconds());
  *result->mutable_training() = build.training();
  *result->mutable_layer() = build.layer();
  *result->mutable_table() = build.table();
  *result->mutable_weight() = build.weight();
  result->set_measured_at(absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::Now(), absl::UTCTimeZone()));
  std::string error = BuildError(build, baseline);
  if (error.empty()) error = measurement.ok() ? measurement->error() : std::string(measurement.status().message());
  if (!error.empty()) result->set_error(text::WellFormed(error));
  if (!measurement.ok()) return;
  result->set_seconds(measurement->seconds());
  if (measurement->has_machine()) *result->mutable_machine() = measurement->machine();
  if (error.empty()) *result->mutable_metric() = measurement->metric();
}

}  // namespace nibble
