// Loss curves as SVG.
#ifndef NIBBLE_REPORTS_CURVE_H_
#define NIBBLE_REPORTS_CURVE_H_

#include <string>
#include <vector>

namespace nibble {

struct NamedCurve {
  std::string label;
  std::vector<double> loss;  // of each update
};

// The curves' running means over a fiftieth of their updates, each with its
// label. "" without curves.
std::string CurveSvg(const std::vector<NamedCurve>& curves);

// Mean of the last tenth.
double LastLoss(const std::vector<double>& loss);

// At most `points` means over equal parts of `values`.
std::vector<double> Thinned(const std::vector<double>& values, size_t points);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_CURVE_H_
