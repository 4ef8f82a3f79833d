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

LatencyProbe::LatencyProbe(const Plan& plan, ThreadPool& pool, const LatencyCase& options)
    : plan_(plan), threads_(pool.threads()), case_(options) {}

void LatencyProbe::MakeTokens() {
  Rng rng(kTokenSeed);
  for (int64_t i = 0; i < case_.prefill + case_.decode; ++i) tokens_.push_back(static_cast<int32_t>(rng.Below(plan_.vocab_size())));
  logits_.resize(plan_.vocab_size() * case_.streams);
}

absl::StatusOr<std::unique_ptr<LatencyProbe>> LatencyProbe::Create(const Plan& plan, ThreadPool& pool, const LatencyCase& options) {
  if (options.prefill < 1 || options.decode < 0 || options.streams < 1) {
    return absl::InvalidArgumentError(absl::StrCat("cannot time a prefill of ", options.prefill, " and a decode of ", options.decode,
                                                   " tokens in ", options.streams, " streams"));
  }
  auto probe = std::unique_ptr<LatencyProbe>(new LatencyProbe(plan, pool, options));
  NIBBLE_ASSIGN_OR_RETURN(probe->session_, Session::Create(plan, pool,
                                                           {.streams = options.streams,
                                                            .max_positions = options.prefill + options.decode,
                                                            .cache_type = options.cache_type,
                                                            .profile = options.profile}));
  probe->MakeTokens();  // what a session refuses is not allocated
  NIBBLE_RETURN_IF_ERROR(probe->Round().status());
  return probe;
}

std::vector<Segment> LatencyProbe::Segments(int64_t begin, int64_t count) const {
  std::vector<Segment> segments;
  for (int s = 0; s < case_.streams; ++s) segments.push_back({s, absl::MakeConstSpan(tokens_).subspan(begin, count), 1});
  return segments;
}

// The head, and what follows the last attention, run for the last position of each stream.
absl::Status LatencyProbe::Prefill() {
  for (int s = 0; s < case_.streams; ++s) session_->Rewind(s, 0);
  NIBBLE_RETURN_IF_ERROR(session_->Forward(Segments(0, case_.prefill), &hidden_));
  return session_->Logits(hidden_.data(), case_.streams, logits_.data());
}

absl::Status LatencyProbe::Decode() {
  for (int s = 0; s < case_.streams; ++s) session_->Rewind(s, case_.prefill);
  for (int64_t i = 0; i < case_.decode; ++i) {
    NIBBLE_RETURN_IF_ERROR(session_->Forward(Segments(case_.prefill + i, 1), &hidden_));
    NIBBLE_RETURN_IF_ERROR(session_->Logits(hidden_.data(), case_.streams, logits_.data()));
  }
  return absl::OkStatus();
}

absl::StatusOr<double> LatencyProbe::PrefillSeconds() {
  return Time([this] { return Prefill(); });
}

absl::StatusOr<double> LatencyProbe::DecodeSeconds() {
  return Time([this] { return Decode(); });
}

absl::StatusOr<LatencyRound> LatencyProbe::Round() {
  LatencyRound round;
  NIBBLE_ASSIGN_OR_RETURN(round.prefill_seconds, PrefillSeconds());
  NIBBLE_ASSIGN_OR_RETURN(round.decode_seconds, DecodeSeconds());
  return round;
}

absl::StatusOr<std::vector<Metric>> LatencyProbe::Metrics(absl::Span<const LatencyRound> rounds) const {
  MetricHead head{.name = absl::StrCat("prefill_tokens_per_s/", case_.prefill),
                  .unit = "tokens/s",
                  .better = HIGHER,
                  .aggregate = Metric::RATE,
                  .convention = absl::StrFormat("prefill=%d head=last threads=%d", case_.prefill, threads_),
                  .arithmetic = ArithmeticOf(plan_)};
  Metric prefill = MakeMetric(head);
  head.name = absl::StrCat("ttft_ms/", case_.prefill);
  head.unit = "ms";
  head.better = LOWER;
  head.aggregate = Metric::TIME;
  Metric first_token = MakeMetric(head);
  head = {.name = absl::StrCat("decode_tokens_per_s/", case_.decode),
          .unit = "tokens/s",
          .better = HIGHER,
          .aggregate = Metric::RATE,
          .convention = absl::StrFormat("after=%d decode=%d threads=%d", case_.prefill, case_.decode, threads_),
          .arithmetic = ArithmeticOf(plan_)};
  Metric decode = MakeMetric(head);
  for (const LatencyRound& round : rounds) {
    AddBlock(round.prefill_seconds, static_cast<double>(case_.prefill * case_.streams), &prefill);
    AddBlock(round.decode_seconds, static_cast<double>(case_.decode * case_.streams), &decode);
    AddBlock(1000 * round.prefill_seconds, static_cast<double>(case_.prefill * case_.streams), &first_token);
  }
  std::vector<Metric> metrics = {std::move(prefill)};
  if (case_.decode > 0) metrics.push_back(std::move(decode));
  metrics.push_back(std::move(first_token));
  for (Metric& metric : metrics) NIBBLE_RETURN_IF_ERROR(FillMetric(&metric));
  return metrics;
}

}  // namespace nibble::eval
