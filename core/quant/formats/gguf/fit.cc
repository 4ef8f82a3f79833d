#include "core/quant/formats/gguf/fit.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "core/base/clones.h"
#include "core/quant/formats/gguf/blocks.h"
#include "core/quant/integer_grid.h"

// Lanes are passed and returned by value only where the call is inlined.
#pragma GCC diagnostic ignored "-Wpsabi"
#define NIBBLE_INLINE inline __attribute__((always_inline))

namespace nibble::gguf {
namespace {

constexpr int kDescentRounds = 5;
constexpr int kTrials = 9;  // to each side, tenths of a code apart
constexpr int kNonLinearTrials = 7;

using Mask = decltype(Lanes{} < Lanes{});

NIBBLE_INLINE Lanes All(float x) { return Lanes{} + x; }

NIBBLE_INLINE Lanes Abs(Lanes x) { return x < 0 ? -x : x; }

NIBBLE_INLINE bool Any(Mask mask) {
  int any = 0;
  for (int64_t l = 0; l < kLanes; ++l) any |= mask[l];
  return any != 0;
}

// NearestIn in each lane.
NIBBLE_INLINE Lanes Nearest(Lanes x, int low, int high) {
  const float least = static_cast<float>(low), most = static_cast<float>(high), magic = 12582912.0f;
  const Lanes above = x > least ? x : All(least), within = above > most ? All(most) : above;
  return (within + magic) - magic;
}

NIBBLE_INLINE Lanes Largest(const Groups& groups) {
  Lanes largest{};
  for (int64_t i = 0; i < groups.n; ++i) largest = Abs(groups.x[i]) > Abs(largest) ? groups.x[i] : largest;
  return largest;
}

// Least squares of x ~ scale code.
struct Products {
  Lanes xl{}, ll{};  // sums of w x l and w l l

  NIBBLE_INLINE void Add(Lanes weight, Lanes x, Lanes l) {
    xl += weight * x * l;
    ll += weight * l * l;
  }
  NIBBLE_INLINE Lanes scale() const { return ll > 0 ? xl / ll : Lanes{}; }
};

// Moves each of `codes` in turn to where the scale that the others give wants it, as
// long as that brings the error down. `positive`: only where that scale is.
NIBBLE_INLINE void Descend(int low, int high, bool positive, const Groups& groups, Lanes* codes, Products* sums) {
  for (int round = 0; round < kDescentRounds; ++round) {
    Mask changed{};
    for (int64_t i = 0; i < groups.n; ++i) {
      const Lanes x = groups.x[i], weight = groups.weights[i], l = codes[i];
      Products others = *sums;
      others.xl -= weight * x * l;
      others.ll -= weight * l * l;
      const Lanes moved = Nearest(x * others.ll / others.xl, low, high);
      Mask better = (others.ll > 0) & (positive ? others.xl > 0 : others.xl != 0) & (moved != l);
      others.Add(weight, x, moved);
      better &= (others.ll > 0) & (others.xl * others.xl * sums->ll > sums->xl * sums->xl * others.ll);
      codes[i] = better ? moved : l;
      sums->xl = better ? others.xl : sums->xl;
      sums->ll = better ? others.ll : sums->ll;
      changed |= better;
    }
    if (!Any(changed)) return;
  }
}

// Sums over codes by the inverses of trial scales.
NIBBLE_INLINE Products ProductsOf(Lanes inverse, int low, int high, const Groups& groups) {
  Products sums;
  for (int64_t i = 0; i < groups.n; ++i) sums.Add(groups.weights[i], groups.x[i], Nearest(inverse * groups.x[i], low, high));
  return sums;
}

// Scales from codes by `inverse` and a descent from there.
NIBBLE_INLINE Lanes DescendFrom(Lanes inverse, int low, int high, bool positive, const Groups& groups, Lanes* codes) {
  Products sums;
  for (int64_t i = 0; i < groups.n; ++i) {
    codes[i] = Nearest(inverse * groups.x[i], low, high);
    sums.Add(groups.weights[i], groups.x[i], codes[i]);
  }
  Descend(low, high, positive, groups, codes, &sums);
  return sums.scale();
}

// Where `zero`, a group counts as zero.
NIBBLE_INLINE void Clear(Mask zero, int64_t n, Lanes* scales, Lanes* codes) {
  *scales = zero ? Lanes{} : *scales;
  for (int64_t i = 0; i < n; ++i) codes[i] = zero ? Lanes{} : codes[i];
}

NIBBLE_INLINE Lanes PositiveError(Lanes inverse, int max_code, const Groups& groups) {
  const Lanes scale = 1 / inverse;
  Lanes error{};
  for (int64_t i = 0; i < groups.n; ++i) {
    const Lanes difference = groups.x[i] - scale * Nearest(inverse * groups.x[i], 0, max_code);
    error += groups.weights[i] * difference * difference;
  }
  return error;
}

// A fit of x ~ scale code + low.
struct Line {
  Lanes scale, low;

