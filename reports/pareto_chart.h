// One figure of the variants against another, with the line of those that no
// other beats in both, as a Vega-Lite specification.
#ifndef NIBBLE_REPORTS_PARETO_CHART_H_
#define NIBBLE_REPORTS_PARETO_CHART_H_

#include <optional>
#include <string>

#include "reports/charts.h"
#include "reports/records.h"
#include "reports/run_table.h"

namespace nibble {

// The quality `y` against the size or timing `x`. The interval of a quality is that
// of its comparison, with the baseline's value taken as exact, which is the
// uncertainty of a difference on the same text; a timing's is its own. Nothing
// with fewer than two points.
std::optional<Chart> ParetoChart(const RunTable& table, const RecordIndex& index, const std::string& x, const std::string& y);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_PARETO_CHART_H_
