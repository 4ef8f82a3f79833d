#include "core/train/adamw.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/check.h"
#include "core/base/divide.h"

namespace nibble::train {
namespace {

constexpr int64_t kPiece = 65536;
constexpr double kPi = 3.14159265358979323846;

}  // namespace

void AdamWUpdate(Machine machine, const AdamWOptions& options, int64_t step, double rate, double decay, double gradient_scale,
                 absl::Span<const float> gradient, Moments* moments, absl::Span<float> weights) {
  NIBBLE_CHECK(gradient.size() == weights.size());
  moments->first.resize(weights.size());
  moments->second.resize(weights.size());
  const float b1 = static_cast<float>(options.beta1), b2 = static_cast<float>(options.beta2), c1 = 1 - b1, c2 = 1 - b2;
  const float scale = static_cast<float>(gradient_scale), epsilon = static_cast<float>(options.epsilon);
  const float correction = static_cast<float>(1 / std::sqrt(1 - std::pow(options.beta2, static_cast<double>(step))));
  const float pace = static_cast<float>(rate / (1 - std::pow(options.beta1, static_cast<double>(step))));
  const float shrink = static_cast<float>(1 - rate * decay);
  ForPieces(machine.pool, static_cast<int64_t>(weights.size()), kPiece, [&](int64_t first, int64_t last, int) {
    float *m = moments->first.data(), *v = moments->second.data(), *w = weights.data();
    const float* g = gradient.data();
    for (int64_t i = first; i < last; ++i) {
      const float scaled = g[i] * scale;
      m[i] = b1 * m[i] + c1 * scaled;
      v[i] = b2 * v[i] + c2 * scaled * scaled;
      w[i] = w[i] * shrink - pace * m[i] / (std::sqrt(v[i]) * correction + epsilon);
    }
  });
}

double SumOfSquares(Machine machine, absl::Span<const float> values) {
  const int64_t count = static_cast<int64_t>(values.size());
  std::vector<double> parts(CeilDiv(count, kPiece));
  ForPieces(machine.pool, count, kPiece, [&](int64_t first, int64_t last, int) {
    double sums[4] = {};
    int64_t i = first;
    for (; i + 4 <= last; i += 4) {
      for (int j = 0; j < 4; ++j) sums[j] += static_cast<double>(values[i + j]) * values[i + j];
    }
    for (; i < last; ++i) sums[0] += static_cast<double>(values[i]) * values[i];
    parts[first / kPiece] = sums[0] + sums[1] + sums[2] + sums[3];
  });
  return std::accumulate(parts.begin(), parts.end(), 0.0);
}

double Schedule::Rate(int64_t step) const {
  if (step <= warmup) return peak * static_cast<double>(step) / static_cast<double>(warmup);
  const double done = std::min(1.0, static_cast<double>(step - 1 - warmup) / static_cast<double>(std::max<int64_t>(1, steps - warmup)));
  switch (decay) {
    case Decay::kConstant: return peak;
    case Decay::kLinear: return peak * (1 - (1 - floor) * done);
    case Decay::kCosine: return peak * (floor + (1 - floor) * 0.5 * (1 + std::cos(kPi * done)));
  }
  return peak;
}

}  // namespace nibble::train
