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

// Of a triangular l [n, n] what is below and on its diagonal; nothing else is read or written.
// c [m, n] <- alpha c l, c [m, n] <- c l^-T, c [n, m] <- l^-1 c.
void DtrmmRightLower(int64_t m, int64_t n, double alpha, const double* l, int64_t ldl, double* c, int64_t ldc);
void DtrsmRightLowerTransposed(int64_t m, int64_t n, const double* l, int64_t ldl, double* c, int64_t ldc);
void DtrsmLeftLower(int64_t n, int64_t m, const double* l, int64_t ldl, double* c, int64_t ldc);
// c [n, n] = alpha * a a^T + beta * c on and below the diagonal; a is [n, k].
void DsyrkLower(int64_t n, int64_t k, double alpha, const double* a, int64_t lda, double beta, double* c, int64_t ldc);

// The factor L of a = L L^T, and the inverse of a lower triangle, in place, on and below the
// diagonal. False when a is not positive definite, or a diagonal entry 0.
bool Cholesky(int64_t n, double* a, int64_t lda);
bool InvertLower(int64_t n, double* l, int64_t ldl);

}  // namespace nibble::blas

#endif  // NIBBLE_CORE_TENSOR_BLAS_H_
