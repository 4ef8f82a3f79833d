#include "core/tensor/cholesky.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/divide.h"
#include "core/tensor/blas.h"

namespace nibble {
namespace {

// Rows of a tile: enough for products at full speed, few enough to share out 2,048.
constexpr int64_t kTile = 256;

class TiledMatrix {
 public:
  TiledMatrix(int64_t n, double* a, ThreadPool& pool) : n_(n), tiles_(CeilDiv(n, kTile)), a_(a), pool_(pool) {}

  // a = L L^T below and on the diagonal; false when a is not positive definite.
  bool Factor() {
    for (int64_t k = 0; k < tiles_; ++k) {
      if (!blas::Cholesky(Size(k), At(k, k), n_)) return false;
      const int64_t below = tiles_ - k - 1;
      pool_.ParallelFor(below, [&](int64_t i, int) { blas::DtrsmRightLowerTransposed(Size(k + 1 + i), Size(k), At(k, k), n_, At(k + 1 + i, k), n_); });
      // Tiles (i, j) with k < j <= i, from the last row, which has most.
      pool_.ParallelFor(below * below, [&](int64_t task, int) {
        const int64_t i = tiles_ - 1 - task / below, j = k + 1 + task % below;
        if (j < i) blas::Dgemm(false, true, Size(i), Size(j), Size(k), -1, At(i, k), n_, At(j, k), n_, 1, At(i, j), n_);
        if (j == i) blas::DsyrkLower(Size(i), Size(k), -1, At(i, k), n_, 1, At(i, i), n_);
      });
    }
    return true;
  }

  // L <- L^-1.
  bool Invert() {
    std::vector<double> row;
    for (int64_t i = 0; i < tiles_; ++i) {
      const int64_t rows = Size(i), width = i * kTile;
      row.resize(rows * width);
      for (int64_t r = 0; r < rows; ++r) std::copy_n(At(i, 0) + r * n_, width, row.data() + r * width);
      pool_.ParallelFor(i, [&](int64_t j, int) { InvertTile(i, j, row.data(), width); });
      if (!blas::InvertLower(rows, At(i, i), n_)) return false;
    }
    return true;
  }

 private:
  double* At(int64_t i, int64_t j) const { return a_ + i * kTile * n_ + j * kTile; }
  int64_t Size(int64_t i) const { return std::min(kTile, n_ - i * kTile); }

  // `row`: L's row of tiles before the diagonal, of which the tiles at hand are overwritten;
  // above the diagonal of L^-1_jj are no zeros, so it is multiplied by itself.
  void InvertTile(int64_t i, int64_t j, const double* row, int64_t width) {
    const int64_t between = (i - j - 1) * kTile;
    double* tile = At(i, j);
    blas::DtrmmRightLower(Size(i), Size(j), -1, At(j, j), n_, tile, n_);
    if (between > 0) blas::Dgemm(false, false, Size(i), Size(j), between, -1, row + (j + 1) * kTile, width, At(j + 1, j), n_, 1, tile, n_);
    blas::DtrsmLeftLower(Size(i), Size(j), At(i, i), n_, tile, n_);
  }

  const int64_t n_, tiles_;
  double* const a_;
  ThreadPool& pool_;
};

bool IsFiniteBelow(int64_t n, const double* a) {
  for (int64_t i = 0; i < n; ++i) {
    if (!std::all_of(a + i * n, a + i * n + i + 1, [](double v) { return std::isfinite(v); })) return false;
  }
  return true;
}

}  // namespace

bool InverseCholesky(int64_t n, double* a, ThreadPool& pool) {
  std::vector<double> diagonal(n);
  for (int64_t i = 0; i < n; ++i) diagonal[i] = a[i * n + i];
  TiledMatrix matrix(n, a, pool);
  if (matrix.Factor() && matrix.Invert() && IsFiniteBelow(n, a)) return true;
  for (int64_t i = 0; i < n; ++i) {
    a[i * n + i] = diagonal[i];
    for (int64_t j = 0; j < i; ++j) a[i * n + j] = a[j * n + i];
  }
  return false;
}

}  // namespace nibble
