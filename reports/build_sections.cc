#include "reports/section_parts.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "reports/curve.h"
#include "reports/format.h"
#include "reports/sections.h"

namespace nibble {
namespace {

using doc::Cell;
using doc::Notes;
using doc::Row;
using doc::Section;
using doc::Text;

constexpr double kBytesPerMib = 1024.0 * 1024.0;

// ---- Training

Row TrainingRow(const RunTable& table, const std::string& variant, const TrainingCurve& curve) {
  const std::vector<double> loss(curve.loss().begin(), curve.loss().end()), accuracy(curve.accuracy().begin(), curve.accuracy().end());
  const double first = loss.empty() ? 0 : loss.front(), last = LastLoss(loss), minutes = curve.seconds() / 60;
  Row row = {Data(variant), Data(curve.label()), CountCell(curve.updates()), CountCell(curve.tokens())};
  row.emplace_back(Words(Decimals(first, 4)), first);
  row.emplace_back(Words(Decimals(last, 4)), last);
  if (accuracy.empty()) {
    row.emplace_back(Words(kNoValue));
  } else {
    row.emplace_back(Words(Decimals(LastLoss(accuracy), 3)), LastLoss(accuracy));
  }
  row.emplace_back(Words(Decimals(minutes, 1)), minutes);
  LinkFigures(BuildId(table, variant), &row);
  row.emplace_back(Words(curve.reused() ? "taken from the cache" : "made in this run"));
  return row;
}

}  // namespace

Section TrainingSection(const RunTable& table, const std::string& plot) {
  Section section{kTrainingSection, {}};
  doc::Table trainings{"Trainings",
                       doc::Columns({"variant", "step", "updates", "tokens", "first loss", "last loss", "accuracy", "minutes", ""}, 2), {}};
  for (const std::string& variant : table.variants()) {
    for (const TrainingCurve& curve : table.Build(variant).training()) trainings.rows.push_back(TrainingRow(table, variant, curve));
  }
  if (trainings.rows.empty()) return section;
  section.blocks.push_back(std::move(trainings));
  section.blocks.push_back(doc::Paragraph{Words("First loss: mean of the first of 200 parts of the updates; last: of the last tenth.")});
  if (!plot.empty()) section.blocks.push_back(doc::Image{"loss", plot});
  return section;
}

namespace {

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

doc::Table LayerKindsTable(const LayerGroup& group, const std::string& build) {
  doc::Table kinds{absl::StrCat("Errors of the layers of ", group.variant, " by kind"),
                   doc::Columns({"linear", "layers", "mean ratio", "worst ratio", "its layer", "worse than rounding"}, 1), {}};
  for (const LayerKind& kind : LayerKinds(group)) {
    const double worst = ErrorRatio(*kind.worst);
    Row row = {Data(kind.name), CountCell(kind.layers)};
    row.emplace_back(Words(Significant(kind.mean_ratio, 4)), kind.mean_ratio);
    row.emplace_back(Words(Significant(worst, 4)), worst);
    row.emplace_back(Text().Code(kind.worst->layer()));
    row.push_back(CountCell(kind.worse));
    LinkFigures(build, &row);
    kinds.rows.push_back(std::move(row));
  }
  return kinds;
}

}  // namespace

Section LayersSection(const RunTable& table, const std::vector<LayerGroup>& groups, const std::string& file) {
  Section section{kLayersSection, {}};
  if (groups.empty()) return section;
  section.blocks.push_back(doc::Paragraph{
      Words("The error that quantizing a layer made on the method's calibration data, over that of rounding to "
            "nearest on the same scheme: below 1 the method gained. The mean is geometric. Every layer: ").Link(file).Words(".")});
  for (const LayerGroup& group : groups) {
    const Text name = Text().StrongData(group.variant).Words(", ").Data(group.method).Words(": ");
    section.blocks.push_back(doc::Paragraph{Text(name).Append(WorseLayersText(group))});
    section.blocks.push_back(LayerKindsTable(group, BuildId(table, group.variant)));
  }
  return section;
}

namespace {

// ---- Errors of weights

// "0.0951 (0.121)": mean and worst; "left out" where none compares.
Cell WeightCell(const WeightKind& kind) {
  if (kind.worst == nullptr) return Words("left out");
  std::string text = absl::StrCat(Significant(kind.mean, 3), " (", Significant(kind.worst->error(), 3), ")");
  if (kind.left_out > 0) absl::StrAppend(&text, ", ", kind.left_out, " left out");
  return {Words(text), kind.mean};
}

// Variants down, kinds of linear across.
doc::Table WeightKindsTable(const std::vector<WeightGroup>& groups) {
  std::vector<std::string> titles = {"variant"};
  std::vector<std::map<std::string, Cell>> cells;
  for (const WeightGroup& group : groups) {
    auto& own = cells.emplace_back();
    for (const WeightKind& kind : WeightKinds(group)) {
      if (!absl::c_linear_search(titles, kind.name)) titles.push_back(kind.name);
      own[kind.name] = WeightCell(kind);
    }
  }
  std::vector<Text> columns;
  for (const std::string& title : titles) columns.push_back(Data(title));
  doc::Table table{"Errors of weights by kind of linear", doc::Columns(columns, 1), {}};
  for (size_t i = 0; i < groups.size(); ++i) {
    Row& row = table.rows.emplace_back(Row{Data(groups[i].variant)});
    for (size_t k = 1; k < titles.size(); ++k) {
      const auto cell = cells[i].find(titles[k]);
      row.push_back(cell == cells[i].end() ? Cell(Words(kNoValue)) : cell->second);
    }
  }
  return table;
}

// "a 14 of 14": how many linears have no error, variant by variant.
Text LeftOutText(const std::vector<WeightGroup>& groups) {
  std::vector<Text> counts;
  for (const WeightGroup& group : groups) {
    const auto left_out = absl::c_count_if(group.linears, [](const WeightError* linear) { return !linear->has_error(); });
    if (left_out > 0) counts.push_back(Text().StrongData(group.variant).Words(absl::StrCat(" ", left_out, " of ", group.linears.size())));
  }
  return doc::JoinTexts(counts, ", ");
}

}  // namespace

Section WeightsSection(const std::vector<WeightGroup>& groups, const std::string& file) {
  Section section{kWeightsSection, {}};
  if (groups.empty()) return section;
  section.blocks.push_back(doc::Paragraph{
      Words("How far each quantized linear's weights are from the source's, as |W_q - W| / |W| (Frobenius): the mean over blocks, in brackets the worst. "
            "What training changed is in it too. Every linear: ").Link(file).Words(".")});
  const Text left_out = LeftOutText(groups);
  if (!left_out.empty()) {
    section.blocks.push_back(doc::Paragraph{
        Words("Left out, since a rotation or a folded scale changed the weight, which then no longer compares with the source's: ").Append(left_out).Words(".")});
  }
  section.blocks.push_back(WeightKindsTable(groups));
  return section;
}

namespace {

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

}  // namespace

Section MethodTablesSection(const RunTable& table) {
  Section section{"What methods measured", {}};
  for (const std::string& variant : table.variants()) {
    for (const MethodTable& own : table.Build(variant).table()) {
      section.blocks.push_back(doc::Paragraph{Text().StrongData(variant).Words(": ").RecordData(own.title(), BuildId(table, variant)).Words(".")});
      section.blocks.push_back(ToTable(own));
    }
  }
  return section;
}

namespace {

// ---- Size by part

Cell PartCell(int64_t bytes, int64_t parameters) {
  std::string text = Decimals(static_cast<double>(bytes) / kBytesPerMib, 1);
  if (parameters > 0) absl::StrAppend(&text, " (", Decimals(8.0 * static_cast<double>(bytes) / static_cast<double>(parameters), 2), ")");
  return {Words(text), static_cast<double>(bytes)};
}

Row PartRow(const RunTable& table, const std::string& variant, const Metric& metric, const std::vector<std::string>& names) {
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
  LinkFigures(RecordId(table, variant, metric.name()), &row);
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
    if (metric != nullptr && metric->part_size() > 0) parts.rows.push_back(PartRow(table, variant, *metric, names));
  }
  section->blocks.push_back(std::move(parts));
}

}  // namespace

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
    const JobResult& build = table.Build(variant);
    const std::string& pipeline = build.pipeline();
    Text title = Text().StrongData(variant);
    if (build.has_build_seconds()) title.Words(", built in ").Record(absl::StrCat(Decimals(build.build_seconds(), 1), " s"), BuildId(table, variant));
    section.blocks.push_back(doc::Paragraph{std::move(title)});
    if (pipeline.empty()) {
      section.blocks.push_back(doc::Paragraph{Words("not run")});
    } else {
      section.blocks.push_back(doc::Code{pipeline, ""});
    }
  }
  return section;
}

namespace {

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

}  // namespace

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

namespace {

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

}  // namespace

Section MeasuresSection(const RunTable& table) {
  doc::Table measures{"How each metric was measured", doc::Columns({"metric", "unit", "count", "convention", "statistic; comparison"}, 5), {}};
  for (const std::string& metric : table.metrics()) AddMeasureRows(table, metric, &measures);
  return {"How each metric was measured", {std::move(measures)}};
}

}  // namespace nibble
