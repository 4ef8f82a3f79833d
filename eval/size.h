// The size of a model's parameters as encoded: codes, scales, zero points and
// whatever else its schemes need.
#ifndef NIBBLE_EVAL_SIZE_H_
#define NIBBLE_EVAL_SIZE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "core/ir/graph.h"
#include "eval/result.pb.h"

namespace nibble::eval {

// "size_mib": bytes of every parameter that an op uses / 2^20, and
// "bits_per_weight": 8 * bytes / parameters. A tied head is counted once, as
// "embedding". The size carries the parts embedding, attention, mlp, norms, head
// and other, those that are there. Parameters are loaded one at a time.
absl::StatusOr<std::vector<Metric>> MeasureSize(const ir::Graph& graph);

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_SIZE_H_
