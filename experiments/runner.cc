#include "experiments/runner.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "core/base/file.h"
#include "core/base/memory.h"
#include "core/base/progress.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "core/base/subprocess.h"
#include "core/base/suggest.h"
#include "core/base/thread_pool.h"
#include "core/kernels/machine.h"
#include "core/text/utf8.h"
#include "experiments/input_hashes.h"
#include "experiments/job.h"
#include "experiments/model_store.h"
#include "experiments/result_log.h"
#include "experiments/slurm.h"
#include "methods/method.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// A process that is killed is started again, up to so many times in all.
constexpr int kMostAttempts = 3;
// Of what a build reads and holds, and of a model's folder, when it runs: pages of weights
// that were packed are given back, but not at once.
constexpr double kBuildMemory = 2, kMeasurementMemory = 1.5;

bool NeedsBaseline(const MetricRequest& request) { return request.has_latency() || request.has_divergence(); }

// Keeps other runs out of a folder; a run that ends in any way lets go of it.
class FolderLock {
 public:
  static absl::StatusOr<FolderLock> Take(const std::string& folder) {
    const std::string path = folder + "/.lock";
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) return absl::FailedPreconditionError(absl::StrCat("cannot write ", path));
    FolderLock lock(fd);
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return lock;
    std::fprintf(stderr, "another run works in %s; waiting for it\n", folder.c_str());
    if (::flock(fd, LOCK_EX) == 0) return lock;
    return absl::FailedPreconditionError(absl::StrCat("cannot lock ", path));
  }
  ~FolderLock() {
    if (fd_ >= 0) ::close(fd_);
  }
  FolderLock(FolderLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FolderLock& operator=(FolderLock&&) = delete;

 private:
  explicit FolderLock(int fd) : fd_(fd) {}
  int fd_;
};

// A job, the name of its file and the memory that it is thought to need.
struct PlannedJob {
  Job job;
  std::string name;
  double memory = 0;
};

// Starts a process for a job and gives its report.
class JobStarter {
 public:
  JobStarter(std::string folder, int64_t memory_limit) : folder_(std::move(folder)), memory_limit_(memory_limit) {}

  // Report: BuildReport or MeasurementReport; one that a cluster has left is taken. An
  // error: the process did not come to its end; `restarts` is how often it was started
  // again.
  template <typename Report>
  absl::StatusOr<Report> Run(const PlannedJob& planned, int* restarts) {
    const std::string path = PathOf(planned);
    if (!FileExists(ReportPath(path))) {
      NIBBLE_RETURN_IF_ERROR(CheckMemory("this job", planned.memory, "close other programs, or raise --memory-limit", FreeMemory()));
      NIBBLE_RETURN_IF_ERROR(Write(planned).status());
      NIBBLE_RETURN_IF_ERROR(RunToEnd(path, restarts));
    }
    const auto json = ReadFile(ReportPath(path));
    std::error_code ignored;
    for (const std::string& file : {path, ReportPath(path), LogOf(path)}) std::filesystem::remove(file, ignored);
    NIBBLE_RETURN_IF_ERROR(json.status());
    Report report;
    NIBBLE_RETURN_IF_ERROR(JsonToProto(*json, &report));
    return report;
  }

  // Writes the job's file and gives its path.
  absl::StatusOr<std::string> Write(const PlannedJob& planned) const {
    NIBBLE_RETURN_IF_ERROR(MakeDirectories(folder_));
    NIBBLE_RETURN_IF_ERROR(WriteFile(PathOf(planned), ProtoToText(planned.job)));
    return PathOf(planned);
  }

  bool HasReport(const PlannedJob& planned) const { return FileExists(ReportPath(PathOf(planned))); }

 private:
  std::string PathOf(const PlannedJob& planned) const { return absl::StrCat(folder_, "/", planned.name, ".textproto"); }

  int64_t FreeMemory() const { return memory_limit_ > 0 ? std::min(memory_limit_, AvailableMemory()) : AvailableMemory(); }

  absl::Status RunToEnd(const std::string& path, int* restarts) const {
    std::vector<std::string> arguments = {"job", path, "--parent", absl::StrCat(::getpid())};
    if (memory_limit_ > 0) arguments.insert(arguments.end(), {"--memory-limit", absl::StrCat(memory_limit_ >> 20)});
    for (*restarts = 0;; ++*restarts) {
      NIBBLE_ASSIGN_OR_RETURN(const Ending ending, RunSelfToEnd(arguments));
      if (ending.ok()) return absl::OkStatus();
      const std::string what = absl::StrCat("the job's process ", ending.signal != 0 ? "was " : "", ending.Text());
      if (ending.signal == 0) return absl::AbortedError(what);
      if (*restarts + 1 == kMostAttempts) return absl::AbortedError(absl::StrCat(what, "; so it ended ", kMostAttempts, " times"));
      std::fprintf(stderr, "%s; starting it again\n", what.c_str());
    }
  }

