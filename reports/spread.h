// Whether a timing is known well enough to decide anything with it.
#ifndef NIBBLE_REPORTS_SPREAD_H_
#define NIBBLE_REPORTS_SPREAD_H_

#include "eval/result.pb.h"
#include "eval/statistics.h"

namespace nibble {

// A timing whose 95 % interval reaches further than this share of it to either
// side, on average, is called wide. Formats that a report sets side by side are
// commonly 10 to 50 % apart in speed, so that a figure known no better orders
// few of them; docs/reports.md has the spreads of measured runs.
inline constexpr double kWideSpread = 0.10;

inline constexpr char kWideValueNote[] =
    "wide: the 95 % interval of this timing is more than ±10 % of it; the machine was not quiet, take more rounds or measure again";
inline constexpr char kWideRatioNote[] =
    "wide: the 95 % interval of this ratio is more than ±10 % of it, so it orders nothing that is closer";

// Of a timing by itself. Never of other metrics.
bool IsWideValue(const Metric& metric);

// Of a timing's ratio to the baseline.
bool IsWideRatio(const Metric& metric, const Comparison& comparison);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_SPREAD_H_
