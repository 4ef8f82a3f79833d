#include "reports/report.h"

#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "reports/curve.h"
#include "reports/findings.h"
#include "reports/markdown.h"
#include "reports/pareto.h"
#include "reports/records.h"
#include "reports/run_log.h"
#include "reports/run_table.h"

namespace nibble {
namespace {

constexpr char kPlotFile[] = "pareto.svg";
constexpr char kLossFile[] = "loss.svg";
constexpr char kLayersFile[] = "layers.csv";

// A curve for each training of each variant.
std::vector<NamedCurve> Curves(const RunTable& table) {
  std::vector<NamedCurve> curves;
  for (const std::string& variant : table.variants()) {
    for (const TrainingCurve& curve : table.Build(variant).training()) {
      curves.push_back({absl::StrCat(variant, ": ", curve.label()), {curve.loss().begin(), curve.loss().end()}});
    }
  }
  return curves;
}

}  // namespace

Report MakeReport(const RunInfo& run, const std::vector<JobResult>& results, const std::vector<std::string>& notes) {
  const RunTable table(run, results);
  Findings findings{EvaluateGates(table), ContrastedMetrics(table), RepeatedMetrics(table), LayerGroups(table), notes};
  findings.notes.insert(findings.notes.end(), table.notes().begin(), table.notes().end());
  const Records records = MakeRecords(table);

  Report report;
  report.plot = ParetoSvg(ParetoPoints(table), "size (MiB)", FirstPerplexity(table));
  report.loss_plot = CurveSvg(Curves(table));
  report.layers = LayersCsv(findings.layers);
  report.markdown = ReportMarkdown(table, findings, report.plot.empty() ? "" : kPlotFile, report.loss_plot.empty() ? "" : kLossFile, kLayersFile);
  report.csv = RecordsCsv(records);
  report.json = RecordsJson(table, records, findings);
  return report;
}

absl::Status WriteReport(const std::string& dir) {
  NIBBLE_ASSIGN_OR_RETURN(const RunLog log, ReadRunLog(dir));
  const Report report = MakeReport(log.run, log.results, log.notes);
  if (!report.plot.empty()) NIBBLE_RETURN_IF_ERROR(WriteFile(absl::StrCat(dir, "/", kPlotFile), report.plot));
  if (!report.loss_plot.empty()) NIBBLE_RETURN_IF_ERROR(WriteFile(absl::StrCat(dir, "/", kLossFile), report.loss_plot));
  if (!report.layers.empty()) NIBBLE_RETURN_IF_ERROR(WriteFile(absl::StrCat(dir, "/", kLayersFile), report.layers));
  NIBBLE_RETURN_IF_ERROR(WriteFile(absl::StrCat(dir, "/results.csv"), report.csv));
  NIBBLE_RETURN_IF_ERROR(WriteFile(absl::StrCat(dir, "/results.json"), report.json));
  return WriteFile(absl::StrCat(dir, "/report.md"), report.markdown);
}

}  // namespace nibble
