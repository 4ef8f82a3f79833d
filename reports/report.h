// The report of a run in all its forms.
#ifndef NIBBLE_REPORTS_REPORT_H_
#define NIBBLE_REPORTS_REPORT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "eval/result.pb.h"

namespace nibble {

struct Report {
  std::string markdown;  // report.md
  std::string csv;       // results.csv
  std::string json;      // results.json
  std::string plot;      // pareto.svg; empty unless some variant has size_mib and a perplexity
  std::string loss_plot;  // loss.svg; empty unless some variant was trained
  std::string layers;     // layers.csv; empty unless some method told its layers' errors
};

// `notes` go into the report beside those that the results themselves give rise to.
Report MakeReport(const RunInfo& run, const std::vector<JobResult>& results,
                  const std::vector<std::string>& notes = {});

// Reads run.json and results.jsonl in `dir` and writes the files named above
// beside them, each atomically. Notes go into the report.
absl::Status WriteReport(const std::string& dir);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_REPORT_H_
