#include "reports/charts.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "eval/statistics.h"
#include "reports/chart_spec.h"
#include "reports/format.h"
#include "reports/pareto_chart.h"
#include "reports/sections.h"
#include "reports/spread.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

constexpr double kBytesPerMib = 1024.0 * 1024.0;

// Of each family the first metric that the run has.
std::vector<std::string> FirstOfEach(const RunTable& table, const std::vector<std::string>& families) {
  std::vector<std::string> names;
  for (const std::string& family : families) {
    const auto first = absl::c_find_if(table.metrics(), [&](const std::string& name) { return absl::StartsWith(name, family); });
    if (first != table.metrics().end()) names.push_back(*first);
  }
  return names;
}

// ---- Timings

bool IsTimed(const RunTable& table, const std::string& name) {
  return absl::c_any_of(table.variants(), [&](const std::string& variant) {
    const Metric* metric = table.Find(variant, name);
    return metric != nullptr && IsTiming(*metric);
  });
}

Json TimingJson(const RunTable& table, const Record& record) {
  const Metric& metric = *record.metric;
  const bool is_wide = IsWideValue(metric);
  Json json;
  json["variant"] = record.variant;
  json["kind"] = record.variant == table.baseline() ? "baseline" : "variant";
  json["value"] = metric.value();
  json["end"] = metric.value();
  json["text"] = absl::StrCat(FormatValue(metric, metric.value()), is_wide ? " (wide)" : "");
  json["measured"] = FormatMeasured(metric);
  json["against"] = FormatComparison(metric, record.comparison);
  json["record"] = absl::StrCat("#", RecordId(table, record.variant, metric.name()));
  const auto interval = ValueInterval(metric);
  if (!interval.has_value()) return json;
  // A bar has no place below 0, nor an interval of a few rounds a meaning far beyond it.
  json["low"] = std::max(0.0, interval->low);
  json["high"] = std::min(interval->high, 2 * metric.value());
  json["end"] = json["high"];
  json["interval"] = absl::StrCat(FormatValue(metric, interval->low), " to ", FormatValue(metric, interval->high), is_wide ? ": wide" : "");
  return json;
}

Json TimingLayers(const RunTable& table, const Metric& metric, double end) {
  Json y = Field("variant", "nominal", "");
  y["sort"] = nullptr;
  Json x = Field("value", "quantitative", PlainTitle(metric));
  x["scale"]["domain"] = {0, 1.25 * end};
  x["scale"]["nice"] = false;
  x["axis"]["tickCount"] = 5;
  Json bars = R"json({"mark": {"type": "bar", "height": {"band": 0.66}}})json"_json;
  bars["encoding"] = {{"x", x}, {"y", y}, {"href", {{"field", "record"}}}};
  Json& kind = bars["encoding"]["color"] = Field("kind", "nominal", "");
  kind["legend"] = nullptr;
  kind["scale"]["domain"] = {"baseline", "variant"};
  kind["scale"]["range"] = {kBaselineColour, kVariantColour};
  bars["encoding"]["tooltip"] = Tooltip({{"variant", "variant"}, {"measured", PlainTitle(metric)}, {"interval", "95 % interval"},
                                         {"against", absl::StrCat("against ", table.baseline())}});
  Json rules = R"json({"mark": {"type": "rule", "strokeWidth": 1.5}, "transform": [{"filter": "isValid(datum.low)"}]})json"_json;
  rules["encoding"] = {{"x", {{"field", "low"}, {"type", "quantitative"}}}, {"x2", {{"field", "high"}}}, {"y", y}};
  Json texts = R"json({"mark": {"type": "text", "align": "left", "baseline": "middle", "dx": 5}})json"_json;
  texts["encoding"] = {{"x", {{"field", "end"}, {"type", "quantitative"}}}, {"y", y}, {"text", {{"field", "text"}}}};
  return Json::array({bars, rules, texts});
}

