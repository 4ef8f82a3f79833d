#include "methods/gptq/solver.h"

#include <cmath>

#include "core/base/rng.h"
#include "core/base/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

// Adds a share of the mean diagonal.
void Damp(int64_t n, double share, std::vector<double>* h) {
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) mean += (*h)[i * n + i] / static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) (*h)[i * n + i] += share * mean;
}

QuantScheme Scheme(int bits, int group = 0, bool asymmetric = false) { return IntegerScheme(bits, group, asymmetric); }

std::vector<float> RandomWeights(int64_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> weights(count);
  for (float& w : weights) w = static_cast<float>(rng.Normal());
  return weights;
}

// 2/n X^T X of correlated inputs.
std::vector<double> CorrelatedHessian(int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<double> h(n * n, 0.0);
  const int64_t tokens = 3 * n;
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<double> x(n);
    const double common = 2 * rng.Normal();
    for (double& v : x) v = rng.Normal() + common;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) h[i * n + j] += 2 * x[i] * x[j] / static_cast<double>(tokens);
    }
  }
  return h;
}

std::vector<double> Identity(int64_t n) {
  std::vector<double> h(n * n, 0.0);
  for (int64_t i = 0; i < n; ++i) h[i * (n + 1)] = 1;
  return h;
}

class SolverTest : public ::testing::Test {
 protected:
  GptqSolution Solved(const QuantScheme& scheme, int64_t rows, const std::vector<float>& weights, const std::vector<double>& hessian,
                      const GptqSettings& settings) {
    const auto factor = FactorHessian(hessian, settings, pool_);
    EXPECT_OK(factor);
    auto solution = SolveGptq(scheme, rows, weights, *factor, settings, pool_);
    EXPECT_OK(solution);
    return *std::move(solution);
  }

  ThreadPool pool_{2};
};

TEST_F(SolverTest, WithoutCorrelationsItRoundsToNearest) {
  const std::vector<float> weights = RandomWeights(5 * 40, 1);
  for (const QuantScheme& scheme : {Scheme(4), Scheme(3, 16), Scheme(4, 32, true), Scheme(8)}) {
    for (const bool act_order : {false, true}) {
      const GptqSolution solution = Solved(scheme, 5, weights, Identity(40), {0.01, act_order, true, 16});
      ASSERT_OK_AND_ASSIGN(const EncodedTensor rounded, Encode(scheme, {5, 40}, weights));
      EXPECT_EQ(solution.encoded.buffer("codes").bytes(), rounded.buffer("codes").bytes());
      EXPECT_EQ(solution.encoded.buffer("scales").bytes(), rounded.buffer("scales").bytes());
      EXPECT_NEAR(solution.loss, solution.rounding_loss, 1e-9);
    }
  }
}

// H = [[a, b], [b, c]]: after q1 the best w2 is w2 + (w1 - q1) b / c.
TEST_F(SolverTest, TwoColumnsByHand) {
  const std::vector<double> h = {2, 1.5, 1.5, 3};
  const std::vector<float> weights = {0.3f, 1.0f};  // scale 1: codes round(0.3) = 0, round(1 + 0.3 * 0.5) = 1
  QuantScheme scheme = Scheme(2);                   // codes -2 .. 1, divisor 1
  GptqSolution solution = Solved(scheme, 1, weights, h, {0, false, true, 128});
  EXPECT_EQ(Decode(solution.encoded), (std::vector<float>{0, 1}));
  // D = (-0.3, 0): loss half of 2 * 0.09.
  EXPECT_NEAR(solution.loss, 0.09, 1e-7);
  // w = (0.49, -1): q1 = 0; w2 = -1 + 0.49 * 0.5 = -0.755 stays at -1; with b / c = 1.5 it becomes -0.265, 0.
  solution = Solved(scheme, 1, {0.49f, -1.0f}, {2, 1.5, 1.5, 3}, {0, false, true, 128});
  EXPECT_EQ(Decode(solution.encoded), (std::vector<float>{0, -1}));
  solution = Solved(scheme, 1, {0.49f, -1.0f}, {10, 4.5, 4.5, 3}, {0, false, true, 128});
  EXPECT_EQ(Decode(solution.encoded), (std::vector<float>{0, 0}));
}

