// What AWQ computes for one weight matrix (Lin et al., MLSys 2024, section 3).
#ifndef NIBBLE_METHODS_AWQ_SEARCH_H_
#define NIBBLE_METHODS_AWQ_SEARCH_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/thread_pool.h"
#include "core/quant/encoded.h"

namespace nibble {

// s_j = max(a_j, 1e-4)^ratio / sqrt(max s min s), a_j the mean magnitude of channel j.
std::vector<double> AwqScales(absl::Span<const double> mean_magnitude, double ratio);

// Q(W diag(s)) diag(1/s) for weights [rows, n], s of n channels.
absl::StatusOr<std::vector<float>> RoundScaled(const QuantScheme& scheme, absl::Span<const float> weights, absl::Span<const double> scales);

// Sum over tokens of |(W' - W) x|^2, for x [tokens, n].
double OutputError(absl::Span<const float> weights, absl::Span<const float> changed, absl::Span<const float> x, int64_t n);

// Weights clipped group by group to the largest magnitude times 1, 0.95 ... 0.55,
// whichever brings the group's part of the outputs for x [tokens, n] nearest after
// rounding.
absl::StatusOr<std::vector<float>> ClipWeights(const QuantScheme& scheme, absl::Span<const float> weights, absl::Span<const float> x, int64_t n,
                                               ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_METHODS_AWQ_SEARCH_H_