void AddTimings(const RunTable& table, const RecordIndex& index, const std::string& name, std::vector<Chart>* charts) {
  Json values = Json::array();
  double end = 0;
  const Metric* metric = nullptr;
  for (const std::string& variant : table.variants()) {
    const Record* record = index.Find(variant, name);
    if (record == nullptr) continue;
    metric = record->metric;
    values.push_back(TimingJson(table, *record));
    end = std::max(end, values.back()["end"].get<double>());
  }
  if (metric == nullptr) return;
  const std::string alt = absl::StrCat(name, " of ", values.size(), values.size() == 1 ? " variant" : " variants",
                                       " as bars with 95 % intervals of the median round; the figures stand in the table of results.");
  Json spec = LayeredSpec(alt, kChartWidth - 120, {{"step", 22}}, std::move(values), TimingLayers(table, *metric, end));
  charts->push_back({ChartId(name), kResultsSection, name, alt, std::move(spec)});
}

// ---- Trainings

void AddCurves(const RunTable& table, std::vector<Chart>* charts) {
  Json values = Json::array(), names = Json::array();
  for (const std::string& variant : table.variants()) {
    for (const TrainingCurve& curve : table.Build(variant).training()) {
      const std::string name = absl::StrCat(variant, ": ", curve.label());
      const double parts = curve.loss_size();
      names.push_back(name);
      for (int i = 0; i < curve.loss_size(); ++i) {
        if (!std::isfinite(curve.loss(i))) continue;
        values.push_back({{"training", name}, {"update", (i + 0.5) / parts * static_cast<double>(curve.updates())}, {"loss", curve.loss(i)},
                          {"record", absl::StrCat("#", BuildId(table, variant))}});
      }
    }
  }
  if (values.empty()) return;
  const std::string alt = absl::StrCat("Loss over the updates of ", names.size(), names.size() == 1 ? " training" : " trainings",
                                       ", thin as recorded, bold the mean of ten points; the table has the first and the last values.");
  Json colour = Field("training", "nominal", "");
  colour["scale"]["domain"] = names;
  colour["scale"]["range"] = CategoryColours();
  colour["legend"] = {{"columns", 1}, {"symbolOpacity", 1}, {"symbolStrokeWidth", 2}};
  Json x = Field("update", "quantitative", "update"), y = Field("loss", "quantitative", "loss");
  y["scale"]["zero"] = false;
  x["scale"]["nice"] = false;
  Json thin = R"json({"mark": {"type": "line", "strokeWidth": 1, "opacity": 0.3}})json"_json;
  thin["encoding"] = {{"x", x}, {"y", y}, {"color", colour}};
  Json bold = R"json({"mark": {"type": "line", "strokeWidth": 2},
                  "transform": [{"window": [{"op": "mean", "field": "loss", "as": "mean"}], "frame": [-9, 0],
                                 "sort": [{"field": "update"}], "groupby": ["training"]}]})json"_json;
  bold["encoding"] = {{"x", x}, {"y", y}, {"color", colour}};
  bold["encoding"]["y"]["field"] = "mean";
  bold["encoding"]["tooltip"] = Tooltip({{"training", "training"}});
  bold["encoding"]["href"]["field"] = "record";
  charts->push_back({"loss", kTrainingSection, "Loss over updates", alt, LayeredSpec(alt, kChartWidth, kChartHeight, std::move(values), {thin, bold})});
}

// ---- Layers

// The logarithm to base 2, within what the colours reach: a ratio of 0 has the
// bluest, an infinite one the reddest.
Json LogRatio(double ratio, double largest) {
  if (std::isnan(ratio)) return nullptr;
  return ratio > 0 ? std::min(std::log2(ratio), largest) : -largest;
}

std::string BlockText(const LayerPlace& place) { return place.block.has_value() ? absl::StrCat(*place.block) : "–"; }

// Kinds of linear down, blocks across; the cells' colours are the field's.
Json HeatLayer(const std::string& field, const std::string& title) {
  Json layer = R"json({"mark": "rect",
    "encoding": {
      "x": {"field": "block", "type": "nominal", "sort": null, "title": "decoder block", "axis": {"labelAngle": 0, "labelOverlap": true}},
      "y": {"field": "kind", "type": "nominal", "sort": null, "title": null}}})json"_json;
  layer["encoding"]["color"] = Field(field, "quantitative", title);
  layer["encoding"]["color"]["legend"] = {{"tickCount", 5}, {"gradientLength", 180}};
  return layer;
}

// The width of a block's column.
Json BlockStep(const std::set<std::string>& blocks) { return {{"step", std::clamp(280.0 / static_cast<double>(blocks.size()), 9.0, 28.0)}}; }