// Both weights round up; compensating for the first brings the second down to 0.4.
TEST_F(SolverTest, CompensatesWhereRoundingLosesMore) {
  QuantScheme scheme = Scheme(4);
  scheme.set_scale_floor(1);  // the scale
  const GptqSolution solution = Solved(scheme, 1, {0.6f, 0.6f}, {2, 1, 1, 2}, {0, false, true, 128});
  EXPECT_EQ(Decode(solution.encoded), (std::vector<float>{1, 0}));
  EXPECT_NEAR(solution.loss, 0.28, 1e-6);
  EXPECT_NEAR(solution.rounding_loss, 0.48, 1e-6);
}

TEST_F(SolverTest, BlocksChangeNothing) {
  const std::vector<float> weights = RandomWeights(7 * 45, 2);
  const std::vector<double> h = CorrelatedHessian(45, 3);
  const GptqSolution one = Solved(Scheme(4), 7, weights, h, {0.01, true, true, 1});
  for (const int64_t block : {8, 32, 45, 1000}) {
    const GptqSolution other = Solved(Scheme(4), 7, weights, h, {0.01, true, true, block});
    EXPECT_EQ(other.encoded.buffer("codes").bytes(), one.encoded.buffer("codes").bytes()) << block;
    EXPECT_NEAR(other.loss, one.loss, 1e-9);
  }
}

// The sum of the columns' losses is the quadratic form, and below rounding's.
TEST_F(SolverTest, LossIsTheQuadraticForm) {
  const int64_t n = 45, rows = 70;
  const std::vector<float> weights = RandomWeights(rows * n, 4);
  for (const QuantScheme& scheme : {Scheme(4), Scheme(3), Scheme(4, 16), Scheme(2, 20, true)}) {
    for (const bool static_groups : {false, true}) {
      const GptqSettings settings = {0.01, static_groups, static_groups, 16};
      std::vector<double> h = CorrelatedHessian(n, 5);
      ASSERT_OK_AND_ASSIGN(const HessianFactor factor, FactorHessian(h, settings, pool_));
      Damp(n, settings.damping, &h);
      ASSERT_OK_AND_ASSIGN(const GptqSolution solution, SolveGptq(scheme, rows, weights, factor, settings, pool_));
      const std::vector<float> decoded = Decode(solution.encoded);
      double loss = 0;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < n; ++i) {
          for (int64_t j = 0; j < n; ++j) {
            loss += 0.5 * (decoded[r * n + i] - weights[r * n + i]) * h[i * n + j] * (decoded[r * n + j] - weights[r * n + j]);
          }
        }
      }
      EXPECT_NEAR(solution.loss, loss, 1e-4 * loss);
      EXPECT_LT(solution.loss, 0.8 * solution.rounding_loss);
    }
  }
}

// A scale in bf16 and its reciprocal in bf16 do not undo each other: a decoded value may
// round to another code than it came from.
TEST_F(SolverTest, CodesAreThoseThatWereChosen) {
  QuantScheme scheme = Scheme(8, 32, true);
  scheme.set_scale_type(QuantScheme::BF16);
  const std::vector<float> weights = RandomWeights(200 * 64, 12);
  const GptqSolution solution = Solved(scheme, 200, weights, Identity(64), {.damping = 0});
  EXPECT_EQ(Decode(solution.encoded), Decode(*Encode(scheme, {200, 64}, weights)));
}

TEST_F(SolverTest, WeightsOnTheGridStay) {
  const std::vector<float> weights = RandomWeights(6 * 30, 6);
  ASSERT_OK_AND_ASSIGN(const EncodedTensor rounded, Encode(Scheme(4), {6, 30}, weights));
  const std::vector<float> on_grid = Decode(rounded);
  const GptqSolution solution = Solved(Scheme(4), 6, on_grid, CorrelatedHessian(30, 7), {});
  EXPECT_EQ(Decode(solution.encoded), on_grid);
  EXPECT_EQ(solution.loss, 0);
}

