#include "reports/sections.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "eval/statistics.h"
#include "reports/curve.h"
#include "reports/format.h"
#include "reports/spread.h"

namespace nibble {
namespace {

using doc::Cell;
using doc::Notes;
using doc::Row;
using doc::Section;
using doc::Text;

constexpr char kNoValue[] = "–";
constexpr double kBytesPerMib = 1024.0 * 1024.0;

Text Words(absl::string_view words) { return Text().Words(words); }
Text Data(absl::string_view data) { return Text().Data(data); }

template <typename Integer>
Cell CountCell(Integer count) {
  return {Words(absl::StrCat(count)), static_cast<double>(count)};
}

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

// ---- Results

std::string FailureText(const JobResult& job) { return absl::StrCat(job.variant(), ", ", job.job(), ": ", job.error()); }

Text ValueText(const RunTable& table, const std::string& variant, const Metric& metric, Notes* notes) {
  Text text = Text().Record(FormatMeasured(metric), RecordId(table, variant, metric.name()));
  if (IsWideValue(metric)) notes->Mark(kWideValueNote, &text);
  return text;
}

Text MetricText(const RunTable& table, const std::string& variant, const Metric& metric, Notes* notes) {
  if (IsWithheld(metric)) return Words("simulated");
  Text text = ValueText(table, variant, metric, notes);
  if (variant == table.baseline()) return text;
  const Metric* baseline = table.Baseline(metric.name());
  // Where the baseline has no such metric by nature, as a divergence from itself,
  // that needs no remark.
  if (baseline == nullptr && table.FailureBehind(table.baseline(), metric.name()) == nullptr) return text;
  const Comparison comparison = Compare(metric, baseline);
  if (comparison.comparable() || comparison.recovery.has_value()) text.Break();
  return text.Append(ComparisonText(metric, comparison, notes));
}

Cell ResultCell(const RunTable& table, const std::string& variant, const std::string& name, Notes* notes) {
  if (const Metric* metric = table.Find(variant, name)) {
    Cell cell(MetricText(table, variant, *metric, notes));
    if (!IsWithheld(*metric)) cell.number = metric->value();
    return cell;
  }
  const JobResult* job = table.FailureBehind(variant, name);
  if (job == nullptr) return Words(kNoValue);
  Text text = Words("failed");
  notes->Mark(FailureText(*job), &text);
  return text;
}

std::vector<const Metric*> MetricsOf(const RunTable& table, const std::string& variant) {
  std::vector<const Metric*> metrics;
  for (const std::string& name : table.metrics()) {
    if (const Metric* metric = table.Find(variant, name)) metrics.push_back(metric);
  }
  return metrics;
}

std::string ArithmeticText(const RunTable& table, const std::string& variant) {
  const std::vector<const Metric*> metrics = MetricsOf(table, variant);
  if (metrics.empty()) return kNoValue;
  const bool simulated = absl::c_any_of(metrics, [](const Metric* m) { return m->arithmetic() == SIMULATED; });
  return simulated ? "simulated" : "native";
}

Row ResultRow(const RunTable& table, const std::string& variant, Notes* notes) {
  Row row = {Data(variant).Words(variant == table.baseline() ? " (baseline)" : ""), Words(ArithmeticText(table, variant))};
  for (const std::string& metric : table.metrics()) row.push_back(ResultCell(table, variant, metric, notes));
  return row;
}

// Failures that left no cell empty still belong below the table.
void KeepAllFailures(const RunTable& table, Notes* notes) {
  for (const std::string& variant : table.variants()) {
    for (const JobResult* job : table.Failures(variant)) notes->Keep(FailureText(*job));
  }
}

bool HasWithheld(const RunTable& table) {
  return absl::c_any_of(table.variants(), [&](const std::string& variant) {
    return absl::c_any_of(MetricsOf(table, variant), [](const Metric* metric) { return IsWithheld(*metric); });
  });
}

Text Legend(const RunTable& table) {
  Text text = Words("value ± standard error; below it, against the baseline");
  if (!table.baseline().empty()) text.Words(" ").Code(table.baseline());
  text.Words(": × the ratio or ± the difference (pp: percentage points) with its 95 % confidence interval, paired by window, "
             "item or round. ↓ smaller is better, ↑ larger.");
  if (HasWithheld(table)) {
    text.Words(" simulated: the variant has a scheme without a packed kernel; its quality is right, its speed would say nothing and is withheld.");
  }
  return text;
}

Section ResultsSection(const RunTable& table, const std::string& plot) {
  std::vector<Text> titles = {Words("variant"), Words("arithmetic")};
  for (const std::string& metric : table.metrics()) titles.push_back(MetricTitleIn(table, metric));
  doc::Table results{"Results by variant", doc::Columns(titles, 2), {}};
  Notes notes;
  for (const std::string& variant : table.variants()) results.rows.push_back(ResultRow(table, variant, &notes));
  KeepAllFailures(table, &notes);
  Section section{kResultsSection, {std::move(results), doc::Paragraph{Legend(table)}}};
  AddNotes(notes, &section);
  if (!plot.empty()) section.blocks.push_back(doc::Image{"size against perplexity", plot});
  return section;
}

// ---- Gates

Section GatesSection(const std::vector<GateOutcome>& gates) {
  Section section{"Gates", {}};
  if (gates.empty()) return section;
  const int64_t failed = absl::c_count_if(gates, [](const GateOutcome& gate) { return !gate.passed; });
  section.blocks.push_back(
      doc::Paragraph{failed == 0 ? Words("All passed.") : Text().StrongWords(absl::StrCat(failed, " of ", gates.size(), " failed."))});
  doc::Table outcomes{"Gates", doc::Columns({"", "variant", "metric", "result"}, 4), {}};
  for (const GateOutcome& gate : gates) {
    outcomes.rows.push_back({gate.passed ? Words("pass") : Text().StrongWords("FAIL"), Data(gate.variant), Data(gate.metric), Data(gate.message)});
  }
  section.blocks.push_back(std::move(outcomes));
  return section;
}

// ---- Contrasts

// What a comparison sorts by.
std::optional<double> ComparisonNumber(const Comparison& comparison) {
  if (comparison.ratio.has_value()) return comparison.ratio->value;
  if (comparison.difference.has_value()) return comparison.difference->value;
  return std::nullopt;
}

// "; 14 items gained, 6 lost, p 0.12" where the metric is of right and wrong answers.
Text ItemsText(const Comparison& comparison) {
  const auto& items = comparison.items;
  if (!items.has_value()) return Text();
  return Words(absl::StrCat("; ", items->gained, " gained, ", items->lost, " lost, p ", Significant(McNemarP(*items), 2)));
}

Section ContrastsSection(const RunTable& table, const std::vector<ContrastedMetric>& metrics) {
  Section section{"Contrasts", {}};
  if (metrics.empty()) return section;
  Notes notes;
  doc::Table contrasts{"Variants against each other", doc::Columns({"variant", "against", "metric", "comparison", ""}, 3), {}};
  for (const ContrastedMetric& contrasted : metrics) {
    contrasts.rows.push_back({Data(contrasted.contrast->variant()), Data(contrasted.contrast->against()),
                              MetricTitleIn(table, contrasted.metric->name()),
                              {ComparisonText(*contrasted.metric, contrasted.comparison, &notes).Append(ItemsText(contrasted.comparison)),
                               ComparisonNumber(contrasted.comparison)},
                              Words(contrasted.Verdict())});
  }
  section.blocks.push_back(doc::Paragraph{
      Words("Variants against each other: × the ratio or ± the difference with its 95 % confidence interval, paired by "
            "window or item. \"better\" and \"worse\" where the interval leaves no other reading. Of accuracies also the items that "
            "the variant alone has right (gained) and wrong (lost), with McNemar's exact p.")});
  section.blocks.push_back(std::move(contrasts));
  AddNotes(notes, &section);
  return section;
}

// ---- Seeds

Text RepeatedValueText(const RunTable& table, const RepeatedValue& value, Notes* notes) {
  Text text = Data(value.repetition->label()).Words(": ");
  if (value.metric != nullptr) {
    const std::string id = RecordId(table, value.repetition->variant(), value.metric->name());
    return text.Record(FormatValue(*value.metric, value.metric->value()), id);
  }
  text.Words(value.missing);
  if (value.failure != nullptr) notes->Mark(FailureText(*value.failure), &text);
  return text;
}

void AddSpread(const RunTable& table, const RepeatedMetric& repeated, Notes* notes, Row* row) {
  const Metric& metric = *AnyMetric(table, repeated.metric);
  const Spread& spread = *repeated.spread;
  const std::string deviation = spread.deviation.has_value() ? absl::StrCat(" ± ", FormatDeviation(metric, *spread.deviation)) : "";
  row->emplace_back(Words(FormatValue(metric, spread.mean) + deviation), spread.mean);
  row->emplace_back(Words(absl::StrCat(FormatValue(metric, spread.low), " to ", FormatValue(metric, spread.high))), spread.low);
  if (table.Baseline(repeated.metric) == nullptr) {
    row->emplace_back();
  } else {
    row->emplace_back(ComparisonText(metric, repeated.comparison, notes), ComparisonNumber(repeated.comparison));
  }
}

Row RepeatedRow(const RunTable& table, const RepeatedMetric& repeated, Notes* notes) {
  Row row = {Data(repeated.variant), MetricTitleIn(table, repeated.metric),
             Words(absl::StrCat(repeated.counted, " of ", repeated.values.size()))};
  if (repeated.spread.has_value()) {
    AddSpread(table, repeated, notes, &row);
  } else {
    row.insert(row.end(), 3, Words(kNoValue));
  }
  std::vector<Text> values;
  for (const RepeatedValue& value : repeated.values) values.push_back(RepeatedValueText(table, value, notes));
  row.emplace_back(doc::JoinTexts(values, ", "));
  return row;
}

Section SeedsSection(const RunTable& table, const std::vector<RepeatedMetric>& metrics) {
  Section section{"Seeds", {}};
  if (metrics.empty()) return section;
  Notes notes;
  doc::Table seeds{"Variants over seeds",
                   doc::Columns({"variant", "metric", "repetitions", "mean", "range", "against the baseline", "each"}, 2), {}};
  for (const RepeatedMetric& repeated : metrics) seeds.rows.push_back(RepeatedRow(table, repeated, &notes));
  section.blocks.push_back(doc::Paragraph{
      Words("Variants that were run several times, alike but for a seed: how many repetitions count, their mean ± "
            "standard deviation, the smallest and the largest value. Against the baseline: × the geometric mean of the ratios or ± the mean "
            "difference, with the 95 % confidence interval by Student's t over the repetitions; it holds the spread over seeds alone, "
            "and those of the results the spread over the text.")});
  section.blocks.push_back(std::move(seeds));
  AddNotes(notes, &section);
  return section;
}

// ---- Recovery

Text RecoveryText(const RunTable& table, const Lineage& lineage, const std::string& reference, const std::string& metric, Notes* notes) {
  const Metric* untrained = table.Find(lineage.untrained(), metric);
  const Metric* trained = table.Find(lineage.variant(), metric);
  const Metric* other = reference.empty() ? nullptr : table.Find(reference, metric);
  if (untrained == nullptr || trained == nullptr || other == nullptr) return Words(kNoValue);
  const Recovery recovery = RecoveryOf(*untrained, *trained, *other);
  Text text;
  if (!recovery.share.has_value()) {
    text.Words(kNoValue);
  } else {
    text.Words(absl::StrCat(Decimals(recovery.share->value, 1), " %"));
    if (const auto& interval = recovery.share->interval) {
      text.Words(absl::StrCat(" [", Decimals(interval->low, 1), ", ", Decimals(interval->high, 1), "]"));
    }
  }
  if (!recovery.why.empty()) notes->Mark(recovery.why, &text);
  return text;
}

// A quality that the blocks of windows or items give.
bool IsQuality(const RunTable& table, const std::string& name) {
  const Metric* metric = AnyMetric(table, name);
  return metric != nullptr && (metric->aggregate() == Metric::MEAN || metric->aggregate() == Metric::EXP_MEAN) &&
         (absl::StartsWith(name, "perplexity/") || absl::StartsWith(name, "accuracy"));
}

Row RecoveryRow(const RunTable& table, const Lineage& lineage, const std::string& metric, Notes* notes) {
  Row row = {Data(lineage.variant()), Data(lineage.untrained()), Data(metric)};
  for (const std::string& reference : {lineage.twin(), table.baseline()}) {
    Text text = RecoveryText(table, lineage, reference, metric, notes);
    if (!reference.empty()) text.Words(" of ").Code(reference);
    row.emplace_back(std::move(text));
  }
  return row;
}

Section RecoverySection(const RunTable& table) {
  Section section{"Recovery", {}};
  Notes notes;
  doc::Table recoveries{"Recovery", doc::Columns({"trained", "rounded alone", "metric", "against the twin", "against the baseline"}, 3), {}};
  for (const Lineage& lineage : table.run().lineage()) {
    for (const std::string& metric : table.metrics()) {
      if (IsQuality(table, metric)) recoveries.rows.push_back(RecoveryRow(table, lineage, metric, &notes));
    }
  }
  if (recoveries.rows.empty()) return section;
  section.blocks.push_back(doc::Paragraph{
      Words("What share of the loss by rounding alone the trained variant brings back: against its twin, trained alike in "
            "full precision (what quantization costs), and against the untouched baseline (training's own gain included); in brackets the "
            "95 % confidence interval over blocks.")});
  section.blocks.push_back(std::move(recoveries));
  AddNotes(notes, &section);
  return section;
}

// ---- Training

Row TrainingRow(const std::string& variant, const TrainingCurve& curve) {
  const std::vector<double> loss(curve.loss().begin(), curve.loss().end()), accuracy(curve.accuracy().begin(), curve.accuracy().end());
  const double first = loss.empty() ? 0 : loss.front(), last = LastLoss(loss), minutes = curve.seconds() / 60;
  Row row = {Data(variant), Data(curve.label()), CountCell(curve.updates()), CountCell(curve.tokens())};
  row.emplace_back(Words(Decimals(first, 4)), first);
  row.emplace_back(Words(Decimals(last, 4)), last);
  row.emplace_back(Words(accuracy.empty() ? kNoValue : Decimals(LastLoss(accuracy), 3)));
  row.emplace_back(Words(Decimals(minutes, 1)), minutes);
  row.emplace_back(Words(curve.reused() ? "taken from the cache" : "made in this run"));
  return row;
}

Section TrainingSection(const RunTable& table, const std::string& plot) {
  Section section{kTrainingSection, {}};
  doc::Table trainings{"Trainings",
                       doc::Columns({"variant", "step", "updates", "tokens", "first loss", "last loss", "accuracy", "minutes", ""}, 2), {}};
  for (const std::string& variant : table.variants()) {
    for (const TrainingCurve& curve : table.Build(variant).training()) trainings.rows.push_back(TrainingRow(variant, curve));
  }
  if (trainings.rows.empty()) return section;
  section.blocks.push_back(std::move(trainings));
  section.blocks.push_back(doc::Paragraph{Words("First loss: mean of the first of 200 parts of the updates; last: of the last tenth.")});
  if (!plot.empty()) section.blocks.push_back(doc::Image{"loss", plot});
  return section;
}

// ---- Errors by layer

constexpr size_t kLayersNamed = 5;

// "2 of 28 layers lost more than rounding to nearest would have: a, b."
Text WorseLayersText(const LayerGroup& group) {
  std::vector<Text> worse;
  for (const QuantizedLayer* layer : group.layers) {
    if (IsWorseThanRounding(*layer)) worse.push_back(Text().Code(layer->layer()));
  }
  const size_t count = worse.size(), named = std::min(count, kLayersNamed);
  worse.resize(named);
  Text text = Words(absl::StrCat(count == 0 ? "none" : absl::StrCat(count), " of ", group.layers.size(), group.layers.size() == 1 ? " layer" : " layers",
                                 " lost more than rounding to nearest would have", count == 0 ? "" : ": "));
  text.Append(doc::JoinTexts(worse, ", "));
  return text.Words(count == named ? "." : absl::StrCat(" and ", count - named, " more."));
}

doc::Table LayerKindsTable(const LayerGroup& group) {
  doc::Table kinds{absl::StrCat("Errors of the layers of ", group.variant, " by kind"),
                   doc::Columns({"linear", "layers", "mean ratio", "worst ratio", "its layer", "worse than rounding"}, 1), {}};
  for (const LayerKind& kind : LayerKinds(group)) {
    const double worst = ErrorRatio(*kind.worst);
    Row row = {Data(kind.name), CountCell(kind.layers)};
    row.emplace_back(Words(Significant(kind.mean_ratio, 4)), kind.mean_ratio);
    row.emplace_back(Words(Significant(worst, 4)), worst);
    row.emplace_back(Text().Code(kind.worst->layer()));
    row.push_back(CountCell(kind.worse));
    kinds.rows.push_back(std::move(row));
  }
  return kinds;
}

Section LayersSection(const std::vector<LayerGroup>& groups, const std::string& file) {
  Section section{kLayersSection, {}};
  if (groups.empty()) return section;
  section.blocks.push_back(doc::Paragraph{
      Words("The error that quantizing a layer made on the method's calibration data, over that of rounding to "
            "nearest on the same scheme: below 1 the method gained. The mean is geometric. Every layer: ").Link(file).Words(".")});
  for (const LayerGroup& group : groups) {
    const Text name = Text().StrongData(group.variant).Words(", ").Data(group.method).Words(": ");
    section.blocks.push_back(doc::Paragraph{Text(name).Append(WorseLayersText(group))});
    section.blocks.push_back(LayerKindsTable(group));
  }
  return section;
}

// ---- Tables of methods

doc::Table ToTable(const MethodTable& own) {
  std::vector<Text> titles;
  for (const std::string& column : own.column()) titles.push_back(Data(column));
  doc::Table table{own.title(), doc::Columns(titles, 1), {}};
  for (const MethodTable::Row& row : own.row()) {
    Row& cells = table.rows.emplace_back();
    for (const std::string& cell : row.cell()) cells.emplace_back(Data(cell));
  }
  return table;
}

Section MethodTablesSection(const RunTable& table) {
  Section section{"What methods measured", {}};
  for (const std::string& variant : table.variants()) {
    for (const MethodTable& own : table.Build(variant).table()) {
      section.blocks.push_back(doc::Paragraph{Text().StrongData(variant).Words(": ").Data(own.title()).Words(".")});
      section.blocks.push_back(ToTable(own));
    }
  }
  return section;
}

// ---- Size by part

Cell PartCell(int64_t bytes, int64_t parameters) {
  std::string text = Decimals(static_cast<double>(bytes) / kBytesPerMib, 1);
  if (parameters > 0) absl::StrAppend(&text, " (", Decimals(8.0 * static_cast<double>(bytes) / static_cast<double>(parameters), 2), ")");
  return {Words(text), static_cast<double>(bytes)};
}

Row PartRow(const std::string& variant, const Metric& metric, const std::vector<std::string>& names) {
  Row row = {Data(variant)};
  int64_t total_bytes = 0, total_parameters = 0;
  for (const std::string& name : names) {
    const auto part = absl::c_find_if(metric.part(), [&](const Metric::Part& p) { return p.name() == name; });
    if (part == metric.part().end()) {
      row.emplace_back(Words(kNoValue));
      continue;
    }
    row.push_back(PartCell(part->bytes(), part->parameters()));
    total_bytes += part->bytes();
    total_parameters += part->parameters();
  }
  row.push_back(PartCell(total_bytes, total_parameters));
  return row;
}

void AddPartTable(const RunTable& table, const std::string& metric_name, Section* section) {
  const std::vector<std::string> names = PartNames(table, metric_name);
  if (names.empty()) return;
  std::vector<Text> titles = {Data(metric_name)};
  for (const std::string& name : names) titles.push_back(Data(name));
  titles.push_back(Words("sum of parts"));
  doc::Table parts{absl::StrCat(metric_name, " by part"), doc::Columns(titles, 1), {}};
  for (const std::string& variant : table.variants()) {
    const Metric* metric = table.Find(variant, metric_name);
    if (metric != nullptr && metric->part_size() > 0) parts.rows.push_back(PartRow(variant, *metric, names));
  }
  section->blocks.push_back(std::move(parts));
}

Section PartsSection(const RunTable& table) {
  Section section{kPartsSection, {doc::Paragraph{Words("MiB, scales and tables included; in brackets the bits per parameter.")}}};
  for (const std::string& metric : table.metrics()) AddPartTable(table, metric, &section);
  if (section.blocks.size() == 1) section.blocks.clear();
  return section;
}

// ---- Pipelines, events, methods of measurement

Section PipelinesSection(const RunTable& table) {
  Section section{"Pipelines", {}};
  for (const std::string& variant : table.variants()) {
    const std::string& pipeline = table.Build(variant).pipeline();
    section.blocks.push_back(doc::Paragraph{Text().StrongData(variant)});
    if (pipeline.empty()) {
      section.blocks.push_back(doc::Paragraph{Words("not run")});
    } else {
      section.blocks.push_back(doc::Code{pipeline, ""});
    }
  }
  return section;
}

// What an event row shows but for its jobs: jobs of one variant share its build,
// and with it the events of the build, which must not be added up.
using EventKey = std::tuple<std::string, int64_t, std::string>;

void AddVariantEvents(const RunTable& table, const std::string& variant, doc::Table* events) {
  std::vector<EventKey> keys;
  std::map<EventKey, std::vector<std::string>> jobs;
  for (const JobResult* result : table.Results(variant)) {
    for (const Event& event : result->event()) {
      const EventKey key(event.what(), event.count(), event.detail());
      if (jobs[key].empty()) keys.push_back(key);
      jobs[key].push_back(result->job());
    }
  }
  for (const EventKey& key : keys) {
    events->rows.push_back({Data(variant), Data(std::get<0>(key)), CountCell(std::get<1>(key)), Data(std::get<2>(key)),
                            Data(absl::StrJoin(jobs[key], ", "))});
  }
}

Section EventsSection(const RunTable& table) {
  doc::Table events{"Events counted", doc::Columns({"variant", "event", "count", "detail", "seen in"}, 5), {}};
  for (const std::string& variant : table.variants()) AddVariantEvents(table, variant, &events);
  Section section{"Events counted", {doc::Paragraph{Words("What did not go as asked and was counted instead of hidden.")}}};
  if (events.rows.empty()) {
    section.blocks.push_back(doc::Paragraph{Words("None.")});
  } else {
    section.blocks.push_back(std::move(events));
  }
  return section;
}

const char* StatisticText(const Metric& metric) {
  switch (metric.aggregate()) {
    case Metric::MEAN: return "mean; difference paired by block";
    case Metric::EXP_MEAN: return "exp of the mean; ratio paired by block";
    case Metric::RATE: return "median of rounds; geometric mean of the rounds' ratios";
    case Metric::TIME: return "median of rounds; geometric mean of the rounds' ratios";
    case Metric::NONE: break;
  }
  return "exact; plain ratio";
}

// How one metric was measured: a row for all variants, or where they differ one
// row for each way.
void AddMeasureRows(const RunTable& table, const std::string& name, doc::Table* measures) {
  using Way = std::vector<std::string>;  // unit, count, convention, statistic
  std::vector<Way> ways;
  std::vector<std::vector<std::string>> variants;
  for (const std::string& variant : table.variants()) {
    const Metric* metric = table.Find(variant, name);
    if (metric == nullptr) continue;
    const Way way = {FormatUnit(*metric), metric->count() > 0 ? absl::StrCat(metric->count()) : kNoValue, metric->convention(),
                     StatisticText(*metric)};
    const size_t place = absl::c_find(ways, way) - ways.begin();
    if (place == ways.size()) {
      ways.push_back(way);
      variants.emplace_back();
    }
    variants[place].push_back(variant);
  }
  for (size_t i = 0; i < ways.size(); ++i) {
    Text title = Data(name);
    if (ways.size() > 1) title.Words(" (").Data(absl::StrJoin(variants[i], ", ")).Words(")");
    Row& row = measures->rows.emplace_back(Row{title});
    for (const std::string& part : ways[i]) row.emplace_back(Data(part));
  }
}

Section MeasuresSection(const RunTable& table) {
  doc::Table measures{"How each metric was measured", doc::Columns({"metric", "unit", "count", "convention", "statistic; comparison"}, 5), {}};
  for (const std::string& metric : table.metrics()) AddMeasureRows(table, metric, &measures);
  return {"How each metric was measured", {std::move(measures)}};
}

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
  if (run.has_model_hash()) text.Words(", SHA-256 ").Code(run.model_hash().substr(0, 12));
  return text;
}

Text MachineText(const Machine& machine) {
  std::vector<Text> parts;
  if (machine.has_cpu()) parts.push_back(Data(machine.cpu()));
  if (machine.has_features()) parts.push_back(Data(machine.features()));
  if (machine.has_kernel_table()) parts.push_back(Data(machine.kernel_table()).Words(" kernels"));
  if (machine.has_threads()) {
    const std::string cpus = machine.has_cpus() ? absl::StrCat(" on ", machine.cpus(), " CPUs") : "";
    parts.push_back(Words(absl::StrCat(machine.threads(), machine.threads() == 1 ? " thread" : " threads", cpus)));
  }
  if (machine.has_read_bandwidth_gb_s()) {
    parts.push_back(Words(absl::StrCat("measured read bandwidth ", Significant(machine.read_bandwidth_gb_s(), 3), " GB/s")));
  }
  if (machine.has_fma_peak_gflop_s()) parts.push_back(Words(absl::StrCat("FMA peak ", Significant(machine.fma_peak_gflop_s(), 3), " GFLOP/s")));
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
  const Text machine = MachineText(table.machine());
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
  AddIfAny(MethodTablesSection(table), &document);
  AddIfAny(PartsSection(table), &document);
  AddIfAny(PipelinesSection(table), &document);
  AddIfAny(EventsSection(table), &document);
  AddIfAny(MeasuresSection(table), &document);
  AddIfAny(NotesSection(findings.notes), &document);
  AddIfAny(ReproduceSection(run), &document);
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
