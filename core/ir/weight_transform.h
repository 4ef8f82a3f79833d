// Linear maps of a weight, row by row or as a whole, for passes that keep the
// graph's function. They mark what they change as rewritten.
#ifndef NIBBLE_CORE_IR_WEIGHT_TRANSFORM_H_
#define NIBBLE_CORE_IR_WEIGHT_TRANSFORM_H_

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "core/base/thread_pool.h"
#include "core/ir/graph.h"

namespace nibble::ir {

// A float weight as fp32; a quantized one is refused.
absl::StatusOr<std::vector<float>> LoadForTransform(const Parameter& weight);

// Replaces a parameter's value by fp32 `values`.
absl::Status ReplaceFloats(Parameter& parameter, absl::Span<const float> values);

// Encodes a parameter's value anew under `scheme`, a float format that it had
// before. No-op when it has it. `pool` may be null.
absl::Status RestoreFormat(Parameter& parameter, const QuantScheme& scheme, ThreadPool* pool);

// map(row) changes each row of a weight in place, in fp64. `pool` may be null.
absl::Status TransformRows(Parameter& weight, ThreadPool* pool, absl::FunctionRef<void(absl::Span<double>)> map);

// Each value of a float weight becomes map(row, column, value), in fp64, and the
// weight stays in the format that it has.
absl::Status MapValues(Parameter& weight, absl::FunctionRef<double(size_t, size_t, double)> map);

}  // namespace nibble::ir

#endif  // NIBBLE_CORE_IR_WEIGHT_TRANSFORM_H_
