// Latency: prefill of n tokens with the head of the last position (time to
// first token), then m tokens decoded one by one, head included.
#ifndef NIBBLE_EVAL_LATENCY_H_
#define NIBBLE_EVAL_LATENCY_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/thread_pool.h"
#include "core/runtime/session.h"
#include "eval/result.pb.h"

namespace nibble::eval {

struct LatencyRound {
  double prefill_seconds = 0;
  double decode_seconds = 0;
};

// One plan made ready for timing. A runner alternates the rounds of several
// probes, so that what the machine does meanwhile meets all of them.
class LatencyProbe {
 public:
  // `prefill` at least 1 token, `decode` at least 0. Runs one round that is not
  // recorded. `plan` and `pool` must outlive the probe.
  static absl::StatusOr<std::unique_ptr<LatencyProbe>> Create(const Plan& plan, ThreadPool& pool, int64_t prefill,
                                                              int64_t decode);

  // Runs once over the same pseudo-random tokens.
  absl::StatusOr<LatencyRound> Round();

  // "prefill_tokens_per_s/<n>", "decode_tokens_per_s/<m>" (RATE: seconds and
  // tokens of each round; absent when m is 0) and "ttft_ms/<n>" (TIME).
  absl::StatusOr<std::vector<Metric>> Metrics(absl::Span<const LatencyRound> rounds) const;

 private:
  LatencyProbe(const Plan& plan, ThreadPool& pool, int64_t prefill, int64_t decode);
  absl::Status Prefill();
  absl::Status Decode();

  const Plan& plan_;
  const int threads_;
  const int64_t prefill_, decode_;
  std::unique_ptr<Session> session_;
  std::vector<int32_t> tokens_;  // prefill_ + decode_
  std::vector<float> hidden_, logits_;
};

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_LATENCY_H_
