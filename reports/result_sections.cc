#include "reports/section_parts.h"

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "reports/format.h"
#include "reports/sections.h"
#include "reports/spread.h"

namespace nibble {
namespace {

using doc::Cell;
using doc::Notes;
using doc::Row;
using doc::Section;
using doc::Text;

// ---- Results

std::string PText(const PairedItems& items) { return Significant(McNemarP(items), 2); }

// What a figure's record says of right and wrong answers, "" of others.
std::string ItemsDetail(const Record* record) {
  if (record == nullptr || !record->tests.has_value()) return "";
  const PairedItems& items = *record->comparison.items;
  return absl::StrCat("of ", items.items, " items ", items.gained, " gained, ", items.lost, " lost, McNemar's exact p ", PText(items),
                      "; bootstrap interval ", FormatDifferences(*record->metric, record->tests->bootstrap));
}

Text ValueText(const RunTable& table, const RecordIndex& index, const std::string& variant, const Metric& metric, Notes* notes) {
  const std::string id = RecordId(table, variant, metric.name());
  Text text = Text().Record(FormatMeasured(metric), id, ItemsDetail(index.Find(variant, metric.name())));
  if (IsWideValue(metric)) notes->Mark(kWideValueNote, &text);
  return text;
}

Text MetricText(const RunTable& table, const RecordIndex& index, const std::string& variant, const Metric& metric, Notes* notes) {
  if (IsWithheld(metric)) return Words("simulated");
  Text text = ValueText(table, index, variant, metric, notes);
  if (variant == table.baseline()) return text;
  const Metric* baseline = table.Baseline(metric.name());
  // Where the baseline has no such metric by nature, as a divergence from itself,
  // that needs no remark.
  if (baseline == nullptr && table.FailureBehind(table.baseline(), metric.name()) == nullptr) return text;
  const Comparison comparison = Compare(metric, baseline);
  if (comparison.comparable() || comparison.recovery.has_value()) text.Break();
  return text.Append(ComparisonText(metric, comparison, notes));
}

Cell ResultCell(const RunTable& table, const RecordIndex& index, const std::string& variant, const std::string& name, Notes* notes) {
  if (const Metric* metric = table.Find(variant, name)) {
    Cell cell(MetricText(table, index, variant, *metric, notes));
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

Text VariantTitle(const RunTable& table, const std::string& variant) {
  return Data(variant).Words(variant == table.baseline() ? " (baseline)" : "");
}

doc::Table ResultsByVariant(const RunTable& table, const RecordIndex& index, Notes* notes) {
  std::vector<Text> titles = {Words("variant"), Words("arithmetic")};
  for (const std::string& metric : table.metrics()) titles.push_back(MetricTitleIn(table, metric));
  doc::Table results{"Results by variant", doc::Columns(titles, 2), {}};
  for (const std::string& variant : table.variants()) {
    Row& row = results.rows.emplace_back(Row{VariantTitle(table, variant), Words(ArithmeticText(table, variant))});
    for (const std::string& metric : table.metrics()) row.push_back(ResultCell(table, index, variant, metric, notes));
  }
  return results;
}

doc::Table ResultsByMetric(const RunTable& table, const RecordIndex& index, Notes* notes) {
  std::vector<Text> titles = {Words("metric")};
  Row arithmetic = {Words("arithmetic")};
  for (const std::string& variant : table.variants()) {
    titles.push_back(VariantTitle(table, variant));
    arithmetic.emplace_back(Words(ArithmeticText(table, variant)));
  }
  doc::Table results{"Results by metric", doc::Columns(titles, 1), {std::move(arithmetic)}, /*is_sortable=*/false};
  for (const std::string& metric : table.metrics()) {
    Row& row = results.rows.emplace_back(Row{MetricTitleIn(table, metric)});
    for (const std::string& variant : table.variants()) row.push_back(ResultCell(table, index, variant, metric, notes));
  }
  return results;
}

// Few variants with many metrics read better down a page than across it.
bool HasManyMetrics(const RunTable& table) {
  constexpr size_t kMany = 10;
  return table.metrics().size() >= kMany && table.metrics().size() > 2 * table.variants().size();
}

// Failures that left no cell empty still belong below the table.
void KeepAllFailures(const RunTable& table, Notes* notes) {
  for (const std::string& variant : table.variants()) {
    for (const JobResult* job : table.Failures(variant)) notes->Keep(FailureText(*job));
  }
}

bool HasMetric(const RunTable& table, bool (*is_meant)(const Metric&)) {
  return absl::c_any_of(table.variants(), [&](const std::string& variant) {
    return absl::c_any_of(MetricsOf(table, variant), [&](const Metric* metric) { return is_meant(*metric); });
  });
}

bool HasBaselineBeside(const Metric& metric) { return !IsWithheld(metric) && metric.baseline_block_sum_size() > 0; }

Text Legend(const RunTable& table) {
  Text text = Words("value ± standard error; below it, against the baseline");
  if (!table.baseline().empty()) text.Words(" ").Code(table.baseline());
  text.Words(": × the ratio or ± the difference (pp: percentage points) with its 95 % confidence interval, paired by window, "
             "item or round; of a text both allow for neighbouring windows that are alike. ↓ smaller is better, ↑ larger.");
  if (HasMetric(table, HasBaselineBeside)) {
    text.Words(" A timing's ratio is to the baseline's rounds between its own; where the machine was faster or slower at other times, it is not "
               "the ratio of the two figures here.");
  }
  if (HasMetric(table, IsWithheld)) {
    text.Words(" simulated: the variant has a scheme without a packed kernel; its quality is right, its speed would say nothing and is withheld.");
  }
  return text;
}

}  // namespace

Section ResultsSection(const RunTable& table, const Records& records, const std::string& plot) {
  const RecordIndex index(records);
  Notes notes;
  doc::Table results = HasManyMetrics(table) ? ResultsByMetric(table, index, &notes) : ResultsByVariant(table, index, &notes);
  KeepAllFailures(table, &notes);
  Section section{kResultsSection, {std::move(results), doc::Paragraph{Legend(table)}}};
  AddNotes(notes, &section);
  if (!plot.empty()) section.blocks.push_back(doc::Image{"size against perplexity", plot});
  return section;
}

// ---- Gates

Section GatesSection(const RunTable& table, const std::vector<GateOutcome>& gates) {
  Section section{"Gates", {}};
  if (gates.empty()) return section;
  const int64_t failed = absl::c_count_if(gates, [](const GateOutcome& gate) { return !gate.passed; });
  section.blocks.push_back(
      doc::Paragraph{failed == 0 ? Words("All passed.") : Text().StrongWords(absl::StrCat(failed, " of ", gates.size(), " failed."))});
  doc::Table outcomes{"Gates", doc::Columns({"", "variant", "metric", "result"}, 4), {}};
  for (const GateOutcome& gate : gates) {
    outcomes.rows.push_back({gate.passed ? Words("pass") : Text().StrongWords("FAIL"), Data(gate.variant), Data(gate.metric),
                             Text().RecordData(gate.message, RecordId(table, gate.variant, gate.metric))});
  }
  section.blocks.push_back(std::move(outcomes));
  return section;
}

namespace {

// ---- Accuracies

void AddItemFigures(const Record& record, Row* row) {
  if (!record.tests.has_value()) {
    row->insert(row->end(), 5, Words(kNoValue));
    return;
  }
  const PairedItems& items = *record.comparison.items;
  const ItemTests& tests = *record.tests;
  for (const Interval& interval : {*record.comparison.difference->interval, tests.bootstrap}) {
    row->emplace_back(Words(FormatDifferences(*record.metric, interval)), interval.low);
  }
  row->push_back(CountCell(items.gained));
  row->push_back(CountCell(items.lost));
  row->emplace_back(Words(PText(items)), tests.mcnemar_p);
}

// Why a score has no figures of items.
std::string WhyNoItems(const Comparison& comparison) {
  return comparison.why.empty() ? "items that score otherwise than right or wrong: the interval in the results is Student's t" : comparison.why;
}

Row AccuracyRow(const RunTable& table, const Record& record, Notes* notes) {
  const Metric& metric = *record.metric;
  const Comparison& comparison = record.comparison;
  Row row = {Data(record.variant), MetricTitleIn(table, metric.name())};
  Text difference = Words(kNoValue);
  if (const auto& estimate = comparison.difference) difference = Words(absl::StrCat(FormatDifference(metric, estimate->value), IsShare(metric) ? " pp" : ""));
  if (!record.tests.has_value()) notes->Mark(WhyNoItems(comparison), &difference);
  row.emplace_back(std::move(difference), ComparisonNumber(comparison));
  AddItemFigures(record, &row);
  row.emplace_back(Words(comparison.recovery.has_value() ? absl::StrCat(Decimals(*comparison.recovery, 1), " %") : kNoValue), comparison.recovery);
  LinkFigures(RecordId(table, record.variant, metric.name()), &row);
  return row;
}

}  // namespace

Section AccuraciesSection(const RunTable& table, const Records& records) {
  Section section{"Accuracies against the baseline", {}};
  Notes notes;
  doc::Table accuracies{"Accuracies against the baseline",
                        doc::Columns({"variant", "metric", "difference", "score interval", "bootstrap interval", "gained", "lost", "p", "recovery"}, 2), {}};
  for (const Record& record : records.records) {
    const bool is_compared = record.variant != table.baseline() && table.Baseline(record.metric->name()) != nullptr;
    if (is_compared && IsScore(*record.metric)) accuracies.rows.push_back(AccuracyRow(table, record, &notes));
  }
  if (accuracies.rows.empty()) return section;
  Text intro = Words("The same items answered by a variant and by ").Code(table.baseline());
  intro.Words(": the difference with two 95 % intervals, the score interval, by which to decide, and the paired bootstrap's; the items that the variant "
              "alone has right (gained) and wrong (lost), and McNemar's exact p, how likely a split as uneven would be by chance; recovery, the share of "
              "the baseline's accuracy that is left. Better or worse is a variant whose score interval leaves out 0 and whose p is 0.05 or less.");
  section.blocks.push_back(doc::Paragraph{std::move(intro)});
  section.blocks.push_back(std::move(accuracies));
  AddNotes(notes, &section);
  return section;
}

namespace {

// ---- Contrasts

// "; 14 items gained, 6 lost, p 0.12" where the metric is of right and wrong answers.
Text ItemsText(const Comparison& comparison) {
  const auto& items = comparison.items;
  if (!items.has_value()) return Text();
  return Words(absl::StrCat("; ", items->gained, " gained, ", items->lost, " lost, p ", PText(*items)));
}

}  // namespace

Section ContrastsSection(const RunTable& table, const std::vector<ContrastedMetric>& metrics) {
  Section section{"Contrasts", {}};
  if (metrics.empty()) return section;
  Notes notes;
  doc::Table contrasts{"Variants against each other", doc::Columns({"variant", "against", "metric", "comparison", ""}, 3), {}};
  for (const ContrastedMetric& contrasted : metrics) {
    const std::string &variant = contrasted.contrast->variant(), &against = contrasted.contrast->against(), &name = contrasted.metric->name();
    const std::string id = RecordId(table, variant, name);
    Text comparison = ComparisonText(*contrasted.metric, contrasted.comparison, &notes).Append(ItemsText(contrasted.comparison));
    contrasts.rows.push_back({Text().RecordData(variant, id), Text().RecordData(against, RecordId(table, against, name)), MetricTitleIn(table, name),
                              {comparison.LinkToRecord(id), ComparisonNumber(contrasted.comparison)}, Words(contrasted.Verdict())});
  }
  section.blocks.push_back(doc::Paragraph{
      Words("Variants against each other: × the ratio or ± the difference with its 95 % confidence interval, paired by "
            "window or item. \"better\" and \"worse\" where the interval leaves no other reading. Of accuracies also the items that "
            "the variant alone has right (gained) and wrong (lost), with McNemar's exact p.")});
  section.blocks.push_back(std::move(contrasts));
  AddNotes(notes, &section);
  return section;
}

namespace {

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

}  // namespace

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

namespace {

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
    text.LinkToRecord(RecordId(table, lineage.variant(), metric));
  }
  if (!recovery.why.empty()) notes->Mark(recovery.why, &text);
  return text;
}

bool IsQualityOf(const RunTable& table, const std::string& name) {
  const Metric* metric = AnyMetric(table, name);
  return metric != nullptr && IsQuality(*metric);
}

Row RecoveryRow(const RunTable& table, const Lineage& lineage, const std::string& metric, Notes* notes) {
  const auto name = [&](const std::string& variant) { return Text().RecordData(variant, RecordId(table, variant, metric)); };
  Row row = {name(lineage.variant()), name(lineage.untrained()), Data(metric)};
  for (const std::string& reference : {lineage.twin(), table.baseline()}) {
    Text text = RecoveryText(table, lineage, reference, metric, notes);
    if (!reference.empty()) text.Words(" of ").Code(reference);
    row.emplace_back(std::move(text));
  }
  return row;
}

}  // namespace

Section RecoverySection(const RunTable& table) {
  Section section{"Recovery", {}};
  Notes notes;
  doc::Table recoveries{"Recovery", doc::Columns({"trained", "rounded alone", "metric", "against the twin", "against the baseline"}, 3), {}};
  for (const Lineage& lineage : table.run().lineage()) {
    for (const std::string& metric : table.metrics()) {
      if (IsQualityOf(table, metric)) recoveries.rows.push_back(RecoveryRow(table, lineage, metric, &notes));
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

}  // namespace nibble
