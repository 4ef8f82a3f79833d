// Rewrite passes: each keeps the graph's function unless its name says
// otherwise, and leaves a graph that verifies.
#ifndef NIBBLE_CORE_IR_PASSES_H_
#define NIBBLE_CORE_IR_PASSES_H_

#include <string>
#include <vector>

#include "core/ir/graph.h"

namespace nibble::ir {

// Gives the head a parameter of its own when it shares the embedding's, so
// that the two can be encoded or transformed apart. No-op when untied.
absl::Status UntieHead(Graph& graph);

// Moves each RMSNorm's gain into the linears that read it: W <- W diag(gain)
// in fp64, stored as fp32, gain <- 1 (SpinQuant section 3.2, QuaRot). Unties a
// tied head first. Refuses weights that are already quantized: their grid
// would be lost.
absl::Status FoldNorms(Graph& graph);

// Multiplies a norm's outputs by `factors`, one a channel, and divides the
// columns that read them: gain <- gain f, W <- W diag(1 / f), each kept in the
// float format that it has. Errors: a reader that is no linear, a reader whose
// weight is shared (a tied head) or quantized.
absl::Status ScaleNorm(Graph& graph, const Op& norm, absl::Span<const double> factors);

// The same of a linear's outputs, which reach the inputs of `readers` channel by
// channel: its rows are multiplied by `factors`, their columns divided. That they do
// is the caller's to know.
absl::Status ScaleChannels(Graph& graph, size_t writer, const std::vector<size_t>& readers, absl::Span<const double> factors);

// Linears, and the embedding, by selectors: "blocks" (every linear inside the
// decoder blocks), "attention", "mlp", "embedding", "head", or a pattern over
// module names with * wildcards ("model.layers.0.*", "*.down_proj"). Adapters
// are selected by "adapters" alone. Indices into graph.ops(), in order. A
// selector that matches nothing is an error.
absl::StatusOr<std::vector<size_t>> SelectOps(const Graph& graph, const std::vector<std::string>& selectors);

// Sets the activation scheme of the selected linears; an embedding among them
// is an error.
absl::Status AttachActivation(Graph& graph, const std::vector<size_t>& ops, const QuantScheme& scheme);

}  // namespace nibble::ir

#endif  // NIBBLE_CORE_IR_PASSES_H_
