#include "reports/axes.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "reports/format.h"

namespace nibble {
namespace {

constexpr double kFontSize = 12;
constexpr int kMostTicks = 24;
// Relative to the ends of an axis: what lies closer together is one place.
constexpr double kLeastSpan = 1e-9;

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

}  // namespace

Axis::Axis(double low, double high, double from, double to, bool logarithmic) : logarithmic_(logarithmic), from_(from), to_(to) {
  const double a = Map(low), b = Map(high);
  const bool apart = b - a > kLeastSpan * std::max(std::abs(a), std::abs(b));
  const double margin = apart ? 0.08 * (b - a) : std::max(0.05 * std::abs(a), 0.05);
  low_ = a - margin;
  high_ = b + margin;
  // A size or a perplexity is never negative, nor should its axis be.
  if (!logarithmic_ && low >= 0) low_ = std::max(low_, 0.0);
}

double Axis::low() const { return logarithmic_ ? std::exp(low_) : low_; }
double Axis::high() const { return logarithmic_ ? std::exp(high_) : high_; }

std::vector<double> Axis::Ticks() const { return logarithmic_ ? LogTicks(low(), high()) : LinearTicks(low(), high()); }

double Axis::Map(double value) const { return logarithmic_ ? std::log(value) : value; }

Axis HorizontalAxis(double low, double high) { return Axis(low, high, kPlotLeft, kPlotRight, false); }
Axis VerticalAxis(double low, double high, bool logarithmic) { return Axis(low, high, kPlotBottom, kPlotTop, logarithmic); }

std::string SvgText(double x, double y, absl::string_view anchor, absl::string_view text, absl::string_view more) {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>%s</text>\n", x, y, anchor, more,
                         EscapeXml(text));
}

std::string SvgHead() {
  return absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
      "font-family=\"sans-serif\" font-size=\"%.0f\" fill=\"#222\">\n"
      "<style>.grid{stroke:#e4e4e4}.axis{stroke:#666}.front{stroke:#1f6feb;stroke-dasharray:4 3;fill:none;opacity:.6}"
      ".dot{fill:#1f6feb}.base{fill:#d1242f}text{stroke:#fff;stroke-width:3px;paint-order:stroke}</style>\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
      kSvgWidth, kSvgHeight, kSvgWidth, kSvgHeight, kFontSize);
}

std::string XAxis(const Axis& axis, const std::string& title) {
  const double bottom = kPlotBottom;
  std::string svg;
  for (const double tick : axis.Ticks()) {
    const double x = axis.Pixel(tick);
    absl::StrAppend(&svg, Line(x, kPlotTop, x, bottom, "grid"), SvgText(x, bottom + 18, "middle", TickLabel(tick)));
  }
  absl::StrAppend(&svg, Line(kPlotLeft, bottom, kPlotRight, bottom, "axis"));
  return absl::StrCat(svg, SvgText((kPlotLeft + kPlotRight) / 2, kSvgHeight - 14, "middle", title));
}

std::string YAxis(const Axis& axis, const std::string& title) {
  const double middle = (kPlotTop + kPlotBottom) / 2;
  std::string svg;
  for (const double tick : axis.Ticks()) {
    const double y = axis.Pixel(tick);
    absl::StrAppend(&svg, Line(kPlotLeft, y, kPlotRight, y, "grid"), SvgText(kPlotLeft - 8, y + 4, "end", TickLabel(tick)));
  }
  absl::StrAppend(&svg, Line(kPlotLeft, kPlotTop, kPlotLeft, kPlotBottom, "axis"));
  const std::string turn = absl::StrFormat(" transform=\"rotate(-90 18 %.1f)\"", middle);
  return absl::StrCat(svg, SvgText(18, middle, "middle", title, turn));
}

std::vector<double> LinearTicks(double low, double high) {
  const double step = RoundStep((high - low) / 7), first = std::ceil(low / step - 1e-9);
  // Nothing between ends that are the same or not finite, nor where a step is lost in them.
  if (!(high > low) || !std::isfinite(first) || first + 1 == first) return {low};
  std::vector<double> ticks;
  for (int i = 0; i < kMostTicks && (first + i) * step <= high + 1e-9 * step; ++i) ticks.push_back((first + i) * step);
  return ticks;
}

std::vector<double> LogTicks(double low, double high) {
  // A margin may leave what a double holds.
  low = std::max(low, std::numeric_limits<double>::min());
  high = std::min(high, std::numeric_limits<double>::max());
  if (!(high > low)) return {low};
  std::vector<double> ticks;
  const int first = static_cast<int>(std::floor(std::log10(low))), last = static_cast<int>(std::floor(std::log10(high)));
  const int stride = (last - first) / (kMostTicks / 3) + 1;
  for (int power = first; power <= last; power += stride) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double tick = factor * std::pow(10.0, power);
      if (tick >= low && tick <= high && (factor == 1 || stride == 1)) ticks.push_back(tick);
    }
  }
  return ticks.size() < 3 ? LinearTicks(low, high) : ticks;
}

}  // namespace nibble
