// The results of a run as a table: variants down, metrics across, and for an
// empty cell the failed job that should have filled it.
#ifndef NIBBLE_REPORTS_RUN_TABLE_H_
#define NIBBLE_REPORTS_RUN_TABLE_H_

#include <map>
#include <set>
#include <string>
#include <vector>

#include "eval/result.pb.h"

namespace nibble {

class RunTable {
 public:
  // Keeps pointers into `run` and `results`, which must outlive it.
  //
  // Of two results for one cell the later counts; a job that failed at last
  // empties what it had measured before, and one that succeeded at last is no
  // failure. Results of variants that the run no longer names, or with keys that it
  // no longer plans (other steps, settings, data or program), are left out with a note.
  RunTable(const RunInfo& run, const std::vector<JobResult>& results);

  const RunInfo& run() const { return run_; }

  // In the config's order; in that of the results where the run names none.
  const std::vector<std::string>& variants() const { return variants_; }
  const std::string& baseline() const { return baseline_; }

  // RunInfo.metric_order, then whatever else was measured.
  const std::vector<std::string>& metrics() const { return metrics_; }

  // Null where nothing was measured.
  const Metric* Find(const std::string& variant, const std::string& metric) const;
  // The result that holds what Find finds; null likewise.
  const JobResult* Source(const std::string& variant, const std::string& metric) const;
  const Metric* Baseline(const std::string& metric) const { return Find(baseline_, metric); }

  // The results of a variant, in the log's order.
  const std::vector<const JobResult*>& Results(const std::string& variant) const;
  // What tells how the variant was built (pipeline, trainings, layers): the
  // latest of its results, an empty one without any. All jobs share the build.
  const JobResult& Build(const std::string& variant) const;
  const std::vector<const JobResult*>& Failures(const std::string& variant) const;

  // The failed job that leaves this cell empty, or null. What a failed job would
  // have measured is known from other variants where the same job succeeded; a
  // job that succeeded nowhere accounts for any empty cell.
  const JobResult* FailureBehind(const std::string& variant, const std::string& metric) const;

  // Whether `job` succeeded for some variant, so that its metrics are known.
  bool MetricsAreKnown(const JobResult& job) const { return job_metrics_.count(job.job()) > 0; }

  // Results behind the cells that hold the machine's peaks, taken beside their timings; by variant.
  const std::vector<const JobResult*>& timed() const { return timed_; }

  // That of the first of these; without any that of the results, which need not be the one
  // that the run was started on. Runs whose results hold no peaks may have them in their head.
  const Machine& machine() const;

  const std::vector<std::string>& notes() const { return notes_; }

 private:
  struct Cell {
    const Metric* metric = nullptr;
    const JobResult* result = nullptr;
  };

  const Cell* FindCell(const std::string& variant, const std::string& metric) const;
  // Whether a result has one of the run's keys; a run without keys takes all.
  bool IsCurrent(const JobResult& result) const;
  void ChooseVariants(const std::vector<JobResult>& results);
  void AddResult(const JobResult& result);
  void AddMetric(const JobResult& result, const Metric& metric);
  void DropJob(const JobResult& result);
  void AddMetricName(const std::string& name);
  void NoteMixedSources();
  void FindTimed();

  const RunInfo& run_;
  const std::set<std::string> planned_;
  std::vector<std::string> variants_;
  std::string baseline_;
  std::vector<std::string> metrics_;
  std::map<std::string, std::map<std::string, Cell>> cells_;
  std::map<std::string, std::vector<const JobResult*>> results_;
  std::map<std::string, std::vector<const JobResult*>> failures_;
  std::map<std::string, std::set<std::string>> job_metrics_;
  std::vector<const JobResult*> timed_;
  std::vector<std::string> notes_;
};

// Of two records: the same CPU, kernels and threads.
bool IsSameMachine(const Machine& a, const Machine& b);

// The parts of a metric of any variant, in the order in which they come.
std::vector<std::string> PartNames(const RunTable& table, const std::string& metric);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_RUN_TABLE_H_
