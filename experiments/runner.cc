#include "experiments/runner.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/file.h"
#include "core/base/memory.h"
#include "core/base/progress.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "core/text/utf8.h"
#include "experiments/estimate.h"
#include "experiments/job.h"
#include "experiments/model_store.h"
#include "experiments/result_log.h"
#include "experiments/run_display.h"
#include "experiments/slurm.h"

namespace nibble {
namespace {

// Operations a second, for estimates of which only ratios matter.
constexpr double kUsualOperations = 1e11;
// How names of jobs begin; the beginning of their key follows.
constexpr char kBuild[] = "build-", kMeasure[] = "measure-";

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

  // Whether a process has to be started for the job: there is no report of it, left by a
  // cluster or by a run that was killed, and no cluster has lost it.
  bool MustRun(const PlannedJob& planned) const { return !HasReport(planned) && lost_.count(planned.name) == 0; }

  // Report: BuildReport or MeasurementReport; it stays until Forget. An error: the process
  // did not come to its end; `restarts` is how often it was started again.
  template <typename Report>
  absl::StatusOr<Report> Run(const PlannedJob& planned, RunDisplay& display, int* restarts) {
    const std::string path = PathOf(planned);
    if (MustRun(planned)) {
      NIBBLE_RETURN_IF_ERROR(Write(planned).status());
      TellMemory(planned, display);
      NIBBLE_RETURN_IF_ERROR(RunToEnd(path, display, restarts));
    }
    const auto lost = lost_.find(planned.name);
    if (lost != lost_.end() && !HasReport(planned)) return absl::AbortedError(lost->second);
    NIBBLE_ASSIGN_OR_RETURN(const std::string json, ReadFile(ReportPath(path)));
    Report report;
    NIBBLE_RETURN_IF_ERROR(Annotate(JsonToProto(json, &report), ReportPath(path)));
    return report;
  }

  // Removes the job's files: what it has told is elsewhere.
  void Forget(const PlannedJob& planned) const {
    const std::string path = PathOf(planned);
    std::error_code ignored;
    for (const std::string& file : {path, ReportPath(path), LogOf(path)}) std::filesystem::remove(file, ignored);
  }

  // A cluster has ended the job in `file` without a report.
  void Lose(const std::string& file, const std::string& why) { lost_[std::filesystem::path(file).stem().string()] = why; }

  // Writes the job's file and gives its path.
  absl::StatusOr<std::string> Write(const PlannedJob& planned) const {
    NIBBLE_RETURN_IF_ERROR(MakeDirectories(folder_));
    NIBBLE_RETURN_IF_ERROR(WriteFile(PathOf(planned), ProtoToText(planned.job)));
    return PathOf(planned);
  }

  bool HasReport(const PlannedJob& planned) const { return FileExists(ReportPath(PathOf(planned))); }

  // What an interrupted run left: measurements that came to their end are taken, by their
  // keys; a build's report is in the store with its model, and an error may have lost its
  // cause.
  void ForgetLeftovers() const {
    std::error_code ignored;
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder_, ignored)) files.push_back(entry.path());
    for (const auto& file : files) {
      if (!IsMeasured(file)) std::filesystem::remove(file, ignored);
    }
  }

 private:
  static bool IsMeasured(const std::filesystem::path& file) {
    if (file.extension() != ".json" || !absl::StartsWith(file.filename().string(), kMeasure)) return false;
    const auto json = ReadFile(file.string());
    MeasurementReport report;
    return json.ok() && JsonToProto(*json, &report).ok() && !report.has_error();
  }

  std::string PathOf(const PlannedJob& planned) const { return absl::StrCat(folder_, "/", planned.name, ".textproto"); }

  // The job itself refuses what does not fit; a limit that the user gives lets it start.
  void TellMemory(const PlannedJob& planned, RunDisplay& display) const {
    const int64_t available = AvailableMemory();
    if (memory_limit_ == 0 || planned.memory > static_cast<double>(memory_limit_) || planned.memory <= static_cast<double>(available)) return;
    display.Draw(absl::StrFormat("WARNING: the next job is thought to need %.0f MiB, and %d MiB are free; --memory-limit lets it start", planned.memory / (1 << 20),
                                 available >> 20));
  }

  absl::Status RunToEnd(const std::string& path, RunDisplay& display, int* restarts) const {
    std::vector<std::string> arguments = {path};
    if (memory_limit_ > 0) arguments.insert(arguments.end(), {"--memory-limit", absl::StrCat(memory_limit_ >> 20)});
    return RunJobProcess(arguments, {[&](absl::string_view text) { display.Hear(text); }, [&](const std::string& line) { display.Draw(line); }}, restarts);
  }

  const std::string folder_;
  const int64_t memory_limit_;
  std::map<std::string, std::string> lost_;  // why, by the job's name
};

