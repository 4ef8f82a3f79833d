// Activation ranges that are chosen once, on calibration text (static quantization).
#ifndef NIBBLE_METHODS_TRAINING_STATIC_RANGES_H_
#define NIBBLE_METHODS_TRAINING_STATIC_RANGES_H_

#include <functional>
#include <vector>

#include "core/calibration/range_observer.h"
#include "methods/training/training.h"

namespace nibble {

struct StaticRanges {
  TrainingData data;
  int64_t samples = 64;
  uint64_t seed = 0;
  double momentum = 0.9;  // of the observer's moving average
  QuantScheme scheme;     // PER_TENSOR, without its fixed range
  std::function<absl::StatusOr<FixedRange>(const calibration::RangeObserver&)> range;

  // Of the observation.
  LearningCost Cost() const { return CalibrationCost(data, samples, 1); }
};

// Observes what the linears `selected` of the graph as it is read, one block at a time,
// and attaches to each the scheme with its input's range.
absl::Status AttachStaticRanges(Context& context, ir::Graph& graph, const std::vector<size_t>& selected, const StaticRanges& ranges);

// What a method's message of type CalibratedRanges asks for; `name` says which field.
absl::StatusOr<StaticRanges> StaticRangesFrom(const CalibratedRanges& options, absl::string_view name, QuantScheme scheme);

}  // namespace nibble

#endif  // NIBBLE_METHODS_TRAINING_STATIC_RANGES_H_