  const std::string folder_;
  const int64_t memory_limit_;
};

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
        threads_(ThreadsOrAll(options.threads > 0 ? options.threads : experiment.config.threads())),
        hashes_(experiment.directory),
        models_folder_(options.out + "/models"),
        jobs_folder_(options.out + "/jobs"),
        store_(models_folder_),
        starter_(jobs_folder_, options.memory_limit) {}

  absl::StatusOr<RunSummary> Run() {
    NIBBLE_RETURN_IF_ERROR(ChooseVariants());
    DescribeThisMachine();
    NIBBLE_RETURN_IF_ERROR(WriteHead());
    NIBBLE_RETURN_IF_ERROR(PlanWork());
    if (options_.backend == RunOptions::Backend::kSlurm) NIBBLE_RETURN_IF_ERROR(RunOnCluster());
    for (size_t i = 0; i < work_.size(); ++i) {
      NIBBLE_RETURN_IF_ERROR(RunVariant(i));
      NIBBLE_RETURN_IF_ERROR(store_.KeepOnly(WantedAfter(i)));
    }
    std::error_code ignored;
    std::filesystem::remove_all(jobs_folder_, ignored);
    return summary_;
  }

 private:
  struct Task {  // one metric of a variant
    const MetricRequest* request;
    std::string key, data_hash;
  };
  struct Work {  // a variant that has something to do
    const ExpandedVariant* variant;
    std::vector<std::string> keys;  // of the models that its first 1, 2 ... steps make
    std::vector<bool> learns;       // whether step i learns or calibrates, so that its model is worth keeping
    std::vector<Task> tasks;        // that have no result
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

  void DescribeThisMachine() {
    const kernels::MachineInfo info = kernels::DescribeMachine();
    machine_.set_cpu(info.cpu);
    machine_.set_features(info.features);
    machine_.set_kernel_table(info.kernel_table);
    machine_.set_cpus(info.cpus);
    machine_.set_threads(threads_);
    const auto& metrics = experiment_.metrics;
    if (std::none_of(metrics.begin(), metrics.end(), [](const MetricRequest& m) { return m.has_latency(); })) return;
    std::fprintf(stderr, "measuring the machine's memory bandwidth and fp32 peak\n");
    machine_.set_read_bandwidth_gb_s(kernels::MeasureReadBandwidth(threads_));
    machine_.set_fma_peak_gflop_s(kernels::MeasureFmaPeak(threads_));
  }

  absl::Status WriteHead() const {
    RunInfo info;
    info.set_name(experiment_.config.name());
    info.set_config_path(experiment_.path);
    info.set_config(ProtoToText(experiment_.config));
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

  // Everything that can move what a step makes names its model, those before it included.
  absl::Status AddKeys(const ExpandedVariant& variant, Work* work) {
    std::string made = Sha256(absl::StrCat(model_hash_, "\n", code_version_, "\n", machine_.kernel_table()));
    for (const Step& step : variant.pipeline.step()) {
      made = Sha256(absl::StrCat(made, "\n", ProtoToLine(step), "\n", hashes_.OfStep(step)));
      work->keys.push_back(made);
      NIBBLE_ASSIGN_OR_RETURN(const auto method, MakeMethod(step));
      work->learns.push_back(method->learns());
    }
    return absl::OkStatus();
  }

  absl::Status PlanWork() {
    for (const ExpandedVariant* variant : variants_) {
      Work work{variant, {}, {}, {}};
      NIBBLE_RETURN_IF_ERROR(AddKeys(*variant, &work));
      if (variant->is_baseline) baseline_ = work;
      for (const MetricRequest& request : experiment_.metrics) {
        NIBBLE_ASSIGN_OR_RETURN(const std::string data_hash, hashes_.OfMetric(request));
        std::string parts = absl::StrCat(variant->name, "\n", work.keys.back(), "\n", ProtoToLine(request), "\n", data_hash);
        if (NeedsBaseline(request)) absl::StrAppend(&parts, "\n", baseline_.keys.back());
        const std::string key = Sha256(parts);
        if (log_.Finished(key)) ++summary_.reused;
        else work.tasks.push_back({&request, key, data_hash});
      }
      total_ += static_cast<int>(work.tasks.size());
      if (!work.tasks.empty()) work_.push_back(std::move(work));
    }
    total_ += summary_.reused;
    started_ = summary_.reused;
    return absl::OkStatus();
  }

  // Models that variants after `index` begin with or are measured against.
  std::set<std::string> WantedAfter(size_t index) const {
    std::set<std::string> wanted;
    for (size_t i = index + 1; i < work_.size(); ++i) wanted.insert(work_[i].keys.begin(), work_[i].keys.end());
    if (index + 1 < work_.size()) wanted.insert(baseline_.keys.back());
    return wanted;
  }

  Job NewJob() const {
    Job job;
    job.set_model(model_.source.source);
    job.set_model_hash(model_hash_);
    job.set_directory(experiment_.directory);
    job.set_threads(threads_);
    job.set_store(models_folder_);
    return job;
  }

  PlannedJob BuildJob(const Work& work, const std::set<std::string>& wanted) const {
    Job job = NewJob();
    Build& build = *job.mutable_build();
    *build.mutable_pipeline() = work.variant->pipeline;
    build.set_work(options_.work);
    for (size_t i = 0; i < work.keys.size(); ++i) {
      build.add_key(work.keys[i]);
      if (work.learns[i] && wanted.count(work.keys[i]) > 0) build.add_keep(work.keys[i]);
    }
    return {std::move(job), absl::StrCat("build-", work.keys.back().substr(0, 16)), kBuildMemory * static_cast<double>(model_.source.weight_bytes)};
  }

  static bool IsBeside(const Work& work, const Task& task) { return !work.variant->is_baseline && NeedsBaseline(*task.request); }

  PlannedJob MeasurementJob(const Work& work, const Task& task) const {
    Job job = NewJob();
    Measurement& measurement = *job.mutable_measurement();
    *measurement.mutable_metric() = *task.request;
    measurement.set_model_key(work.keys.back());
    auto bytes = static_cast<double>(store_.BytesOf(work.keys.back()));
    if (IsBeside(work, task)) {
      measurement.set_baseline_key(baseline_.keys.back());
      bytes += static_cast<double>(store_.BytesOf(baseline_.keys.back()));
    }
    return {std::move(job), absl::StrCat("measure-", task.key.substr(0, 16)), kMeasurementMemory * bytes};
  }

  // All builds, then all measurements, side by side. Their reports are then there to be
  // taken; what has none runs here.
  absl::Status RunOnCluster() {
    std::vector<PlannedJob> builds, measurements;
    std::set<std::string> keys;
    const auto add = [&](const Work& work, size_t index) {
      if (!store_.Has(work.keys.back()) && keys.insert(work.keys.back()).second) builds.push_back(BuildJob(work, WantedAfter(index)));
    };
    for (size_t i = 0; i < work_.size(); ++i) {
      const auto& tasks = work_[i].tasks;
      if (std::any_of(tasks.begin(), tasks.end(), [&](const Task& task) { return IsBeside(work_[i], task); })) add(baseline_, i);
      add(work_[i], i);
    }
    NIBBLE_RETURN_IF_ERROR(Submit(builds));
    for (const Work& work : work_) {
      if (!store_.Has(work.keys.back())) continue;
      for (const Task& task : work.tasks) measurements.push_back(MeasurementJob(work, task));
    }
    return Submit(measurements);
  }

  absl::Status Submit(const std::vector<PlannedJob>& jobs) const {
    std::vector<std::string> files;
    for (const PlannedJob& job : jobs) {
      if (starter_.HasReport(job)) continue;
      NIBBLE_ASSIGN_OR_RETURN(const std::string file, starter_.Write(job));
      files.push_back(std::filesystem::absolute(file).string());
    }
    const std::string name = experiment_.config.name().empty() ? "nibble" : experiment_.config.name();
    return RunOnSlurm(files, {name, std::filesystem::absolute(jobs_folder_).string(), options_.slurm_arguments, threads_});
  }

  // The report of the variant's model, which is then in the store unless the report says
  // why not.
  BuildReport EnsureBuilt(const Work& work, const std::set<std::string>& wanted) {
    const std::string& key = work.keys.back();
    if (store_.Has(key)) {
      auto report = store_.Report(key);
      if (report.ok()) return *std::move(report);
    }
    if (const auto failed = failed_.find(key); failed != failed_.end()) return failed->second;
    const Clock::time_point start = Clock::now();
    int restarts = 0;
    auto report = starter_.Run<BuildReport>(BuildJob(work, wanted), &restarts);
    if (!report.ok()) {
      BuildReport failed;
      failed.set_error(text::WellFormed(report.status().message()));
      report = std::move(failed);
    }
    CountRestarts(restarts, report->mutable_event());
    if (report->has_error()) return failed_[key] = *report;
    std::fprintf(stderr, "%s: built in %.1f s\n", work.variant->name.c_str(), Seconds(start));
    for (const TrainingCurve& curve : report->training()) PrintCurve(curve);
    return *std::move(report);
  }

  static void CountRestarts(int restarts, google::protobuf::RepeatedPtrField<Event>* events) {
    if (restarts == 0) return;
    Event* event = events->Add();
    event->set_what("job.restarted");
    event->set_count(restarts);
    event->set_detail("its process was killed");
  }

  static void PrintCurve(const TrainingCurve& curve) {
    if (curve.loss().empty()) return;
    std::fprintf(stderr, "  %s: %lld updates, loss %.4f -> %.4f%s\n", curve.label().c_str(), static_cast<long long>(curve.updates()),
                 curve.loss(0), curve.loss(curve.loss_size() - 1), curve.reused() ? ", made before" : "");
  }

  absl::Status RunVariant(size_t index) {
    const Work& work = work_[index];
    const std::set<std::string> wanted = WantedAfter(index);
    BuildReport baseline;
    const bool compares = std::any_of(work.tasks.begin(), work.tasks.end(), [](const Task& task) { return NeedsBaseline(*task.request); });
    if (!work.variant->is_baseline && compares) baseline = EnsureBuilt(baseline_, wanted);
    const BuildReport built = EnsureBuilt(work, wanted);
    for (const Task& task : work.tasks) NIBBLE_RETURN_IF_ERROR(RunTask(work, task, built, baseline));
    return absl::OkStatus();
  }

  absl::StatusOr<MeasurementReport> Measure(const Work& work, const Task& task, const BuildReport& built, const BuildReport& baseline, int* restarts) {
    if (built.has_error()) return absl::AbortedError(built.error());
    if (IsBeside(work, task) && baseline.has_error()) return absl::AbortedError(absl::StrCat("the baseline could not be built: ", baseline.error()));
    return starter_.Run<MeasurementReport>(MeasurementJob(work, task), restarts);
  }

  absl::Status RunTask(const Work& work, const Task& task, const BuildReport& built, const BuildReport& baseline) {
    JobResult result;
    result.set_key(task.key);
    result.set_variant(work.variant->name);
    result.set_is_baseline(work.variant->is_baseline);
    result.set_pipeline(PipelineToString(work.variant->pipeline.step()));
    result.set_job(ProtoToLine(*task.request));
    result.set_code_version(code_version_);
    result.set_data_hash(task.data_hash);
    *result.mutable_machine() = machine_;
    *result.mutable_event() = built.event();
    *result.mutable_training() = built.training();
    *result.mutable_layer() = built.layer();
    *result.mutable_table() = built.table();
    int restarts = 0;
    auto report = Measure(work, task, built, baseline, &restarts);
    if (report.ok()) result.set_seconds(report->seconds());
    result.set_measured_at(absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::Now(), absl::UTCTimeZone()));
    CountRestarts(restarts, result.mutable_event());
    if (!report.ok()) result.set_error(text::WellFormed(report.status().message()));
    else if (report->has_error()) result.set_error(report->error());
    else *result.mutable_metric() = std::move(*report->mutable_metric());
    ++(result.has_error() ? summary_.failed : summary_.done);
    ++started_;
    PrintTask(result);
    return log_.Append(result);
  }

  void PrintTask(const JobResult& result) const {
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
  const int threads_;
  InputHashes hashes_;
  const std::string models_folder_, jobs_folder_;
  ModelStore store_;
  JobStarter starter_;
  Machine machine_;
  std::vector<const ExpandedVariant*> variants_;  // those that run, the baseline first
  Work baseline_;
  std::vector<Work> work_;
  std::map<std::string, BuildReport> failed_;  // by the model's key
  const Clock::time_point start_ = Clock::now();
  int started_ = 0, total_ = 0;
  RunSummary summary_;
};

}  // namespace

absl::StatusOr<RunSummary> RunExperiment(const ExpandedExperiment& experiment, const RunOptions& options) {
  NIBBLE_RETURN_IF_ERROR(MakeDirectories(options.out));
  NIBBLE_ASSIGN_OR_RETURN(const FolderLock lock, FolderLock::Take(options.out));
  if (::isatty(STDERR_FILENO) != 0) ::setenv(kTerminalVariable, "1", 1);
  NIBBLE_ASSIGN_OR_RETURN(ResultLog log, ResultLog::Open(options.out));
  NIBBLE_ASSIGN_OR_RETURN(OpenedModel model, OpenModel(experiment.config.model().source()));
  NIBBLE_RETURN_IF_ERROR(CheckFitsMemory(model));
  NIBBLE_ASSIGN_OR_RETURN(std::string model_hash, model.source.Hash());
  // The program's own bytes are the code version: any change may move a number.
  NIBBLE_ASSIGN_OR_RETURN(std::string code_version, Sha256OfFile("/proc/self/exe"));
  return Runner(experiment, options, std::move(model), std::move(log), std::move(model_hash), std::move(code_version)).Run();
}

}  // namespace nibble
