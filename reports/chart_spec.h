// What the specifications of charts share: frame, fonts and colours, which hold
// on light and on dark paper alike.
#ifndef NIBBLE_REPORTS_CHART_SPEC_H_
#define NIBBLE_REPORTS_CHART_SPEC_H_

#include <string>
#include <vector>

#include "eval/result.pb.h"
#include "nlohmann/json.hpp"

namespace nibble {

inline constexpr char kVariantColour[] = "#2b7fd4", kBaselineColour[] = "#d9483b", kFrontColour[] = "#1d9a6c";

// Of a chart's plot, in pixels: two stand side by side on a page, one on a telephone.
inline constexpr double kChartWidth = 370, kChartHeight = 280;

// A title as a chart's name: letters, digits and dashes.
std::string ChartId(const std::string& title);

// Colours of categories, told apart with any kind of colour vision as far as
// eight can be.
nlohmann::json CategoryColours();

// A specification with `layers` (each a mark with its encoding) over `values`.
nlohmann::json LayeredSpec(const std::string& description, const nlohmann::json& width, const nlohmann::json& height, nlohmann::json values,
                           nlohmann::json layers);

// {"field", "type", "title"}.
nlohmann::json Field(const std::string& field, const std::string& type, const std::string& title);

// A tooltip: a line for each (field, title).
nlohmann::json Tooltip(const std::vector<std::pair<std::string, std::string>>& lines);

// "perplexity/emma ↓ (ppl)".
std::string PlainTitle(const Metric& metric);

// Shares are plotted in percent.
double PlotScale(const Metric& metric);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_CHART_SPEC_H_
