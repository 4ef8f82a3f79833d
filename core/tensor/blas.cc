#include "core/tensor/blas.h"

#include <cblas.h>
#include <f77blas.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace nibble::blas {
namespace {

void OneThread() {
  [[maybe_unused]] static const bool single_threaded = (openblas_set_num_threads(1), true);
}

CBLAS_TRANSPOSE Order(bool transpose) { return transpose ? CblasTrans : CblasNoTrans; }
blasint Int(int64_t n) { return static_cast<blasint>(n); }

}  // namespace

void Sgemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
           const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  OneThread();
  cblas_sgemm(CblasRowMajor, Order(transpose_a), Order(transpose_b), Int(m), Int(n), Int(k), alpha, a, Int(lda), b, Int(ldb), beta, c,
              Int(ldc));
}

void Dgemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, double alpha, const double* a, int64_t lda,
           const double* b, int64_t ldb, double beta, double* c, int64_t ldc) {
  OneThread();
  cblas_dgemm(CblasRowMajor, Order(transpose_a), Order(transpose_b), Int(m), Int(n), Int(k), alpha, a, Int(lda), b, Int(ldb), beta, c,
              Int(ldc));
}

void DtrsmRightUpper(int64_t m, int64_t n, const double* u, int64_t ldu, double* c, int64_t ldc) {
  OneThread();
  cblas_dtrsm(CblasRowMajor, CblasRight, CblasUpper, CblasNoTrans, CblasNonUnit, Int(m), Int(n), 1.0, u, Int(ldu), c, Int(ldc));
}

bool InverseCholesky(int64_t n, double* a) {
  OneThread();
  std::vector<double> diagonal(n);
  for (int64_t i = 0; i < n; ++i) diagonal[i] = a[i * n + i];
  // LAPACK's upper triangle by columns is ours below the diagonal by rows.
  char upper = 'U', unit = 'N';
  blasint size = Int(n), info = 0;
  dpotrf_(&upper, &size, a, &size, &info);
  if (info == 0) dtrtri_(&upper, &unit, &size, a, &size, &info);
  bool finite = info == 0;
  for (int64_t i = 0; finite && i < n; ++i) finite = std::all_of(a + i * n, a + i * n + i + 1, [](double v) { return std::isfinite(v); });
  if (finite) return true;
  for (int64_t i = 0; i < n; ++i) {
    a[i * n + i] = diagonal[i];
    for (int64_t j = 0; j < i; ++j) a[i * n + j] = a[j * n + i];
  }
  return false;
}

}  // namespace nibble::blas
