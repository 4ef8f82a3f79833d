#include "reports/pareto_chart.h"

#include <algorithm>
#include <cmath>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "eval/statistics.h"
#include "reports/axes.h"
#include "reports/chart_spec.h"
#include "reports/format.h"
#include "reports/labels.h"
#include "reports/pareto.h"
#include "reports/sections.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

constexpr double kDotRadius = 4.5;

// A value on an axis with its interval.
struct Measured {
  const Metric* metric = nullptr;
  double value = 0;
  std::optional<Interval> interval;
};

std::optional<Interval> Scaled(const std::optional<Interval>& interval, double factor, double offset = 0) {
  if (!interval.has_value()) return std::nullopt;
  return Interval{offset + factor * interval->low, offset + factor * interval->high};
}

// Of a quality: what it may be were the baseline's known exactly, which is the
// uncertainty of a comparison on the same text.
Measured Quality(const Record& record) {
  const double scale = PlotScale(*record.metric);
  Measured measured{record.metric, scale * record.metric->value(), std::nullopt};
  if (!record.baseline_value.has_value()) return measured;
  const Comparison& comparison = record.comparison;
  if (comparison.ratio.has_value()) {
    measured.interval = Scaled(comparison.ratio->interval, scale * *record.baseline_value);
  } else if (comparison.difference.has_value()) {
    measured.interval = Scaled(comparison.difference->interval, scale, scale * *record.baseline_value);
  }
  return measured;
}

// Of a size or a timing: its own.
Measured Cost(const Record& record) { return {record.metric, record.metric->value(), ValueInterval(*record.metric)}; }

struct Point {
  const Record* x_record = nullptr;
  const Record* y_record = nullptr;
  Measured x, y;
  bool is_baseline = false;
  bool on_front = false;
};

// An axis that holds all values, and of their intervals what lies within half a span of these.
Axis AxisOf(const std::vector<Point>& points, Measured Point::*side, double from, double to, bool logarithmic) {
  const auto less = [side](const Point& a, const Point& b) { return (a.*side).value < (b.*side).value; };
  const auto [least, most] = std::minmax_element(points.begin(), points.end(), less);
  const double low = ((*least).*side).value, high = ((*most).*side).value, reach = (high - low) / 2;
  double first = low, last = high;
  for (const Point& point : points) {
    const auto& interval = (point.*side).interval;
    if (!interval.has_value() || !std::isfinite(interval->low) || !std::isfinite(interval->high)) continue;
    first = std::min(first, std::max(interval->low, logarithmic ? low / 2 : low - reach));
    last = std::max(last, std::min(interval->high, high + reach));
  }
  return Axis(first, last, from, to, logarithmic);
}

// Marks the points that no other beats in both; they are given from left to right.
void FindFront(std::vector<Point>* points) {
  const auto sign = [](const Metric& metric) { return metric.better() == HIGHER ? -1.0 : 1.0; };
  std::vector<ParetoPoint> all;
  for (size_t i = 0; i < points->size(); ++i) {
    const Point& point = (*points)[i];
    all.push_back({absl::StrCat(i), sign(*point.x.metric) * point.x.value, sign(*point.y.metric) * point.y.value, false});
  }
  for (const ParetoPoint& best : ParetoFront(all)) (*points)[std::stoul(best.label)].on_front = true;
  absl::c_stable_sort(*points, [](const Point& a, const Point& b) { return a.x.value < b.x.value; });
}

// Labels first of the baseline and the front; others where there is room.
std::vector<std::optional<LabelPlace>> PlaceLabels(const std::vector<Point>& points, const Axis& x, const Axis& y) {
  LabelPlacer placer({0, 0, kChartWidth, kChartHeight}, kDotRadius, /*lines=*/2);
  for (const Point& point : points) placer.TakeDot(x.Pixel(point.x.value), y.Pixel(point.y.value));
  std::vector<std::optional<LabelPlace>> places(points.size());
  for (const bool important : {true, false}) {
    for (size_t i = 0; i < points.size(); ++i) {
      const Point& point = points[i];
      if ((point.is_baseline || point.on_front) != important) continue;
      places[i] = placer.Place(point.y_record->variant, x.Pixel(point.x.value), y.Pixel(point.y.value));
    }
  }
  return places;
}

