// What plots share: an SVG of one size, axes from data to pixels, ticks at round
// numbers.
#ifndef NIBBLE_REPORTS_AXES_H_
#define NIBBLE_REPORTS_AXES_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace nibble {

inline constexpr double kSvgWidth = 720, kSvgHeight = 440;
inline constexpr double kPlotLeft = 70, kPlotRight = kSvgWidth - 20, kPlotTop = 20, kPlotBottom = kSvgHeight - 56;

// One axis: data to pixels.
class Axis {
 public:
  // [low, high] with a margin lies between the pixels `from` and `to`.
  Axis(double low, double high, double from, double to, bool logarithmic);

  double Pixel(double value) const { return from_ + (Map(value) - low_) / (high_ - low_) * (to_ - from_); }
  std::vector<double> Ticks() const;
  // The ends of the axis, margins included.
  double low() const;
  double high() const;

 private:
  double Map(double value) const;

  const bool logarithmic_;
  const double from_, to_;
  double low_, high_;
};

Axis HorizontalAxis(double low, double high);
Axis VerticalAxis(double low, double high, bool logarithmic);

// The opening of the document with its styles; "</svg>" ends it. Classes: grid,
// axis, front, dot, base.
std::string SvgHead();
std::string XAxis(const Axis& axis, const std::string& title);
std::string YAxis(const Axis& axis, const std::string& title);
// `anchor`: "start", "middle" or "end"; `more`: further attributes.
std::string SvgText(double x, double y, absl::string_view anchor, absl::string_view text, absl::string_view more = "");

// About 3 to 8 round numbers (1, 2 or 5 times a power of ten apart) within [low, high].
std::vector<double> LinearTicks(double low, double high);

// 1, 2 and 5 times powers of ten within [low, high], or LinearTicks where these
// are fewer than 3.
std::vector<double> LogTicks(double low, double high);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_AXES_H_
