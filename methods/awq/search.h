// What AWQ computes for one weight matrix, or for those that read one input (Lin et al.,
// MLSys 2024, section 3).
#ifndef NIBBLE_METHODS_AWQ_SEARCH_H_
#define NIBBLE_METHODS_AWQ_SEARCH_H_

#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/thread_pool.h"
#include "core/calibration/batches.h"
#include "core/calibration/block_runner.h"
#include "core/quant/encoded.h"

namespace nibble {

// s_j = max(a_j, 1e-4)^ratio / sqrt(max s min s), a_j the mean magnitude of channel j.
std::vector<double> AwqScales(absl::Span<const double> mean_magnitude, double ratio);

// Q(W diag(s)) diag(1/s) for weights [rows, n], s of n channels; `scheme` has scales of rows
// or groups. `pool` may be null.
absl::StatusOr<std::vector<float>> RoundScaled(const QuantScheme& scheme, absl::Span<const float> weights, absl::Span<const double> scales,
                                               ThreadPool* pool = nullptr);

// Linears of a block that read one input, and where it shows how well they are scaled.
struct Trial {
  std::map<size_t, std::vector<float>> weights;  // by op, in full precision
  size_t inspected = 0;                          // the op whose output is to change least
};

// For each of `scales` the sum of squared changes of what the inspected op gives on `batches`
// when the trial's weights are RoundScaled by them. A batch runs up to the linears once and
// stays there while all scales are tried, with as many others as it takes to reach
// `most_kept` bytes; then the next ones come, so weights are rounded once for each such part.
// The runner has the trial's weights before and after.
absl::StatusOr<std::vector<double>> ChangesUnder(const QuantScheme& scheme, const Trial& trial, absl::Span<const std::vector<double>> scales,
                                                 absl::Span<const calibration::Batch> batches, int64_t most_kept,
                                                 calibration::BlockRunner& runner, ThreadPool& pool);

// Sum over tokens of |(W' - W) x|^2, for x [tokens, n].
double OutputError(absl::Span<const float> weights, absl::Span<const float> changed, absl::Span<const float> x, int64_t n);

// Weights clipped group by group to the largest magnitude times 1, 0.95 ... 0.55,
// whichever brings the group's part of the outputs for x [tokens, n] nearest after
// rounding.
absl::StatusOr<std::vector<float>> ClipWeights(const QuantScheme& scheme, absl::Span<const float> weights, absl::Span<const float> x, int64_t n,
                                               ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_METHODS_AWQ_SEARCH_H_
