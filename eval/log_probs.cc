#include "eval/log_probs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/ir/graph.h"

namespace nibble::eval {

int64_t LogitRows(int64_t vocab_size, int64_t bytes) {
  return std::max<int64_t>(1, bytes / (vocab_size * static_cast<int64_t>(sizeof(float))));
}

double LogSumExp(const float* logits, int64_t n) {
  const double top = *std::max_element(logits, logits + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(logits[i]) - top);
  return top + std::log(sum);
}

double FastLogSumExp(const kernels::KernelTable& table, float* logits, int64_t n) {
  float max = -std::numeric_limits<float>::infinity();
  double total = 0;
  for (int64_t i = 0; i < n; i += kSumChunk) {
    const double before = max;
    const float sum = table.softmax_step(logits + i, std::min(kSumChunk, n - i), &max);
    total = total * std::exp(before - static_cast<double>(max)) + static_cast<double>(sum);
  }
  return static_cast<double>(max) + std::log(total);
}

int64_t ArgMax(const float* logits, int64_t n) { return std::max_element(logits, logits + n) - logits; }

absl::Status NotFinite(int64_t row) {
  return absl::FailedPreconditionError(absl::StrCat("the logits of row ", row, " are not finite: a weight is NaN or infinite, or an activation overflowed; ",
                                                     "nibble inspect counts such weights"));
}

absl::StatusOr<TargetScores> ScoreTargets(const Plan& plan, Session& session, ThreadPool& pool, const float* hidden,
                                          absl::Span<const int32_t> targets, bool want_top) {
  const int64_t vocab = plan.vocab_size(), count = static_cast<int64_t>(targets.size());
  for (const int32_t target : targets) NIBBLE_RETURN_IF_ERROR(ir::CheckToken(target, vocab));
  const int64_t rows = std::min(LogitRows(vocab), std::max<int64_t>(1, count));
  const auto logits = std::make_unique_for_overwrite<float[]>(rows * vocab);
  TargetScores scores;
  scores.nll.resize(count);
  if (want_top) scores.is_top.resize(count);
  for (int64_t begin = 0; begin < count; begin += rows) {
    const int64_t n = std::min(rows, count - begin);
    NIBBLE_RETURN_IF_ERROR(session.Logits(hidden + begin * plan.hidden_size(), n, logits.get()));
    pool.ParallelFor(n, [&](int64_t i, int) {
      float* row = logits.get() + i * vocab;
      const int32_t target = targets[begin + i];
      const float score = row[target];
      if (want_top) scores.is_top[begin + i] = ArgMax(row, vocab) == target;
      scores.nll[begin + i] = static_cast<float>(FastLogSumExp(plan.table(), row, vocab) - score);
    });
  }
  for (int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(scores.nll[i])) return NotFinite(i);
  }
  return scores;
}

}  // namespace nibble::eval
