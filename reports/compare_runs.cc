#include "reports/compare_runs.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <list>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "eval/statistics.h"
#include "reports/chart_spec.h"
#include "reports/format.h"
#include "reports/html.h"
#include "reports/markdown.h"
#include "reports/report.h"
#include "reports/run_log.h"
#include "reports/section_parts.h"
#include "reports/sections.h"
#include "reports/spread.h"

namespace nibble {
namespace {

using doc::Cell;
using doc::Notes;
using doc::Row;
using doc::Section;
using doc::Text;
using Json = nlohmann::json;

// ---- What the runs are

Section RunsSection(const std::vector<ComparedRun>& runs) {
  doc::Table table{"Runs", doc::Columns({"run", "folder", "model", "machine", "commit", "measured", "baseline"}, 7), {}};
  for (const ComparedRun& run : runs) {
    const RunInfo& info = run.table->run();
    table.rows.push_back({Data(run.name), Text().Code(run.folder), ModelText(info), MachineText(*run.table), Text().Code(info.commit()),
                          Words(MeasuredText(*run.table)), Data(run.table->baseline())});
  }
  return {"Runs", {std::move(table)}};
}

// In which of these things the runs are not all alike.
std::vector<std::string> Differences(const std::vector<ComparedRun>& runs) {
  const auto differ = [&](auto get) {
    return absl::c_any_of(runs, [&](const ComparedRun& run) { return get(*run.table) != get(*runs[0].table); });
  };
  std::vector<std::string> names;
  if (differ([](const RunTable& table) { return table.run().model_hash(); })) names.push_back("model");
  if (differ([](const RunTable& table) { return table.run().commit(); })) names.push_back("commit");
  if (differ([](const RunTable& table) { return table.machine().cpu(); })) names.push_back("CPU");
  if (differ([](const RunTable& table) { return table.machine().kernel_table(); })) names.push_back("kernels");
  if (differ([](const RunTable& table) { return table.machine().threads(); })) names.push_back("threads");
  if (differ([](const RunTable& table) { return table.run().config(); })) names.push_back("configuration");
  return names;
}

// ---- Figures

// What the ids of a run's records begin with in the page of all runs.
std::string IdPrefix(const std::vector<ComparedRun>& runs, const ComparedRun& run) { return absl::StrCat("run-", &run - runs.data(), "-"); }

// The name of a figure's row in ComparisonRecords; "" where it has none.
std::string RunRecordId(const std::vector<ComparedRun>& runs, const ComparedRun& run, const std::string& variant, const std::string& name) {
  const std::string id = RecordId(*run.table, variant, name);
  return id.empty() ? "" : IdPrefix(runs, run) + id;
}

bool HaveOneModel(const RunInfo& a, const RunInfo& b) { return a.has_model_hash() && a.model_hash() == b.model_hash(); }

const std::string& BaselinePipeline(const ComparedRun& run) { return run.table->Build(run.table->baseline()).pipeline(); }

// The figure of `run` against the first run's, or why there is none.
Comparison AgainstFirst(const ComparedRun& first, const ComparedRun& run, const std::string& variant, const std::string& name) {
  Comparison refused;
  const JobResult* source = run.table->Source(variant, name);
  const JobResult* first_source = first.table->Source(variant, name);
  if (!HaveOneModel(first.table->run(), run.table->run())) {
    refused.why = absl::StrCat("another model than that of ", first.name);
  } else if (source->pipeline() != first_source->pipeline()) {
    refused.why = absl::StrCat("another pipeline than in ", first.name);
  } else if (source->data_hash() != first_source->data_hash()) {
    refused.why = absl::StrCat("other data than in ", first.name);
  } else if (IsDistance(*run.table->Find(variant, name)) && BaselinePipeline(run) != BaselinePipeline(first)) {
    refused.why = absl::StrCat("another baseline than in ", first.name);
  }
  if (!refused.why.empty()) return refused;
  const Metric& metric = *run.table->Find(variant, name);
  const Metric& first_metric = *first.table->Find(variant, name);
  if (!IsTiming(metric)) return Compare(metric, &first_metric);
  // Rounds of two runs did not alternate: without them Compare gives the ratio of the medians.
  Metric medians = metric;
  medians.clear_block_sum();
  medians.clear_block_weight();
  medians.clear_baseline_block_sum();
  Comparison comparison = Compare(medians, &first_metric);
  if (comparison.comparable()) comparison.why = "a ratio of medians, since rounds of different runs do not pair";
  return comparison;
}

// `against`: what it is a comparison with, a figure of the record `id`.
void AddComparison(const Metric& metric, Comparison comparison, const std::string& against, const std::string& id, Notes* notes, Text* text) {
  const std::string why = comparison.why;
  comparison.why.clear();
  comparison.recovery.reset();  // that is of the baseline's accuracy
  const Text estimate = ComparisonText(metric, comparison, notes);
  if (estimate.empty() && why.empty()) return;
  text->Break();
  if (estimate.empty()) {
    text->Words("no ratio to ").RecordData(against, id);
  } else {
    text->Append(estimate).Words(" of ").RecordData(against, id);
  }
  if (!why.empty()) notes->Mark(why, text);
}

std::string FailureText(const ComparedRun& run, const JobResult& job) {
  return absl::StrCat(run.name, ", ", job.variant(), ", ", job.job(), ": ", job.error());
}

Cell FigureCell(const std::vector<ComparedRun>& runs, const ComparedRun& run, const std::string& variant, const std::string& name, Notes* notes) {
  const Metric* metric = run.table->Find(variant, name);
  if (metric == nullptr) {
    const JobResult* failure = run.table->FailureBehind(variant, name);
    if (failure == nullptr) return Words(kNoValue);
    Text text = Words("failed");
    notes->Mark(FailureText(run, *failure), &text);
    return text;
  }
  if (IsWithheld(*metric)) return Words("simulated");
  Text text = Text().Record(FormatMeasured(*metric), RunRecordId(runs, run, variant, name));
  if (IsWideValue(*metric)) notes->Mark(kWideValueNote, &text);
  const Metric* baseline = run.table->Baseline(name);
  if (variant != run.table->baseline() && baseline != nullptr) {
    const std::string& baseline_name = run.table->baseline();
    AddComparison(*metric, Compare(*metric, baseline), baseline_name, RunRecordId(runs, run, baseline_name, name), notes, &text);
  }
  const ComparedRun& first = runs[0];
  const Metric* first_metric = first.table->Find(variant, name);
  if (&run != &first && first_metric != nullptr && !IsWithheld(*first_metric)) {
    AddComparison(*metric, AgainstFirst(first, run, variant, name), first.name, RunRecordId(runs, first, variant, name), notes, &text);
  }
  return {text, metric->value()};
}

// The names of all runs, in the order in which they come.
std::vector<std::string> AllNames(const std::vector<ComparedRun>& runs, const std::vector<std::string>& (RunTable::*names)() const) {
  std::vector<std::string> all;
  for (const ComparedRun& run : runs) {
    for (const std::string& name : (run.table->*names)()) {
      if (!absl::c_linear_search(all, name)) all.push_back(name);
    }
  }
  return all;
}

const Metric* AnyMetric(const std::vector<ComparedRun>& runs, const std::vector<std::string>& variants, const std::string& name) {
  for (const ComparedRun& run : runs) {
    for (const std::string& variant : variants) {
      if (const Metric* metric = run.table->Find(variant, name)) return metric;
    }
  }
  return nullptr;
}

Section MetricSection(const std::vector<ComparedRun>& runs, const std::vector<std::string>& variants, const std::string& name) {
  std::vector<Text> titles = {Words("variant")};
  for (const ComparedRun& run : runs) titles.push_back(Data(run.name));
  doc::Table table{absl::StrCat(name, " by variant and run"), doc::Columns(titles, 1), {}};
  Notes notes;
  for (const std::string& variant : variants) {
    Row row = {Data(variant)};
    for (const ComparedRun& run : runs) row.push_back(FigureCell(runs, run, variant, name, &notes));
    table.rows.push_back(std::move(row));
  }
  const Metric* metric = AnyMetric(runs, variants, name);
  Section section{metric == nullptr ? name : PlainTitle(*metric), {std::move(table)}};
  if (!notes.texts().empty()) section.blocks.push_back(doc::NoteList{notes.texts()});
  return section;
}

// ---- Chart

Json FigureJson(const std::vector<ComparedRun>& runs, const ComparedRun& run, const std::string& variant, const Metric& metric) {
  const double scale = PlotScale(metric);
  Json json = {{"variant", variant}, {"run", run.name}, {"value", scale * metric.value()}, {"text", FormatMeasured(metric)},
               {"record", absl::StrCat("#", RunRecordId(runs, run, variant, metric.name()))}};
  const auto interval = ValueInterval(metric);
  if (!interval.has_value()) return json;
  json["low"] = scale * interval->low;
  json["high"] = scale * interval->high;
  return json;
}

Json FigureLayers(const std::vector<ComparedRun>& runs, const Metric& metric) {
  Json names = Json::array();
  for (const ComparedRun& run : runs) names.push_back(run.name);
  Json y = Field("variant", "nominal", ""), offset = Field("run", "nominal", ""), colour = Field("run", "nominal", "");
  y["sort"] = nullptr;
  offset["scale"]["domain"] = names;
  colour["scale"]["domain"] = names;
  colour["scale"]["range"] = CategoryColours();
  Json x = Field("value", "quantitative", PlainTitle(metric));
  x["scale"]["zero"] = false;
  x["axis"]["tickCount"] = 5;
  Json rules = R"json({"mark": {"type": "rule", "strokeWidth": 1.5}, "transform": [{"filter": "isValid(datum.low)"}]})json"_json;
  rules["encoding"] = {{"x", x}, {"x2", {{"field", "high"}}}, {"y", y}, {"yOffset", offset}, {"color", colour}};
  rules["encoding"]["x"]["field"] = "low";
  Json dots = R"json({"mark": {"type": "point", "filled": true, "size": 50, "opacity": 1}})json"_json;
  dots["encoding"] = {{"x", x}, {"y", y}, {"yOffset", offset}, {"color", colour}};
  dots["encoding"]["tooltip"] = Tooltip({{"variant", "variant"}, {"run", "run"}, {"text", PlainTitle(metric)}});
  dots["encoding"]["href"]["field"] = "record";
  return Json::array({rules, dots});
}

// The path from the folder `from` to the folder `to`, with a slash at its end.
absl::StatusOr<std::string> PathBetween(const std::string& from, const std::string& to) {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::relative(to, from, error);
  if (error) return absl::FailedPreconditionError(absl::StrCat("cannot find the path from ", from, " to ", to, ": ", error.message()));
  return (path / "").string();
}

// The folders' own names; their paths where two are alike.
std::vector<std::string> RunNames(const std::vector<std::string>& dirs) {
  std::vector<std::string> names;
  for (const std::string& dir : dirs) names.push_back(std::filesystem::path(std::string(absl::StripSuffix(dir, "/"))).filename().string());
  std::vector<std::string> sorted = names;
  absl::c_sort(sorted);
  return std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end() ? names : dirs;
}

}  // namespace

doc::Document ComparisonDocument(const std::vector<ComparedRun>& runs) {
  const std::vector<std::string> variants = AllNames(runs, &RunTable::variants), differences = Differences(runs);
  doc::Document document{"Comparison of runs", {}, {}, {RunsSection(runs)}};
  Text intro = Words(differences.empty() ? "The runs are alike in model, commit, machine and configuration."
                                         : absl::StrCat("The runs differ in: ", absl::StrJoin(differences, ", "), "."));
  intro.Words(" Each figure is a value ± its standard error; below it × the ratio or ± the difference to its own run's baseline, and from the "
              "second run on to the same figure of ").Data(runs[0].name);
  intro.Words(", with 95 % confidence intervals, paired by window or item. In notes \"the baseline\" is what a figure is set against.");
  document.sections[0].blocks.push_back(doc::Paragraph{intro});
  for (const std::string& name : AllNames(runs, &RunTable::metrics)) document.sections.push_back(MetricSection(runs, variants, name));
  return document;
}

absl::StatusOr<std::vector<Section>> ComparisonRecords(const std::vector<ComparedRun>& runs, const std::string& out) {
  std::vector<Section> sections;
  for (const ComparedRun& run : runs) {
    NIBBLE_ASSIGN_OR_RETURN(const std::string folder, PathBetween(out, run.folder));
    const RecordsPlace place{absl::StrCat("Records of ", run.name), folder, IdPrefix(runs, run)};
    sections.push_back(RecordsSection(*run.table, MakeRecords(*run.table), place));
  }
  return sections;
}

std::vector<Chart> ComparisonCharts(const std::vector<ComparedRun>& runs) {
  const std::vector<std::string> variants = AllNames(runs, &RunTable::variants);
  std::vector<Chart> charts;
  for (const std::string& name : AllNames(runs, &RunTable::metrics)) {
    Json values = Json::array();
    for (const std::string& variant : variants) {
      for (const ComparedRun& run : runs) {
        const Metric* metric = run.table->Find(variant, name);
        if (metric == nullptr || IsWithheld(*metric) || !std::isfinite(metric->value())) continue;
        values.push_back(FigureJson(runs, run, variant, *metric));
      }
    }
    if (values.empty()) continue;
    const Metric& metric = *AnyMetric(runs, variants, name);
    const std::string alt = absl::StrCat(name, " of each variant in each run with its own 95 % interval; the figures stand in the table.");
    const double step = 10.0 + 8.0 * static_cast<double>(runs.size());
    charts.push_back({absl::StrCat("runs-", charts.size()), PlainTitle(metric), name, alt,
                      LayeredSpec(alt, 280, {{"step", step}, {"for", "position"}}, std::move(values), FigureLayers(runs, metric))});
  }
  return charts;
}

absl::Status WriteComparison(const std::vector<std::string>& dirs, const std::string& out) {
  const std::vector<std::string> names = RunNames(dirs);
  std::list<RunLog> logs;
  std::list<RunTable> tables;
  std::vector<ComparedRun> runs;
  for (size_t i = 0; i < dirs.size(); ++i) {
    NIBBLE_ASSIGN_OR_RETURN(RunLog log, ReadRunLog(dirs[i]));
    MarkMissingRecords(dirs[i], &log.results);
    logs.push_back(std::move(log));
    tables.emplace_back(logs.back().run, logs.back().results);
    runs.push_back({names[i], dirs[i], &tables.back()});
  }
  NIBBLE_RETURN_IF_ERROR(MakeDirectories(out));
  HtmlPage page{ComparisonDocument(runs), ComparisonCharts(runs), RenderedCharts(), {}};
  const std::string markdown = ToMarkdown(page.document);  // which holds no records
  NIBBLE_ASSIGN_OR_RETURN(std::vector<Section> records, ComparisonRecords(runs, out));
  for (Section& section : records) page.document.sections.push_back(std::move(section));
  if (!page.charts.empty()) page.rendered = RenderThroughFile(out + "/charts.json", out + "/comparison.html")(ChartsJson(page.charts));
  NIBBLE_RETURN_IF_ERROR(WriteFile(out + "/comparison.html", ToHtml(page)));
  return WriteFile(out + "/comparison.md", markdown);
}

}  // namespace nibble