void AddInterval(const std::string& name, const Measured& measured, Json* json) {
  if (!measured.interval.has_value()) return;
  (*json)[name + "_low"] = measured.interval->low;
  (*json)[name + "_high"] = measured.interval->high;
}

const char* KindOf(const Point& point) { return point.is_baseline ? "baseline" : point.on_front ? "on the front" : "behind it"; }

Json PointJson(const RunTable& table, const Point& point, const std::optional<LabelPlace>& place, double pixel_x, double pixel_y) {
  const std::string& variant = point.y_record->variant;
  Json json;
  json["variant"] = variant;
  json["kind"] = KindOf(point);
  json["x"] = point.x.value;
  json["y"] = point.y.value;
  AddInterval("x", point.x, &json);
  AddInterval("y", point.y, &json);
  json["x_text"] = FormatMeasured(*point.x.metric);
  json["y_text"] = FormatMeasured(*point.y.metric);
  json["x_against"] = FormatComparison(*point.x.metric, point.x_record->comparison);
  json["y_against"] = FormatComparison(*point.y.metric, point.y_record->comparison);
  json["record"] = absl::StrCat("#", RecordId(table, variant, point.y.metric->name()));
  if (!place.has_value()) return json;
  json["label"] = variant;
  json["dx"] = place->left - pixel_x;
  json["dy"] = place->baseline - pixel_y;
  return json;
}

Json AxisField(const std::string& field, const Axis& axis, const Metric& metric, bool logarithmic) {
  Json json = Field(field, "quantitative", absl::StrCat(PlainTitle(metric), logarithmic ? ", log scale" : ""));
  json["scale"]["domain"] = {axis.low(), axis.high()};
  json["scale"]["nice"] = false;
  json["scale"]["zero"] = false;
  if (logarithmic) json["scale"]["type"] = "log";
  json["axis"]["tickCount"] = 5;
  return json;
}

Json FrontLayer(const std::vector<Point>& points, const Json& x, const Json& y, bool higher_x) {
  Json layer = R"json({"mark": {"type": "line", "strokeDash": [4, 3], "strokeWidth": 1.2, "tooltip": null}})json"_json;
  layer["mark"]["color"] = kFrontColour;
  layer["mark"]["interpolate"] = higher_x ? "step-before" : "step-after";
  layer["data"]["values"] = Json::array();
  for (const Point& point : points) {
    if (point.on_front) layer["data"]["values"].push_back({{"x", point.x.value}, {"y", point.y.value}});
  }
  layer["encoding"] = {{"x", x}, {"y", y}};
  return layer;
}

Json IntervalLayer(const std::string& across, const Json& x, const Json& y) {
  Json layer = R"json({"mark": {"type": "rule", "clip": true, "opacity": 0.6}})json"_json;
  layer["encoding"] = {{"x", x}, {"y", y}};
  layer["encoding"][across]["field"] = across + "_low";
  layer["encoding"][across + "2"]["field"] = across + "_high";
  layer["transform"] = Json::array({{{"filter", absl::StrCat("isValid(datum.", across, "_low)")}}});
  return layer;
}

Json DotsLayer(const RunTable& table, const Metric& x_metric, const Metric& y_metric, const Json& x, const Json& y) {
  Json layer = R"json({"mark": {"type": "point", "filled": true, "size": 64, "opacity": 1}})json"_json;
  layer["encoding"] = {{"x", x}, {"y", y}};
  Json& kind = layer["encoding"]["color"] = Field("kind", "nominal", "");
  kind["scale"]["domain"] = {"baseline", "on the front", "behind it"};
  kind["scale"]["range"] = {kBaselineColour, kFrontColour, kVariantColour};
  layer["encoding"]["shape"] = kind;
  layer["encoding"]["shape"]["scale"]["range"] = {"diamond", "circle", "triangle-up"};
  layer["encoding"]["href"]["field"] = "record";
  const std::string against = absl::StrCat(" against ", table.baseline());
  layer["encoding"]["tooltip"] = Tooltip({{"variant", "variant"}, {"y_text", PlainTitle(y_metric)}, {"y_against", absl::StrCat("quality", against)},
                                          {"x_text", PlainTitle(x_metric)}, {"x_against", absl::StrCat("cost", against)}});
  return layer;
}

