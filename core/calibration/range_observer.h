// What a tensor's values were like on calibration text, and ranges to quantize them
// by: the whole, a moving average, or one that a histogram says to clip to.
#ifndef NIBBLE_CORE_CALIBRATION_RANGE_OBSERVER_H_
#define NIBBLE_CORE_CALIBRATION_RANGE_OBSERVER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/quant/scheme.pb.h"

namespace nibble::calibration {

class RangeObserver {
 public:
  // momentum: of the moving average, the weight of what came before.
  explicit RangeObserver(double momentum = 0.9);

  // One batch of finite values.
  void Add(absl::Span<const float> values);

  int64_t count() const { return count_; }

  // The least and the largest value, 0 among them.
  FixedRange AbsMax() const;

  // Averages of the batches' least and largest values: a <- m a + (1 - m) b from
  // the first batch on (Jacob et al., 2018, section 3.1).
  FixedRange MovingAverage() const;

  // The least magnitude that `share` of the values do not exceed, cut to AbsMax().
  FixedRange Percentile(double share) const;

  // Of the magnitudes 0.01, 0.02 ... 1 of the largest the one that loses least, as
  // the sum of squares, when values go to the scheme's grid.
  absl::StatusOr<FixedRange> LeastSquares(const QuantScheme& scheme, int bits) const;

  // The magnitude by which the distribution of magnitudes, clipped there, differs
  // least from itself in 2^(bits - 1) levels, in Kullback-Leibler divergence
  // (Migacz, 8-bit Inference with TensorRT, 2017).
  FixedRange LeastDivergence(int bits) const;

 private:
  // Magnitudes up to `reach` and no more, cut to the least and largest values.
  FixedRange Clipped(double magnitude) const;
  double BinWidth() const { return 2 * reach_ / static_cast<double>(counts_.size()); }
  double Center(size_t bin) const { return -reach_ + (static_cast<double>(bin) + 0.5) * BinWidth(); }
  // Doubles the reach until it holds `magnitude`.
  void Reach(double magnitude);

  const double momentum_;
  int64_t count_ = 0;
  float min_ = 0, max_ = 0;
  double average_min_ = 0, average_max_ = 0;
  double reach_ = 0;             // the histogram is of [-reach, reach]
  std::vector<double> counts_;
};

}  // namespace nibble::calibration

#endif  // NIBBLE_CORE_CALIBRATION_RANGE_OBSERVER_H_
