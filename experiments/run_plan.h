// RunPlan: a run of an experiment, cut into jobs before any of them starts: the models that
// its variants' steps make, the measurements that are taken of them, and the keys of both.
// Runs on this machine, on a cluster and in Bazel's actions, and `--dry-run`, go by it.
#ifndef NIBBLE_EXPERIMENTS_RUN_PLAN_H_
#define NIBBLE_EXPERIMENTS_RUN_PLAN_H_

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "eval/result.pb.h"
#include "experiments/expand.h"
#include "experiments/input_hashes.h"
#include "experiments/job.pb.h"
#include "experiments/model.h"

namespace nibble {

struct RunPlanOptions {
  std::vector<std::string> only;  // variants beside the baseline; all when empty
  int threads = 0;                // 0: the config's, or all CPUs
  std::string store;              // the folder of built models
  std::string work;               // where trainings are kept, to go on with or to take finished; "" keeps none
  std::string commit;             // of the source tree, for the report
  std::string command;            // what reproduces the run

  bool Takes(const ExpandedVariant& variant) const;
};

// One metric of a variant.
struct PlannedMeasurement {
  const MetricRequest* request = nullptr;
  std::string key;        // SHA-256 of everything that can move the result
  std::string data_hash;
};

struct PlannedVariant {
  const ExpandedVariant* variant = nullptr;
  std::vector<std::string> keys;  // of the models that its first 1, 2 ... steps make
  std::vector<bool> learns;       // whether step i learns or calibrates, so that its model is worth keeping
  std::vector<PlannedMeasurement> measurements;  // in the config's order

  const std::string& model_key() const { return keys.back(); }
};

// Whether it is taken against the baseline's model.
bool NeedsBaseline(const MetricRequest& request);

class RunPlan {
 public:
  // The errors of Make that need no model: an unknown variant in `only`; data that a step
  // learns from and a metric measures, or that is not there.
  static absl::Status Check(const ExpandedExperiment& experiment, const RunPlanOptions& options);
  // With what has been hashed for others.
  static absl::Status Check(const ExpandedExperiment& experiment, const RunPlanOptions& options, InputHashes& hashes);

  // Opens the model and hashes it, this program and every file that the experiment reads;
  // `experiment` must outlive the plan. Errors: a model that does not load or fit, data
  // that is not there, an unknown variant in `only`.
  static absl::StatusOr<RunPlan> Make(const ExpandedExperiment& experiment, RunPlanOptions options);
  // Of the experiment's model, opened.
  static absl::StatusOr<RunPlan> Make(const ExpandedExperiment& experiment, RunPlanOptions options, OpenedModel model);

  // Those that run, the baseline first.
  const std::vector<PlannedVariant>& variants() const { return variants_; }
  const PlannedVariant& baseline() const { return variants_[0]; }
  const ExpandedExperiment& experiment() const { return experiment_; }
  // Of each measurement of a variant, the metrics that it gives: those of the experiment's
  // metric_names from `first` on.
  struct Columns {
    size_t first = 0;
    std::vector<std::string> names;
  };
  const std::vector<Columns>& columns() const { return columns_; }
  const OpenedModel& model() const { return model_; }
  int threads() const { return threads_; }

  // run.json of the run, but for its machine.
  RunInfo Head() const;

  // `keep`: keys of models that its first steps make and others begin with.
  Job BuildJob(const PlannedVariant& variant, const std::set<std::string>& keep) const;
  Job MeasurementJob(const PlannedVariant& variant, const PlannedMeasurement& measurement) const;
  // Whether the job takes the baseline's model beside the variant's.
  static bool IsBeside(const PlannedVariant& variant, const PlannedMeasurement& measurement);

  // What is known of a measurement's result before it is taken.
  JobResult ResultOf(const PlannedVariant& variant, const PlannedMeasurement& measurement) const;

 private:
  RunPlan(const ExpandedExperiment& experiment, RunPlanOptions options, OpenedModel model);

  absl::Status NameColumns();
  absl::Status PlanVariants(InputHashes& hashes);
  absl::StatusOr<PlannedVariant> PlanVariant(const ExpandedVariant& variant, const std::string& root, InputHashes& hashes) const;
  absl::Status AddMeasurements(PlannedVariant& variant, InputHashes& hashes) const;
  Job NewJob() const;

  const ExpandedExperiment& experiment_;
  const RunPlanOptions options_;
  OpenedModel model_;
  const int threads_;
  std::string model_hash_, code_version_;
  std::string baseline_key_;              // of its model
  std::vector<std::string> result_keys_;  // of all variants
  std::vector<PlannedVariant> variants_;
  std::vector<Columns> columns_;
};

// Why a measurement's models are not there, or "". `baseline` is null where IsBeside is
// false.
std::string BuildError(const BuildReport& build, const BuildReport* baseline);

// Completes a result by the reports of its jobs. A measurement's report that is an error was
// never written: its models are not there, or its process did not come to its end.
void Complete(const BuildReport& build, const BuildReport* baseline, const absl::StatusOr<MeasurementReport>& measurement, JobResult* result);

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_RUN_PLAN_H_
