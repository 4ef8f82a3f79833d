// A scatter plot of size against perplexity as SVG: one labelled dot per
// variant, a step line through those that no other beats in both.
#ifndef NIBBLE_REPORTS_PARETO_H_
#define NIBBLE_REPORTS_PARETO_H_

#include <string>
#include <vector>

#include "reports/run_table.h"

namespace nibble {

// One dot; smaller is better on both axes.
struct ParetoPoint {
  std::string label;
  double x = 0;
  double y = 0;
  bool is_baseline = false;
};

// size_mib and the first perplexity of every variant that has both.
std::vector<ParetoPoint> ParetoPoints(const RunTable& table);

// The name of the perplexity that ParetoPoints takes, or "".
std::string FirstPerplexity(const RunTable& table);

// The points that no other beats, from left to right.
std::vector<ParetoPoint> ParetoFront(std::vector<ParetoPoint> points);

// The y axis is logarithmic where the largest y is over 4 times the smallest.
// "" without points. `front`: where given the line goes through these, which have no dots.
std::string ParetoSvg(const std::vector<ParetoPoint>& points, const std::string& x_title, const std::string& y_title,
                      const std::vector<ParetoPoint>& front = {});

}  // namespace nibble

#endif  // NIBBLE_REPORTS_PARETO_H_