  // By weighted least squares, low <= 0; its determinant, positive where there is such a line.
  NIBBLE_INLINE static Line Of(const Groups& groups, const Lanes* codes, Lanes sum_w, Lanes sum_x, Lanes* determinant) {
    Lanes l1{}, l2{}, xl{};
    for (int64_t i = 0; i < groups.n; ++i) {
      l1 += groups.weights[i] * codes[i];
      l2 += groups.weights[i] * codes[i] * codes[i];
      xl += groups.weights[i] * codes[i] * groups.x[i];
    }
    *determinant = sum_w * l2 - l1 * l1;
    const Lanes low = (l2 * sum_x - l1 * xl) / *determinant;
    return {low > 0 ? xl / l2 : (sum_w * xl - sum_x * l1) / *determinant, low > 0 ? Lanes{} : low};
  }

  NIBBLE_INLINE Lanes Error(const Groups& groups, const Lanes* codes, bool absolute) const {
    Lanes error{};
    for (int64_t i = 0; i < groups.n; ++i) {
      const Lanes difference = scale * codes[i] + low - groups.x[i];
      error += groups.weights[i] * (absolute ? Abs(difference) : difference * difference);
    }
    return error;
  }
};

}  // namespace

int NearestIn(float x, int low, int high) {
  if (!(x > static_cast<float>(low))) return low;
  if (x > static_cast<float>(high)) return high;
  return static_cast<int>(RoundHalfEven(x));
}

NIBBLE_CLONES void NearestCodes(float scale, float offset, int zero, int max_code, absl::Span<const float> x, uint8_t* codes) {
  for (size_t i = 0; i < x.size(); i += kLanes) {
    Lanes values;
    std::memcpy(&values, x.data() + i, sizeof(values));
    const Lanes nearest = scale == 0 ? Lanes{} : Nearest((values + offset) / scale, -zero, max_code - zero);
    for (int64_t l = 0; l < kLanes; ++l) codes[i + l] = static_cast<uint8_t>(static_cast<int>(nearest[l]) + zero);
  }
}

float SignedAbsMax(absl::Span<const float> x) {
  float largest = 0;
  for (const float v : x) {
    if (std::fabs(v) > std::fabs(largest)) largest = v;
  }
  return largest;
}

NIBBLE_CLONES void FitSymmetric(int levels, const Groups& groups, Lanes* scales, Lanes* codes) {
  const Lanes largest = Largest(groups);
  Lanes best{}, inverse = -static_cast<float>(levels) / largest;
  for (int trial = -kTrials; trial <= kTrials; ++trial) {
    const float beyond = 0.1f * static_cast<float>(trial);
    for (const float end : {-(static_cast<float>(levels) + beyond), static_cast<float>(levels - 1) + beyond}) {
      const Lanes tried = end / largest;
      const Products sums = ProductsOf(tried, -levels, levels - 1, groups);
      const Mask better = (sums.ll > 0) & (sums.xl * sums.xl > best * sums.ll);
      best = better ? sums.scale() * sums.xl : best;
      inverse = better ? tried : inverse;
    }
  }
  *scales = DescendFrom(inverse, -levels, levels - 1, false, groups, codes);
  Clear(Abs(largest) < kLeastMagnitude, groups.n, scales, codes);
}

NIBBLE_CLONES void FitSymmetricByDescent(int levels, const Groups& groups, Lanes* scales, Lanes* codes) {
  const Lanes largest = Largest(groups);
  *scales = DescendFrom(-static_cast<float>(levels) / largest, -levels, levels - 1, true, groups, codes);
  Clear(Abs(largest) < kLeastMagnitude, groups.n, scales, codes);
}

NIBBLE_CLONES void FitAffine(int max_code, const Groups& groups, const AffineSearch& search, Lanes* scales, Lanes* mins, Lanes* codes) {
  const float most = static_cast<float>(max_code);
  Lanes min{}, max = groups.x[0], sum_w{}, sum_x{};
  for (int64_t i = 0; i < groups.n; ++i) {
    min = groups.x[i] < min ? groups.x[i] : min;
    max = groups.x[i] > max ? groups.x[i] : max;
    sum_w += groups.weights[i];
    sum_x += groups.weights[i] * groups.x[i];
  }
  const Lanes least = min, inverse = most / (max - min);
  for (int64_t i = 0; i < groups.n; ++i) codes[i] = Nearest(inverse * (groups.x[i] - min), 0, max_code);
  Line line{1 / inverse, min};
  Lanes best = line.Error(groups, codes, search.absolute);
  std::array<Lanes, kLargestGroup> trial;
  for (int step = 0; step <= search.steps; ++step) {
    const Lanes tried = (search.first + search.step * static_cast<float>(step) + most) / (max - line.low);
    for (int64_t i = 0; i < groups.n; ++i) trial[i] = Nearest(tried * (groups.x[i] - line.low), 0, max_code);
    Lanes determinant;
    const Line found = Line::Of(groups, trial.data(), sum_w, sum_x, &determinant);
    const Lanes error = found.Error(groups, trial.data(), search.absolute);
    const Mask better = (determinant > 0) & (error < best);
    if (!Any(better)) continue;
    best = better ? error : best;
    line = {better ? found.scale : line.scale, better ? found.low : line.low};
    for (int64_t i = 0; i < groups.n; ++i) codes[i] = better ? trial[i] : codes[i];
  }
  const Mask zero = max - least < kLeastMagnitude;
  *scales = line.scale;
  *mins = -(zero ? least : line.low);
  Clear(zero, groups.n, scales, codes);
}

NIBBLE_CLONES void FitPositive(int max_code, const Groups& groups, Lanes* scales, Lanes* codes) {
  Lanes max = groups.x[0];
  for (int64_t i = 1; i < groups.n; ++i) max = max < groups.x[i] ? groups.x[i] : max;
  Lanes inverse = static_cast<float>(max_code) / max, best = PositiveError(inverse, max_code, groups);
  for (int trial = -4; trial <= 4; ++trial) {
    if (trial == 0) continue;
    const Lanes tried = (0.1f * static_cast<float>(trial) + static_cast<float>(max_code)) / max;
    const Lanes error = PositiveError(tried, max_code, groups);
    inverse = error < best ? tried : inverse;
    best = error < best ? error : best;
  }
  *scales = DescendFrom(inverse, 0, max_code, true, groups, codes);
  Clear(~(max >= kLeastMagnitude), groups.n, scales, codes);
}

uint8_t NearestNonLinear(float x) {
  uint8_t code = 0;
  while (code + 1 < static_cast<int>(kNonLinear.size()) && !(x - kNonLinear[code] < kNonLinear[code + 1] - x)) ++code;
  return code;
}

float FitNonLinear(absl::Span<const float> x, absl::Span<const float> weights) {
  const float largest = SignedAbsMax(x);
  if (std::fabs(largest) < kLeastMagnitude) return 0;
  float scale = 0, best = 0;
  for (int trial = -kNonLinearTrials; trial <= kNonLinearTrials; ++trial) {
    for (const float end : {kNonLinear.front(), kNonLinear.back()}) {
      const float inverse = (static_cast<float>(trial) + end) / largest;
      float xl = 0, ll = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const float l = kNonLinear[NearestNonLinear(inverse * x[i])];
        xl += weights[i] * x[i] * l;
        ll += weights[i] * l * l;
      }
      if (!(ll > 0 && xl * xl > best * ll)) continue;
      scale = xl / ll;
      best = scale * xl;
    }
  }
  return scale;
}

}  // namespace nibble::gguf
