#include "core/calibration/range_observer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/base/status.h"
#include "core/quant/integer_grid.h"

namespace nibble::calibration {
namespace {

constexpr size_t kBins = 4096;  // a multiple of four

// The divergence of `counts` clipped after the first `length` from its own means
// over `levels` equal parts.
double DivergenceOf(const std::vector<double>& counts, size_t length, int levels, double total) {
  const double beyond = std::accumulate(counts.begin() + static_cast<int64_t>(length), counts.end(), 0.0);
  double divergence = 0;
  for (int level = 0; level < levels; ++level) {
    const size_t begin = length * level / levels, end = length * (level + 1) / levels;
    double sum = 0, filled = 0;
    for (size_t i = begin; i < end; ++i) sum += counts[i], filled += counts[i] > 0;
    for (size_t i = begin; i < end; ++i) {
      const double p = counts[i] + (i + 1 == length ? beyond : 0), q = counts[i] > 0 ? sum / filled : 0;
      if (p > 0) divergence += p * std::log(p / std::max(q, 1e-12 * total));
    }
  }
  // Both were of sums `total` and `total - beyond`.
  return divergence / total + std::log(std::max(total - beyond, 1e-300) / total);
}

}  // namespace

RangeObserver::RangeObserver(double momentum) : momentum_(momentum), counts_(kBins) {}

void RangeObserver::Reach(double magnitude) {
  if (reach_ == 0) reach_ = std::exp2(std::ceil(std::log2(std::max(magnitude, 1e-30))));
  while (reach_ < magnitude) {
    std::vector<double> wider(kBins);
    for (size_t i = 0; i < kBins; ++i) wider[kBins / 4 + i / 2] += counts_[i];
    counts_ = std::move(wider);
    reach_ *= 2;
  }
}

void RangeObserver::Add(absl::Span<const float> values) {
  float low = 0, high = 0;
  for (const float v : values) low = std::min(low, v), high = std::max(high, v);
  Reach(std::max(-low, high));
  const double per_unit = static_cast<double>(kBins) / (2 * reach_);
  for (const float v : values) {
    const double place = (static_cast<double>(v) + reach_) * per_unit;
    ++counts_[std::min(static_cast<size_t>(std::max(place, 0.0)), kBins - 1)];
  }
  average_min_ = count_ > 0 ? momentum_ * average_min_ + (1 - momentum_) * low : low;
  average_max_ = count_ > 0 ? momentum_ * average_max_ + (1 - momentum_) * high : high;
  min_ = std::min(min_, low), max_ = std::max(max_, high);
  count_ += static_cast<int64_t>(values.size());
}

FixedRange RangeObserver::Clipped(double magnitude) const {
  FixedRange range;
  range.set_min(std::max(min_, static_cast<float>(-magnitude)));
  range.set_max(std::min(max_, static_cast<float>(magnitude)));
  return range;
}

FixedRange RangeObserver::AbsMax() const { return Clipped(std::numeric_limits<float>::infinity()); }

FixedRange RangeObserver::MovingAverage() const {
  FixedRange range;
  range.set_min(static_cast<float>(average_min_));
  range.set_max(static_cast<float>(average_max_));
  return range;
}

FixedRange RangeObserver::Percentile(double share) const {
  double left = share * static_cast<double>(count_);
  for (size_t i = 0; i < kBins / 2; ++i) {
    left -= counts_[kBins / 2 + i] + counts_[kBins / 2 - 1 - i];
    if (left <= 0) return Clipped(static_cast<double>(i + 1) * BinWidth());
  }
  return AbsMax();
}

absl::StatusOr<FixedRange> RangeObserver::LeastSquares(const QuantScheme& scheme, int bits) const {
  const double largest = std::max(-min_, max_);
  FixedRange best = AbsMax();
  double least = std::numeric_limits<double>::infinity();
  for (int step = 100; step > 0; --step) {
    const FixedRange range = Clipped(largest * step / 100);
    NIBBLE_ASSIGN_OR_RETURN(const Grid grid, GridForRange(scheme, bits, range.min(), range.max()));
    double error = 0;
    for (size_t i = 0; i < kBins; ++i) {
      if (counts_[i] == 0) continue;
      const float x = static_cast<float>(Center(i));
      error += counts_[i] * std::pow(static_cast<double>(DecodeValue(grid, EncodeValue(grid, x, (1 << bits) - 1))) - x, 2);
    }
    if (error < least) least = error, best = range;
  }
  return best;
}

FixedRange RangeObserver::LeastDivergence(int bits) const {
  std::vector<double> magnitudes(kBins / 2);
  for (size_t i = 0; i < magnitudes.size(); ++i) magnitudes[i] = counts_[kBins / 2 + i] + counts_[kBins / 2 - 1 - i];
  magnitudes[0] = 0;  // nearly zero at any range: they would hide the rest
  const double total = std::accumulate(magnitudes.begin(), magnitudes.end(), 0.0);
  const int levels = 1 << (bits - 1);
  size_t used = magnitudes.size();
  while (used > 1 && magnitudes[used - 1] == 0) --used;
  size_t best = used;
  double least = std::numeric_limits<double>::infinity();
  for (size_t length = std::min<size_t>(levels, used); total > 0 && length <= used; ++length) {
    const double divergence = DivergenceOf(magnitudes, length, levels, total);
    if (divergence < least) least = divergence, best = length;
  }
  return Clipped(static_cast<double>(best) * BinWidth());
}

}  // namespace nibble::calibration
