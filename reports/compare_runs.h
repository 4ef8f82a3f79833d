// Several runs side by side: other commits, other machines, other models.
#ifndef NIBBLE_REPORTS_COMPARE_RUNS_H_
#define NIBBLE_REPORTS_COMPARE_RUNS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "reports/charts.h"
#include "reports/document.h"
#include "reports/run_table.h"

namespace nibble {

// One of the runs. `table` must outlive it.
struct ComparedRun {
  std::string name;    // of its column
  std::string folder;
  const RunTable* table = nullptr;
};

// A table for each metric: variants down, runs across. A figure stands with its
// ratio to its own run's baseline, paired as in the run's report; from the second
// run on also with its ratio to the first run's figure, where both runs have one
// model (by its SHA-256) and the variant one pipeline. That ratio is paired over
// the blocks where both were measured on the same data. Timings never pair across
// runs: their ratio is of medians, without an interval.
doc::Document ComparisonDocument(const std::vector<ComparedRun>& runs);

// The records of each run, to which the figures above lead, for a page in the folder `out`.
absl::StatusOr<std::vector<doc::Section>> ComparisonRecords(const std::vector<ComparedRun>& runs, const std::string& out);

// A chart for each metric: a point with its interval for each variant and run.
std::vector<Chart> ComparisonCharts(const std::vector<ComparedRun>& runs);

// Reads the runs of `dirs` and writes comparison.md, comparison.html and
// charts.json to `out`, which is made where it is missing.
absl::Status WriteComparison(const std::vector<std::string>& dirs, const std::string& out);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_COMPARE_RUNS_H_
