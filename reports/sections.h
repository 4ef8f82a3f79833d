// What report.md and report.html say about a run.
#ifndef NIBBLE_REPORTS_SECTIONS_H_
#define NIBBLE_REPORTS_SECTIONS_H_

#include <string>
#include <vector>

#include "reports/document.h"
#include "reports/findings.h"
#include "reports/records.h"
#include "reports/run_table.h"

namespace nibble {

// Sections that hold charts.
inline constexpr char kResultsSection[] = "Results";
inline constexpr char kTrainingSection[] = "Training";
inline constexpr char kLayersSection[] = "Errors by layer";
inline constexpr char kWeightsSection[] = "Errors of weights";
inline constexpr char kPartsSection[] = "Size by part";

// `records` and `findings` are those of the table. `plot` and `loss_plot` are the plots' file names beside the report, "" without
// one; `layers_file` is that of the table of layers, which it has where the run
// has layers or quantized weights.
doc::Document RunDocument(const RunTable& table, const Records& records, const Findings& findings, const std::string& plot,
                          const std::string& loss_plot, const std::string& layers_file);

// What a pull request should show: how many gates failed and which, and the results.
doc::Document SummaryDocument(const RunTable& table, const Records& records, const std::vector<GateOutcome>& gates);

// Where the records of a run stand: as they are here in its own page, else in one of several runs.
struct RecordsPlace {
  std::string title = "Records";
  std::string folder;     // the run's, from the page's folder, with a slash at its end
  std::string id_prefix;  // of every RecordId and BuildId
};

// The figures of the report as they were recorded: a row for each, which
// RecordId names, with what finds its line in results.jsonl and its raw records;
// and a row for the build of each variant, which BuildId names.
doc::Section RecordsSection(const RunTable& table, const Records& records, const RecordsPlace& place = {});

// The name of a figure's row in RecordsSection; "" where it has none.
std::string RecordId(const RunTable& table, const std::string& variant, const std::string& metric);
// Likewise of a variant's build.
std::string BuildId(const RunTable& table, const std::string& variant);

// "×1.010 [1.009, 1.011]" or "-0.2 pp [-0.7, +0.2]" with what else there is to
// say of it; why an interval is missing, or that it is wide, becomes a note.
doc::Text ComparisonText(const Metric& metric, const Comparison& comparison, doc::Notes* notes);

// "perplexity/emma ↓ (ppl)".
doc::Text MetricTitle(const Metric& metric);

doc::Text ModelText(const RunInfo& run);
// With the peaks of its first timing, and how far apart they lie where timings differ.
doc::Text MachineText(const RunTable& table);

// When the results were measured: a day or a range of days (UTC), or that nothing tells.
std::string MeasuredText(const RunTable& table);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_SECTIONS_H_
