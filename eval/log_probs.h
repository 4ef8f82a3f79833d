// Log-probabilities from final hidden states: the core that perplexity, task
// scores and divergence share.
//
// Logits are fp32 as the head gives them:
//   -log p(t) = logsumexp(l) - l_t,  logsumexp(l) = m + log sum_i exp(l_i - m), m = max(l).
// Scores of many targets take the exponentials of the float kernels (relative
// error below 4e-7), summed in fp32 over kSumChunk logits and in fp64 beyond, and
// are rounded to fp32; everything else is fp64.
// Each row is summed in order of the vocabulary by one thread, so the numbers
// are the same for any pool.
#ifndef NIBBLE_EVAL_LOG_PROBS_H_
#define NIBBLE_EVAL_LOG_PROBS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/thread_pool.h"
#include "core/runtime/session.h"

namespace nibble::eval {

// Memory for logits at one time.
inline constexpr int64_t kLogitBytes = int64_t{64} << 20;

// Rows of logits that fit `bytes`, at least 1.
int64_t LogitRows(int64_t vocab_size, int64_t bytes = kLogitBytes);

// logsumexp of n > 0 logits; not finite when a logit is not.
double LogSumExp(const float* logits, int64_t n);

// The same with the exponentials of the kernels; the logits are lost.
inline constexpr int64_t kSumChunk = 512;
double FastLogSumExp(const kernels::KernelTable& table, float* logits, int64_t n);

// Index of the largest logit, the first on ties.
int64_t ArgMax(const float* logits, int64_t n);

// "the logits of row r are not finite".
absl::Status NotFinite(int64_t row);

struct TargetScores {
  std::vector<float> nll;       // -log p of each target, as raw records keep it (raw_records.h)
  std::vector<uint8_t> is_top;  // 1 where the target is the argmax; empty unless asked for
};

// Scores targets[i] with the logits of row i of `hidden` [targets.size(),
// hidden_size]. `session` is one of `plan`; its streams are not touched.
// Errors: a target outside the vocabulary, logits that are not finite.
absl::StatusOr<TargetScores> ScoreTargets(const Plan& plan, Session& session, ThreadPool& pool, const float* hidden,
                                          absl::Span<const int32_t> targets, bool want_top = false);

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_LOG_PROBS_H_
