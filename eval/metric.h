// Making Metric messages.
#ifndef NIBBLE_EVAL_METRIC_H_
#define NIBBLE_EVAL_METRIC_H_

#include <string>

#include "absl/strings/string_view.h"
#include "core/runtime/plan.h"
#include "eval/result.pb.h"

namespace nibble::eval {

// Everything of a metric but its numbers.
struct MetricHead {
  std::string name;
  absl::string_view unit;
  Direction better = LOWER;
  Metric::Aggregate aggregate = Metric::MEAN;
  std::string convention;
  Arithmetic arithmetic = NATIVE;
};
Metric MakeMetric(const MetricHead& head);

void AddBlock(double sum, double weight, Metric* metric);
void AddPart(absl::string_view name, int64_t bytes, Metric* metric);

Arithmetic ArithmeticOf(const Plan& plan);

inline constexpr double kBytesPerMiB = 1048576;

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_METRIC_H_
