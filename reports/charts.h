// The charts of a report as Vega-Lite specifications. What draws them is
// Vega-Lite itself: vl-convert for the still pictures, the browser for the rest
// (render.h, html.h).
#ifndef NIBBLE_REPORTS_CHARTS_H_
#define NIBBLE_REPORTS_CHARTS_H_

#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "reports/findings.h"
#include "reports/records.h"
#include "reports/run_table.h"

namespace nibble {

struct Chart {
  std::string id;       // its name in charts.json and in the page
  std::string section;  // the title of the section where it stands
  std::string title;
  std::string alt;  // what it shows, in words
  nlohmann::json spec;
};

// Quality against size and against speed, timings, curves of trainings, errors of
// layers, sizes by part: of these what the run has.
std::vector<Chart> RunCharts(const RunTable& table, const Records& records, const Findings& findings);

// All specifications by their names, each fit for any tool that reads Vega-Lite;
// on one line where `indent` is -1.
std::string ChartsJson(const std::vector<Chart>& charts, int indent = 1);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_CHARTS_H_