Json LayerJson(const QuantizedLayer& layer, double largest) {
  const LayerPlace place = PlaceOf(layer.layer());
  const double ratio = ErrorRatio(layer);
  Json json;
  json["layer"] = layer.layer();
  json["kind"] = place.kind;
  json["block"] = BlockText(place);
  json["log2"] = LogRatio(ratio, largest);
  json["ratio"] = Significant(ratio, 4);
  json["error"] = Significant(layer.error(), 4);
  json["rounding"] = Significant(layer.rounding_error(), 4);
  return json;
}

// The largest |log2 ratio| of all groups, so that their colours mean the same; at most 3.
double LargestLogRatio(const std::vector<LayerGroup>& groups) {
  double largest = 0.1;
  for (const LayerGroup& group : groups) {
    for (const QuantizedLayer* layer : group.layers) {
      const double ratio = ErrorRatio(*layer);
      if (std::isfinite(ratio) && ratio > 0) largest = std::max(largest, std::abs(std::log2(ratio)));
    }
  }
  return std::min(largest, 3.0);
}

// Blue where the method gained over rounding, red where it lost.
Json RatioLayer(double largest) {
  Json layer = HeatLayer("log2", "error / rounding's");
  Json& colour = layer["encoding"]["color"];
  colour["scale"] = R"json({"range": ["#2166ac", "#92b8d8", "#c9c9c9", "#e39a8a", "#b2182b"], "clamp": true})json"_json;
  colour["scale"]["domain"] = {-largest, -largest / 2, 0, largest / 2, largest};
  colour["legend"]["labelExpr"] = "'×' + format(pow(2, datum.value), '.2~f')";
  layer["encoding"]["tooltip"] =
      Tooltip({{"layer", "layer"}, {"error", "error"}, {"rounding", "rounding's error"}, {"ratio", "ratio"}});
  return layer;
}

void AddHeatmap(const LayerGroup& group, double largest, std::vector<Chart>* charts) {
  Json values = Json::array();
  std::set<std::string> blocks;
  for (const QuantizedLayer* layer : group.layers) {
    values.push_back(LayerJson(*layer, largest));
    blocks.insert(values.back()["block"].get<std::string>());
  }
  const std::string title = absl::StrCat(group.variant, ", ", group.method, ": error by layer against rounding's");
  const std::string alt = absl::StrCat(title, ", for ", group.layers.size(), " layers in ", blocks.size(),
                                       " blocks, blue where the method gained, red where it lost; every figure stands in layers.csv.");
  charts->push_back({absl::StrCat("layers-", ChartId(absl::StrCat(group.variant, "-", group.method))), kLayersSection, title, alt,
                     LayeredSpec(alt, BlockStep(blocks), {{"step", 20}}, std::move(values), Json::array({RatioLayer(largest)}))});
}

// ---- Weights

// From none to the largest error of the variant: its own scale, since the errors of 8 bits
// and of 2 lie a factor of a hundred apart.
Json WeightLayer(double largest) {
  Json layer = HeatLayer("value", "|W_q - W| / |W|");
  layer["encoding"]["color"]["scale"] = R"json({"range": ["#f1e3d3", "#e39a8a", "#b2182b", "#5a0a17"], "clamp": true})json"_json;
  layer["encoding"]["color"]["scale"]["domain"] = {0, largest / 3, largest / 1.5, largest};
  layer["encoding"]["tooltip"] = Tooltip({{"layer", "linear"}, {"error", "error"}});
  return layer;
}

void AddWeightHeatmap(const WeightGroup& group, std::vector<Chart>* charts) {
  Json values = Json::array();
  std::set<std::string> blocks;
  double largest = 0;
  for (const WeightError* linear : group.linears) {
    if (!linear->has_error() || !std::isfinite(linear->error())) continue;
    const LayerPlace place = PlaceOf(linear->linear());
    const std::string block = BlockText(place);
    values.push_back(
        {{"layer", linear->linear()}, {"kind", place.kind}, {"block", block}, {"value", linear->error()}, {"error", Significant(linear->error(), 4)}});
    blocks.insert(block);
    largest = std::max(largest, linear->error());
  }
  if (largest == 0) return;
  const std::string title = absl::StrCat(group.variant, ": error of weights");
  const std::string alt = absl::StrCat(title, ", for ", values.size(), " of ", group.linears.size(), " quantized linears in ", blocks.size(),
                                       " blocks, the darker the larger; every figure stands in layers.csv.");
  charts->push_back({absl::StrCat("weights-", ChartId(group.variant)), kWeightsSection, title, alt,
                     LayeredSpec(alt, BlockStep(blocks), {{"step", 20}}, std::move(values), Json::array({WeightLayer(largest)}))});
}

