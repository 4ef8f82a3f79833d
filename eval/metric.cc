#include "eval/metric.h"

namespace nibble::eval {

Metric MakeMetric(const MetricHead& head) {
  Metric metric;
  metric.set_name(head.name);
  metric.set_unit(std::string(head.unit));
  metric.set_better(head.better);
  metric.set_aggregate(head.aggregate);
  metric.set_convention(head.convention);
  metric.set_arithmetic(head.arithmetic);
  return metric;
}

void AddBlock(double sum, double weight, Metric* metric) {
  metric->add_block_sum(sum);
  metric->add_block_weight(weight);
}

void AddPart(absl::string_view name, int64_t bytes, Metric* metric) {
  Metric::Part* part = metric->add_part();
  part->set_name(std::string(name));
  part->set_bytes(bytes);
}

Arithmetic ArithmeticOf(const Plan& plan) {
  return plan.arithmetic() == kernels::Arithmetic::kNative ? NATIVE : SIMULATED;
}

}  // namespace nibble::eval
