// Places for labels beside the dots of a plot.
#ifndef NIBBLE_REPORTS_LABELS_H_
#define NIBBLE_REPORTS_LABELS_H_

#include <optional>
#include <string>
#include <vector>

namespace nibble {

struct Box {
  double left = 0, top = 0, right = 0, bottom = 0;

  bool Overlaps(const Box& other) const { return left < other.right && other.left < right && top < other.bottom && other.top < bottom; }
};

struct LabelPlace {
  double left = 0, baseline = 0;  // pixels
};

// Gives each label the nearest place where it is within the plot and covers
// neither a dot nor another label. Text is taken to be 12 pixels high.
class LabelPlacer {
 public:
  // Labels stand at most `lines` lines above or below their dots.
  LabelPlacer(const Box& plot, double dot_radius, int lines) : plot_(plot), radius_(dot_radius), lines_(lines) {}

  // All dots are taken before the first label is placed.
  void TakeDot(double x, double y);

  // The place of `label` for the dot at (x, y), from then on taken; nothing where none is free.
  std::optional<LabelPlace> Place(const std::string& label, double x, double y);

  // To the right of a dot, free or not.
  LabelPlace Beside(double x, double y) const;

 private:
  bool IsFree(const Box& box) const;

  const Box plot_;
  const double radius_;
  const int lines_;
  std::vector<Box> taken_;
};

}  // namespace nibble

#endif  // NIBBLE_REPORTS_LABELS_H_
