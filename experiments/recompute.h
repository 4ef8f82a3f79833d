// The quality metrics of a run's folder computed again from its raw records, without a model.
#ifndef NIBBLE_EXPERIMENTS_RECOMPUTE_H_
#define NIBBLE_EXPERIMENTS_RECOMPUTE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace nibble {

struct RecomputedMetric {
  std::string variant, metric;
  std::optional<double> value;  // from the records
  // Why there is none, or in what the metric differs from the stored one; "" where the two
  // are equal to the last bit, blocks and standard error included.
  std::string problem;
};

// Of every quality metric and distance that the run's report shows, in its order. Errors are
// those of ReadRunLog; records that are missing or damaged are problems of their metrics.
absl::StatusOr<std::vector<RecomputedMetric>> RecomputeMetrics(const std::string& dir);

// A line each, and one with their number.
std::string FormatRecomputed(const std::vector<RecomputedMetric>& metrics);

bool AllEqual(const std::vector<RecomputedMetric>& metrics);

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_RECOMPUTE_H_
