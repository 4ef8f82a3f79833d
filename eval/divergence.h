// How far a variant's predictions are from the baseline's, at the same
// positions of the same windows:
//   KL(base || variant) = sum_i p_i (log p_i - log q_i) in nats, over the whole
//   vocabulary, from fp64 log-softmaxes of both models' fp32 logits;
//   top-1 agreement: the share of positions with equal argmax (first on ties).
// A model has KL 0 from itself, exactly.
#ifndef NIBBLE_EVAL_DIVERGENCE_H_
#define NIBBLE_EVAL_DIVERGENCE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "eval/result.pb.h"
#include "eval/windows.h"

namespace nibble::eval {

// KL(p || q) of two rows of n logits; rounding below 0 gives 0.
double KlDivergence(const float* p, const float* q, int64_t n);

struct DivergenceRecords : TextRecords {
  std::vector<float> kl;       // nats, [windows, predictions]
  std::vector<uint8_t> agree;  // 1 where the two have one argmax, likewise
};

// Of `variant` from `baseline`, which may be the same plan. Both run over each batch of
// windows in turn, so memory grows with the text by these records alone. Error: a vocabulary
// of another size.
absl::StatusOr<DivergenceRecords> RecordDivergence(const Plan& baseline, const Plan& variant, ThreadPool& pool, const TextWindows& windows);

// "kl/<set>" and "top1_agreement/<set>"; a block is a window.
absl::StatusOr<std::vector<Metric>> MetricsOf(const DivergenceRecords& records);

// Both.
absl::StatusOr<std::vector<Metric>> MeasureDivergence(const Plan& baseline, const Plan& variant, ThreadPool& pool, const TextWindows& windows);

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_DIVERGENCE_H_
