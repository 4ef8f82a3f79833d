#include "reports/spread.h"

#include <cmath>

namespace nibble {
namespace {

bool IsWide(const Interval& interval, double value) { return (interval.high - interval.low) / 2 > kWideSpread * std::abs(value); }

}  // namespace

bool IsWideValue(const Metric& metric) {
  const auto interval = ValueInterval(metric);
  return IsTiming(metric) && interval.has_value() && IsWide(*interval, metric.value());
}

bool IsWideRatio(const Metric& metric, const Comparison& comparison) {
  const auto& ratio = comparison.ratio;
  return IsTiming(metric) && ratio.has_value() && ratio->interval.has_value() && IsWide(*ratio->interval, ratio->value);
}

}  // namespace nibble
