#include "core/tensor/cholesky.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/rng.h"
#include "core/base/testing.h"
#include "core/tensor/blas.h"

namespace nibble {
namespace {

// x x^T / n + 0.1 of random x.
std::vector<double> PositiveDefinite(int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<double> x(n * n), a(n * n);
  for (double& v : x) v = rng.Normal();
  blas::Dgemm(false, true, n, n, n, 1 / static_cast<double>(n), x.data(), n, x.data(), n, 0, a.data(), n);
  for (int64_t i = 0; i < n; ++i) {
    a[i * n + i] += 0.1;
    for (int64_t j = 0; j < i; ++j) a[i * n + j] = a[j * n + i];
  }
  return a;
}

class InverseCholeskyOf : public ::testing::TestWithParam<int64_t> {};

TEST_P(InverseCholeskyOf, TurnsTheMatrixIntoTheIdentity) {
  const int64_t n = GetParam();
  const std::vector<double> a = PositiveDefinite(n, 3);
  std::vector<double> inverse = a;
  ThreadPool pool(3);
  ASSERT_TRUE(InverseCholesky(n, inverse.data(), pool));
  std::vector<double> lower = inverse, product(n * n), identity(n * n);
  for (int64_t i = 0; i < n; ++i) {
    ASSERT_GT(inverse[i * n + i], 0) << i;
    for (int64_t j = i + 1; j < n; ++j) {
      ASSERT_EQ(inverse[i * n + j], a[i * n + j]) << i << ", " << j;
      lower[i * n + j] = 0;
    }
  }
  blas::Dgemm(false, false, n, n, n, 1, lower.data(), n, a.data(), n, 0, product.data(), n);
  blas::Dgemm(false, true, n, n, n, 1, product.data(), n, lower.data(), n, 0, identity.data(), n);
  for (int64_t i = 0; i < n * n; ++i) ASSERT_NEAR(identity[i], i % (n + 1) == 0, 1e-10) << i / n << ", " << i % n;
}

TEST_P(InverseCholeskyOf, ThreadsDoNotChangeTheResult) {
  const int64_t n = GetParam();
  std::vector<double> one = PositiveDefinite(n, 4), three = one;
  ThreadPool single(1), pool(3);
  ASSERT_TRUE(InverseCholesky(n, one.data(), single));
  ASSERT_TRUE(InverseCholesky(n, three.data(), pool));
  EXPECT_EQ(one, three);
}

// Whatever tile it is that cannot be factored.
TEST_P(InverseCholeskyOf, WhatIsNotPositiveDefiniteStaysAsItWas) {
  const int64_t n = GetParam();
  ThreadPool pool(2);
  for (const int64_t at : {int64_t{0}, n / 2, n - 1}) {
    for (const double wrong : {-1.0, std::nan("")}) {
      std::vector<double> a = PositiveDefinite(n, 5);
      a[at * n + at] = wrong;
      std::vector<double> after = a;
      EXPECT_FALSE(InverseCholesky(n, after.data(), pool)) << at;
      EXPECT_TRUE(std::equal(a.begin(), a.end(), after.begin(), [](double x, double y) { return x == y || (std::isnan(x) && std::isnan(y)); })) << at;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, InverseCholeskyOf, ::testing::Values(1, 2, 7, 255, 256, 257, 512, 700, 1031));

// By hand: [[4, 2], [2, 5]] = L L^T, L = [[2, 0], [1, 2]], L^-1 = [[1/2, 0], [-1/4, 1/2]].
TEST(InverseCholesky, OfTwoByTwo) {
  std::vector<double> a = {4, 2, 2, 5};
  ThreadPool pool(1);
  ASSERT_TRUE(InverseCholesky(2, a.data(), pool));
  EXPECT_EQ(a, (std::vector<double>{0.5, 2, -0.25, 0.5}));
}

}  // namespace
}  // namespace nibble
