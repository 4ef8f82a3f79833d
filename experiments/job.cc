#include "experiments/job.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <map>
#include <memory>
#include <new>
#include <set>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "core/base/file.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "core/ir/weight_errors.h"
#include "core/kernels/machine.h"
#include "core/text/utf8.h"
#include "experiments/estimate.h"
#include "experiments/measure.h"
#include "experiments/model_store.h"
#include "experiments/text_config.h"
#include "methods/method.h"
#include "reports/curve.h"

namespace nibble {
namespace {

// A process that SIGKILL ends is started again, up to so many times in all.
constexpr int kMostAttempts = 3;
// Points of a curve in a report.
constexpr size_t kCurvePoints = 200;
// An event of the model as a whole: what continues from a model counts its own.
constexpr char kSimulated[] = "simulated_arithmetic";

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

WeightError ToProto(const ir::WeightError& error) {
  WeightError proto;
  proto.set_linear(error.linear);
  if (error.error.has_value()) proto.set_error(*error.error);
  return proto;
}

Event ToProto(const std::string& what, const CountedEvent& event) {
  Event proto;
  proto.set_what(what);
  proto.set_count(event.count);
  proto.set_detail(event.detail);
  return proto;
}

// A message may quote a file's bytes, and reports are JSON.
std::string ErrorText(const absl::Status& status) { return text::WellFormed(status.message()); }

std::string ReportOf(const std::string& path, const JobPlaces& places) { return places.report.empty() ? ReportPath(path) : places.report; }

// Reads as a MeasurementReport too, whose error has the same name.
BuildReport ErrorReport(std::string why) {
  BuildReport report;
  report.set_error(std::move(why));
  return report;
}

ModelStore StoreOf(const Job& job) { return ModelStore(job.store(), {job.other_store().begin(), job.other_store().end()}); }

// Applies the steps of a build to a graph, from the longest beginning that is there.
class Builder {
 public:
  Builder(const Job& job, int64_t memory_limit, ThreadPool& pool) : job_(job), memory_limit_(memory_limit), pool_(pool), store_(StoreOf(job)) {}

  absl::StatusOr<BuildReport> Run() {
    NIBBLE_ASSIGN_OR_RETURN(const OpenedModel source, OpenModel(job_.model()));
    const auto& steps = job_.build().pipeline().step();
    int done = steps.size();
    while (done > 0 && !store_.Has(job_.build().key(done - 1))) --done;
    if (done == 0) return Apply(source, source.graph, 0);
    const std::string& key = job_.build().key(done - 1);
    NIBBLE_ASSIGN_OR_RETURN(begun_, store_.Report(key));
    for (TrainingCurve& curve : *begun_.mutable_training()) curve.set_reused(true);
    if (done == steps.size()) return begun_;
    NIBBLE_ASSIGN_OR_RETURN(OpenedModel model, OpenModel(store_.PathOf(key)));
    MarkRewritten(model.graph);
    return Apply(source, std::move(model.graph), done);
  }

 private:
  absl::StatusOr<BuildReport> Apply(const OpenedModel& source, ir::Graph graph, int done) {
    const Build& build = job_.build();
    const auto& steps = build.pipeline().step();
    NIBBLE_RETURN_IF_ERROR(CheckJobMemory(BuildMemory(source, build.pipeline()), memory_limit_));
    Context context(pool_, WorkplaceOf(source, job_.directory(), build.work(), job_.model_hash()));
    BuildRecord record;
    for (const Event& event : begun_.event()) {
      if (event.what() != kSimulated) record.events[event.what()] = {event.count(), event.detail()};
    }
    context.TakeUp(std::move(record));
    for (int i = done; i < steps.size(); ++i) {
      NIBBLE_RETURN_IF_ERROR(ApplyStep(context, steps[i], i, graph).status());
      const bool is_last = i + 1 == steps.size(), is_kept = std::find(build.keep().begin(), build.keep().end(), build.key(i)) != build.keep().end();
      if (is_last) NIBBLE_RETURN_IF_ERROR(TryPlan(graph, context));
      if (is_last || is_kept) {
        NIBBLE_ASSIGN_OR_RETURN(weights_, ir::WeightErrors(source.graph, graph, pool_));
        NIBBLE_RETURN_IF_ERROR(Save(source, graph, i, context));
      }
    }
    return ReportOf(graph, context);
  }

