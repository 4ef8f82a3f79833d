// Where the time of inference goes: prefill and decode at several lengths,
// decode of several streams at once, and each kind of op against what the
// machine allows (the roofline of Williams et al. 2009).
#ifndef NIBBLE_EVAL_SPEED_H_
#define NIBBLE_EVAL_SPEED_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/thread_pool.h"
#include "core/runtime/session.h"
#include "eval/peaks.h"

namespace nibble::eval {

struct SpeedOptions {
  std::vector<int64_t> prefill = {64, 128, 512, 2048};  // prompt lengths
  std::vector<int64_t> depth = {128, 512, 2048};        // tokens in the cache before a decode
  std::vector<int64_t> streams = {1, 2, 4, 8, 16};      // decoded at once, at a depth of 128
  int64_t decode = 32;                                  // tokens of each decode
  int rounds = 5;                                       // after a warm-up
  std::optional<CacheType> cache_type;                  // none: CacheSchemesOf
};

// Tokens a second of one case. name: "prefill/512", "decode/512" (after 512
// tokens), "batch_decode/8" (8 streams).
struct Speed {
  std::string name;
  double tokens_per_s = 0, stderr = 0;
  // A decode of one stream: the rate at which it reads weights over the machine's
  // bandwidth, which is measured before and after each round, its mean and standard
  // error over rounds; else 0.
  double bandwidth_share = 0, share_stderr = 0;
};

// Which of the machine's peaks bounds an op.
enum class Products { kFloat, kBf16, kBytes };

// An op of all layers together in one prefill or one decode.
struct OpSpeed {
  std::string name;     // "q_proj", "attention", "head", ...
  double seconds = 0;   // a pass
  double bytes = 0;     // of weights and cache, that a pass reads
  double ops = 0;       // of a pass: two for each multiply-add
  Products products = Products::kFloat;
};

struct SpeedReport {
  std::vector<Speed> speeds;
  std::vector<OpSpeed> prefill_ops, decode_ops;  // at the last prefill and depth
  double decode_bytes = 0;                       // of weights that a decoded token reads
  MachinePeaks peaks;                            // measured between the cases
};

// Seconds that the peaks allow for an op at least.
double RooflineSeconds(const OpSpeed& op, const MachinePeaks& peaks);

absl::StatusOr<SpeedReport> MeasureSpeed(const Plan& plan, ThreadPool& pool, const SpeedOptions& options);

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_SPEED_H_
