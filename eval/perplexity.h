// Perplexity: exp of the mean negative log-likelihood of the scored tokens.
#ifndef NIBBLE_EVAL_PERPLEXITY_H_
#define NIBBLE_EVAL_PERPLEXITY_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "eval/result.pb.h"
#include "eval/windows.h"

namespace nibble::eval {

struct PerplexityRecords : TextRecords {
  std::vector<float> nll;        // nats, [windows, predictions]
  std::vector<int32_t> targets;  // the tokens predicted, likewise
};

absl::StatusOr<PerplexityRecords> RecordPerplexity(const Plan& plan, ThreadPool& pool, const TextWindows& windows);

// "perplexity/<set>"; a block is a window: the sum of its negative
// log-likelihoods in nats and the number of its predictions.
absl::StatusOr<std::vector<Metric>> MetricsOf(const PerplexityRecords& records);

// Both.
absl::StatusOr<std::vector<Metric>> MeasurePerplexity(const Plan& plan, ThreadPool& pool, const TextWindows& windows);

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_PERPLEXITY_H_
