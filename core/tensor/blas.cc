#include "core/tensor/blas.h"

#include <cblas.h>
#include <f77blas.h>

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

void DtrmmRightLower(int64_t m, int64_t n, double alpha, const double* l, int64_t ldl, double* c, int64_t ldc) {
  OneThread();
  cblas_dtrmm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit, Int(m), Int(n), alpha, l, Int(ldl), c, Int(ldc));
}

void DtrsmRightLowerTransposed(int64_t m, int64_t n, const double* l, int64_t ldl, double* c, int64_t ldc) {
  OneThread();
  cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, Int(m), Int(n), 1.0, l, Int(ldl), c, Int(ldc));
}

void DtrsmLeftLower(int64_t n, int64_t m, const double* l, int64_t ldl, double* c, int64_t ldc) {
  OneThread();
  cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, Int(n), Int(m), 1.0, l, Int(ldl), c, Int(ldc));
}

void DsyrkLower(int64_t n, int64_t k, double alpha, const double* a, int64_t lda, double beta, double* c, int64_t ldc) {
  OneThread();
  cblas_dsyrk(CblasRowMajor, CblasLower, CblasNoTrans, Int(n), Int(k), alpha, a, Int(lda), beta, c, Int(ldc));
}

// LAPACK's upper triangle by columns is ours below the diagonal by rows.
bool Cholesky(int64_t n, double* a, int64_t lda) {
  OneThread();
  char upper = 'U';
  blasint size = Int(n), stride = Int(lda), info = 0;
  dpotrf_(&upper, &size, a, &stride, &info);
  return info == 0;
}

bool InvertLower(int64_t n, double* l, int64_t ldl) {
  OneThread();
  char upper = 'U', unit = 'N';
  blasint size = Int(n), stride = Int(ldl), info = 0;
  dtrtri_(&upper, &unit, &size, l, &stride, &info);
  return info == 0;
}

}  // namespace nibble::blas
