#include "reports/sections.h"

#include <algorithm>
#include <cstddef>
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

void LinkFigures(const std::string& id, Row* row) {
  for (Cell& cell : *row) {
    if (cell.number.has_value()) cell.text.LinkToRecord(id);
  }
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

// The file, which leads to itself where it can be read.
Text RawRecordsText(const RawRecordsPlace& raw, const std::string& folder) {
  if (raw.missing.empty()) return Text().Link(raw.file, absl::StrCat(folder, raw.file));
  Text text = Data(raw.file);
  if (!text.empty()) text.Break();
  return text.Words("missing: ").Data(raw.missing);
}

void AddTests(const Record& record, Row* row) {
  if (!record.tests.has_value()) {
    row->insert(row->end(), 5, Cell());
    return;
  }
  const ItemTests& tests = *record.tests;
  row->push_back(CountCell(record.comparison.items->gained));
  row->push_back(CountCell(record.comparison.items->lost));
  for (const double number : {tests.mcnemar_p, tests.bootstrap.low, tests.bootstrap.high}) row->emplace_back(Words(Exact(number)), number);
}

Row RecordRow(const RunTable& table, const Record& record, const RecordsPlace& place) {
  const Metric& metric = *record.metric;
  const JobResult& source = *table.Source(record.variant, metric.name());
  const Comparison& comparison = record.comparison;
  const std::optional<Estimate>& estimate = comparison.ratio.has_value() ? comparison.ratio : comparison.difference;
  const bool has_interval = estimate.has_value() && estimate->interval.has_value();
  Row row = {Data(record.variant), Data(metric.name()), Data(metric.unit()), Words(metric.arithmetic() == SIMULATED ? "simulated" : "native"),
             Data(metric.convention()), Data(source.job()), Data(source.measured_at()), Text().Code(source.key().substr(0, 16)),
             RawRecordsText(record.raw, place.folder), Words(EstimateName(comparison))};
  row[0].id = absl::StrCat(place.id_prefix, RecordId(table, record.variant, metric.name()));
  row.emplace_back(Words(Exact(metric.value())), metric.value());
  row.emplace_back(Words(metric.has_stderr() ? Exact(metric.stderr()) : ""));
  row.push_back(CountCell(metric.count()));
  row.emplace_back(Words(estimate.has_value() ? Exact(estimate->value) : ""), ComparisonNumber(comparison));
  row.emplace_back(Words(has_interval ? Exact(estimate->interval->low) : ""));
  row.emplace_back(Words(has_interval ? Exact(estimate->interval->high) : ""));
  AddTests(record, &row);
  return row;
}

Row BuildRow(const RunTable& table, const std::string& variant, const RecordsPlace& place) {
  const JobResult& build = table.Build(variant);
  Row row = {Data(variant), Data(build.job()), Data(build.measured_at()), Text().Code(build.key().substr(0, 16))};
  row[0].id = absl::StrCat(place.id_prefix, BuildId(table, variant));
  if (build.has_build_seconds()) {
    row.emplace_back(Words(Exact(build.build_seconds())), build.build_seconds());
  } else {
    row.emplace_back();
  }
  for (const int count : {build.training_size(), build.layer_size(), build.table_size()}) row.push_back(CountCell(count));
  return row;
}

void AddBuilds(const RunTable& table, const RecordsPlace& place, Section* section) {
  doc::Table builds{"Builds", doc::Columns({"variant", "job", "measured", "key", "seconds", "trainings", "errors of layers", "methods' tables"}, 4), {}};
  for (const std::string& variant : table.variants()) {
    if (!BuildId(table, variant).empty()) builds.rows.push_back(BuildRow(table, variant, place));
  }
  if (builds.rows.empty()) return;
  section->blocks.push_back(doc::Paragraph{
      Words("How each variant was built is told by the last of its results: that line holds the losses of trainings, the errors of layers and "
            "what methods measured.")});
  section->blocks.push_back(std::move(builds));
}

ptrdiff_t PlaceOfName(const std::vector<std::string>& names, const std::string& name) { return absl::c_find(names, name) - names.begin(); }

void AddIfAny(Section section, doc::Document* document) {
  if (!section.blocks.empty()) document->sections.push_back(std::move(section));
}

}  // namespace

