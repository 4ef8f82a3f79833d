// Encoding the parameters of selected ops: the loop that every method which
// rounds weights shares.
#ifndef NIBBLE_METHODS_ENCODE_OPS_H_
#define NIBBLE_METHODS_ENCODE_OPS_H_

#include <functional>
#include <string>
#include <vector>

#include "methods/method.h"

namespace nibble {

// What a parameter that is already quantized is refused with
// (ir::Parameter::LoadUnquantized).
inline constexpr char kOneMethodALayer[] =
    "give each layer to one weight method, narrow layers, or put decoded: before a model that comes quantized";

// Replaces the parameter of each op by its encoding under `scheme`. When the
// selection holds only one of a tied embedding and head, the head is untied
// first, so that the other keeps its values.
absl::Status EncodeOps(Context& context, ir::Graph& graph, const std::vector<std::string>& selectors, const QuantScheme& scheme);

// The same for a method that chooses schemes or codes itself: `encode` gives the
// tensor of graph.ops()[op]'s parameter, the first of the ops that share it.
using Encoder = std::function<absl::StatusOr<EncodedTensor>(size_t op, const Shape& shape, absl::Span<const float> values)>;
absl::Status EncodeOps(ir::Graph& graph, const std::vector<std::string>& selectors, const Encoder& encode);

}  // namespace nibble

#endif  // NIBBLE_METHODS_ENCODE_OPS_H_