Json LabelsLayer(const Json& x, const Json& y) {
  Json layer = R"json({"mark": {"type": "text", "align": "left", "baseline": "alphabetic", "dx": {"expr": "datum.dx"}, "dy": {"expr": "datum.dy"}},
                   "transform": [{"filter": "isValid(datum.label)"}]})json"_json;
  layer["encoding"] = {{"x", x}, {"y", y}, {"text", {{"field", "label"}}}};
  return layer;
}

std::vector<Point> PointsOf(const RunTable& table, const RecordIndex& index, const std::string& x, const std::string& y) {
  std::vector<Point> points;
  for (const std::string& variant : table.variants()) {
    const Record* x_record = index.Find(variant, x);
    const Record* y_record = index.Find(variant, y);
    if (x_record == nullptr || y_record == nullptr) continue;
    points.push_back({x_record, y_record, Cost(*x_record), Quality(*y_record), variant == table.baseline(), false});
  }
  return points;
}

// A logarithmic axis has no place for 0, such as the baseline's divergence from itself.
std::vector<std::string> DropNotPositive(std::vector<Point>* points) {
  std::vector<std::string> dropped;
  const auto is_dropped = [&](const Point& point) {
    if (point.y.value > 0) return false;
    dropped.push_back(point.y_record->variant);
    return true;
  };
  points->erase(std::remove_if(points->begin(), points->end(), is_dropped), points->end());
  return dropped;
}

bool SpansFourfold(const std::vector<Point>& points) {
  double least = INFINITY, most = 0;
  for (const Point& point : points) {
    if (point.y.value <= 0) continue;
    least = std::min(least, point.y.value);
    most = std::max(most, point.y.value);
  }
  return most > 4 * least;
}

std::string ParetoAlt(const std::vector<Point>& points, const std::vector<std::string>& dropped) {
  std::vector<std::string> front;
  for (const Point& point : points) {
    if (point.on_front) front.push_back(point.y_record->variant);
  }
  return absl::StrCat(points.size(), points.size() == 1 ? " variant" : " variants", "; no other beats both figures of, from left to right: ",
                      absl::StrJoin(front, ", "), ".",
                      dropped.empty() ? "" : absl::StrCat(" Left out of the log scale, being 0: ", absl::StrJoin(dropped, ", "), "."));
}

}  // namespace

std::optional<Chart> ParetoChart(const RunTable& table, const RecordIndex& index, const std::string& x_name, const std::string& y_name) {
  std::vector<Point> points = PointsOf(table, index, x_name, y_name);
  const bool logarithmic = SpansFourfold(points);
  const std::vector<std::string> dropped = logarithmic ? DropNotPositive(&points) : std::vector<std::string>();
  if (points.size() < 2) return std::nullopt;
  FindFront(&points);
  const Axis x = AxisOf(points, &Point::x, 0, kChartWidth, false), y = AxisOf(points, &Point::y, kChartHeight, 0, logarithmic);
  const std::vector<std::optional<LabelPlace>> places = PlaceLabels(points, x, y);
  Json values = Json::array();
  for (size_t i = 0; i < points.size(); ++i) {
    values.push_back(PointJson(table, points[i], places[i], x.Pixel(points[i].x.value), y.Pixel(points[i].y.value)));
  }
  const Metric &x_metric = *points[0].x.metric, &y_metric = *points[0].y.metric;
  const Json x_field = AxisField("x", x, x_metric, false), y_field = AxisField("y", y, y_metric, logarithmic);
  const std::string title = absl::StrCat(y_name, " against ", x_name), alt = absl::StrCat(title, ": ", ParetoAlt(points, dropped));
  const Json layers = {FrontLayer(points, x_field, y_field, x_metric.better() == HIGHER), IntervalLayer("x", x_field, y_field),
                       IntervalLayer("y", x_field, y_field), DotsLayer(table, x_metric, y_metric, x_field, y_field), LabelsLayer(x_field, y_field)};
  return Chart{ChartId(title), kResultsSection, title, alt, LayeredSpec(alt, kChartWidth, kChartHeight, std::move(values), layers)};
}

}  // namespace nibble