std::string RecordId(const RunTable& table, const std::string& variant, const std::string& metric) {
  const Metric* measured = table.Find(variant, metric);
  if (measured == nullptr || IsWithheld(*measured)) return "";
  return absl::StrCat("r-", PlaceOfName(table.variants(), variant), "-", PlaceOfName(table.metrics(), metric));
}

std::string BuildId(const RunTable& table, const std::string& variant) {
  return table.Results(variant).empty() ? "" : absl::StrCat("b-", PlaceOfName(table.variants(), variant));
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

doc::Document RunDocument(const RunTable& table, const Records& records, const Findings& findings, const std::string& plot,
                          const std::string& loss_plot, const std::string& layers_file) {
  const RunInfo& run = table.run();
  doc::Document document{run.name().empty() ? "Nibble run" : run.name(), {{"Model", ModelText(run)}}, {}, {}};
  const Text machine = MachineText(table);
  if (!machine.empty()) document.facts.push_back({"Machine:", machine});
  if (run.has_commit()) document.facts.push_back({"Nibble commit", Text().Code(run.commit())});
  document.dated_facts = {{"Measured", Words(MeasuredText(table))}, {"Command", Text().Code(run.command())}};
  AddIfAny(ResultsSection(table, records, plot), &document);
  AddIfAny(GatesSection(table, findings.gates), &document);
  AddIfAny(AccuraciesSection(table, records), &document);
  AddIfAny(ContrastsSection(table, findings.contrasts), &document);
  AddIfAny(SeedsSection(table, findings.repetitions), &document);
  AddIfAny(RecoverySection(table), &document);
  AddIfAny(TrainingSection(table, loss_plot), &document);
  AddIfAny(LayersSection(table, findings.layers, layers_file), &document);
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

doc::Document SummaryDocument(const RunTable& table, const Records& records, const std::vector<GateOutcome>& gates) {
  const RunInfo& run = table.run();
  std::vector<GateOutcome> failed;
  absl::c_copy_if(gates, std::back_inserter(failed), [](const GateOutcome& gate) { return !gate.passed; });
  const std::string name = run.name().empty() ? "Nibble run" : run.name();
  doc::Document document;
  document.title = gates.empty() ? name : absl::StrCat(name, ": ", failed.size(), " of ", gates.size(), " gates failed");
  document.facts = {{"Model", ModelText(run)}};
  if (run.has_commit()) document.facts.push_back({"Nibble commit", Text().Code(run.commit())});
  if (!failed.empty()) document.sections.push_back(GatesSection(table, failed));
  document.sections.push_back(ResultsSection(table, records, ""));
  return document;
}

Section RecordsSection(const RunTable& table, const Records& records, const RecordsPlace& place) {
  doc::Table rows{place.title,
                  doc::Columns({"variant", "metric", "unit", "arithmetic", "convention", "job", "measured", "key", "raw records", "compared by", "value",
                                "standard error", "count", "estimate", "low", "high", "gained", "lost", "McNemar's p", "bootstrap low", "bootstrap high"},
                               10),
                  {}};
  for (const Record& record : records.records) rows.rows.push_back(RecordRow(table, record, place));
  const auto file = [&](const std::string& name) { return Text().Link(name, absl::StrCat(place.folder, name)); };
  Text intro = Words("Every figure of the results as it was recorded, unrounded. Its key starts the record's line in ").Append(file("results.jsonl"));
  intro.Words(", where the blocks stand of which it was made (windows, items, rounds); raw records hold every token or item of a quality. ");
  intro.Append(file("results.json")).Words(" holds the records for programs.");
  Section section{place.title, {doc::Paragraph{intro}, std::move(rows)}, /*is_printed=*/false};
  AddBuilds(table, place, &section);
  return section;
}

}  // namespace nibble
