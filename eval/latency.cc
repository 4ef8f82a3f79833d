#include "eval/latency.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/rng.h"
#include "core/base/status.h"
#include "eval/metric.h"
#include "eval/statistics.h"

namespace nibble::eval {
namespace {

constexpr uint64_t kTokenSeed = 1;

// Seconds that `work` takes.
template <typename Work>
absl::StatusOr<double> Time(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  NIBBLE_RETURN_IF_ERROR(work());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

LatencyProbe::LatencyProbe(const Plan& plan, ThreadPool& pool, int64_t prefill, int64_t decode)
    : plan_(plan), threads_(pool.threads()), prefill_(prefill), decode_(decode), logits_(plan.vocab_size()) {
  Rng rng(kTokenSeed);
  for (int64_t i = 0; i < prefill + decode; ++i)
    tokens_.push_back(static_cast<int32_t>(rng.Below(plan.vocab_size())));
}

absl::StatusOr<std::unique_ptr<LatencyProbe>> LatencyProbe::Create(const Plan& plan, ThreadPool& pool,
                                                                   int64_t prefill, int64_t decode) {
  if (prefill < 1 || decode < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot time a prefill of ", prefill, " and a decode of ", decode, " tokens"));
  }
  auto probe = std::unique_ptr<LatencyProbe>(new LatencyProbe(plan, pool, prefill, decode));
  NIBBLE_ASSIGN_OR_RETURN(probe->session_,
                          Session::Create(plan, pool, {.streams = 1, .max_positions = prefill + decode}));
  NIBBLE_RETURN_IF_ERROR(probe->Round().status());
  return probe;
}

absl::Status LatencyProbe::Prefill() {
  const Segment segment{0, absl::MakeConstSpan(tokens_).first(prefill_)};
  NIBBLE_RETURN_IF_ERROR(session_->Forward({segment}, &hidden_));
  return session_->Logits(hidden_.data() + (prefill_ - 1) * plan_.hidden_size(), 1, logits_.data());
}

absl::Status LatencyProbe::Decode() {
  for (int64_t i = 0; i < decode_; ++i) {
    const Segment segment{0, absl::MakeConstSpan(tokens_).subspan(prefill_ + i, 1)};
    NIBBLE_RETURN_IF_ERROR(session_->Forward({segment}, &hidden_));
    NIBBLE_RETURN_IF_ERROR(session_->Logits(hidden_.data(), 1, logits_.data()));
  }
  return absl::OkStatus();
}

absl::StatusOr<LatencyRound> LatencyProbe::Round() {
  session_->Rewind(0, 0);
  LatencyRound round;
  NIBBLE_ASSIGN_OR_RETURN(round.prefill_seconds, Time([this] { return Prefill(); }));
  NIBBLE_ASSIGN_OR_RETURN(round.decode_seconds, Time([this] { return Decode(); }));
  return round;
}

absl::StatusOr<std::vector<Metric>> LatencyProbe::Metrics(absl::Span<const LatencyRound> rounds) const {
  MetricHead head{.name = absl::StrCat("prefill_tokens_per_s/", prefill_),
                  .unit = "tokens/s",
                  .better = HIGHER,
                  .aggregate = Metric::RATE,
                  .convention = absl::StrFormat("prefill=%d head=last threads=%d", prefill_, threads_),
                  .arithmetic = ArithmeticOf(plan_)};
  Metric prefill = MakeMetric(head);
  head.name = absl::StrCat("ttft_ms/", prefill_);
  head.unit = "ms";
  head.better = LOWER;
  head.aggregate = Metric::TIME;
  Metric first_token = MakeMetric(head);
  head = {.name = absl::StrCat("decode_tokens_per_s/", decode_),
          .unit = "tokens/s",
          .better = HIGHER,
          .aggregate = Metric::RATE,
          .convention = absl::StrFormat("after=%d decode=%d threads=%d", prefill_, decode_, threads_),
          .arithmetic = ArithmeticOf(plan_)};
  Metric decode = MakeMetric(head);
  for (const LatencyRound& round : rounds) {
    AddBlock(round.prefill_seconds, static_cast<double>(prefill_), &prefill);
    AddBlock(round.decode_seconds, static_cast<double>(decode_), &decode);
    AddBlock(1000 * round.prefill_seconds, static_cast<double>(prefill_), &first_token);
  }
  std::vector<Metric> metrics = {std::move(prefill)};
  if (decode_ > 0) metrics.push_back(std::move(decode));
  metrics.push_back(std::move(first_token));
  for (Metric& metric : metrics) NIBBLE_RETURN_IF_ERROR(FillMetric(&metric));
  return metrics;
}

}  // namespace nibble::eval
