#include "eval/divergence.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "eval/log_probs.h"
#include "eval/metric.h"
#include "eval/statistics.h"

namespace nibble::eval {
namespace {

struct WindowSums {
  double kl = 0;
  double agree = 0;
};

// Compares one window, some rows at a time.
class WindowComparer {
 public:
  WindowComparer(BaselineStates& baseline, const Plan& variant, ThreadPool& pool)
      : baseline_(baseline),
        variant_(variant),
        pool_(pool),
        rows_(std::min(LogitRows(variant.vocab_size(), kLogitBytes / 2), baseline.windows().predictions())),
        p_(std::make_unique_for_overwrite<float[]>(rows_ * variant.vocab_size())),
        q_(std::make_unique_for_overwrite<float[]>(rows_ * variant.vocab_size())),
        kl_(rows_),
        agree_(rows_) {}

  absl::StatusOr<WindowSums> Compare(Session& session, size_t window, const float* hidden) {
    const int64_t predictions = baseline_.windows().predictions();
    WindowSums sums;
    for (int64_t begin = 0; begin < predictions; begin += rows_) {
      const int64_t count = std::min(rows_, predictions - begin);
      NIBBLE_RETURN_IF_ERROR(baseline_.Logits(window, begin, count, p_.get()));
      NIBBLE_RETURN_IF_ERROR(session.Logits(hidden + begin * variant_.hidden_size(), count, q_.get()));
      CompareRows(count);
      for (int64_t i = 0; i < count; ++i) {
        if (!std::isfinite(kl_[i])) return NotFinite(begin + i);
        sums.kl += kl_[i];
        sums.agree += agree_[i];
      }
    }
    return sums;
  }

 private:
  void CompareRows(int64_t count) {
    const int64_t vocab = variant_.vocab_size();
    pool_.ParallelFor(count, [&](int64_t i, int) {
      const float* p = p_.get() + i * vocab;
      const float* q = q_.get() + i * vocab;
      kl_[i] = KlDivergence(p, q, vocab);
      agree_[i] = ArgMax(p, vocab) == ArgMax(q, vocab);
    });
  }

  BaselineStates& baseline_;
  const Plan& variant_;
  ThreadPool& pool_;
  const int64_t rows_;
  const std::unique_ptr<float[]> p_, q_;
  std::vector<double> kl_, agree_;
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

absl::StatusOr<std::unique_ptr<BaselineStates>> BaselineStates::Create(const Plan& plan, ThreadPool& pool,
                                                                       TextWindows windows) {
  auto states = std::unique_ptr<BaselineStates>(new BaselineStates(plan, std::move(windows)));
  NIBBLE_ASSIGN_OR_RETURN(states->head_, Session::Create(plan, pool, {.streams = 1, .max_positions = 1}));
  const int64_t values = states->windows_.predictions() * plan.hidden_size();
  const auto keep = [&](Session&, size_t, const float* hidden) {
    states->hidden_.emplace_back(hidden, hidden + values);
    return absl::OkStatus();
  };
  NIBBLE_RETURN_IF_ERROR(
      VisitWindows(plan, pool, states->windows_, absl::StrCat("baseline states/", states->windows_.set), keep));
  return states;
}

absl::Status BaselineStates::Logits(size_t window, int64_t begin, int64_t count, float* logits) {
  return head_->Logits(hidden_[window].data() + begin * plan_.hidden_size(), count, logits);
}

absl::StatusOr<std::vector<Metric>> MeasureDivergence(BaselineStates& baseline, const Plan& variant,
                                                      ThreadPool& pool) {
  const TextWindows& windows = baseline.windows();
  if (variant.vocab_size() != baseline.vocab_size()) {
    return absl::InvalidArgumentError(absl::StrCat("a vocabulary of ", variant.vocab_size(),
                                                   " does not compare with the baseline's ", baseline.vocab_size()));
  }
  MetricHead head{.name = absl::StrCat("kl/", windows.set),
                  .unit = "nats",
                  .better = LOWER,
                  .aggregate = Metric::MEAN,
                  .convention = windows.convention,
                  .arithmetic = ArithmeticOf(variant)};
  Metric kl = MakeMetric(head);
  head.name = absl::StrCat("top1_agreement/", windows.set);
  head.unit = "fraction";
  head.better = HIGHER;
  Metric agreement = MakeMetric(head);
  WindowComparer comparer(baseline, variant, pool);
  const auto visit = [&](Session& session, size_t i, const float* hidden) -> absl::Status {
    NIBBLE_ASSIGN_OR_RETURN(const WindowSums sums, comparer.Compare(session, i, hidden));
    AddBlock(sums.kl, static_cast<double>(windows.predictions()), &kl);
    AddBlock(sums.agree, static_cast<double>(windows.predictions()), &agreement);
    return absl::OkStatus();
  };
  NIBBLE_RETURN_IF_ERROR(VisitWindows(variant, pool, windows, kl.name(), visit));
  NIBBLE_RETURN_IF_ERROR(FillMetric(&kl));
  NIBBLE_RETURN_IF_ERROR(FillMetric(&agreement));
  return std::vector<Metric>{kl, agreement};
}

}  // namespace nibble::eval
