// Variants that were run several times, alike but for a seed: each metric over
// the repetitions.
#ifndef NIBBLE_REPORTS_REPETITIONS_H_
#define NIBBLE_REPORTS_REPETITIONS_H_

#include <optional>
#include <string>
#include <vector>

#include "eval/result.pb.h"
#include "eval/statistics.h"
#include "reports/run_table.h"

namespace nibble {

// One metric of one repetition. Pointers into the table's run and results.
struct RepeatedValue {
  const Repetition* repetition = nullptr;
  const Metric* metric = nullptr;      // null where no value counts
  const JobResult* failure = nullptr;  // the job that should have measured it
  std::string missing;                 // "failed", "not run", "simulated" or "not finite"; "" with a metric
};

// One metric of one repeated variant.
struct RepeatedMetric {
  std::string variant;  // Repetition.of
  std::string metric;
  std::vector<RepeatedValue> values;  // of every repetition, in the config's order
  size_t counted = 0;                 // of the values; the rest are missing
  std::optional<Spread> spread;       // of those that count
  Comparison comparison;              // theirs against the baseline (MeanComparison)
};

// By repeated variant, then metric. Metrics that no repetition has measured or
// failed to measure are left out.
std::vector<RepeatedMetric> RepeatedMetrics(const RunTable& table);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_REPETITIONS_H_
