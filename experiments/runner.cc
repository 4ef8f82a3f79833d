#include "experiments/runner.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "core/base/file.h"
#include "core/base/progress.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "core/base/suggest.h"
#include "core/kernels/machine.h"
#include "core/text/utf8.h"
#include "experiments/measure.h"
#include "experiments/result_log.h"
#include "experiments/shared_steps.h"
#include "google/protobuf/text_format.h"
#include "methods/method.h"
#include "reports/curve.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Points of a curve in a result.
constexpr size_t kCurvePoints = 200;

TrainingCurve ToProto(const LossCurve& curve) {
  TrainingCurve proto;
  proto.set_label(curve.label);
  proto.set_updates(static_cast<int64_t>(curve.loss.size()));
  proto.set_tokens(curve.tokens);
  proto.set_seconds(curve.seconds);
  proto.set_reused(curve.reused);
  for (const double loss : Thinned(curve.loss, kCurvePoints)) proto.add_loss(loss);
  for (const double accuracy : Thinned(curve.accuracy, kCurvePoints)) proto.add_accuracy(accuracy);
  return proto;
}

MethodTable ToProto(const ReportTable& table) {
  MethodTable proto;
  proto.set_title(table.title);
  for (const std::string& column : table.columns) proto.add_column(column);
  for (const auto& row : table.rows) {
    MethodTable::Row& cells = *proto.add_row();
    for (const std::string& cell : row) cells.add_cell(cell);
  }
  return proto;
}

QuantizedLayer ToProto(const LayerError& error) {
  QuantizedLayer proto;
  proto.set_method(error.method);
  proto.set_layer(error.layer);
  proto.set_error(error.error);
  proto.set_rounding_error(error.rounding_error);
  return proto;
}

class Runner {
 public:
  Runner(const ExpandedExperiment& experiment, const RunOptions& options, OpenedModel model, ResultLog log, std::string model_hash,
         std::string code_version)
      : experiment_(experiment),
        options_(options),
        model_(std::move(model)),
        log_(std::move(log)),
        model_hash_(std::move(model_hash)),
        code_version_(std::move(code_version)),
        measurer_(model_.source, experiment.directory, options.threads > 0 ? options.threads : experiment.config.threads()) {}

  absl::StatusOr<RunSummary> Run() {
    NIBBLE_RETURN_IF_ERROR(ChooseVariants());
    DescribeThisMachine();
    NIBBLE_RETURN_IF_ERROR(WriteHead());
    total_ = static_cast<int>(variants_.size() * experiment_.metrics.size());
    std::vector<const Pipeline*> pipelines;
    for (const ExpandedVariant* variant : variants_) pipelines.push_back(&variant->pipeline);
    shared_ = std::make_unique<SharedSteps>(pipelines);
    for (size_t i = 0; i < variants_.size(); ++i) {
      NIBBLE_RETURN_IF_ERROR(RunVariant(i));
      shared_->Forget(i);
    }
    return summary_;
  }

 private:
  struct Job {
    const MetricRequest* request;
    std::string key, data_hash;
  };

  absl::Status ChooseVariants() {
    std::vector<std::string> names;
    for (const ExpandedVariant& variant : experiment_.variants) names.push_back(variant.name);
    for (const std::string& name : options_.only) {
      if (std::find(names.begin(), names.end(), name) == names.end()) {
        return absl::InvalidArgumentError(absl::StrCat("--only: ", UnknownName("variant", name, names)));
      }
    }
    for (const ExpandedVariant& variant : experiment_.variants) {
      const bool chosen = options_.only.empty() || std::find(options_.only.begin(), options_.only.end(), variant.name) != options_.only.end();
      if (variant.is_baseline || chosen) variants_.push_back(&variant);
    }
    return absl::OkStatus();
  }

  bool AsksFor(bool (MetricRequest::*has)() const) const {
    return std::any_of(experiment_.metrics.begin(), experiment_.metrics.end(), [&](const MetricRequest& m) { return (m.*has)(); });
  }

  void DescribeThisMachine() {
    const kernels::MachineInfo info = kernels::DescribeMachine();
    const int threads = measurer_.pool().threads();
    machine_.set_cpu(info.cpu);
    machine_.set_features(info.features);
    machine_.set_kernel_table(info.kernel_table);
    machine_.set_cpus(info.cpus);
    machine_.set_threads(threads);
    if (!AsksFor(&MetricRequest::has_latency)) return;
    std::fprintf(stderr, "measuring the machine's memory bandwidth and fp32 peak\n");
    machine_.set_read_bandwidth_gb_s(kernels::MeasureReadBandwidth(threads));
    machine_.set_fma_peak_gflop_s(kernels::MeasureFmaPeak(threads));
  }

