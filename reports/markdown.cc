#include "reports/markdown.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "eval/statistics.h"
#include "reports/curve.h"
#include "reports/format.h"

namespace nibble {
namespace {

constexpr char kNoValue[] = "–";
constexpr double kBytesPerMib = 1024.0 * 1024.0;

// Numbered texts under a table; a text that comes again keeps its number.
class Footnotes {
 public:
  // The mark of `text`: "¹".
  std::string Mark(const std::string& text) {
    const auto place = absl::c_find(texts_, text);
    const size_t number = place - texts_.begin() + 1;
    if (place == texts_.end()) texts_.push_back(text);
    return Superscript(number);
  }

  std::string List() const {
    std::string list;
    for (size_t i = 0; i < texts_.size(); ++i) {
      absl::StrAppend(&list, "- ", Superscript(i + 1), " ", MarkdownCell(texts_[i]), "\n");
    }
    return list.empty() ? "" : absl::StrCat(list, "\n");
  }

 private:
  static std::string Superscript(size_t number) {
    static constexpr const char* kDigits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
    std::string mark;
    for (const char digit : absl::StrCat(number)) mark += kDigits[digit - '0'];
    return mark;
  }

  std::vector<std::string> texts_;
};

std::string Row(const std::vector<std::string>& cells) { return absl::StrCat("| ", absl::StrJoin(cells, " | "), " |\n"); }

// The header row of a table and the rule below it; the first column is text,
// of the others those from `numbers_from` on are set to the right.
std::string Header(const std::vector<std::string>& cells, size_t numbers_from) {
  std::vector<std::string> rules;
  for (size_t i = 0; i < cells.size(); ++i) rules.push_back(i >= numbers_from ? "---:" : ":---");
  return absl::StrCat(Row(cells), Row(rules));
}

std::string Code(const std::string& text) { return absl::StrCat("`", absl::StrReplaceAll(text, {{"`", "'"}}), "`"); }

// Any variant's measurement of a metric: unit, direction and kind are the same.
const Metric* AnyMetric(const RunTable& table, const std::string& name) {
  for (const std::string& variant : table.variants()) {
    if (const Metric* metric = table.Find(variant, name)) return metric;
  }
  return nullptr;
}

// ---- Head

std::string ModelSentence(const RunInfo& run) {
  std::string text = absl::StrCat("Model ", Code(run.model()));
  if (run.has_model_note()) absl::StrAppend(&text, " (", MarkdownCell(run.model_note()), ")");
  if (run.has_model_hash()) absl::StrAppend(&text, ", SHA-256 ", Code(run.model_hash().substr(0, 12)));
  return absl::StrCat(text, ".");
}

std::string MachineSentence(const Machine& machine) {
  std::vector<std::string> parts;
  if (machine.has_cpu()) parts.push_back(MarkdownCell(machine.cpu()));
  if (machine.has_features()) parts.push_back(MarkdownCell(machine.features()));
  if (machine.has_kernel_table()) parts.push_back(absl::StrCat(MarkdownCell(machine.kernel_table()), " kernels"));
  if (machine.has_threads()) {
    const std::string cpus = machine.has_cpus() ? absl::StrCat(" on ", machine.cpus(), " CPUs") : "";
    parts.push_back(absl::StrCat(machine.threads(), machine.threads() == 1 ? " thread" : " threads", cpus));
  }
  if (machine.has_read_bandwidth_gb_s()) {
    parts.push_back(absl::StrCat("measured read bandwidth ", Significant(machine.read_bandwidth_gb_s(), 3), " GB/s"));
  }
  if (machine.has_fma_peak_gflop_s()) {
    parts.push_back(absl::StrCat("FMA peak ", Significant(machine.fma_peak_gflop_s(), 3), " GFLOP/s"));
  }
  return parts.empty() ? "" : absl::StrCat(" Machine: ", absl::StrJoin(parts, ", "), ".");
}

std::string HeadText(const RunTable& table) {
  const RunInfo& run = table.run();
  const std::string commit = run.has_commit() ? absl::StrCat(" Nibble commit ", Code(run.commit()), ".") : "";
  return absl::StrCat("# ", MarkdownCell(run.name().empty() ? "Nibble run" : run.name()), "\n\n", ModelSentence(run),
                      MachineSentence(table.machine()), commit, "\n\n");
}

// ---- Results

std::string MetricHeader(const RunTable& table, const std::string& name) {
  const Metric* metric = AnyMetric(table, name);
  if (metric == nullptr) return MarkdownCell(name);
  const std::string unit = FormatUnit(*metric);
  return absl::StrCat(MarkdownCell(name), metric->better() == HIGHER ? " ↑" : " ↓",
                      unit.empty() ? "" : absl::StrCat(" (", MarkdownCell(unit), ")"));
}

std::string ValueText(const Metric& metric) {
  const std::string value = FormatValue(metric, metric.value());
  return metric.has_stderr() ? absl::StrCat(value, " ± ", FormatDeviation(metric, metric.stderr())) : value;
}

template <typename Format>
std::string IntervalText(const Metric& metric, const Estimate& estimate, Format format) {
  if (!estimate.interval.has_value()) return "";
  return absl::StrCat(" [", format(metric, estimate.interval->low), ", ", format(metric, estimate.interval->high), "]");
}

// Ratio or difference with its interval; where that is missing, marked with why.
std::string ComparisonText(const Metric& metric, const Comparison& comparison, Footnotes* notes) {
  std::string text;
  if (const auto& ratio = comparison.ratio) {
    text = absl::StrCat("×", FormatRatio(metric, ratio->value), IntervalText(metric, *ratio, FormatRatio));
  } else if (const auto& difference = comparison.difference) {
    text = absl::StrCat(FormatDifference(metric, difference->value), IsShare(metric) ? " pp" : "",
                        IntervalText(metric, *difference, FormatDifference));
  }
  if (comparison.recovery.has_value()) absl::StrAppend(&text, "<br>", Decimals(*comparison.recovery, 1), " % recovered");
  if (!comparison.why.empty()) absl::StrAppend(&text, notes->Mark(absl::StrCat("no interval: ", comparison.why)));
  return text;
}

std::string MeasuredCell(const RunTable& table, const std::string& variant, const Metric& metric, Footnotes* notes) {
  if (IsWithheld(metric)) return "simulated";
  const std::string value = ValueText(metric);
  if (variant == table.baseline()) return value;
  const Metric* baseline = table.Baseline(metric.name());
  // Where the baseline has no such metric by nature, as a divergence from itself,
  // that needs no remark.
  if (baseline == nullptr && table.FailureBehind(table.baseline(), metric.name()) == nullptr) return value;
  const Comparison comparison = Compare(metric, baseline);
  const bool has_text = comparison.ratio.has_value() || comparison.difference.has_value() || comparison.recovery.has_value();
  return absl::StrCat(value, has_text ? "<br>" : "", ComparisonText(metric, comparison, notes));
}

std::string FailureText(const JobResult& job) {
  return absl::StrCat(job.variant(), ", ", job.job(), ": ", job.error());
}

std::string ResultCell(const RunTable& table, const std::string& variant, const std::string& name, Footnotes* notes) {
  if (const Metric* metric = table.Find(variant, name)) return MeasuredCell(table, variant, *metric, notes);
  if (const JobResult* job = table.FailureBehind(variant, name)) {
    return absl::StrCat("failed", notes->Mark(FailureText(*job)));
  }
  return kNoValue;
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

std::string ResultRow(const RunTable& table, const std::string& variant, Footnotes* notes) {
  const std::string name = MarkdownCell(variant);
  std::vector<std::string> row = {variant == table.baseline() ? absl::StrCat(name, " (baseline)") : name,
                                  ArithmeticText(table, variant)};
  for (const std::string& metric : table.metrics()) row.push_back(ResultCell(table, variant, metric, notes));
  return Row(row);
}

// Failures that left no cell empty still belong below the table.
void MarkAllFailures(const RunTable& table, Footnotes* notes) {
  for (const std::string& variant : table.variants()) {
    for (const JobResult* job : table.Failures(variant)) notes->Mark(FailureText(*job));
  }
}

bool HasWithheld(const RunTable& table) {
  return absl::c_any_of(table.variants(), [&](const std::string& variant) {
    return absl::c_any_of(MetricsOf(table, variant), [](const Metric* metric) { return IsWithheld(*metric); });
  });
}

std::string Legend(const RunTable& table) {
  std::string text = absl::StrCat(
      "value ± standard error; below it, against the baseline", table.baseline().empty() ? "" : " ",
      table.baseline().empty() ? "" : Code(table.baseline()),
      ": × the ratio or ± the difference (pp: percentage points) with its 95 % confidence interval, paired by window, "
      "item or round. ↓ smaller is better, ↑ larger.");
  if (HasWithheld(table)) {
    absl::StrAppend(&text, " simulated: the variant has a scheme without a packed kernel; its quality is right, its "
                           "speed would say nothing and is withheld.");
  }
  return absl::StrCat(text, "\n\n");
}

std::string ResultsSection(const RunTable& table, const std::string& plot) {
  std::vector<std::string> header = {"variant", "arithmetic"};
  for (const std::string& metric : table.metrics()) header.push_back(MetricHeader(table, metric));
  std::string text = absl::StrCat("## Results\n\n", Header(header, 2));
  Footnotes notes;
  for (const std::string& variant : table.variants()) absl::StrAppend(&text, ResultRow(table, variant, &notes));
  MarkAllFailures(table, &notes);
  absl::StrAppend(&text, "\n", Legend(table), notes.List());
  if (!plot.empty()) absl::StrAppend(&text, "![size against perplexity](", plot, ")\n\n");
  return text;
}

// ---- Gates

std::string GatesSection(const std::vector<GateOutcome>& gates) {
  if (gates.empty()) return "";
  const int64_t failed = absl::c_count_if(gates, [](const GateOutcome& gate) { return !gate.passed; });
  const std::string verdict =
      failed == 0 ? "All passed." : absl::StrCat("**", failed, " of ", gates.size(), " failed.**");
  std::string text =
      absl::StrCat("## Gates\n\n", verdict, "\n\n", Header({"", "variant", "metric", "result"}, 4));
  for (const GateOutcome& gate : gates) {
    absl::StrAppend(&text, Row({gate.passed ? "pass" : "**FAIL**", MarkdownCell(gate.variant),
                                MarkdownCell(gate.metric), MarkdownCell(gate.message)}));
  }
  return absl::StrCat(text, "\n");
}

// ---- Contrasts

std::string ContrastsSection(const RunTable& table, const std::vector<ContrastedMetric>& metrics) {
  Footnotes notes;
  std::string rows;
  for (const ContrastedMetric& contrasted : metrics) {
    absl::StrAppend(&rows, Row({MarkdownCell(contrasted.contrast->variant()), MarkdownCell(contrasted.contrast->against()),
                                MetricHeader(table, contrasted.metric->name()),
                                ComparisonText(*contrasted.metric, contrasted.comparison, &notes), contrasted.Verdict()}));
  }
  if (rows.empty()) return "";
  return absl::StrCat("## Contrasts\n\nVariants against each other: × the ratio or ± the difference with its 95 % confidence interval, paired by "
                      "window or item. \"better\" and \"worse\" where the interval leaves no other reading.\n\n",
                      Header({"variant", "against", "metric", "comparison", ""}, 3), rows, "\n", notes.List());
}

// ---- Seeds

std::string RepeatedValueText(const RepeatedValue& value, Footnotes* notes) {
  const std::string label = absl::StrCat(MarkdownCell(value.repetition->label()), ": ");
  if (value.metric != nullptr) return label + FormatValue(*value.metric, value.metric->value());
  return absl::StrCat(label, value.missing, value.failure == nullptr ? "" : notes->Mark(FailureText(*value.failure)));
}

std::string RepeatedRow(const RunTable& table, const RepeatedMetric& repeated, Footnotes* notes) {
  std::vector<std::string> row = {MarkdownCell(repeated.variant), MetricHeader(table, repeated.metric),
                                  absl::StrCat(repeated.counted, " of ", repeated.values.size())};
  if (const auto& spread = repeated.spread) {
    const Metric& metric = *AnyMetric(table, repeated.metric);
    const std::string deviation = spread->deviation.has_value() ? absl::StrCat(" ± ", FormatDeviation(metric, *spread->deviation)) : "";
    row.push_back(FormatValue(metric, spread->mean) + deviation);
    row.push_back(absl::StrCat(FormatValue(metric, spread->low), " to ", FormatValue(metric, spread->high)));
    row.push_back(table.Baseline(repeated.metric) == nullptr ? "" : ComparisonText(metric, repeated.comparison, notes));
  } else {
    row.insert(row.end(), 3, kNoValue);
  }
  std::vector<std::string> values;
  for (const RepeatedValue& value : repeated.values) values.push_back(RepeatedValueText(value, notes));
  row.push_back(absl::StrJoin(values, ", "));
  return Row(row);
}

std::string SeedsSection(const RunTable& table, const std::vector<RepeatedMetric>& metrics) {
  Footnotes notes;
  std::string rows;
  for (const RepeatedMetric& repeated : metrics) absl::StrAppend(&rows, RepeatedRow(table, repeated, &notes));
  if (rows.empty()) return "";
  return absl::StrCat("## Seeds\n\nVariants that were run several times, alike but for a seed: how many repetitions count, their mean ± "
                      "standard deviation, the smallest and the largest value. Against the baseline: × the geometric mean of the ratios or ± the mean "
                      "difference, with the 95 % confidence interval by Student's t over the repetitions; it holds the spread over seeds alone, "
                      "and those of the results the spread over the text.\n\n",
                      Header({"variant", "metric", "repetitions", "mean", "range", "against the baseline", "each"}, 2), rows, "\n", notes.List());
}

// ---- Size by part

std::vector<std::string> PartNames(const RunTable& table, const std::string& metric_name) {
  std::vector<std::string> names;
  for (const std::string& variant : table.variants()) {
    const Metric* metric = table.Find(variant, metric_name);
    if (metric == nullptr) continue;
    for (const Metric::Part& part : metric->part()) {
      if (!absl::c_linear_search(names, part.name())) names.push_back(part.name());
    }
  }
  return names;
}

std::string PartText(int64_t bytes, int64_t parameters) {
  const std::string mib = Decimals(static_cast<double>(bytes) / kBytesPerMib, 1);
  if (parameters <= 0) return mib;
  return absl::StrCat(mib, " (", Decimals(8.0 * static_cast<double>(bytes) / static_cast<double>(parameters), 2), ")");
}

std::string PartRow(const std::string& variant, const Metric& metric, const std::vector<std::string>& names) {
  std::vector<std::string> row = {MarkdownCell(variant)};
  int64_t total_bytes = 0, total_parameters = 0;
  for (const std::string& name : names) {
    const auto part = absl::c_find_if(metric.part(), [&](const Metric::Part& p) { return p.name() == name; });
    if (part == metric.part().end()) {
      row.push_back(kNoValue);
      continue;
    }
    row.push_back(PartText(part->bytes(), part->parameters()));
    total_bytes += part->bytes();
    total_parameters += part->parameters();
  }
  row.push_back(PartText(total_bytes, total_parameters));
  return Row(row);
}

std::string PartTable(const RunTable& table, const std::string& metric_name) {
  const std::vector<std::string> names = PartNames(table, metric_name);
  if (names.empty()) return "";
  std::vector<std::string> header = {MarkdownCell(metric_name)};
  for (const std::string& name : names) header.push_back(MarkdownCell(name));
  header.push_back("sum of parts");
  std::string text = Header(header, 1);
  for (const std::string& variant : table.variants()) {
    const Metric* metric = table.Find(variant, metric_name);
    if (metric != nullptr && metric->part_size() > 0) absl::StrAppend(&text, PartRow(variant, *metric, names));
  }
  return absl::StrCat(text, "\n");
}

std::string PartsSection(const RunTable& table) {
  std::string tables;
  for (const std::string& metric : table.metrics()) absl::StrAppend(&tables, PartTable(table, metric));
  if (tables.empty()) return "";
  return absl::StrCat("## Size by part\n\nMiB, scales and tables included; in brackets the bits per parameter.\n\n",
                      tables);
}

// ---- Recovery

std::string RecoveryCell(const RunTable& table, const Lineage& lineage, const std::string& reference, const std::string& metric, Footnotes* notes) {
  const Metric* untrained = table.Find(lineage.untrained(), metric);
  const Metric* trained = table.Find(lineage.variant(), metric);
  const Metric* other = reference.empty() ? nullptr : table.Find(reference, metric);
  if (untrained == nullptr || trained == nullptr || other == nullptr) return kNoValue;
  const Recovery recovery = RecoveryOf(*untrained, *trained, *other);
  const std::string mark = recovery.why.empty() ? "" : notes->Mark(recovery.why);
  if (!recovery.share.has_value()) return absl::StrCat(kNoValue, mark);
  std::string text = absl::StrCat(Decimals(recovery.share->value, 1), " %");
  if (const auto& interval = recovery.share->interval) {
    absl::StrAppend(&text, " [", Decimals(interval->low, 1), ", ", Decimals(interval->high, 1), "]");
  }
  return absl::StrCat(text, mark);
}

// A quality that the blocks of windows or items give.
bool IsQuality(const RunTable& table, const std::string& name) {
  const Metric* metric = AnyMetric(table, name);
  return metric != nullptr && (metric->aggregate() == Metric::MEAN || metric->aggregate() == Metric::EXP_MEAN) &&
         (absl::StartsWith(name, "perplexity/") || absl::StartsWith(name, "accuracy"));
}

std::string RecoverySection(const RunTable& table) {
  Footnotes notes;
  std::string rows;
  for (const Lineage& lineage : table.run().lineage()) {
    for (const std::string& metric : table.metrics()) {
      if (!IsQuality(table, metric)) continue;
      const auto cell = [&](const std::string& reference) {
        return absl::StrCat(RecoveryCell(table, lineage, reference, metric, &notes), reference.empty() ? "" : absl::StrCat(" of ", Code(reference)));
      };
      absl::StrAppend(&rows, Row({MarkdownCell(lineage.variant()), MarkdownCell(lineage.untrained()), MarkdownCell(metric), cell(lineage.twin()),
                                  cell(table.baseline())}));
    }
  }
  if (rows.empty()) return "";
  return absl::StrCat("## Recovery\n\nWhat share of the loss by rounding alone the trained variant brings back: against its twin, trained alike in "
                      "full precision (what quantization costs), and against the untouched baseline (training's own gain included); in brackets the "
                      "95 % confidence interval over blocks.\n\n",
                      Header({"trained", "rounded alone", "metric", "against the twin", "against the baseline"}, 3), rows, "\n", notes.List());
}

// ---- Training

std::string TrainingRow(const std::string& variant, const TrainingCurve& curve) {
  const std::vector<double> loss(curve.loss().begin(), curve.loss().end()), accuracy(curve.accuracy().begin(), curve.accuracy().end());
  return Row({MarkdownCell(variant), MarkdownCell(curve.label()), absl::StrCat(curve.updates()), absl::StrCat(curve.tokens()),
              Decimals(loss.empty() ? 0 : loss.front(), 4), Decimals(LastLoss(loss), 4), accuracy.empty() ? kNoValue : Decimals(LastLoss(accuracy), 3),
              Decimals(curve.seconds() / 60, 1), curve.reused() ? "taken from the cache" : "made in this run"});
}

std::string TrainingSection(const RunTable& table, const std::string& plot) {
  std::string rows;
  for (const std::string& variant : table.variants()) {
    for (const TrainingCurve& curve : table.Build(variant).training()) absl::StrAppend(&rows, TrainingRow(variant, curve));
  }
  if (rows.empty()) return "";
  const std::string image = plot.empty() ? "" : absl::StrCat("\n![loss](", plot, ")\n");
  return absl::StrCat("## Training\n\n",
                      Header({"variant", "step", "updates", "tokens", "first loss", "last loss", "accuracy", "minutes", ""}, 2), rows,
                      "\nFirst loss: mean of the first of 200 parts of the updates; last: of the last tenth.\n", image, "\n");
}

// ---- Errors by layer

constexpr size_t kLayersNamed = 5;

// "2 of 28 layers lost more than rounding to nearest would have: a, b."
std::string WorseLayersSentence(const LayerGroup& group) {
  std::vector<std::string> worse;
  for (const QuantizedLayer* layer : group.layers) {
    if (IsWorseThanRounding(*layer)) worse.push_back(Code(layer->layer()));
  }
  const std::string count = absl::StrCat(worse.empty() ? "none" : absl::StrCat(worse.size()), " of ", group.layers.size(),
                                         group.layers.size() == 1 ? " layer" : " layers");
  const size_t more = worse.size() - std::min(worse.size(), kLayersNamed);
  worse.resize(worse.size() - more);
  return absl::StrCat(count, " lost more than rounding to nearest would have", worse.empty() ? "" : ": ", absl::StrJoin(worse, ", "),
                      more == 0 ? "" : absl::StrCat(" and ", more, " more"), ".");
}

std::string LayerKindRow(const LayerKind& kind) {
  return Row({MarkdownCell(kind.name), absl::StrCat(kind.layers), Significant(kind.mean_ratio, 4), Significant(ErrorRatio(*kind.worst), 4),
              Code(kind.worst->layer()), absl::StrCat(kind.worse)});
}

std::string LayersSection(const std::vector<LayerGroup>& groups, const std::string& file) {
  std::string text;
  for (const LayerGroup& group : groups) {
    absl::StrAppend(&text, "**", MarkdownCell(group.variant), "**, ", MarkdownCell(group.method), ": ", WorseLayersSentence(group), "\n\n",
                    Header({"linear", "layers", "mean ratio", "worst ratio", "its layer", "worse than rounding"}, 1));
    for (const LayerKind& kind : LayerKinds(group)) absl::StrAppend(&text, LayerKindRow(kind));
    absl::StrAppend(&text, "\n");
  }
  if (text.empty()) return "";
  return absl::StrCat("## Errors by layer\n\nThe error that quantizing a layer made on the method's calibration data, over that of rounding to "
                      "nearest on the same scheme: below 1 the method gained. The mean is geometric. Every layer: [", file, "](", file, ").\n\n",
                      text);
}

// ---- Tables of methods

std::string MethodTableText(const std::string& variant, const MethodTable& table) {
  std::vector<std::string> columns;
  for (const std::string& column : table.column()) columns.push_back(MarkdownCell(column));
  std::string text = absl::StrCat("**", MarkdownCell(variant), "**: ", MarkdownCell(table.title()), ".\n\n", Header(columns, 1));
  for (const MethodTable::Row& row : table.row()) {
    std::vector<std::string> cells;
    for (const std::string& cell : row.cell()) cells.push_back(MarkdownCell(cell));
    absl::StrAppend(&text, Row(cells));
  }
  return text + "\n";
}

std::string MethodTablesSection(const RunTable& table) {
  std::string text;
  for (const std::string& variant : table.variants()) {
    for (const MethodTable& own : table.Build(variant).table()) absl::StrAppend(&text, MethodTableText(variant, own));
  }
  return text.empty() ? "" : absl::StrCat("## What methods measured\n\n", text);
}

// ---- Pipelines, events, methods of measurement

std::string PipelinesSection(const RunTable& table) {
  std::string text = "## Pipelines\n\n";
  for (const std::string& variant : table.variants()) {
    const std::string& pipeline = table.Build(variant).pipeline();
    absl::StrAppend(&text, "**", MarkdownCell(variant), "**\n\n", pipeline.empty() ? "not run\n" : CodeBlock(pipeline),
                    "\n");
  }
  return text;
}

// What an event row shows but for its jobs: jobs of one variant share its build,
// and with it the events of the build, which must not be added up.
using EventKey = std::tuple<std::string, int64_t, std::string>;

void AppendVariantEvents(const RunTable& table, const std::string& variant, std::string* text) {
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
    absl::StrAppend(text, Row({MarkdownCell(variant), MarkdownCell(std::get<0>(key)), absl::StrCat(std::get<1>(key)),
                               MarkdownCell(std::get<2>(key)), MarkdownCell(absl::StrJoin(jobs[key], ", "))}));
  }
}

std::string EventsSection(const RunTable& table) {
  std::string rows;
  for (const std::string& variant : table.variants()) AppendVariantEvents(table, variant, &rows);
  const std::string body =
      rows.empty() ? "None.\n" : absl::StrCat(Header({"variant", "event", "count", "detail", "seen in"}, 5), rows);
  return absl::StrCat("## Events counted\n\nWhat did not go as asked and was counted instead of hidden.\n\n", body, "\n");
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
std::string MeasureRows(const RunTable& table, const std::string& name) {
  std::vector<std::vector<std::string>> ways;
  std::vector<std::vector<std::string>> variants;
  for (const std::string& variant : table.variants()) {
    const Metric* metric = table.Find(variant, name);
    if (metric == nullptr) continue;
    const std::vector<std::string> way = {FormatUnit(*metric), metric->count() > 0 ? absl::StrCat(metric->count()) : kNoValue,
                                          MarkdownCell(metric->convention()), StatisticText(*metric)};
    const size_t place = absl::c_find(ways, way) - ways.begin();
    if (place == ways.size()) {
      ways.push_back(way);
      variants.emplace_back();
    }
    variants[place].push_back(variant);
  }
  std::string rows;
  for (size_t i = 0; i < ways.size(); ++i) {
    std::vector<std::string> row = {MarkdownCell(name)};
    if (ways.size() > 1) absl::StrAppend(&row[0], " (", MarkdownCell(absl::StrJoin(variants[i], ", ")), ")");
    row.insert(row.end(), ways[i].begin(), ways[i].end());
    absl::StrAppend(&rows, Row(row));
  }
  return rows;
}

std::string MeasuresSection(const RunTable& table) {
  std::string text = absl::StrCat("## How each metric was measured\n\n",
                                  Header({"metric", "unit", "count", "convention", "statistic; comparison"}, 5));
  for (const std::string& metric : table.metrics()) absl::StrAppend(&text, MeasureRows(table, metric));
  return absl::StrCat(text, "\n");
}

// ---- Tail

std::string NotesSection(const std::vector<std::string>& notes) {
  if (notes.empty()) return "";
  std::string text = "## Notes\n\n";
  for (const std::string& note : notes) absl::StrAppend(&text, "- ", MarkdownCell(note), "\n");
  return absl::StrCat(text, "\n");
}

std::string ReproduceSection(const RunInfo& run) {
  std::string text = absl::StrCat("## Reproduce\n\n", CodeBlock(run.command(), "sh"));
  if (run.config().empty()) return text;
  const std::string path = run.config_path().empty() ? "" : absl::StrCat(": ", EscapeXml(run.config_path()));
  return absl::StrCat(text, "\n<details><summary>The experiment as it ran", path, "</summary>\n\n",
                      CodeBlock(run.config(), "textproto"), "\n</details>\n");
}

}  // namespace

std::string ReportMarkdown(const RunTable& table, const Findings& findings, const std::string& plot, const std::string& loss_plot,
                           const std::string& layers_file) {
  return absl::StrCat(HeadText(table), ResultsSection(table, plot), GatesSection(findings.gates), ContrastsSection(table, findings.contrasts),
                      SeedsSection(table, findings.repetitions), RecoverySection(table), TrainingSection(table, loss_plot),
                      LayersSection(findings.layers, layers_file), MethodTablesSection(table), PartsSection(table), PipelinesSection(table), EventsSection(table),
                      MeasuresSection(table), NotesSection(findings.notes), ReproduceSection(table.run()));
}

}  // namespace nibble
