#include "reports/pareto.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "reports/format.h"

namespace nibble {
namespace {

constexpr double kWidth = 720, kHeight = 440;
constexpr double kLeft = 70, kRight = 20, kTop = 20, kBottom = 56;
constexpr double kFontSize = 12, kCharWidth = 7.2, kLabelHeight = 14, kDotRadius = 4.5;

// One axis: data to pixels.
class Axis {
 public:
  Axis(double low, double high, double from, double to, bool logarithmic)
      : logarithmic_(logarithmic), from_(from), to_(to) {
    const double a = Map(low), b = Map(high);
    const double margin = b > a ? 0.08 * (b - a) : std::max(0.05 * std::abs(a), 0.05);
    low_ = a - margin;
    high_ = b + margin;
    // A size or a perplexity is never negative, nor should its axis be.
    if (!logarithmic_ && low >= 0) low_ = std::max(low_, 0.0);
  }

  double Pixel(double value) const { return from_ + (Map(value) - low_) / (high_ - low_) * (to_ - from_); }

  std::vector<double> Ticks() const {
    return logarithmic_ ? LogTicks(std::exp(low_), std::exp(high_)) : LinearTicks(low_, high_);
  }

 private:
  double Map(double value) const { return logarithmic_ ? std::log(value) : value; }

  const bool logarithmic_;
  const double from_, to_;
  double low_, high_;
};

struct Box {
  double left, top, right, bottom;

