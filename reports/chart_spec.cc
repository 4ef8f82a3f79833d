#include "reports/chart_spec.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "reports/format.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

// "currentColor" is the text's colour of the page around a chart.
Json Config() {
  static const auto* const kConfig = new Json(Json::parse(R"json({
    "aria": false,
    "font": "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif",
    "view": {"stroke": null},
    "axis": {"labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal",
             "gridColor": "rgba(128, 128, 128, 0.25)", "domainColor": "rgba(128, 128, 128, 0.8)", "tickColor": "rgba(128, 128, 128, 0.8)",
             "labelLimit": 190, "titleLimit": 420},
    "legend": {"labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal",
               "labelLimit": 300, "orient": "bottom", "direction": "horizontal"},
    "text": {"color": "currentColor", "fontSize": 11},
    "rule": {"color": "currentColor"}
  })json"));
  return *kConfig;
}

}  // namespace

std::string ChartId(const std::string& title) {
  std::string id;
  for (const char c : title) id += absl::ascii_isalnum(c) ? absl::ascii_tolower(c) : '-';
  return id;
}

Json CategoryColours() {
  return Json::array({"#2b7fd4", "#d9483b", "#1d9a6c", "#9a6bd0", "#c98a12", "#1a9fb0", "#c4568f", "#7d8590"});
}

Json LayeredSpec(const std::string& description, const Json& width, const Json& height, Json values, Json layers) {
  Json spec;
  spec["$schema"] = "https://vega.github.io/schema/vega-lite/v6.json";
  spec["description"] = description;
  spec["background"] = nullptr;
  spec["width"] = width;
  spec["height"] = height;
  spec["config"] = Config();
  spec["data"]["values"] = std::move(values);
  spec["layer"] = std::move(layers);
  return spec;
}

Json Field(const std::string& field, const std::string& type, const std::string& title) {
  Json json;
  json["field"] = field;
  json["type"] = type;
  json["title"] = title.empty() ? Json(nullptr) : Json(title);
  return json;
}

Json Tooltip(const std::vector<std::pair<std::string, std::string>>& lines) {
  Json tooltip = Json::array();
  for (const auto& [field, title] : lines) tooltip.push_back(Field(field, "nominal", title));
  return tooltip;
}

std::string PlainTitle(const Metric& metric) {
  const std::string unit = FormatUnit(metric);
  return absl::StrCat(metric.name(), metric.better() == HIGHER ? " ↑" : " ↓", unit.empty() ? "" : absl::StrCat(" (", unit, ")"));
}

double PlotScale(const Metric& metric) { return IsShare(metric) ? 100 : 1; }

}  // namespace nibble
