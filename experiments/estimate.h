// What a job is thought to need, before it runs: time from the tokens that pass through the
// model, memory from the size of models and what learning holds beside them. It is rough,
// within a factor of two or three; it weighs what is left of a run, is printed by
// `--dry-run`, and a job whose memory is not there is not started.
#ifndef NIBBLE_EXPERIMENTS_ESTIMATE_H_
#define NIBBLE_EXPERIMENTS_ESTIMATE_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "experiments/run_plan.h"

namespace nibble {

// Bytes of private memory.
double BuildMemory(const RunPlan& plan, const PlannedVariant& variant);
// Of a job that loads models whose files have so many bytes.
double MeasurementMemory(double model_bytes);

class TimeEstimator {
 public:
  // `operations_per_second`: of the machine's products. The plan must outlive it.
  TimeEstimator(const RunPlan& plan, double operations_per_second);

  // Seconds.
  double OfBuild(const PlannedVariant& variant) const;
  double OfMeasurement(const PlannedVariant& variant, const PlannedMeasurement& measurement);

 private:
  double Tokens(const MetricRequest& request);
  double CountTokens(const MetricRequest& request) const;
  double TokensOfText(const std::string& name, int64_t window, int64_t limit) const;
  double TokensOfTask(const MetricRequest& request) const;

  const RunPlan& plan_;
  const double operations_per_second_;
  const double weights_;  // that a token is multiplied with
  std::map<const MetricRequest*, double> tokens_;
};

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_ESTIMATE_H_
