#include "reports/contrasts.h"

namespace nibble {

std::string ContrastedMetric::Verdict() const {
  const std::optional<Estimate>& estimate = comparison.ratio.has_value() ? comparison.ratio : comparison.difference;
  if (!estimate.has_value() || !estimate->interval.has_value()) return "";
  const double same = comparison.ratio.has_value() ? 1 : 0;
  if (estimate->interval->low <= same && same <= estimate->interval->high) return "";
  if (comparison.items.has_value() && McNemarP(*comparison.items) > 0.05) return "";
  return (estimate->value > same) == (metric->better() == HIGHER) ? "better" : "worse";
}

std::vector<ContrastedMetric> ContrastedMetrics(const RunTable& table) {
  std::vector<ContrastedMetric> metrics;
  for (const Contrast& contrast : table.run().contrast()) {
    for (const std::string& name : table.metrics()) {
      const Metric* metric = table.Find(contrast.variant(), name);
      const Metric* other = table.Find(contrast.against(), name);
      if (metric == nullptr || other == nullptr || IsTiming(*metric)) continue;
      ContrastedMetric& contrasted = metrics.emplace_back(ContrastedMetric{&contrast, metric, Compare(*metric, other)});
      contrasted.comparison.recovery.reset();  // that is of the baseline's accuracy
    }
  }
  return metrics;
}

}  // namespace nibble
