// The learning of spinquant's R1 and R2.
#ifndef NIBBLE_METHODS_SPINQUANT_LEARNING_H_
#define NIBBLE_METHODS_SPINQUANT_LEARNING_H_

#include "absl/status/statusor.h"
#include "core/ir/graph.h"
#include "core/train/rotation_learner.h"
#include "methods/method.h"
#include "methods/spinquant/spinquant.pb.h"

namespace nibble {

// Options that are out of range, by field name.
absl::Status CheckLearning(const SpinquantOptions& options);

// Learns from `start` on `graph`: norms folded, head untied, R3 and R4 in place.
// Kept in the cache like a training, and taken from there.
absl::StatusOr<train::LearnedRotations> LearnRotations(Context& context, const SpinquantOptions& options, const ir::Graph& graph,
                                                       const train::LearnedRotations& start);

}  // namespace nibble

#endif  // NIBBLE_METHODS_SPINQUANT_LEARNING_H_