  // As the build that made the beginning left them: a stored model does not say.
  void MarkRewritten(ir::Graph& graph) const {
    const std::set<std::string> names(begun_.rewritten().begin(), begun_.rewritten().end());
    for (size_t id = 0; id < graph.parameters().size(); ++id) {
      ir::Parameter& parameter = graph.mutable_parameter(static_cast<ir::ParameterId>(id));
      if (names.count(parameter.name()) > 0) parameter.MarkRewritten();
    }
  }

  static std::set<std::string> RewrittenOf(const ir::Graph& graph) {
    std::set<std::string> names;
    for (const ir::Parameter& parameter : graph.parameters()) {
      if (parameter.rewritten()) names.insert(parameter.name());
    }
    return names;
  }

  // What has no kernel is told once, with the model.
  static absl::Status TryPlan(const ir::Graph& graph, Context& context) {
    NIBBLE_ASSIGN_OR_RETURN(const auto* table, kernels::ChooseTable());
    NIBBLE_ASSIGN_OR_RETURN(const auto plan, Plan::Create(graph, *table));
    if (plan->simulated_ops().empty()) return absl::OkStatus();
    context.CountEvent(kSimulated, static_cast<int64_t>(plan->simulated_ops().size()),
                       absl::StrCat("no kernel for the schemes of ", plan->simulated_ops()[0]));
    return absl::OkStatus();
  }

  absl::Status Save(const OpenedModel& source, const ir::Graph& graph, int step, const Context& context) {
    const auto& steps = job_.build().pipeline().step();
    return store_.Put(job_.build().key(step), source.source, graph, PipelineToString({steps.begin(), steps.begin() + step + 1}), ReportOf(graph, context));
  }

  BuildReport ReportOf(const ir::Graph& graph, const Context& context) const {
    BuildReport report = begun_;
    report.set_seconds(begun_.seconds() + absl::ToDoubleSeconds(absl::Now() - start_));
    report.clear_event();  // the context has taken them up
    for (const auto& [what, event] : context.events()) *report.add_event() = ToProto(what, event);
    for (const LossCurve& curve : context.curves()) *report.add_training() = ToProto(curve);
    for (const LayerError& error : context.layer_errors()) *report.add_layer() = ToProto(error);
    for (const ReportTable& table : context.tables()) *report.add_table() = ToProto(table);
    report.clear_weight();  // a beginning's are not those of the whole
    for (const ir::WeightError& error : weights_) *report.add_weight() = ToProto(error);
    const std::set<std::string> rewritten = RewrittenOf(graph);
    *report.mutable_rewritten() = {rewritten.begin(), rewritten.end()};
    return report;
  }

