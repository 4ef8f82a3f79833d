// How far quantizing moved the weights of a graph.
#ifndef NIBBLE_CORE_IR_WEIGHT_ERRORS_H_
#define NIBBLE_CORE_IR_WEIGHT_ERRORS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/thread_pool.h"
#include "core/ir/graph.h"

namespace nibble::ir {

struct WeightError {
  std::string linear;  // its op's name
  // |W_q - W| / |W|, Frobenius, of what the linear multiplies with and the source's weight. None
  // where the two do not compare: a rewrite changed the weight (Parameter::rewritten).
  std::optional<double> error;
};

// Of every linear of `made` whose weight has a scheme that is no float format and that the
// same linear of `source` does not have, in the graph's order. Adapters are no linears of the
// source. `made` comes from `source` by steps; one weight of each is decoded at a time.
absl::StatusOr<std::vector<WeightError>> WeightErrors(const Graph& source, const Graph& made, ThreadPool& pool);

}  // namespace nibble::ir

#endif  // NIBBLE_CORE_IR_WEIGHT_ERRORS_H_