// Whether figures are the machine's that takes them.
bool IsOfMachine(const MetricRequest& request) { return request.has_latency() || request.has_memory(); }

std::string NameOf(const Machine& machine) { return absl::StrCat(machine.cpu(), " (kernels ", machine.kernel_table(), ")"); }

class Runner {
 public:
  Runner(const RunPlan& plan, const RunOptions& options, ResultLog log)
      : plan_(plan),
        options_(options),
        log_(std::move(log)),
        jobs_folder_(options.out + "/jobs"),
        store_(options.out + "/models"),
        starter_(jobs_folder_, options.memory_limit),
        machine_(ThisMachine(plan.threads())) {}

  absl::StatusOr<RunSummary> Run() {
    NIBBLE_RETURN_IF_ERROR(EndLeftArrays(jobs_folder_));
    starter_.ForgetLeftovers();
    NIBBLE_RETURN_IF_ERROR(WriteHead());
    PlanWork();
    if (options_.backend == RunOptions::Backend::kSlurm) NIBBLE_RETURN_IF_ERROR(RunOnCluster());
    for (size_t i = 0; i < work_.size(); ++i) {
      if (const absl::Status written = RunVariant(i); !written.ok()) return Stopped(written);
      std::set<std::string> wanted = WantedAfter(i);
      wanted.insert(to_retry_.begin(), to_retry_.end());
      NIBBLE_RETURN_IF_ERROR(store_.KeepOnly(wanted));
    }
    std::error_code ignored;
    std::filesystem::remove_all(jobs_folder_, ignored);
    return summary_;
  }

 private:
  struct Task {  // a measurement that has no result
    size_t place;
    double seconds;  // estimated
  };
  struct Work {  // a variant that has something to do
    const PlannedVariant* variant;
    std::vector<Task> tasks;

    const std::string& model_key() const { return variant->model_key(); }
  };

  const PlannedMeasurement& MeasurementOf(const Work& work, const Task& task) const { return work.variant->measurements[task.place]; }
  bool IsBeside(const Work& work, const Task& task) const { return RunPlan::IsBeside(*work.variant, MeasurementOf(work, task)); }
  bool ComparesWithBaseline(const Work& work) const {
    return std::any_of(work.tasks.begin(), work.tasks.end(), [&](const Task& task) { return IsBeside(work, task); });
  }

  // What does not get its result now is left for a run that can write it.
  RunSummary Stopped(const absl::Status& why) {
    const int left = planned_ - summary_.done - summary_.failed;
    summary_.failed += left;
    display_->Draw(absl::StrCat("STOPPED: ", why.message(), "; ", left, " measurements have no result. Reports that could not be taken are kept in ",
                                jobs_folder_, ": the same command goes on from them"));
    return summary_;
  }

  absl::Status WriteHead() {
    RunInfo info = plan_.Head();
    *info.mutable_machine() = machine_;
    NIBBLE_ASSIGN_OR_RETURN(const std::string json, ProtoToJson(info, /*pretty=*/true));
    return WriteFile(options_.out + "/run.json", json);
  }

  void PlanWork() {
    TimeEstimator estimator(plan_, kUsualOperations);
    std::vector<std::pair<const PlannedVariant*, size_t>> known;
    const auto plan_build = [&](const PlannedVariant& variant) {
      if (!store_.Has(variant.model_key())) build_seconds_.emplace(variant.model_key(), estimator.OfBuild(variant));
    };
    double seconds = 0;
    for (const PlannedVariant& variant : plan_.variants()) {
      Work work{&variant, {}};
      for (size_t i = 0; i < variant.measurements.size(); ++i) {
        if (log_.Finished(variant.measurements[i].key)) known.emplace_back(&variant, i);
        else work.tasks.push_back({i, estimator.OfMeasurement(variant, variant.measurements[i])});
      }
      if (work.tasks.empty()) continue;
      plan_build(variant);
      if (ComparesWithBaseline(work)) plan_build(plan_.baseline());
      for (const Task& task : work.tasks) seconds += task.seconds;
      planned_ += static_cast<int>(work.tasks.size());
      work_.push_back(std::move(work));
    }
    for (const auto& [key, of_build] : build_seconds_) seconds += of_build;
    summary_.reused = static_cast<int>(known.size());
    display_.emplace(plan_, ::isatty(STDERR_FILENO) != 0, planned_ + summary_.reused, seconds);
    for (const auto& [variant, place] : known) display_->Known(*variant, place);
  }

