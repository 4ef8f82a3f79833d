#include "reports/pareto.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "reports/axes.h"
#include "reports/labels.h"

namespace nibble {
namespace {

constexpr double kDotRadius = 4.5;

std::string FrontLine(const std::vector<ParetoPoint>& points, const Axis& x, const Axis& y) {
  const std::vector<ParetoPoint> front = ParetoFront(points);
  if (front.size() < 2) return "";
  std::string path = absl::StrFormat("M%.1f %.1f", x.Pixel(front[0].x), y.Pixel(front[0].y));
  for (size_t i = 1; i < front.size(); ++i) {
    absl::StrAppendFormat(&path, "H%.1fV%.1f", x.Pixel(front[i].x), y.Pixel(front[i].y));
  }
  return absl::StrCat("<path d=\"", path, "\" class=\"front\"/>\n");
}

std::string Dots(const std::vector<ParetoPoint>& points, const Axis& x, const Axis& y) {
  std::string svg;
  LabelPlacer placer({kPlotLeft, 0, kSvgWidth, kPlotBottom}, kDotRadius, /*lines=*/6);
  for (const ParetoPoint& point : points) {
    const double px = x.Pixel(point.x), py = y.Pixel(point.y);
    placer.TakeDot(px, py);
    absl::StrAppendFormat(&svg, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" class=\"%s\"/>\n", px, py, kDotRadius,
                          point.is_baseline ? "base" : "dot");
  }
  for (const ParetoPoint& point : points) {
    const double px = x.Pixel(point.x), py = y.Pixel(point.y);
    // Where all places are taken a label that covers something is better than none.
    const LabelPlace place = placer.Place(point.label, px, py).value_or(placer.Beside(px, py));
    absl::StrAppend(&svg, SvgText(place.left, place.baseline, "start", point.label));
  }
  return svg;
}

bool IsPlottable(const Metric* metric) {
  return metric != nullptr && std::isfinite(metric->value()) && metric->value() > 0;
}

}  // namespace

std::vector<ParetoPoint> ParetoFront(std::vector<ParetoPoint> points) {
  std::stable_sort(points.begin(), points.end(),
                   [](const ParetoPoint& a, const ParetoPoint& b) { return a.x != b.x ? a.x < b.x : a.y < b.y; });
  std::vector<ParetoPoint> front;
  for (const ParetoPoint& point : points) {
    if (front.empty() || point.y < front.back().y) front.push_back(point);
  }
  return front;
}

std::string FirstPerplexity(const RunTable& table) {
  for (const std::string& name : table.metrics()) {
    if (absl::StartsWith(name, "perplexity/")) return name;
  }
  return "";
}

std::vector<ParetoPoint> ParetoPoints(const RunTable& table) {
  const std::string perplexity = FirstPerplexity(table);
  std::vector<ParetoPoint> points;
  for (const std::string& variant : table.variants()) {
    const Metric* x = table.Find(variant, "size_mib");
    const Metric* y = table.Find(variant, perplexity);
    if (!IsPlottable(x) || !IsPlottable(y)) continue;
    points.push_back({variant, x->value(), y->value(), variant == table.baseline()});
  }
  return points;
}

std::string ParetoSvg(const std::vector<ParetoPoint>& points, const std::string& x_title, const std::string& y_title,
                      const std::vector<ParetoPoint>& front) {
  if (points.empty()) return "";
  std::vector<ParetoPoint> all = points;
  all.insert(all.end(), front.begin(), front.end());
  const auto less_x = [](const ParetoPoint& a, const ParetoPoint& b) { return a.x < b.x; };
  const auto less_y = [](const ParetoPoint& a, const ParetoPoint& b) { return a.y < b.y; };
  const auto [min_x, max_x] = std::minmax_element(all.begin(), all.end(), less_x);
  const auto [min_y, max_y] = std::minmax_element(all.begin(), all.end(), less_y);
  const bool logarithmic = max_y->y > 4 * min_y->y;
  const Axis x = HorizontalAxis(min_x->x, max_x->x);
  const Axis y = VerticalAxis(min_y->y, max_y->y, logarithmic);
  const std::string y_label = logarithmic ? absl::StrCat(y_title, " (log scale)") : y_title;
  return absl::StrCat(SvgHead(), XAxis(x, x_title), YAxis(y, y_label), FrontLine(front.empty() ? points : front, x, y), Dots(points, x, y),
                      "</svg>\n");
}

}  // namespace nibble
