#include "reports/repetitions.h"

#include <cmath>

#include "absl/algorithm/container.h"

namespace nibble {
namespace {

RepeatedValue ValueOf(const RunTable& table, const Repetition& repetition, const std::string& name) {
  const Metric* metric = table.Find(repetition.variant(), name);
  RepeatedValue value{&repetition, nullptr, table.FailureBehind(repetition.variant(), name), ""};
  if (metric == nullptr) {
    value.missing = value.failure == nullptr ? "not run" : "failed";
  } else if (IsWithheld(*metric)) {
    value.missing = "simulated";
  } else if (!std::isfinite(metric->value())) {
    value.missing = "not finite";
  } else {
    value.metric = metric;
  }
  return value;
}

RepeatedMetric Collect(const RunTable& table, const std::string& variant, const std::string& name) {
  RepeatedMetric repeated{variant, name, {}, 0, std::nullopt, {}};
  std::vector<double> values;
  std::vector<Comparison> comparisons;
  for (const Repetition& repetition : table.run().repetition()) {
    if (repetition.of() != variant) continue;
    const RepeatedValue value = repeated.values.emplace_back(ValueOf(table, repetition, name));
    if (value.metric == nullptr) continue;
    values.push_back(value.metric->value());
    comparisons.push_back(Compare(*value.metric, table.Baseline(name)));
  }
  repeated.counted = values.size();
  if (values.empty()) return repeated;
  repeated.spread = SpreadOf(values);
  repeated.comparison = MeanComparison(comparisons);
  return repeated;
}

bool WasTried(const RepeatedMetric& repeated) {
  return absl::c_any_of(repeated.values, [](const RepeatedValue& value) { return value.missing != "not run"; });
}

}  // namespace

std::vector<RepeatedMetric> RepeatedMetrics(const RunTable& table) {
  std::vector<std::string> variants;
  for (const Repetition& repetition : table.run().repetition()) {
    if (!absl::c_linear_search(variants, repetition.of())) variants.push_back(repetition.of());
  }
  std::vector<RepeatedMetric> metrics;
  for (const std::string& variant : variants) {
    for (const std::string& name : table.metrics()) {
      RepeatedMetric repeated = Collect(table, variant, name);
      if (WasTried(repeated)) metrics.push_back(std::move(repeated));
    }
  }
  return metrics;
}

}  // namespace nibble
