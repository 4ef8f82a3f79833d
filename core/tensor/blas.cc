#include "core/tensor/blas.h"

#include <cblas.h>

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

}  // namespace nibble::blas
