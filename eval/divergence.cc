#include "eval/divergence.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "eval/log_probs.h"
#include "eval/metric.h"
#include "eval/statistics.h"

namespace nibble::eval {
namespace {

// Compares one window, some rows at a time.
class WindowComparer {
 public:
  WindowComparer(const Plan& baseline, const Plan& variant, ThreadPool& pool, int64_t predictions)
      : baseline_(baseline),
        variant_(variant),
        pool_(pool),
        predictions_(predictions),
        rows_(std::min(LogitRows(variant.vocab_size(), kLogitBytes / 2), predictions)),
        p_(std::make_unique_for_overwrite<float[]>(rows_ * variant.vocab_size())),
        q_(std::make_unique_for_overwrite<float[]>(rows_ * variant.vocab_size())),
        kl_(rows_),
        agree_(rows_) {}

  // Appends the window's predictions to the records.
  absl::Status Compare(const WindowStates& baseline, const WindowStates& variant, DivergenceRecords* records) {
    for (int64_t begin = 0; begin < predictions_; begin += rows_) {
      const int64_t count = std::min(rows_, predictions_ - begin);
      NIBBLE_RETURN_IF_ERROR(baseline.session->Logits(baseline.hidden + begin * baseline_.hidden_size(), count, p_.get()));
      NIBBLE_RETURN_IF_ERROR(variant.session->Logits(variant.hidden + begin * variant_.hidden_size(), count, q_.get()));
      CompareRows(count);
      for (int64_t i = 0; i < count; ++i) {
        if (!std::isfinite(kl_[i])) return NotFinite(begin + i);
      }
      records->kl.insert(records->kl.end(), kl_.begin(), kl_.begin() + count);
      records->agree.insert(records->agree.end(), agree_.begin(), agree_.begin() + count);
    }
    return absl::OkStatus();
  }

 private:
  void CompareRows(int64_t count) {
    const int64_t vocab = variant_.vocab_size();
    pool_.ParallelFor(count, [&](int64_t i, int) {
      const float* p = p_.get() + i * vocab;
      const float* q = q_.get() + i * vocab;
      kl_[i] = static_cast<float>(KlDivergence(p, q, vocab));
      agree_[i] = ArgMax(p, vocab) == ArgMax(q, vocab);
    });
  }

  const Plan& baseline_;
  const Plan& variant_;
  ThreadPool& pool_;
  const int64_t predictions_, rows_;
  const std::unique_ptr<float[]> p_, q_;
  std::vector<float> kl_;
  std::vector<uint8_t> agree_;
};

}  // namespace

double KlDivergence(const float* p, const float* q, int64_t n) {
  const double p_sum = LogSumExp(p, n), q_sum = LogSumExp(q, n);
  double kl = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double log_p = p[i] - p_sum, log_q = q[i] - q_sum;
    kl += std::exp(log_p) * (log_p - log_q);
  }
  return kl < 0 ? 0 : kl;
}

absl::StatusOr<DivergenceRecords> RecordDivergence(const Plan& baseline, const Plan& variant, ThreadPool& pool, const TextWindows& windows) {
  if (variant.vocab_size() != baseline.vocab_size()) {
    return absl::InvalidArgumentError(absl::StrCat("a vocabulary of ", variant.vocab_size(),
                                                   " does not compare with the baseline's ", baseline.vocab_size()));
  }
  DivergenceRecords records{HeadOf(windows, variant), {}, {}};
  WindowComparer comparer(baseline, variant, pool, windows.predictions());
  const auto visit = [&](absl::Span<const WindowStates> states, size_t) { return comparer.Compare(states[0], states[1], &records); };
  NIBBLE_RETURN_IF_ERROR(VisitWindows({&baseline, &variant}, pool, windows, absl::StrCat("kl/", windows.set), visit));
  return records;
}

absl::StatusOr<std::vector<Metric>> MetricsOf(const DivergenceRecords& records) {
  MetricHead head{.name = absl::StrCat("kl/", records.set),
                  .unit = "nats",
                  .better = LOWER,
                  .aggregate = Metric::MEAN,
                  .convention = records.convention,
                  .arithmetic = records.arithmetic};
  Metric kl = MakeMetric(head);
  AddWindows(records, records.kl, &kl);
  head.name = absl::StrCat("top1_agreement/", records.set);
  head.unit = "fraction";
  head.better = HIGHER;
  Metric agreement = MakeMetric(head);
  AddWindows(records, records.agree, &agreement);
  NIBBLE_RETURN_IF_ERROR(FillMetric(&kl));
  NIBBLE_RETURN_IF_ERROR(FillMetric(&agreement));
  return std::vector<Metric>{kl, agreement};
}

absl::StatusOr<std::vector<Metric>> MeasureDivergence(const Plan& baseline, const Plan& variant, ThreadPool& pool, const TextWindows& windows) {
  NIBBLE_ASSIGN_OR_RETURN(const DivergenceRecords records, RecordDivergence(baseline, variant, pool, windows));
  return MetricsOf(records);
}

}  // namespace nibble::eval
