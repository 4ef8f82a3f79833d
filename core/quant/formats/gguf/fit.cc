#include "core/quant/formats/gguf/fit.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/quant/formats/gguf/blocks.h"
#include "core/quant/integer_grid.h"

namespace nibble::gguf {
namespace {

constexpr int kDescentRounds = 5;
constexpr int kTrials = 9;  // to each side, tenths of a code apart
constexpr int kNonLinearTrials = 7;

// Least squares of x ~ scale code.
struct Products {
  float xl = 0, ll = 0;  // sums of w x l and w l l

  void Add(float weight, float x, float l) {
    xl += weight * x * l;
    ll += weight * l * l;
  }
  float scale() const { return ll > 0 ? xl / ll : 0.0f; }
};

// Moves each of `codes` in turn to where the scale that the others give wants it, as
// long as that brings the error down. `positive`: only where that scale is.
void Descend(int low, int high, bool positive, absl::Span<const float> x, absl::Span<const float> weights, absl::Span<int8_t> codes,
             Products* sums) {
  for (int round = 0; round < kDescentRounds; ++round) {
    bool changed = false;
    for (size_t i = 0; i < x.size(); ++i) {
      Products others = *sums;
      const float l = codes[i];
      others.xl -= weights[i] * x[i] * l;
      others.ll -= weights[i] * l * l;
      if (!(others.ll > 0) || others.xl == 0 || (positive && others.xl < 0)) continue;
      const int moved = NearestIn(x[i] * others.ll / others.xl, low, high);
      if (moved == codes[i]) continue;
      others.Add(weights[i], x[i], static_cast<float>(moved));
      if (!(others.ll > 0 && others.xl * others.xl * sums->ll > sums->xl * sums->xl * others.ll)) continue;
      codes[i] = static_cast<int8_t>(moved);
      *sums = others;
      changed = true;
    }
    if (!changed) return;
  }
}

// Sums over codes by a trial scale's inverse.
Products ProductsOf(float inverse, int low, int high, absl::Span<const float> x, absl::Span<const float> weights, int8_t* codes) {
  Products sums;
  for (size_t i = 0; i < x.size(); ++i) {
    const int l = NearestIn(inverse * x[i], low, high);
    sums.Add(weights[i], x[i], static_cast<float>(l));
    if (codes != nullptr) codes[i] = static_cast<int8_t>(l);
  }
  return sums;
}

}  // namespace

int NearestIn(float x, int low, int high) {
  if (!(x > static_cast<float>(low))) return low;
  if (x > static_cast<float>(high)) return high;
  return static_cast<int>(RoundHalfEven(x));
}

float SignedAbsMax(absl::Span<const float> x) {
  float largest = 0;
  for (const float v : x) {
    if (std::fabs(v) > std::fabs(largest)) largest = v;
  }
  return largest;
}

float FitSymmetric(int levels, absl::Span<const float> x, absl::Span<const float> weights, absl::Span<uint8_t> codes) {
  const float largest = SignedAbsMax(x);
  std::fill(codes.begin(), codes.end(), static_cast<uint8_t>(levels));
  if (std::fabs(largest) < kLeastMagnitude) return 0;
  float best = 0, inverse = -static_cast<float>(levels) / largest;
  for (int trial = -kTrials; trial <= kTrials; ++trial) {
    const float beyond = 0.1f * static_cast<float>(trial);
    for (const float end : {-(static_cast<float>(levels) + beyond), static_cast<float>(levels - 1) + beyond}) {
      const Products sums = ProductsOf(end / largest, -levels, levels - 1, x, weights, nullptr);
      if (!(sums.ll > 0 && sums.xl * sums.xl > best * sums.ll)) continue;
      best = sums.scale() * sums.xl;
      inverse = end / largest;
    }
  }
  std::array<int8_t, kLargestBlock> found;
  Products sums = ProductsOf(inverse, -levels, levels - 1, x, weights, found.data());
  Descend(-levels, levels - 1, false, x, weights, absl::MakeSpan(found.data(), x.size()), &sums);
  for (size_t i = 0; i < x.size(); ++i) codes[i] = static_cast<uint8_t>(found[i] + levels);
  return sums.scale();
}

float FitSymmetricByDescent(int levels, absl::Span<const float> x, absl::Span<const float> weights) {
  const float largest = SignedAbsMax(x);
  if (std::fabs(largest) < kLeastMagnitude) return 0;
  std::array<int8_t, kLargestBlock> codes;
  Products sums = ProductsOf(-static_cast<float>(levels) / largest, -levels, levels - 1, x, weights, codes.data());
  Descend(-levels, levels - 1, true, x, weights, absl::MakeSpan(codes.data(), x.size()), &sums);
  return sums.scale();
}

AffineFit FitAffine(int max_code, absl::Span<const float> x, absl::Span<const float> weights, const AffineSearch& search,
                    absl::Span<uint8_t> codes) {
  float min = x[0], max = x[0], sum_w = 0, sum_x = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    min = std::min(min, x[i]);
    max = std::max(max, x[i]);
    sum_w += weights[i];
    sum_x += weights[i] * x[i];
  }
  min = std::min(min, 0.0f);
  std::fill(codes.begin(), codes.end(), 0);
  if (max - min < kLeastMagnitude) return {0, -min};
  const auto error_of = [&](float scale, float low, absl::Span<const uint8_t> candidate) {
    float error = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const float difference = scale * static_cast<float>(candidate[i]) + low - x[i];
      error += weights[i] * (search.absolute ? std::fabs(difference) : difference * difference);
    }
    return error;
  };
  std::array<uint8_t, kLargestBlock> storage;
  const absl::Span<uint8_t> trial(storage.data(), x.size());
  const auto quantize = [&](float inverse) {
    for (size_t i = 0; i < x.size(); ++i) trial[i] = static_cast<uint8_t>(NearestIn(inverse * (x[i] - min), 0, max_code));
  };
  const float inverse = static_cast<float>(max_code) / (max - min);
  quantize(inverse);
  std::copy(trial.begin(), trial.end(), codes.begin());
  float best_scale = 1 / inverse, best = error_of(best_scale, min, trial);
  for (int step = 0; step <= search.steps; ++step) {
    quantize((search.first + search.step * static_cast<float>(step) + static_cast<float>(max_code)) / (max - min));
    float sum_l = 0, sum_l2 = 0, sum_xl = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const float l = trial[i];
      sum_l += weights[i] * l;
      sum_l2 += weights[i] * l * l;
      sum_xl += weights[i] * l * x[i];
    }
    const float determinant = sum_w * sum_l2 - sum_l * sum_l;
    if (!(determinant > 0)) continue;
    float scale = (sum_w * sum_xl - sum_x * sum_l) / determinant, low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
    if (low > 0) low = 0, scale = sum_xl / sum_l2;
    const float error = error_of(scale, low, trial);
    if (!(error < best)) continue;
    best = error, best_scale = scale, min = low;
    std::copy(trial.begin(), trial.end(), codes.begin());
  }
  return {best_scale, -min};
}

