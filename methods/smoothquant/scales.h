// The factors of SmoothQuant (Xiao et al., ICML 2023, section 4, equation 4).
#ifndef NIBBLE_METHODS_SMOOTHQUANT_SCALES_H_
#define NIBBLE_METHODS_SMOOTHQUANT_SCALES_H_

#include <vector>

#include "absl/types/span.h"

namespace nibble {

// s_j = max|x_j|^alpha / max|w_j|^(1 - alpha) for each channel j, both maxima at
// least 1e-5: activations are divided by s, weights multiplied.
std::vector<double> SmoothingScales(absl::Span<const double> activation_max, absl::Span<const double> weight_max, double alpha);

}  // namespace nibble

#endif  // NIBBLE_METHODS_SMOOTHQUANT_SCALES_H_