  absl::Status WriteHead() const {
    RunInfo info;
    info.set_name(experiment_.config.name());
    info.set_config_path(experiment_.path);
    google::protobuf::TextFormat::PrintToString(experiment_.config, info.mutable_config());
    info.set_command(options_.command);
    info.set_model(model_.source.source);
    info.set_model_hash(model_hash_);
    if (!model_.source.note.empty()) info.set_model_note(model_.source.note);
    if (!options_.commit.empty()) info.set_commit(options_.commit);
    *info.mutable_machine() = machine_;
    for (const ExpandedVariant& variant : experiment_.variants) {
      info.add_variant(variant.name);
      info.add_pipeline(PipelineToString(variant.pipeline.step()));
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
    NIBBLE_ASSIGN_OR_RETURN(const std::string json, ProtoToJson(info, /*pretty=*/true));
    return WriteFile(options_.out + "/run.json", json);
  }

  // Everything that can move a result names it.
  absl::StatusOr<Job> MakeJob(const ExpandedVariant& variant, const MetricRequest& request) {
    NIBBLE_ASSIGN_OR_RETURN(const std::string data_hash, measurer_.DataHash(request));
    std::string parts = absl::StrCat(model_hash_, "\n", ProtoToLine(variant.pipeline), "\n", ProtoToLine(request), "\n", data_hash, "\n",
                                     code_version_, "\n", machine_.kernel_table());
    // Latency and divergence are measured against the baseline.
    if (request.has_latency() || request.has_divergence()) absl::StrAppend(&parts, "\n", ProtoToLine(experiment_.variants[0].pipeline));
    return Job{&request, Sha256(absl::StrCat(variant.name, "\n", parts)), data_hash};
  }

  absl::Status RunVariant(size_t index) {
    const ExpandedVariant& variant = *variants_[index];
    std::vector<Job> jobs;
    for (const MetricRequest& request : experiment_.metrics) {
      NIBBLE_ASSIGN_OR_RETURN(Job job, MakeJob(variant, request));
      if (log_.Finished(job.key)) {
        ++summary_.reused;
        ++started_;
      } else {
        jobs.push_back(std::move(job));
      }
    }
    if (jobs.empty()) return absl::OkStatus();
    if (!variant.is_baseline && NeedsBaseline(jobs) && baseline_ == nullptr) NIBBLE_RETURN_IF_ERROR(BuildBaseline());
    Context context(measurer_.pool(), Work());
    const Clock::time_point start = Clock::now();
    auto built = Build(index, context);
    if (built.ok()) std::fprintf(stderr, "%s: built in %.1f s\n", variant.name.c_str(), Seconds(start));
    for (const LossCurve& curve : context.curves()) PrintCurve(curve);
    for (const Job& job : jobs) NIBBLE_RETURN_IF_ERROR(RunJob(variant, job, built, context));
    if (variant.is_baseline && built.ok() && BaselineStays()) baseline_ = std::make_unique<BuiltModel>(*std::move(built));
    return absl::OkStatus();
  }

  Workplace Work() const {
    return {model_.source.tokenizer.get(), experiment_.directory, options_.work, model_hash_};
  }

  static void PrintCurve(const LossCurve& curve) {
    std::fprintf(stderr, "  %s: %zu updates, loss %.4f -> %.4f%s%s%s\n", curve.label.c_str(), curve.loss.size(), curve.loss.front(),
                 LastLoss(curve.loss), curve.reused ? ", made before" : "", curve.log.empty() ? "" : "; every update: ", curve.log.c_str());
  }

  static bool NeedsBaseline(const std::vector<Job>& jobs) {
    return std::any_of(jobs.begin(), jobs.end(), [](const Job& job) { return job.request->has_latency() || job.request->has_divergence(); });
  }

  bool BaselineStays() const { return AsksFor(&MetricRequest::has_latency) || AsksFor(&MetricRequest::has_divergence); }

  absl::Status BuildBaseline() {
    Context context(measurer_.pool(), Work());
    auto built = Build(0, context);
    // Its own jobs have reported a failure; those that need it will too.
    if (built.ok()) baseline_ = std::make_unique<BuiltModel>(*std::move(built));
    return absl::OkStatus();
  }

  absl::StatusOr<BuiltModel> Build(size_t index, Context& context) {
    const ExpandedVariant& variant = *variants_[index];
    BuiltModel built{variant.name, PipelineToString(variant.pipeline.step()), model_.graph, nullptr};
    NIBBLE_RETURN_IF_ERROR(shared_->Apply(index, context, built.graph));
    NIBBLE_ASSIGN_OR_RETURN(const auto* table, kernels::ChooseTable());
    NIBBLE_ASSIGN_OR_RETURN(built.plan, Plan::Create(built.graph, *table));
    if (!built.plan->simulated_ops().empty()) {
      context.CountEvent("simulated_arithmetic", static_cast<int64_t>(built.plan->simulated_ops().size()),
                         absl::StrCat("no kernel for the schemes of ", built.plan->simulated_ops()[0]));
    }
    return built;
  }

  absl::StatusOr<std::vector<Metric>> Measure(const MetricRequest& request, const BuiltModel& model, bool is_baseline) {
    if (request.has_memory()) return measurer_.MeasureMemory(request.memory(), model, options_.out);
    return measurer_.Measure(request, model, is_baseline ? &model : baseline_.get());
  }

  absl::Status RunJob(const ExpandedVariant& variant, const Job& job, const absl::StatusOr<BuiltModel>& built, const Context& context) {
    JobResult result;
    result.set_key(job.key);
    result.set_variant(variant.name);
    result.set_is_baseline(variant.is_baseline);
    result.set_pipeline(PipelineToString(variant.pipeline.step()));
    result.set_job(ProtoToLine(*job.request));
    result.set_code_version(code_version_);
    result.set_data_hash(job.data_hash);
    *result.mutable_machine() = machine_;
    const Clock::time_point start = Clock::now();
    absl::StatusOr<std::vector<Metric>> metrics = built.ok() ? Measure(*job.request, *built, variant.is_baseline) : built.status();
    result.set_seconds(Seconds(start));
    result.set_measured_at(absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::Now(), absl::UTCTimeZone()));
    for (const auto& [what, event] : context.events()) {
      Event* counted = result.add_event();
      counted->set_what(what);
      counted->set_count(event.count);
      counted->set_detail(event.detail);
    }
    for (const LossCurve& curve : context.curves()) *result.add_training() = ToProto(curve);
    for (const LayerError& error : context.layer_errors()) *result.add_layer() = ToProto(error);
    for (const ReportTable& table : context.tables()) *result.add_table() = ToProto(table);
    if (metrics.ok()) {
      for (Metric& metric : *metrics) *result.add_metric() = std::move(metric);
      ++summary_.done;
    } else {
      // A message may quote a file's bytes, and results are JSON.
      result.set_error(text::WellFormed(metrics.status().message()));
      ++summary_.failed;
    }
    ++started_;
    PrintJob(result);
    return log_.Append(result);
  }

