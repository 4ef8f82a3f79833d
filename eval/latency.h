// Latency: prefill of n tokens with the head of the last position (time to
// first token), then m tokens decoded one by one, head included.
#ifndef NIBBLE_EVAL_LATENCY_H_
#define NIBBLE_EVAL_LATENCY_H_

#include <cstdint>
#include <memory>
#include <optional>
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

struct LatencyCase {
  int64_t prefill = 512;  // tokens of each stream's prompt, at least 1
  int64_t decode = 32;    // tokens that each stream decodes, one by one
  int streams = 1;        // prompts, and tokens of a decode step
  bool profile = false;
  std::optional<CacheType> cache_type;  // none: CacheSchemesOf
};

// One plan made ready for timing. A runner alternates the rounds of several
// probes, so that what the machine does meanwhile meets all of them.
class LatencyProbe {
 public:
  // Runs one round that is not recorded. `plan` and `pool` must outlive the
  // probe.
  static absl::StatusOr<std::unique_ptr<LatencyProbe>> Create(const Plan& plan, ThreadPool& pool, const LatencyCase& options);

  // Runs once over the same pseudo-random tokens.
  absl::StatusOr<LatencyRound> Round();
  // Its parts. DecodeSeconds starts where the prompts end, however often it runs.
  absl::StatusOr<double> PrefillSeconds();
  absl::StatusOr<double> DecodeSeconds();

  Session& session() { return *session_; }

  // "prefill_tokens_per_s/<n>", "decode_tokens_per_s/<m>" (RATE: seconds and
  // tokens of each round; absent when m is 0) and "ttft_ms/<n>" (TIME).
  absl::StatusOr<std::vector<Metric>> Metrics(absl::Span<const LatencyRound> rounds) const;

 private:
  LatencyProbe(const Plan& plan, ThreadPool& pool, const LatencyCase& options);
  void MakeTokens();
  absl::Status Prefill();
  absl::Status Decode();
  std::vector<Segment> Segments(int64_t begin, int64_t count) const;

  const Plan& plan_;
  const int threads_;
  const LatencyCase case_;
  std::unique_ptr<Session> session_;
  std::vector<int32_t> tokens_;  // of one stream; all read the same
  std::vector<float> hidden_, logits_;
};

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_LATENCY_H_
