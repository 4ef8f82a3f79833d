#include "reports/report.h"

#include <cstdio>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "reports/charts.h"
#include "reports/curve.h"
#include "reports/findings.h"
#include "reports/html.h"
#include "reports/markdown.h"
#include "reports/pareto.h"
#include "reports/records.h"
#include "reports/run_log.h"
#include "reports/run_table.h"
#include "reports/sections.h"

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

std::string MakeHtml(const RunTable& table, const Records& records, doc::Document document, std::vector<Chart> charts, const Report& report,
                     const ChartRenderer& render) {
  document.sections.push_back(RecordsSection(table, records));
  HtmlPage page{std::move(document), std::move(charts), RenderedCharts(), {}};
  if (!page.charts.empty()) page.rendered = render(report.charts);
  if (!report.plot.empty()) page.images[kPlotFile] = report.plot;
  if (!report.loss_plot.empty()) page.images[kLossFile] = report.loss_plot;
  return ToHtml(page);
}

// A file that this report has no more would be taken for its own.
absl::Status WriteOrRemove(const std::string& path, const std::string& contents) {
  if (!contents.empty()) return WriteFile(path, contents);
  std::error_code error;
  std::filesystem::remove(path, error);
  return error ? absl::FailedPreconditionError(absl::StrCat("cannot remove ", path, ": ", error.message())) : absl::OkStatus();
}

}  // namespace

absl::StatusOr<RenderedCharts> LeaveChartsOut(const std::string&) { return absl::FailedPreconditionError("nothing rendered them"); }

ChartRenderer RenderThroughFile(const std::string& path, const std::string& page) {
  return [path, page](const std::string& charts) -> absl::StatusOr<RenderedCharts> {
    NIBBLE_RETURN_IF_ERROR(WriteFile(path, charts));
    auto rendered = RenderCharts(path);
    if (!rendered.ok()) std::fprintf(stderr, "%s has no charts: %s\n", page.c_str(), std::string(rendered.status().message()).c_str());
    return rendered;
  };
}

Report MakeReport(const RunInfo& run, const std::vector<JobResult>& results, const std::vector<std::string>& notes, const ChartRenderer& render) {
  const RunTable table(run, results);
  Findings findings{EvaluateGates(table), ContrastedMetrics(table), RepeatedMetrics(table), LayerGroups(table), WeightGroups(table), notes};
  findings.notes.insert(findings.notes.end(), table.notes().begin(), table.notes().end());
  const Records records = MakeRecords(table);

  Report report;
  report.plot = ParetoSvg(ParetoPoints(table), "size (MiB)", FirstPerplexity(table));
  report.loss_plot = CurveSvg(Curves(table));
  report.layers = LayersCsv(findings.layers, findings.weights);
  doc::Document document =
      RunDocument(table, records, findings, report.plot.empty() ? "" : kPlotFile, report.loss_plot.empty() ? "" : kLossFile, kLayersFile);
  report.markdown = ToMarkdown(document);
  report.summary = ToMarkdown(SummaryDocument(table, records, findings.gates));
  const std::vector<FailedJob> failed_jobs = FailedJobs(table);
  if (!findings.gates.empty() || !failed_jobs.empty()) report.junit = GatesJunit(run.name(), findings.gates, failed_jobs);
  report.csv = RecordsCsv(records);
  report.json = RecordsJson(table, records, findings);
  std::vector<Chart> charts = RunCharts(table, records, findings);
  if (!charts.empty()) report.charts = ChartsJson(charts);
  report.html = MakeHtml(table, records, std::move(document), std::move(charts), report, render);
  return report;
}

absl::Status WriteReport(const std::string& dir) {
  NIBBLE_ASSIGN_OR_RETURN(RunLog log, ReadRunLog(dir));
  MarkMissingRecords(dir, &log.results);
  const ChartRenderer render = RenderThroughFile(dir + "/charts.json", dir + "/report.html");
  const Report report = MakeReport(log.run, log.results, log.notes, render);
  if (report.charts.empty()) NIBBLE_RETURN_IF_ERROR(WriteOrRemove(dir + "/charts.json", ""));
  NIBBLE_RETURN_IF_ERROR(WriteOrRemove(absl::StrCat(dir, "/", kPlotFile), report.plot));
  NIBBLE_RETURN_IF_ERROR(WriteOrRemove(absl::StrCat(dir, "/", kLossFile), report.loss_plot));
  NIBBLE_RETURN_IF_ERROR(WriteOrRemove(absl::StrCat(dir, "/", kLayersFile), report.layers));
  NIBBLE_RETURN_IF_ERROR(WriteOrRemove(absl::StrCat(dir, "/gates.xml"), report.junit));
  NIBBLE_RETURN_IF_ERROR(WriteFile(absl::StrCat(dir, "/summary.md"), report.summary));
  NIBBLE_RETURN_IF_ERROR(WriteFile(absl::StrCat(dir, "/results.csv"), report.csv));
  NIBBLE_RETURN_IF_ERROR(WriteFile(absl::StrCat(dir, "/results.json"), report.json));
  NIBBLE_RETURN_IF_ERROR(WriteFile(absl::StrCat(dir, "/report.html"), report.html));
  return WriteFile(absl::StrCat(dir, "/report.md"), report.markdown);
}

}  // namespace nibble
