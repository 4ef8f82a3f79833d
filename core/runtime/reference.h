// The reference executor: the meaning of the IR. Every operand is decoded to
// fp32, every activation scheme applied by encode and decode, and each op
// computed for the whole sequence with Eigen over OpenBLAS. No cache, no
// packing, no fusion. Slow and obvious; the Plan is tested against it.
#ifndef NIBBLE_CORE_RUNTIME_REFERENCE_H_
#define NIBBLE_CORE_RUNTIME_REFERENCE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/ir/graph.h"

namespace nibble {

// Called with each op and its result [tokens, width] in execution order.
using OpObserver = std::function<void(const ir::Op&, absl::Span<const float>)>;

// Logits [tokens, vocab] of one sequence from position 0. Errors: a token
// outside the vocabulary, a parameter that does not load, an activation that
// is not finite.
absl::StatusOr<std::vector<float>> RunReference(const ir::Graph& graph, absl::Span<const int32_t> tokens,
                                                const OpObserver& observer = nullptr);

}  // namespace nibble

#endif  // NIBBLE_CORE_RUNTIME_REFERENCE_H_
