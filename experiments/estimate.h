// What a job is thought to need, before it runs: time from the tokens that pass through the
// model, memory from the size of models and what learning holds beside them. It is rough,
// within a factor of two or three; it weighs what is left of a run, is printed by
// `--dry-run`, and a job whose memory is not there says so in place of taking it.
#ifndef NIBBLE_EXPERIMENTS_ESTIMATE_H_
#define NIBBLE_EXPERIMENTS_ESTIMATE_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "experiments/run_plan.h"

namespace nibble {

// Bytes of private memory of a build: its result, a layer in fp32, and what its steps learn
// with. The source's weights are mapped and take none.
double BuildMemory(const OpenedModel& model, const Pipeline& pipeline);
// Of a job that takes a metric of models whose files have so many bytes.
double MeasurementMemory(const MetricRequest& request, double model_bytes);

// An error where a job is thought to need more than `limit`, the bytes that it may have, or
// where that is 0 more than what is free on this machine.
absl::Status CheckJobMemory(double bytes, int64_t limit);

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