  const Job& job_;
  const int64_t memory_limit_;
  ThreadPool& pool_;
  ModelStore store_;
  BuildReport begun_;  // of the steps that were there
  std::vector<ir::WeightError> weights_;  // of the model saved last
  const absl::Time start_ = absl::Now();
};

absl::StatusOr<BuiltModel> Load(const ModelStore& store, const std::string& key) {
  NIBBLE_ASSIGN_OR_RETURN(OpenedModel model, OpenModel(store.PathOf(key)));
  BuiltModel built{store.PathOf(key), model.source.pipeline, std::move(model.graph), nullptr};
  NIBBLE_ASSIGN_OR_RETURN(const auto* table, kernels::ChooseTable());
  NIBBLE_ASSIGN_OR_RETURN(built.plan, Plan::Create(built.graph, *table));
  return built;
}

absl::StatusOr<std::vector<Metric>> Measure(const Job& job, int64_t memory_limit, MeasuredBeside* beside) {
  const Measurement& measurement = job.measurement();
  const MetricRequest& request = measurement.metric();
  const ModelStore store = StoreOf(job);
  const int64_t bytes = store.BytesOf(measurement.model_key()) + (measurement.has_baseline_key() ? store.BytesOf(measurement.baseline_key()) : 0);
  NIBBLE_RETURN_IF_ERROR(CheckJobMemory(MeasurementMemory(request, static_cast<double>(bytes)), memory_limit));
  if (request.has_memory()) return MeasureMemory(request.memory(), store.PathOf(measurement.model_key()), job.threads());
  NIBBLE_ASSIGN_OR_RETURN(const OpenedModel source, OpenModel(job.model()));
  NIBBLE_ASSIGN_OR_RETURN(const BuiltModel model, Load(store, measurement.model_key()));
  Measurer measurer(source.source, job.directory(), job.threads());
  if (!measurement.has_baseline_key()) return measurer.Measure(request, model, &model, beside);
  NIBBLE_ASSIGN_OR_RETURN(const BuiltModel baseline, Load(store, measurement.baseline_key()));
  return measurer.Measure(request, model, &baseline, beside);
}

// The report of a job that runs out of memory, which leaves none to make it in.
struct LastReport {
  std::string path, temporary, json;
  bool has_limit = false;
};
LastReport& TheLastReport() {
  static auto* report = new LastReport;
  return *report;
}

// Calls nothing that allocates. Of several threads the first ends the process.
[[noreturn]] void LeaveLastReport() {
  static std::atomic_flag begun = ATOMIC_FLAG_INIT;
  while (begun.test_and_set()) ::pause();
  const LastReport& last = TheLastReport();
  const auto write_to = [&](int fd) { return ::write(fd, last.json.data(), last.json.size()) == static_cast<ssize_t>(last.json.size()); };
  const int fd = ::open(last.temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd >= 0 && write_to(fd) && ::fsync(fd) == 0 && ::rename(last.temporary.c_str(), last.path.c_str()) == 0) ::_exit(0);
  write_to(STDERR_FILENO);
  ::_exit(1);
}

// Eigen and tensors throw without operator new's handler. Under a limit a thread whose stack finds no
// room is an error of the system's.
bool IsOutOfMemory(const std::exception_ptr& error) {
  if (error == nullptr) return false;
  try {
    std::rethrow_exception(error);
  } catch (const std::bad_alloc&) {
    return true;
  } catch (const std::system_error& of_system) {
    return TheLastReport().has_limit && of_system.code() == std::errc::resource_unavailable_try_again;
  } catch (...) {
    return false;
  }
}

}  // namespace

std::string ReportPath(absl::string_view path) { return absl::StrCat(absl::StripSuffix(path, ".textproto"), ".json"); }

absl::Status RunJobProcess(const std::vector<std::string>& arguments, const JobListeners& listeners, int* restarts) {
  std::vector<std::string> command = {"job", "--parent", absl::StrCat(::getpid())};
  command.insert(command.end(), arguments.begin(), arguments.end());
  for (*restarts = 0;; ++*restarts) {
    NIBBLE_ASSIGN_OR_RETURN(const Ending ending, RunSelfToEnd(command, listeners.text));
    if (ending.ok()) return absl::OkStatus();
    const std::string what = absl::StrCat("the job's process ", ending.signal != 0 ? "was " : "", ending.Text());
    // Any other end would come again.
    if (ending.signal != SIGKILL) return absl::AbortedError(what);
    if (*restarts + 1 == kMostAttempts) {
      return absl::AbortedError(absl::StrCat(what, "; so it ended ", kMostAttempts,
                                             " times: the kernel kills so where memory runs out (its log, dmesg, tells), or somebody did"));
    }
    listeners.line(what + "; starting it again");
  }
}

absl::Status WriteErrorReport(const std::string& path, const JobPlaces& places, const absl::Status& why) {
  NIBBLE_ASSIGN_OR_RETURN(const std::string json, ProtoToJson(ErrorReport(ErrorText(why))));
  return WriteFile(ReportOf(path, places), json);
}

void ReportWhenOutOfMemory(const std::string& path, const JobPlaces& places) {
  const BuildReport report =
      ErrorReport(places.memory_limit > 0 ? absl::StrCat("it took more than the ", places.memory_limit >> 20, " MiB of --memory-limit; raise the limit")
                                          : "its machine has no more memory for it; close other programs");
  LastReport& last = TheLastReport();
  last.path = ReportOf(path, places);
  last.temporary = TemporaryName(last.path);
  last.json = ProtoToJson(report).value();
  last.has_limit = places.memory_limit > 0;
  std::set_new_handler(LeaveLastReport);
  static const std::terminate_handler others = std::get_terminate();
  std::set_terminate([] {
    if (IsOutOfMemory(std::current_exception())) LeaveLastReport();
    others();
    std::abort();
  });
}

BuildReport DoBuild(const Job& job, int64_t memory_limit) {
  ThreadPool pool(ThreadsOrAll(job.threads()));
  const absl::StatusOr<BuildReport> built = Builder(job, memory_limit, pool).Run();
  if (built.ok()) return *built;
  return ErrorReport(ErrorText(built.status()));
}

MeasurementReport DoMeasurement(const Job& job, int64_t memory_limit) {
  MeasurementReport report;
  const absl::Time start = absl::Now();
  MeasuredBeside beside;
  const auto metrics = Measure(job, memory_limit, &beside);
  report.set_seconds(absl::ToDoubleSeconds(absl::Now() - start));
  if (!metrics.ok()) report.set_error(ErrorText(metrics.status()));
  else if (!beside.records.empty()) report.set_records(std::move(beside.records));
  *report.mutable_machine() = ThisMachine(ThreadsOrAll(job.threads()));
  if (beside.peaks.has_value()) eval::SetPeaks(*beside.peaks, beside.peak_threads, report.mutable_machine());
  for (const Metric& metric : metrics.value_or(std::vector<Metric>())) *report.add_metric() = metric;
  return report;
}

Machine ThisMachine(int threads) {
  const kernels::MachineInfo info = kernels::DescribeMachine();
  Machine machine;
  machine.set_cpu(info.cpu);
  machine.set_features(info.features);
  machine.set_kernel_table(info.kernel_table);
  machine.set_cpus(info.cpus);
  machine.set_threads(threads);
  return machine;
}

absl::StatusOr<Job> ReadJob(const std::string& path) {
  Job job;
  NIBBLE_RETURN_IF_ERROR(ReadTextFile(path, &job));
  if (job.has_build() == job.has_measurement()) return absl::InvalidArgumentError(absl::StrCat(path, ": needs a build or a measurement"));
  if (job.build().key_size() == job.build().pipeline().step_size()) return job;
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", job.build().key_size(), " keys for ", job.build().pipeline().step_size(), " steps"));
}

absl::Status DoJob(const std::string& path, const JobPlaces& places) {
  NIBBLE_ASSIGN_OR_RETURN(Job job, ReadJob(path));
  for (size_t i = 0; i < places.stores.size(); ++i) {
    if (i == 0) job.set_store(places.stores[i]);
    else job.add_other_store(places.stores[i]);
  }
  NIBBLE_ASSIGN_OR_RETURN(const std::string json, job.has_build() ? ProtoToJson(DoBuild(job, places.memory_limit))
                                                                   : ProtoToJson(DoMeasurement(job, places.memory_limit)));
  return WriteFile(ReportOf(path, places), json);
}

}  // namespace nibble