float FitPositive(int max_code, absl::Span<const float> x, absl::Span<const float> weights, absl::Span<uint8_t> codes) {
  std::fill(codes.begin(), codes.end(), 0);
  const float max = *std::max_element(x.begin(), x.end());
  if (!(max >= kLeastMagnitude)) return 0;
  const auto error_of = [&](float inverse) {
    const float scale = 1 / inverse;
    float error = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const float difference = x[i] - scale * static_cast<float>(NearestIn(inverse * x[i], 0, max_code));
      error += weights[i] * difference * difference;
    }
    return error;
  };
  float inverse = static_cast<float>(max_code) / max, best = error_of(inverse);
  for (int trial = -4; trial <= 4; ++trial) {
    if (trial == 0) continue;
    const float tried = (0.1f * static_cast<float>(trial) + static_cast<float>(max_code)) / max;
    const float error = error_of(tried);
    if (error < best) best = error, inverse = tried;
  }
  std::array<int8_t, kLargestBlock> found;
  Products sums = ProductsOf(inverse, 0, max_code, x, weights, found.data());
  Descend(0, max_code, true, x, weights, absl::MakeSpan(found.data(), x.size()), &sums);
  for (size_t i = 0; i < x.size(); ++i) codes[i] = static_cast<uint8_t>(found[i]);
  return sums.scale();
}

uint8_t NearestNonLinear(float x) {
  uint8_t code = 0;
  while (code + 1 < static_cast<int>(kNonLinear.size()) && !(x - kNonLinear[code] < kNonLinear[code + 1] - x)) ++code;
  return code;
}

float FitNonLinear(absl::Span<const float> x, absl::Span<const float> weights) {
  const float largest = SignedAbsMax(x);
  if (std::fabs(largest) < kLeastMagnitude) return 0;
  const auto products_of = [&](float inverse) {
    Products sums;
    for (size_t i = 0; i < x.size(); ++i) sums.Add(weights[i], x[i], kNonLinear[NearestNonLinear(inverse * x[i])]);
    return sums;
  };
  float scale = 0, best = 0;
  for (int trial = -kNonLinearTrials; trial <= kNonLinearTrials; ++trial) {
    for (const float end : {kNonLinear.front(), kNonLinear.back()}) {
      const Products sums = products_of((static_cast<float>(trial) + end) / largest);
      if (!(sums.ll > 0 && sums.xl * sums.xl > best * sums.ll)) continue;
      scale = sums.scale();
      best = scale * sums.xl;
    }
  }
  return scale;
}

}  // namespace nibble::gguf
