// Row-major matrix products on one thread. Threads are ours: callers cut the
// work into tiles and run one product per tile.
#ifndef NIBBLE_CORE_TENSOR_BLAS_H_
#define NIBBLE_CORE_TENSOR_BLAS_H_

#include <cstdint>

namespace nibble::blas {

// c [m, n] = alpha * op(a) op(b) + beta * c; op(a) is [m, k], op(b) is [k, n],
// transposed when stored as [k, m] or [n, k]. ld*: elements between rows.
void Sgemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
           const float* b, int64_t ldb, float beta, float* c, int64_t ldc);
void Dgemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, double alpha, const double* a, int64_t lda,
           const double* b, int64_t ldb, double beta, double* c, int64_t ldc);

// c [m, n] <- c U^-1 for an upper triangular u [n, n].
void DtrsmRightUpper(int64_t m, int64_t n, const double* u, int64_t ldu, double* c, int64_t ldc);

// a [n, n] symmetric, positive definite <- the inverse of its Cholesky factor L
// (a = L L^T), lower triangular, above it a as it was. False when a is not
// positive definite: then nothing has changed.
bool InverseCholesky(int64_t n, double* a);

}  // namespace nibble::blas

#endif  // NIBBLE_CORE_TENSOR_BLAS_H_