  void PrintJob(const JobResult& result) const {
    std::string text = result.has_error() ? absl::StrCat("FAILED: ", result.error()) : "";
    for (const Metric& metric : result.metric()) {
      const bool withheld = metric.arithmetic() == SIMULATED && (metric.aggregate() == Metric::RATE || metric.aggregate() == Metric::TIME);
      absl::StrAppend(&text, text.empty() ? "" : ", ", metric.name(), " ", withheld ? "simulated" : absl::StrFormat("%.5g", metric.value()));
    }
    const double elapsed = Seconds(start_);
    const double left = elapsed / std::max(1, started_ - summary_.reused) * (total_ - started_);
    std::fprintf(stderr, "[%d/%d, %s left] %s: %s (%.1f s)\n", started_, total_, FormatSeconds(left).c_str(), result.variant().c_str(),
                 text.c_str(), result.seconds());
  }

  const ExpandedExperiment& experiment_;
  const RunOptions& options_;
  const OpenedModel model_;
  ResultLog log_;
  const std::string model_hash_, code_version_;
  Measurer measurer_;
  Machine machine_;
  std::vector<const ExpandedVariant*> variants_;  // those that run, the baseline first
  std::unique_ptr<SharedSteps> shared_;           // of their pipelines
  std::unique_ptr<BuiltModel> baseline_;
  const Clock::time_point start_ = Clock::now();
  int started_ = 0, total_ = 0;
  RunSummary summary_;
};

}  // namespace

absl::StatusOr<RunSummary> RunExperiment(const ExpandedExperiment& experiment, const RunOptions& options) {
  NIBBLE_RETURN_IF_ERROR(MakeDirectories(options.out));
  NIBBLE_ASSIGN_OR_RETURN(ResultLog log, ResultLog::Open(options.out));
  NIBBLE_ASSIGN_OR_RETURN(OpenedModel model, OpenModel(experiment.config.model().source()));
  NIBBLE_RETURN_IF_ERROR(CheckFitsMemory(model));
  NIBBLE_ASSIGN_OR_RETURN(std::string model_hash, model.source.Hash());
  // The program's own bytes are the code version: any change may move a number.
  NIBBLE_ASSIGN_OR_RETURN(std::string code_version, Sha256OfFile("/proc/self/exe"));
  return Runner(experiment, options, std::move(model), std::move(log), std::move(model_hash), std::move(code_version)).Run();
}

}  // namespace nibble
