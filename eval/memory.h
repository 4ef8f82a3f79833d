// Memory: the peak resident size of a process that runs one model, beside the
// computed sizes of what it must hold.
#ifndef NIBBLE_EVAL_MEMORY_H_
#define NIBBLE_EVAL_MEMORY_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/base/thread_pool.h"
#include "core/runtime/session.h"
#include "eval/result.pb.h"

namespace nibble::eval {

// VmHWM of a /proc/<pid>/status text, in MiB (2^20 bytes).
absl::StatusOr<double> ParsePeakResidentMiB(absl::string_view status);

// VmHWM of this process: the largest resident size since it started.
absl::StatusOr<double> PeakResidentMiB();

// Runs a prefill of `tokens` tokens and the head of the last position in a
// session of `options`, and gives "peak_rss_mib" with the parts weights,
// kv_cache and arena. Meaningful only in a fresh process that did nothing but
// make `plan`. Error: `tokens` beyond options.max_positions.
absl::StatusOr<std::vector<Metric>> MeasureMemory(const Plan& plan, ThreadPool& pool, const SessionOptions& options,
                                                  int64_t tokens);

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_MEMORY_H_
