#include "reports/sections.h"

#include <algorithm>
#include <iterator>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "eval/statistics.h"
#include "reports/format.h"
#include "reports/section_parts.h"
#include "reports/spread.h"

namespace nibble {

using doc::Cell;
using doc::Notes;
using doc::Row;
using doc::Section;
using doc::Text;

Text Words(absl::string_view words) { return Text().Words(words); }
Text Data(absl::string_view data) { return Text().Data(data); }

// Any variant's measurement of a metric: unit, direction and kind are the same.
const Metric* AnyMetric(const RunTable& table, const std::string& name) {
  for (const std::string& variant : table.variants()) {
    if (const Metric* metric = table.Find(variant, name)) return metric;
  }
  return nullptr;
}

Text MetricTitleIn(const RunTable& table, const std::string& name) {
  const Metric* metric = AnyMetric(table, name);
  return metric == nullptr ? Data(name) : MetricTitle(*metric);
}

void AddNotes(const Notes& notes, Section* section) {
  if (!notes.texts().empty()) section->blocks.push_back(doc::NoteList{notes.texts()});
}

std::string FailureText(const JobResult& job) { return absl::StrCat(job.variant(), ", ", job.job(), ": ", job.error()); }

std::optional<double> ComparisonNumber(const Comparison& comparison) {
  if (comparison.ratio.has_value()) return comparison.ratio->value;
  if (comparison.difference.has_value()) return comparison.difference->value;
  return std::nullopt;
}

namespace {

// ---- Tail

Section NotesSection(const std::vector<std::string>& notes) {
  Section section{"Notes", {}};
  if (notes.empty()) return section;
  doc::List list;
  for (const std::string& note : notes) list.items.push_back(Data(note));
  section.blocks.push_back(std::move(list));
  return section;
}

Section ReproduceSection(const RunInfo& run) {
  Section section{"Reproduce", {doc::Code{run.command(), "sh"}}};
  if (run.config().empty()) return section;
  Text summary = Words("The experiment as it ran");
  if (!run.config_path().empty()) summary.Words(": ").Data(run.config_path());
  section.blocks.push_back(doc::Details{summary, {run.config(), "textproto"}});
  return section;
}

// ---- Records

const char* EstimateName(const Comparison& comparison) {
  return comparison.ratio.has_value() ? "ratio" : comparison.difference.has_value() ? "difference" : "";
}

Row RecordRow(const RunTable& table, const Record& record) {
  const Metric& metric = *record.metric;
  const JobResult& source = *table.Source(record.variant, metric.name());
  const Comparison& comparison = record.comparison;
  const std::optional<Estimate>& estimate = comparison.ratio.has_value() ? comparison.ratio : comparison.difference;
  const bool has_interval = estimate.has_value() && estimate->interval.has_value();
  Row row = {Data(record.variant), Data(metric.name()), Data(metric.unit()), Words(metric.arithmetic() == SIMULATED ? "simulated" : "native"),
             Data(metric.convention()), Data(source.job()), Data(source.measured_at()), Text().Code(source.key().substr(0, 16)),
             Words(EstimateName(comparison))};
  row[0].id = RecordId(table, record.variant, metric.name());
  row.emplace_back(Words(Exact(metric.value())), metric.value());
  row.emplace_back(Words(metric.has_stderr() ? Exact(metric.stderr()) : ""));
  row.push_back(CountCell(metric.count()));
  row.emplace_back(Words(estimate.has_value() ? Exact(estimate->value) : ""), ComparisonNumber(comparison));
  row.emplace_back(Words(has_interval ? Exact(estimate->interval->low) : ""));
  row.emplace_back(Words(has_interval ? Exact(estimate->interval->high) : ""));
  return row;
}

void AddIfAny(Section section, doc::Document* document) {
  if (!section.blocks.empty()) document->sections.push_back(std::move(section));
}

}  // namespace

std::string RecordId(const RunTable& table, const std::string& variant, const std::string& metric) {
  const auto place = [](const std::vector<std::string>& names, const std::string& name) { return absl::c_find(names, name) - names.begin(); };
  return absl::StrCat("r-", place(table.variants(), variant), "-", place(table.metrics(), metric));
}

Text MetricTitle(const Metric& metric) {
  Text title = Data(metric.name()).Words(metric.better() == HIGHER ? " ↑" : " ↓");
  const std::string unit = FormatUnit(metric);
  if (!unit.empty()) title.Words(" (").Data(unit).Words(")");
  return title;
}

Text ComparisonText(const Metric& metric, const Comparison& comparison, Notes* notes) {
  Text text = Words(FormatComparison(metric, comparison));
  if (IsWideRatio(metric, comparison)) notes->Mark(kWideRatioNote, &text);
  if (comparison.recovery.has_value()) text.Break().Words(absl::StrCat(Decimals(*comparison.recovery, 1), " % recovered"));
  if (!comparison.why.empty()) notes->Mark(absl::StrCat("no interval: ", comparison.why), &text);
  return text;
}

Text ModelText(const RunInfo& run) {
  Text text = Text().Code(run.model());
  if (run.has_model_note()) text.Words(" (").Data(run.model_note()).Words(")");
  // A model that is made, not read, has its name for a hash.
  const bool is_digest = run.model_hash().size() == 64 && absl::c_all_of(run.model_hash(), [](unsigned char c) { return absl::ascii_isxdigit(c); });
  if (is_digest) text.Words(", SHA-256 ").Code(run.model_hash().substr(0, 12));
  return text;
}

Text MachineText(const RunTable& table) {
  const Machine& machine = table.machine();
  std::vector<Text> parts;
  if (machine.has_cpu()) parts.push_back(Data(machine.cpu()));
  if (machine.has_features()) parts.push_back(Data(machine.features()));
  if (machine.has_kernel_table()) parts.push_back(Data(machine.kernel_table()).Words(" kernels"));
  if (machine.has_threads()) {
    const std::string cpus = machine.has_cpus() ? absl::StrCat(" on ", machine.cpus(), " CPUs") : "";
    parts.push_back(Words(absl::StrCat(machine.threads(), machine.threads() == 1 ? " thread" : " threads", cpus)));
  }
  std::vector<std::string> peaks;
  for (const Peak& peak : Peaks()) {
    const std::optional<double> value = peak.of(machine);
    if (value.has_value()) peaks.push_back(absl::StrCat(peak.name, " ", Significant(*value, 3), " ", peak.unit, PeakRange(table, peak)));
  }
  if (!peaks.empty()) {
    const bool has_own_threads = machine.has_peak_threads() && machine.peak_threads() != machine.threads();
    const std::string threads = has_own_threads ? absl::StrCat(" (with ", machine.peak_threads(), machine.peak_threads() == 1 ? " thread)" : " threads)") : "";
    parts.push_back(Words(absl::StrCat("measured ", absl::StrJoin(peaks, ", "), threads)));
  }
  return doc::JoinTexts(parts, ", ");
}

std::string MeasuredText(const RunTable& table) {
  std::vector<std::string> days;
  for (const std::string& variant : table.variants()) {
    for (const JobResult* result : table.Results(variant)) {
      if (result->has_measured_at()) days.push_back(result->measured_at().substr(0, 10));
    }
  }
  if (days.empty()) return "not recorded";
  const auto [first, last] = std::minmax_element(days.begin(), days.end());
  return *first == *last ? absl::StrCat(*first, " (UTC)") : absl::StrCat(*first, " to ", *last, " (UTC)");
}

doc::Document RunDocument(const RunTable& table, const Findings& findings, const std::string& plot, const std::string& loss_plot,
                          const std::string& layers_file) {
  const RunInfo& run = table.run();
  doc::Document document{run.name().empty() ? "Nibble run" : run.name(), {{"Model", ModelText(run)}}, {}, {}};
  const Text machine = MachineText(table);
  if (!machine.empty()) document.facts.push_back({"Machine:", machine});
  if (run.has_commit()) document.facts.push_back({"Nibble commit", Text().Code(run.commit())});
  document.dated_facts = {{"Measured", Words(MeasuredText(table))}, {"Command", Text().Code(run.command())}};
  AddIfAny(ResultsSection(table, plot), &document);
  AddIfAny(GatesSection(findings.gates), &document);
  AddIfAny(ContrastsSection(table, findings.contrasts), &document);
  AddIfAny(SeedsSection(table, findings.repetitions), &document);
  AddIfAny(RecoverySection(table), &document);
  AddIfAny(TrainingSection(table, loss_plot), &document);
  AddIfAny(LayersSection(findings.layers, layers_file), &document);
  AddIfAny(WeightsSection(findings.weights, layers_file), &document);
  AddIfAny(MethodTablesSection(table), &document);
  AddIfAny(PartsSection(table), &document);
  AddIfAny(PipelinesSection(table), &document);
  AddIfAny(EventsSection(table), &document);
  AddIfAny(MeasuresSection(table), &document);
  AddIfAny(PeaksSection(table), &document);
  AddIfAny(NotesSection(findings.notes), &document);
  AddIfAny(ReproduceSection(run), &document);
  return document;
}

doc::Document SummaryDocument(const RunTable& table, const std::vector<GateOutcome>& gates) {
  const RunInfo& run = table.run();
  std::vector<GateOutcome> failed;
  absl::c_copy_if(gates, std::back_inserter(failed), [](const GateOutcome& gate) { return !gate.passed; });
  const std::string name = run.name().empty() ? "Nibble run" : run.name();
  doc::Document document;
  document.title = gates.empty() ? name : absl::StrCat(name, ": ", failed.size(), " of ", gates.size(), " gates failed");
  document.facts = {{"Model", ModelText(run)}};
  if (run.has_commit()) document.facts.push_back({"Nibble commit", Text().Code(run.commit())});
  if (!failed.empty()) document.sections.push_back(GatesSection(failed));
  document.sections.push_back(ResultsSection(table, ""));
  return document;
}

Section RecordsSection(const RunTable& table, const Records& records) {
  doc::Table rows{"Records",
                  doc::Columns({"variant", "metric", "unit", "arithmetic", "convention", "job", "measured", "key", "compared by", "value",
                                "standard error", "count", "estimate", "low", "high"},
                               9),
                  {}};
  for (const Record& record : records.records) rows.rows.push_back(RecordRow(table, record));
  Text intro = Words("Every figure of the results as it was recorded, unrounded. Its key starts the record's line in ").Link("results.jsonl");
  intro.Words(", where the blocks stand of which it was made (windows, items, rounds); ").Link("results.json").Words(" holds the records for programs.");
  return {"Records", {doc::Paragraph{intro}, std::move(rows)}};
}

}  // namespace nibble
