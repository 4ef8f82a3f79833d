// How far a variant's predictions are from the baseline's, at the same
// positions of the same windows:
//   KL(base || variant) = sum_i p_i (log p_i - log q_i) in nats, over the whole
//   vocabulary, from fp64 log-softmaxes of both models' fp32 logits;
//   top-1 agreement: the share of positions with equal argmax (first on ties).
// A model has KL 0 from itself, exactly.
#ifndef NIBBLE_EVAL_DIVERGENCE_H_
#define NIBBLE_EVAL_DIVERGENCE_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "eval/result.pb.h"
#include "eval/windows.h"

namespace nibble::eval {

// KL(p || q) of two rows of n logits; rounding below 0 gives 0.
double KlDivergence(const float* p, const float* q, int64_t n);

// The baseline's final hidden states at every scored position, kept once for
// all variants: 4 * hidden_size bytes a position. Its logits are computed again
// for each variant, a few rows at a time.
class BaselineStates {
 public:
  // `plan` and `pool` must outlive the states.
  static absl::StatusOr<std::unique_ptr<BaselineStates>> Create(const Plan& plan, ThreadPool& pool,
                                                                TextWindows windows);

  const TextWindows& windows() const { return windows_; }
  int64_t vocab_size() const { return plan_.vocab_size(); }
  // Logits of scored positions [begin, begin + count) of a window.
  absl::Status Logits(size_t window, int64_t begin, int64_t count, float* logits);

 private:
  BaselineStates(const Plan& plan, TextWindows windows) : plan_(plan), windows_(std::move(windows)) {}

  const Plan& plan_;
  const TextWindows windows_;
  std::vector<std::vector<float>> hidden_;  // per window, [predictions, hidden_size]
  std::unique_ptr<Session> head_;           // evaluates the head only
};

// "kl/<set>" and "top1_agreement/<set>" of `variant` from the baseline; a block
// is a window. Error: a vocabulary of another size.
absl::StatusOr<std::vector<Metric>> MeasureDivergence(BaselineStates& baseline, const Plan& variant,
                                                      ThreadPool& pool);

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_DIVERGENCE_H_
