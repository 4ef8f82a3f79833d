#include "core/calibration/range_observer.h"

#include <cmath>

#include "core/base/rng.h"
#include "core/base/testing.h"
#include "core/quant/encoded.h"

namespace nibble::calibration {
namespace {

std::vector<float> Gaussian(int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values(n);
  for (float& v : values) v = rng.Normal();
  return values;
}

TEST(RangeObserver, AbsMaxIsOfAllBatches) {
  RangeObserver observer;
  observer.Add({0.5f, -2.0f});
  observer.Add({3.0f, 0.25f});
  EXPECT_EQ(observer.AbsMax().min(), -2.0f);
  EXPECT_EQ(observer.AbsMax().max(), 3.0f);
  EXPECT_EQ(observer.count(), 4);
}

TEST(RangeObserver, ZeroIsInTheRange) {
  RangeObserver observer;
  observer.Add({2.0f, 3.0f});
  EXPECT_EQ(observer.AbsMax().min(), 0.0f);
  EXPECT_EQ(observer.MovingAverage().min(), 0.0f);
}

TEST(RangeObserver, MovingAverageOfThreeBatches) {
  RangeObserver observer(0.75);
  for (const float size : {1.0f, 2.0f, 4.0f}) observer.Add({-size, size});
  EXPECT_FLOAT_EQ(observer.MovingAverage().max(), 0.75f * (0.75f * 1 + 0.25f * 2) + 0.25f * 4);
  EXPECT_FLOAT_EQ(observer.MovingAverage().min(), -observer.MovingAverage().max());
}

TEST(RangeObserver, PercentileOfANormalDistribution) {
  RangeObserver observer;
  for (uint64_t seed = 0; seed < 8; ++seed) observer.Add(Gaussian(50000, seed));
  EXPECT_NEAR(observer.Percentile(0.9).max(), 1.6449, 0.03);
  EXPECT_NEAR(observer.Percentile(0.9).min(), -1.6449, 0.03);
  EXPECT_EQ(observer.Percentile(1).max(), observer.AbsMax().max());
}

// The same values in any order of growing reach.
TEST(RangeObserver, TheHistogramGrows) {
  RangeObserver growing, whole;
  for (const float size : {1e-3f, 0.1f, 1.0f, 30.0f}) {
    std::vector<float> values = Gaussian(1000, 3);
    for (float& v : values) v *= size;
    growing.Add(values);
  }
  std::vector<float> all;
  for (const float size : {30.0f, 1e-3f, 0.1f, 1.0f}) {
    for (const float v : Gaussian(1000, 3)) all.push_back(v * size);
  }
  whole.Add(all);
  for (const double share : {0.5, 0.8, 0.99}) {
    EXPECT_NEAR(growing.Percentile(share).max(), whole.Percentile(share).max(), 0.1) << share;
  }
}

TEST(RangeObserver, AnOutlierIsClippedByEveryHistogramRule) {
  RangeObserver observer;
  std::vector<float> values = Gaussian(100000, 5);
  values[17] = 60.0f;
  observer.Add(values);
  ASSERT_OK_AND_ASSIGN(const FixedRange squares, observer.LeastSquares(IntegerScheme(8, 0, false), 8));
  EXPECT_EQ(observer.AbsMax().max(), 60.0f);
  // (60 - t)^2 + n (2 t / 254)^2 / 12 is least at t = 39.6.
  EXPECT_NEAR(squares.max(), 39.6f, 0.7f);
  for (const FixedRange& range : {observer.Percentile(0.9999), observer.LeastDivergence(8)}) {
    EXPECT_LT(range.max(), 30.0f);
    EXPECT_GT(range.max(), 2.0f);
  }
}

// Without outliers nothing is to be gained by clipping eight bits.
TEST(RangeObserver, EvenValuesKeepTheirRange) {
  Rng rng(9);
  std::vector<float> values(100000);
  for (float& v : values) v = 2 * static_cast<float>(rng.Uniform()) - 1;
  RangeObserver observer;
  observer.Add(values);
  ASSERT_OK_AND_ASSIGN(const FixedRange squares, observer.LeastSquares(IntegerScheme(8, 0, false), 8));
  EXPECT_GT(squares.max(), 0.98f);
  EXPECT_GT(observer.LeastDivergence(8).max(), 0.9f);
}

TEST(RangeObserver, ZerosAlone) {
  RangeObserver observer;
  observer.Add(std::vector<float>(100));
  EXPECT_EQ(observer.Percentile(0.999).max(), 0.0f);
  EXPECT_EQ(observer.LeastDivergence(8).max(), 0.0f);
}

}  // namespace
}  // namespace nibble::calibration
