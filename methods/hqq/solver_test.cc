#include "methods/hqq/solver.h"

#include <cmath>

#include "core/base/rng.h"
#include "core/base/testing.h"

namespace nibble {
namespace {

QuantScheme Scheme(int bits, QuantScheme::ScaleType type = QuantScheme::FP32) {
  QuantScheme scheme;
  scheme.set_format(absl::StrCat("affine", bits));
  scheme.set_per(QuantScheme::PER_ROW);
  scheme.set_scale_type(type);
  return scheme;
}

// Normal values with a few far ones, as weights have.
std::vector<float> HeavyTailed(int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values(n);
  for (float& v : values) v = static_cast<float>(0.02 * rng.Normal() * (rng.Below(20) == 0 ? 4 : 1));
  return values;
}

TEST(HqqSolver, NeverWorseThanTheRangeAndBetterWithMoreRounds) {
  for (const int bits : {1, 2, 3, 4, 8}) {
    double range = 0, few = 0, many = 0;
    for (uint64_t seed = 0; seed < 40; ++seed) {
      const std::vector<float> group = HeavyTailed(64, seed);
      const auto error = [&](int iterations) {
        return HqqError(SolveHqq(Scheme(bits), {.iterations = iterations}, group), bits, group, 0.7);
      };
      const double own_range = error(0), own_few = error(3), own_many = error(20);
      EXPECT_LE(own_few, own_range);
      EXPECT_LE(own_many, own_few);
      range += own_range, few += own_few, many += own_many;
    }
    EXPECT_LT(many, range) << bits << " bits";
  }
}

// One round by hand. Range 0..3 in two bits: scale 1, zero 0; codes 0 0 1 2 3, errors 0, 0.4
// three times, 0. With norm 1 and beta 4 errors shrink by 1/4, to 0.15 three times. The zero
// is the mean of q - (w - e): 0, -0.25 three times, 0. It decodes q to q + 0.15: errors 0.15,
// 0.25 three times, 0.15, in sum 1.05 in place of 1.2.
TEST(HqqSolver, OneRoundByHand) {
  const std::vector<float> group = {0.0f, 0.4f, 1.4f, 2.4f, 3.0f};
  const AffineGrid grid = SolveHqq(Scheme(2), {.iterations = 1, .norm = 1, .beta = 4}, group);
  EXPECT_NEAR(grid.zero, -0.15, 1e-6);
  EXPECT_FLOAT_EQ(grid.scale, 1);
  EXPECT_NEAR(HqqError(grid, 2, group, 1), 1.05, 1e-6);
  EXPECT_NEAR(HqqError({1, 0}, 2, group, 1), 1.2, 1e-6);
}

// A round that only makes it worse is not taken: errors 0, 0.4, -0.2, 0 give the zero
// -0.0125, with which they are 0.625 in sum in place of 0.6.
TEST(HqqSolver, AZeroThatIsWorseIsNotTaken) {
  EXPECT_FLOAT_EQ(SolveHqq(Scheme(2), {.iterations = 1, .norm = 1, .beta = 4}, {0.0f, 0.4f, 1.8f, 3.0f}).zero, 0);
}

TEST(HqqSolver, ValuesOnAGridAreKept) {
  std::vector<float> group;
  for (int i = 0; i < 16; ++i) group.push_back(-0.3f + 0.125f * static_cast<float>(i * 7 % 16));
  const AffineGrid grid = SolveHqq(Scheme(4), {}, group);
  for (const float w : group) EXPECT_NEAR(grid.Decode(AffineCode(grid, 4, w)), w, 1e-6);
}

TEST(HqqSolver, EqualValuesAreKept) {
  for (const float value : {0.0f, 0.7f, -1e-8f}) {
    const std::vector<float> group(5, value);
    const AffineGrid grid = SolveHqq(Scheme(2), {}, group);
    EXPECT_FLOAT_EQ(grid.Decode(AffineCode(grid, 2, value)), value);
  }
}

}  // namespace
}  // namespace nibble