TEST_F(SolverTest, ColumnsThatSeeNothingBecomeZero) {
  std::vector<double> h = CorrelatedHessian(20, 8);
  for (int64_t i = 0; i < 20; ++i) h[5 * 20 + i] = h[i * 20 + 5] = 0;
  const std::vector<float> decoded = Decode(Solved(Scheme(4), 3, RandomWeights(60, 9), h, {}).encoded);
  for (int64_t r = 0; r < 3; ++r) EXPECT_EQ(decoded[r * 20 + 5], 0);
}

// Two equal inputs: without damping there is no factor.
TEST_F(SolverTest, AHessianThatWillNotFactorTakesMoreDampingAndSaysSo) {
  GptqSettings settings;
  settings.damping = 0;
  EXPECT_THAT(std::string(FactorHessian({1, 1, 1, 1}, settings, pool_).status().message()), HasSubstr("cannot be factored"));
  settings.damping = 0.01;
  // Not positive: the diagonal's mean is 1, the off-diagonal entry 1.05.
  ASSERT_OK_AND_ASSIGN(const HessianFactor factor, FactorHessian({1, 1.05, 1.05, 1}, settings, pool_));
  EXPECT_EQ(factor.retries, 1);
  EXPECT_NEAR(factor.damping, 0.1, 1e-12);
  // H^-1 = U^T U with 1.1 on the diagonal of H.
  const double determinant = 1.1 * 1.1 - 1.05 * 1.05;
  EXPECT_NEAR(factor.upper[0] * factor.upper[0], 1.1 / determinant, 1e-9);
  EXPECT_NEAR(factor.upper[0] * factor.upper[1], -1.05 / determinant, 1e-9);
  EXPECT_EQ(factor.upper[2], 0);
  EXPECT_FALSE(FactorHessian({1, 5, 5, 1}, settings, pool_).ok());
  EXPECT_THAT(std::string(FactorHessian({1, std::nan(""), 0, 1}, settings, pool_).status().message()), HasSubstr("not finite"));
}

TEST_F(SolverTest, ActOrderWithMovingGroupsIsRefused) {
  const GptqSettings settings = {0.01, true, false, 128};
  ASSERT_OK_AND_ASSIGN(const HessianFactor factor, FactorHessian(Identity(8), settings, pool_));
  EXPECT_FALSE(SolveGptq(Scheme(4, 4), 1, RandomWeights(8, 1), factor, settings, pool_).ok());
}

// Without change nothing moves; all of a change x - x' = M x' is undone by W + W M.
TEST_F(SolverTest, PropagationIsLeastSquares) {
  const int64_t n = 6;
  const std::vector<double> h = CorrelatedHessian(n, 10);
  GptqSettings settings;
  settings.damping = 0;
  ASSERT_OK_AND_ASSIGN(const HessianFactor factor, FactorHessian(h, settings, pool_));
  const std::vector<float> weights = RandomWeights(2 * n, 11), map = RandomWeights(n * n, 12);
  EXPECT_EQ(PropagateError(weights, 2, std::vector<double>(n * n, 0.0), 1, factor, pool_), weights);
  std::vector<double> change(n * n, 0.0);  // M H
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t k = 0; k < n; ++k) change[i * n + j] += map[i * n + k] * h[k * n + j];
    }
  }
  const std::vector<float> moved = PropagateError(weights, 2, change, 0.5, factor, pool_);
  for (int64_t r = 0; r < 2; ++r) {
    for (int64_t j = 0; j < n; ++j) {
      double expected = weights[r * n + j];
      for (int64_t k = 0; k < n; ++k) expected += 0.5 * weights[r * n + k] * map[k * n + j];
      EXPECT_NEAR(moved[r * n + j], expected, 1e-4);
    }
  }
}

}  // namespace
}  // namespace nibble