  // Models that variants after `index` begin with or are measured against.
  std::set<std::string> WantedAfter(size_t index) const {
    std::set<std::string> wanted;
    for (size_t i = index + 1; i < work_.size(); ++i) wanted.insert(work_[i].variant->keys.begin(), work_[i].variant->keys.end());
    if (index + 1 < work_.size()) wanted.insert(plan_.baseline().model_key());
    return wanted;
  }

  PlannedJob BuildJob(const PlannedVariant& variant, const std::set<std::string>& wanted) const {
    return {plan_.BuildJob(variant, wanted), absl::StrCat(kBuild, variant.model_key().substr(0, 16)),
            BuildMemory(plan_.model(), variant.variant->pipeline)};
  }

  PlannedJob MeasurementJob(const Work& work, const Task& task) const {
    const PlannedMeasurement& measurement = MeasurementOf(work, task);
    auto bytes = static_cast<double>(store_.BytesOf(work.model_key()));
    if (IsBeside(work, task)) bytes += static_cast<double>(store_.BytesOf(plan_.baseline().model_key()));
    return {plan_.MeasurementJob(*work.variant, measurement), absl::StrCat(kMeasure, measurement.key.substr(0, 16)),
            MeasurementMemory(*measurement.request, bytes)};
  }

  // All builds, then all measurements, side by side, then those that need a machine for
  // themselves. Their reports are then there to be taken.
  absl::Status RunOnCluster() {
    std::vector<PlannedJob> builds, measurements, of_machine;
    std::set<std::string> keys;
    const auto add = [&](const PlannedVariant& variant, size_t index) {
      if (!store_.Has(variant.model_key()) && keys.insert(variant.model_key()).second) builds.push_back(BuildJob(variant, WantedAfter(index)));
    };
    for (size_t i = 0; i < work_.size(); ++i) {
      if (ComparesWithBaseline(work_[i])) add(plan_.baseline(), i);
      add(*work_[i].variant, i);
    }
    NIBBLE_RETURN_IF_ERROR(Submit(builds, /*exclusive=*/false));
    for (const Work& work : work_) {
      for (const Task& task : work.tasks) {
        const bool is_built = store_.Has(work.model_key()) && (!IsBeside(work, task) || store_.Has(plan_.baseline().model_key()));
        if (is_built) (IsOfMachine(*MeasurementOf(work, task).request) ? of_machine : measurements).push_back(MeasurementJob(work, task));
      }
    }
    NIBBLE_RETURN_IF_ERROR(Submit(measurements, /*exclusive=*/false));
    return Submit(of_machine, /*exclusive=*/true);
  }

  absl::Status Submit(const std::vector<PlannedJob>& jobs, bool exclusive) {
    SlurmOptions slurm;
    slurm.name = plan_.experiment().config.name().empty() ? "nibble" : plan_.experiment().config.name();
    slurm.folder = std::filesystem::absolute(jobs_folder_).string();
    slurm.arguments = options_.slurm_arguments;
    slurm.threads = plan_.threads();
    slurm.memory_limit = options_.memory_limit;
    slurm.exclusive = exclusive;
    std::vector<std::string> files;
    for (const PlannedJob& job : jobs) {
      if (!starter_.MustRun(job)) continue;
      NIBBLE_ASSIGN_OR_RETURN(const std::string file, starter_.Write(job));
      files.push_back(std::filesystem::absolute(file).string());
      slurm.memory = std::max(slurm.memory, job.memory);
    }
    NIBBLE_ASSIGN_OR_RETURN(const auto lost, RunOnSlurm(files, slurm, [&](absl::string_view text) { display_->Hear(text); }));
    for (const auto& [file, why] : lost) starter_.Lose(file, why);
    return absl::OkStatus();
  }

  // The report of the variant's model, which is then in the store unless the report says
  // why not.
  BuildReport EnsureBuilt(const PlannedVariant& variant, const std::set<std::string>& wanted) {
    const std::string& key = variant.model_key();
    const double seconds = TakeBuildSeconds(key);
    if (store_.Has(key)) {
      auto report = store_.Report(key);
      if (report.ok()) {
        display_->Skip(seconds);
        return *std::move(report);
      }
    }
    if (const auto failed = failed_.find(key); failed != failed_.end()) return failed->second;
    const PlannedJob job = BuildJob(variant, wanted);
    if (starter_.MustRun(job)) display_->Start(variant, std::nullopt, seconds);
    else display_->Skip(seconds);
    int restarts = 0;
    auto report = starter_.Run<BuildReport>(job, *display_, &restarts);
    starter_.Forget(job);
    if (!report.ok()) {
      BuildReport failed;
      failed.set_error(text::WellFormed(report.status().message()));
      report = std::move(failed);
    }
    CountRestarts(restarts, report->mutable_event());
    display_->Built(variant, *report);
    if (report->has_error()) failed_[key] = *report;
    return *std::move(report);
  }