  bool Overlaps(const Box& other) const {
    return left < other.right && other.left < right && top < other.bottom && other.top < bottom;
  }
};

// 1, 2 or 5 times a power of ten, at least `step`.
double RoundStep(double step) {
  const double power = std::pow(10.0, std::floor(std::log10(step)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= step * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

std::string TickLabel(double value) { return absl::StrFormat("%g", value); }

std::string Line(double x1, double y1, double x2, double y2, absl::string_view style) {
  return absl::StrFormat("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n", x1, y1, x2, y2, style);
}

std::string Text(double x, double y, absl::string_view anchor, absl::string_view text, absl::string_view more = "") {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>%s</text>\n", x, y, anchor, more,
                         EscapeXml(text));
}

std::string Head() {
  return absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
      "font-family=\"sans-serif\" font-size=\"%.0f\" fill=\"#222\">\n"
      "<style>.grid{stroke:#e4e4e4}.axis{stroke:#666}.front{stroke:#1f6feb;stroke-dasharray:4 3;fill:none;opacity:.6}"
      ".dot{fill:#1f6feb}.base{fill:#d1242f}text{stroke:#fff;stroke-width:3px;paint-order:stroke}</style>\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
      kWidth, kHeight, kWidth, kHeight, kFontSize);
}

std::string XAxis(const Axis& axis, const std::string& title) {
  const double bottom = kHeight - kBottom;
  std::string svg;
  for (const double tick : axis.Ticks()) {
    const double x = axis.Pixel(tick);
    absl::StrAppend(&svg, Line(x, kTop, x, bottom, "grid"), Text(x, bottom + 18, "middle", TickLabel(tick)));
  }
  absl::StrAppend(&svg, Line(kLeft, bottom, kWidth - kRight, bottom, "axis"));
  return absl::StrCat(svg, Text((kLeft + kWidth - kRight) / 2, kHeight - 14, "middle", title));
}

std::string YAxis(const Axis& axis, const std::string& title) {
  const double middle = (kTop + kHeight - kBottom) / 2;
  std::string svg;
  for (const double tick : axis.Ticks()) {
    const double y = axis.Pixel(tick);
    absl::StrAppend(&svg, Line(kLeft, y, kWidth - kRight, y, "grid"), Text(kLeft - 8, y + 4, "end", TickLabel(tick)));
  }
  absl::StrAppend(&svg, Line(kLeft, kTop, kLeft, kHeight - kBottom, "axis"));
  const std::string turn = absl::StrFormat(" transform=\"rotate(-90 18 %.1f)\"", middle);
  return absl::StrCat(svg, Text(18, middle, "middle", title, turn));
}

// The points that no other beats, from left to right.
std::vector<ParetoPoint> Front(std::vector<ParetoPoint> points) {
  std::stable_sort(points.begin(), points.end(),
                   [](const ParetoPoint& a, const ParetoPoint& b) { return a.x != b.x ? a.x < b.x : a.y < b.y; });
  std::vector<ParetoPoint> front;
  for (const ParetoPoint& point : points) {
    if (front.empty() || point.y < front.back().y) front.push_back(point);
  }
  return front;
}

std::string FrontLine(const std::vector<ParetoPoint>& points, const Axis& x, const Axis& y) {
  const std::vector<ParetoPoint> front = Front(points);
  if (front.size() < 2) return "";
  std::string path = absl::StrFormat("M%.1f %.1f", x.Pixel(front[0].x), y.Pixel(front[0].y));
  for (size_t i = 1; i < front.size(); ++i) {
    absl::StrAppendFormat(&path, "H%.1fV%.1f", x.Pixel(front[i].x), y.Pixel(front[i].y));
  }
  return absl::StrCat("<path d=\"", path, "\" class=\"front\"/>\n");
}

Box LabelBox(double left, double baseline, double width) {
  return {left, baseline - kLabelHeight + 3, left + width, baseline + 3};
}

// Writes a label beside its dot, at the first of some places where it is within
// the plot and covers neither a dot nor another label.
std::string PlaceLabel(const std::string& label, double x, double y, std::vector<Box>* taken) {
  const double width = kCharWidth * label.size();
  for (int step = 0; step <= 12; ++step) {
    const double shift = (step % 2 == 0 ? 1 : -1) * ((step + 1) / 2) * kLabelHeight;
    for (const double left : {x + kDotRadius + 4, x - kDotRadius - 4 - width}) {
      const Box box = LabelBox(left, y + 4 + shift, width);
      const bool inside = box.left >= kLeft && box.right <= kWidth && box.top >= 0 && box.bottom <= kHeight - kBottom;
      const bool is_free = std::none_of(taken->begin(), taken->end(), [&](const Box& b) { return b.Overlaps(box); });
      if (!inside || !is_free) continue;
      taken->push_back(box);
      return Text(left, y + 4 + shift, "start", label);
    }
  }
  return Text(x + kDotRadius + 4, y + 4, "start", label);
}

std::string Dots(const std::vector<ParetoPoint>& points, const Axis& x, const Axis& y) {
  std::string svg;
  std::vector<Box> taken;
  for (const ParetoPoint& point : points) {
    const double px = x.Pixel(point.x), py = y.Pixel(point.y);
    taken.push_back({px - kDotRadius, py - kDotRadius, px + kDotRadius, py + kDotRadius});
    absl::StrAppendFormat(&svg, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" class=\"%s\"/>\n", px, py, kDotRadius,
                          point.is_baseline ? "base" : "dot");
  }
  for (const ParetoPoint& point : points) {
    absl::StrAppend(&svg, PlaceLabel(point.label, x.Pixel(point.x), y.Pixel(point.y), &taken));
  }
  return svg;
}

bool IsPlottable(const Metric* metric) {
  return metric != nullptr && std::isfinite(metric->value()) && metric->value() > 0;
}

}  // namespace

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

std::string ParetoSvg(const std::vector<ParetoPoint>& points, const std::string& x_title, const std::string& y_title) {
  if (points.empty()) return "";
  const auto less_x = [](const ParetoPoint& a, const ParetoPoint& b) { return a.x < b.x; };
  const auto less_y = [](const ParetoPoint& a, const ParetoPoint& b) { return a.y < b.y; };
  const auto [min_x, max_x] = std::minmax_element(points.begin(), points.end(), less_x);
  const auto [min_y, max_y] = std::minmax_element(points.begin(), points.end(), less_y);
  const bool logarithmic = max_y->y > 4 * min_y->y;
  const Axis x(min_x->x, max_x->x, kLeft, kWidth - kRight, false);
  const Axis y(min_y->y, max_y->y, kHeight - kBottom, kTop, logarithmic);
  const std::string y_label = logarithmic ? absl::StrCat(y_title, " (log scale)") : y_title;
  return absl::StrCat(Head(), XAxis(x, x_title), YAxis(y, y_label), FrontLine(points, x, y), Dots(points, x, y),
                      "</svg>\n");
}

std::vector<double> LinearTicks(double low, double high) {
  if (!(high > low)) return {low};
  const double step = RoundStep((high - low) / 7);
  std::vector<double> ticks;
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i) ticks.push_back(i * step);
  return ticks;
}

std::vector<double> LogTicks(double low, double high) {
  std::vector<double> ticks;
  for (int power = static_cast<int>(std::floor(std::log10(low))); std::pow(10.0, power) <= high; ++power) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double tick = factor * std::pow(10.0, power);
      if (tick >= low && tick <= high) ticks.push_back(tick);
    }
  }
  return ticks.size() < 3 ? LinearTicks(low, high) : ticks;
}

}  // namespace nibble
