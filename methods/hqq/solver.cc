#include "methods/hqq/solver.h"

#include <algorithm>
#include <cmath>

#include "core/quant/integer_grid.h"
#include "core/quant/scale_type.h"

namespace nibble {
namespace {

// The least scale that HQQ uses: its inverse is at most 2e4.
constexpr float kLeastScale = 1 / 2e4f;

double Shrink(double x, double beta, double norm) {
  const double magnitude = std::fabs(x);
  if (magnitude == 0) return 0;
  return std::copysign(std::max(magnitude - std::pow(magnitude, norm - 1) / beta, 0.0), x);
}

// The zero that fits best what shrinking leaves of the errors.
float NextZero(const AffineGrid& grid, int bits, absl::Span<const float> group, double beta, double norm) {
  double sum = 0;
  for (const float w : group) {
    const uint8_t code = AffineCode(grid, bits, w);
    const double kept = Shrink(w - grid.Decode(code), beta, norm);
    sum += code - (w - kept) / grid.scale;
  }
  return static_cast<float>(sum / static_cast<double>(group.size()));
}

}  // namespace

double HqqError(const AffineGrid& grid, int bits, absl::Span<const float> group, double norm) {
  double error = 0;
  for (const float w : group) error += std::pow(std::fabs(static_cast<double>(w) - grid.Decode(AffineCode(grid, bits, w))), norm);
  return error;
}

AffineGrid SolveHqq(const QuantScheme& scheme, const HqqSettings& settings, absl::Span<const float> group) {
  const int bits = AffineBits(scheme);
  AffineGrid best = AffineRange(scheme, group);
  if (best.scale < kLeastScale && std::fabs(best.zero) <= (1 << bits)) return best;
  double best_error = HqqError(best, bits, group, settings.norm), beta = settings.beta;
  AffineGrid grid = best;
  if (settings.round_zero) grid.zero = RoundHalfEven(grid.zero);
  double last = HqqError(grid, bits, group, settings.norm);
  for (int i = 0; i < settings.iterations; ++i, beta *= settings.growth) {
    grid.zero = RoundToScaleType(scheme.scale_type(), NextZero(grid, bits, group, beta, settings.norm));
    const double error = HqqError(grid, bits, group, settings.norm);
    if (error < best_error) best = grid, best_error = error;
    if (error >= last) break;
    last = error;
  }
  return best;
}

}  // namespace nibble
