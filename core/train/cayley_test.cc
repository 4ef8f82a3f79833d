#include "core/train/cayley.h"

#include <cmath>
#include <utility>
#include <vector>

#include "core/base/rng.h"
#include "core/golden/golden_testing.h"
#include "core/ir/rotations.h"

namespace nibble::train {
namespace {

class CayleyGolden : public GoldenTest {
 protected:
  CayleyGolden() : GoldenTest("methods.safetensors") {}

  std::vector<double> Values(const std::string& name) const {
    const Tensor tensor = Golden(name);
    return {tensor.as<double>().begin(), tensor.as<double>().end()};
  }
};

// Three steps of an independent implementation: n = 8, rate 1.5, momentum 0.9.
TEST_F(CayleyGolden, ThreeSteps) {
  RotationParameter r(8, Values("cayley.R0"));
  for (int i = 0; i < 3; ++i) {
    const CayleyStep step = r.Update(Values(absl::StrCat("cayley.G", i)), 1.5, {.momentum = 0.9});
    EXPECT_NEAR(step.alpha, Values(absl::StrCat("cayley.alpha", i))[0], 1e-10) << i;
    const std::vector<double> expected = Values(absl::StrCat("cayley.R", i + 1));
    for (size_t k = 0; k < expected.size(); ++k) ASSERT_NEAR(r.value()[k], expected[k], 1e-10) << i << ", " << k;
  }
}

// A gradient that turns the plane, at the largest step: the exact transform turns it by
// (0.6, 0.8), five steps of the fixed point come as near as this.
TEST(Cayley, TwoByTwoByHand) {
  const std::vector<double> identity = {1, 0, 0, 1}, gradient = {0, -4, 4, 0};
  const std::pair<int, std::vector<double>> expected[] = {{5, {0.59375, 0.8125, -0.8125, 0.59375}}, {60, {0.6, 0.8, -0.8, 0.6}}};
  for (const auto& [steps, value] : expected) {
    RotationParameter r(2, identity);
    const CayleyStep step = r.Update(gradient, 1, {.momentum = 0, .fixed_point_steps = steps});
    EXPECT_NEAR(step.skew_norm, 4, 1e-6);
    EXPECT_NEAR(step.alpha, 0.25, 1e-6);
    for (size_t k = 0; k < value.size(); ++k) EXPECT_NEAR(r.value()[k], value[k], 1e-6) << steps << " steps, " << k;
  }
}

std::vector<double> RandomMatrix(int64_t size, Rng& rng) {
  std::vector<double> values(size * size);
  for (double& v : values) v = rng.Normal();
  return values;
}

TEST(Cayley, StaysOrthogonal) {
  Rng rng(3);
  RotationParameter r(24, ir::RandomOrthogonal(24, 1).values);
  for (int i = 0; i < 100; ++i) r.Update(RandomMatrix(24, rng), 1.5, {});
  EXPECT_LT(r.OrthogonalityError(), 1e-3);
  r.Orthogonalize();
  EXPECT_LT(r.OrthogonalityError(), 1e-12);
}

// min ||R - T||^2 over rotations is T itself.
TEST(Cayley, FindsARotation) {
  const int64_t n = 8;
  const std::vector<double> target = ir::RandomOrthogonal(n, 5).values;
  std::vector<double> start = target;
  // A rotation of two columns away, so that both have one determinant.
  for (int64_t i = 0; i < n; ++i) {
    const double a = start[i * n], b = start[i * n + 1];
    start[i * n] = a * std::cos(1.0) - b * std::sin(1.0);
    start[i * n + 1] = a * std::sin(1.0) + b * std::cos(1.0);
  }
  RotationParameter r(n, start);
  CayleyStep last;
  for (int i = 0; i < 200; ++i) {
    std::vector<double> gradient(n * n);
    for (size_t k = 0; k < gradient.size(); ++k) gradient[k] = 2 * (r.value()[k] - target[k]);
    last = r.Update(gradient, 0.1, {});
  }
  for (size_t k = 0; k < target.size(); ++k) EXPECT_NEAR(r.value()[k], target[k], 1e-3);
  EXPECT_LT(last.skew_norm, 1e-2);
}

// A gradient R S with S symmetric moves along no rotation.
TEST(Cayley, SymmetricGradientsMoveNothing) {
  Rng rng(7);
  const int64_t n = 12;
  const std::vector<double> start = ir::RandomOrthogonal(n, 2).values, g = RandomMatrix(n, rng);
  std::vector<double> gradient(n * n, 0.0);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t k = 0; k < n; ++k) gradient[i * n + j] += start[i * n + k] * (g[k * n + j] + g[j * n + k]);
    }
  }
  RotationParameter r(n, start);
  EXPECT_LT(r.Update(gradient, 1.5, {}).skew_norm, 1e-6);
}

}  // namespace
}  // namespace nibble::train
