// The report of a run in all its forms.
#ifndef NIBBLE_REPORTS_REPORT_H_
#define NIBBLE_REPORTS_REPORT_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "eval/result.pb.h"
#include "reports/render.h"

namespace nibble {

struct Report {
  std::string markdown;  // report.md
  std::string summary;   // summary.md, for a pull request
  std::string junit;     // gates.xml; empty unless the run has gates or jobs that failed
  std::string csv;       // results.csv
  std::string json;      // results.json
  std::string plot;      // pareto.svg; empty unless some variant has size_mib and a perplexity
  std::string loss_plot;  // loss.svg; empty unless some variant was trained
  std::string layers;     // layers.csv; empty unless some method told its layers' errors or weights were quantized
  std::string charts;     // charts.json; empty unless there is something to plot
  std::string html;       // report.html
};

// Renders the specifications of a charts.json.
using ChartRenderer = std::function<absl::StatusOr<RenderedCharts>(const std::string& charts)>;
absl::StatusOr<RenderedCharts> LeaveChartsOut(const std::string& charts);

// Renders through the file `path`, which it leaves behind. A failure is also said
// on standard error, as it costs the charts of `page` alone.
ChartRenderer RenderThroughFile(const std::string& path, const std::string& page);

// `notes` go into the report beside those that the results themselves give rise to.
// Where `render` fails the page says why and has no charts.
Report MakeReport(const RunInfo& run, const std::vector<JobResult>& results, const std::vector<std::string>& notes = {},
                  const ChartRenderer& render = LeaveChartsOut);

// Reads run.json and results.jsonl in `dir` and writes the files named above
// beside them, each atomically. Notes go into the report.
absl::Status WriteReport(const std::string& dir);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_REPORT_H_