// ---- Parts

void AddParts(const RunTable& table, const std::string& name, std::vector<Chart>* charts) {
  const std::vector<std::string> parts = PartNames(table, name);
  Json values = Json::array();
  for (const std::string& variant : table.variants()) {
    const Metric* metric = table.Find(variant, name);
    if (metric == nullptr) continue;
    for (const Metric::Part& part : metric->part()) {
      const double mib = static_cast<double>(part.bytes()) / kBytesPerMib;
      values.push_back({{"variant", variant}, {"part", part.name()}, {"mib", mib}, {"text", absl::StrCat(Decimals(mib, 2), " MiB")},
                        {"order", absl::c_find(parts, part.name()) - parts.begin()}, {"record", absl::StrCat("#", RecordId(table, variant, name))}});
    }
  }
  if (values.empty()) return;
  const std::string alt = absl::StrCat(name, " by part (", absl::StrJoin(parts, ", "), "), a bar for each variant; the figures stand in the table.");
  Json layer = R"json({"mark": {"type": "bar", "height": {"band": 0.7}},
    "encoding": {"x": {"field": "mib", "type": "quantitative", "title": "MiB"}, "y": {"field": "variant", "type": "nominal", "sort": null, "title": null},
                 "color": {"field": "part", "type": "nominal", "title": null, "legend": {"columns": 3}}, "order": {"field": "order"}}})json"_json;
  layer["encoding"]["color"]["scale"]["domain"] = parts;
  layer["encoding"]["color"]["scale"]["range"] = CategoryColours();
  layer["encoding"]["tooltip"] = Tooltip({{"variant", "variant"}, {"part", "part"}, {"text", "size"}});
  layer["encoding"]["href"]["field"] = "record";
  charts->push_back({absl::StrCat("parts-", ChartId(name)), kPartsSection, absl::StrCat(name, " by part"), alt,
                     LayeredSpec(alt, kChartWidth - 100, {{"step", 22}}, std::move(values), Json::array({layer}))});
}

// Metrics may differ in nothing but their punctuation.
void MakeNamesUnique(std::vector<Chart>* charts) {
  std::map<std::string, int> seen;
  for (Chart& chart : *charts) {
    if (const int before = seen[chart.id]++; before > 0) absl::StrAppend(&chart.id, "--", before + 1);
  }
}

}  // namespace

std::vector<Chart> RunCharts(const RunTable& table, const Records& records, const Findings& findings) {
  const RecordIndex index(records);
  std::vector<Chart> charts;
  for (const std::string& quality : FirstOfEach(table, {"perplexity/", "kl/", "accuracy"})) {
    for (const std::string& cost : FirstOfEach(table, {"size_mib", "prefill_tokens_per_s", "decode_tokens_per_s"})) {
      if (auto chart = ParetoChart(table, index, cost, quality)) charts.push_back(*std::move(chart));
    }
  }
  for (const std::string& name : table.metrics()) {
    if (IsTimed(table, name)) AddTimings(table, index, name, &charts);
  }
  AddCurves(table, &charts);
  const double largest = LargestLogRatio(findings.layers);
  for (const LayerGroup& group : findings.layers) AddHeatmap(group, largest, &charts);
  for (const WeightGroup& group : findings.weights) AddWeightHeatmap(group, &charts);
  for (const std::string& name : table.metrics()) AddParts(table, name, &charts);
  MakeNamesUnique(&charts);
  return charts;
}

std::string ChartsJson(const std::vector<Chart>& charts, int indent) {
  nlohmann::ordered_json specs = nlohmann::ordered_json::object();
  for (const Chart& chart : charts) specs[chart.id] = chart.spec;
  return specs.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace nibble
