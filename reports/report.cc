#include "reports/report.h"

#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "reports/gate.h"
#include "reports/markdown.h"
#include "reports/pareto.h"
#include "reports/records.h"
#include "reports/run_log.h"
#include "reports/run_table.h"

namespace nibble {
namespace {

constexpr char kPlotFile[] = "pareto.svg";

}  // namespace

Report MakeReport(const RunInfo& run, const std::vector<JobResult>& results, const std::vector<std::string>& notes) {
  const RunTable table(run, results);
  std::vector<std::string> all_notes = notes;
  all_notes.insert(all_notes.end(), table.notes().begin(), table.notes().end());
  const std::vector<GateOutcome> gates = EvaluateGates(table);
  const Records records = MakeRecords(table);

  Report report;
  report.plot = ParetoSvg(ParetoPoints(table), "size (MiB)", FirstPerplexity(table));
  report.markdown = ReportMarkdown(table, gates, all_notes, report.plot.empty() ? "" : kPlotFile);
  report.csv = RecordsCsv(records);
  report.json = RecordsJson(table, records, gates, all_notes);
  return report;
}

absl::Status WriteReport(const std::string& dir) {
  NIBBLE_ASSIGN_OR_RETURN(const RunLog log, ReadRunLog(dir));
  const Report report = MakeReport(log.run, log.results, log.notes);
  if (!report.plot.empty()) NIBBLE_RETURN_IF_ERROR(WriteFile(absl::StrCat(dir, "/", kPlotFile), report.plot));
  NIBBLE_RETURN_IF_ERROR(WriteFile(absl::StrCat(dir, "/results.csv"), report.csv));
  NIBBLE_RETURN_IF_ERROR(WriteFile(absl::StrCat(dir, "/results.json"), report.json));
  return WriteFile(absl::StrCat(dir, "/report.md"), report.markdown);
}

}  // namespace nibble