  // What the time left counts for a build, once.
  double TakeBuildSeconds(const std::string& key) {
    const auto node = build_seconds_.extract(key);
    return node.empty() ? 0 : node.mapped();
  }

  static void CountRestarts(int restarts, google::protobuf::RepeatedPtrField<Event>* events) {
    if (restarts == 0) return;
    Event* event = events->Add();
    event->set_what("job.restarted");
    event->set_count(restarts);
    event->set_detail("its process was killed");
  }

  absl::Status RunVariant(size_t index) {
    const Work& work = work_[index];
    const std::set<std::string> wanted = WantedAfter(index);
    BuildReport baseline;
    if (ComparesWithBaseline(work)) baseline = EnsureBuilt(plan_.baseline(), wanted);
    const BuildReport built = EnsureBuilt(*work.variant, wanted);
    for (const Task& task : work.tasks) NIBBLE_RETURN_IF_ERROR(RunTask(work, task, built, baseline));
    return absl::OkStatus();
  }

  // A measurement's key names the CPU and the kernels of this machine; a cluster's node may
  // have others.
  absl::StatusOr<MeasurementReport> OfThisMachine(const MetricRequest& request, absl::StatusOr<MeasurementReport> report) const {
    if (!report.ok() || report->has_error() || !IsOfMachine(request)) return report;
    const Machine& ran_on = report->machine();
    if (ran_on.cpu() == machine_.cpu() && ran_on.kernel_table() == machine_.kernel_table()) return report;
    return absl::FailedPreconditionError(absl::StrCat("it ran on ", NameOf(ran_on), ", and this run's timings and memory are those of ", NameOf(machine_),
                                                      "; start the run on a machine of the nodes' kind, or choose nodes of this one's (--slurm "
                                                      "--constraint=...)"));
  }

  // An error: the result could not be written.
  absl::Status RunTask(const Work& work, const Task& task, const BuildReport& built, const BuildReport& baseline_report) {
    const BuildReport* baseline = IsBeside(work, task) ? &baseline_report : nullptr;
    JobResult result = plan_.ResultOf(*work.variant, MeasurementOf(work, task));
    *result.mutable_machine() = machine_;
    int restarts = 0;
    absl::StatusOr<MeasurementReport> report = absl::AbortedError("its model was not built");
    const PlannedJob job = MeasurementJob(work, task);
    if (BuildError(built, baseline).empty()) {
      if (starter_.MustRun(job)) display_->Start(*work.variant, task.place, task.seconds);
      report = OfThisMachine(*MeasurementOf(work, task).request, starter_.Run<MeasurementReport>(job, *display_, &restarts));
    }
    Complete(built, baseline, report, &result);
    CountRestarts(restarts, result.mutable_event());
    NIBBLE_RETURN_IF_ERROR(log_.Append(result, report.ok() ? absl::string_view(report->records()) : ""));
    starter_.Forget(job);  // not before its result is written
    if (result.has_error()) KeepForRetry(work, task);
    ++(result.has_error() ? summary_.failed : summary_.done);
    display_->Measured(*work.variant, task.place, result, task.seconds);
    return absl::OkStatus();
  }

  // So that a run that tries the measurement again does not build for it.
  void KeepForRetry(const Work& work, const Task& task) {
    to_retry_.insert(work.model_key());
    if (IsBeside(work, task)) to_retry_.insert(plan_.baseline().model_key());
  }

  const RunPlan& plan_;
  const RunOptions& options_;
  ResultLog log_;
  const std::string jobs_folder_;
  ModelStore store_;
  JobStarter starter_;
  const Machine machine_;  // without its peaks, which are a timing's
  std::vector<Work> work_;
  int planned_ = 0;                              // measurements that have no result
  std::map<std::string, double> build_seconds_;  // estimated, of builds to come, by the model's key
  std::map<std::string, BuildReport> failed_;    // by the model's key
  std::set<std::string> to_retry_;               // models of measurements that failed
  std::optional<RunDisplay> display_;
  RunSummary summary_;
};

}  // namespace

absl::StatusOr<RunSummary> RunExperiment(const ExpandedExperiment& experiment, const RunOptions& options, const FolderLock&) {
  if (::isatty(STDERR_FILENO) != 0) ::setenv(kTerminalVariable, "1", 1);
  ::setenv(kBlasThreads, "1", 1);
  NIBBLE_ASSIGN_OR_RETURN(ResultLog log, ResultLog::Open(options.out));
  RunPlanOptions planned = options.plan;
  planned.store = options.out + "/models";
  NIBBLE_ASSIGN_OR_RETURN(const RunPlan plan, RunPlan::Make(experiment, std::move(planned)));
  return Runner(plan, options, std::move(log)).Run();
}

}  // namespace nibble
