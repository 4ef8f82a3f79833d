#include "methods/smoothquant/scales.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"

namespace nibble {

std::vector<double> SmoothingScales(absl::Span<const double> activation_max, absl::Span<const double> weight_max, double alpha) {
  NIBBLE_CHECK(activation_max.size() == weight_max.size());
  constexpr double kLeast = 1e-5;
  std::vector<double> scales(activation_max.size());
  for (size_t j = 0; j < scales.size(); ++j) {
    scales[j] = std::pow(std::max(activation_max[j], kLeast), alpha) / std::pow(std::max(weight_max[j], kLeast), 1 - alpha);
  }
  return scales;
}

}  // namespace nibble
