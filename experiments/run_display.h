// What a run tells while it goes on: on a terminal a live table, elsewhere a line for each
// thing that has ended and the jobs' own lines between them.
#ifndef NIBBLE_EXPERIMENTS_RUN_DISPLAY_H_
#define NIBBLE_EXPERIMENTS_RUN_DISPLAY_H_

#include <chrono>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "core/base/subprocess.h"
#include "eval/result.pb.h"
#include "experiments/estimate.h"
#include "experiments/live_table.h"
#include "experiments/run_plan.h"
#include "experiments/time_left.h"

namespace nibble {

class RunDisplay {
 public:
  // The plan must outlive it; `jobs` of its measurements are to be done.
  RunDisplay(const RunPlan& plan, bool terminal, int jobs, double estimated_seconds);

  // Draws the table anew, under a line that stays ("" for none); without a terminal the line
  // is all.
  void Draw(const std::string& line = "");

  // A job starts here: the build of a variant's model, or one of its measurements (its place).
  void Start(const PlannedVariant& variant, std::optional<size_t> measurement, double estimated_seconds);
  // A build needs no job here.
  void Skip(double estimated_seconds) { time_.Skip(estimated_seconds); }
  // Something of its standard error: its progress.
  void Hear(absl::string_view text);
  // The build that was started has ended; of a model that is not there its results tell.
  void Built(const PlannedVariant& variant, const BuildReport& report);
  // `estimated_seconds`: of the measurement, which need not have been started here.
  void Measured(const PlannedVariant& variant, size_t measurement, const JobResult& result, double estimated_seconds);

  // A measurement that an earlier run has left.
  void Known(const PlannedVariant& variant, size_t measurement);

 private:
  using Clock = std::chrono::steady_clock;

  size_t RowOf(const PlannedVariant& variant) const;
  void SetCells(const PlannedVariant& variant, size_t measurement, const std::string& text);
  double Now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  // "[3/12, 0:40 left] TEXT".
  std::string WithProgress(const std::string& text) const;

  const RunPlan& plan_;
  const bool terminal_;
  const int jobs_;
  TimeLeft time_;
  LiveTable table_;
  int done_ = 0;
  std::string job_, heard_;  // what runs, and its last line
  LastLine last_line_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point drawn_;
};

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_RUN_DISPLAY_H_
