#include "reports/labels.h"

#include <algorithm>

namespace nibble {
namespace {

constexpr double kCharWidth = 7.2, kLineHeight = 14, kDotGap = 4, kDescent = 3;

}  // namespace

void LabelPlacer::TakeDot(double x, double y) { taken_.push_back({x - radius_, y - radius_, x + radius_, y + radius_}); }

LabelPlace LabelPlacer::Beside(double x, double y) const { return {x + radius_ + kDotGap, y + kDotGap}; }

bool LabelPlacer::IsFree(const Box& box) const {
  const bool inside = box.left >= plot_.left && box.right <= plot_.right && box.top >= plot_.top && box.bottom <= plot_.bottom;
  return inside && std::none_of(taken_.begin(), taken_.end(), [&](const Box& taken) { return taken.Overlaps(box); });
}

std::optional<LabelPlace> LabelPlacer::Place(const std::string& label, double x, double y) {
  const double width = kCharWidth * static_cast<double>(label.size());
  for (int step = 0; step <= 2 * lines_; ++step) {
    const double shift = (step % 2 == 0 ? 1 : -1) * ((step + 1) / 2) * kLineHeight;
    const LabelPlace right = Beside(x, y + shift);
    for (const double left : {right.left, x - radius_ - kDotGap - width}) {
      const Box box{left, right.baseline - kLineHeight + kDescent, left + width, right.baseline + kDescent};
      if (!IsFree(box)) continue;
      taken_.push_back(box);
      return LabelPlace{left, right.baseline};
    }
  }
  return std::nullopt;
}

}  // namespace nibble
