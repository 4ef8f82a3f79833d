// The inverse Cholesky factor of a large matrix on all threads. A library's own threads
// would not do: BLAS runs on one here (core/tensor/blas.h), and results must not depend on
// how many there are.
#ifndef NIBBLE_CORE_TENSOR_CHOLESKY_H_
#define NIBBLE_CORE_TENSOR_CHOLESKY_H_

#include <cstdint>

#include "core/base/thread_pool.h"

namespace nibble {

// a [n, n] by rows, symmetric, positive definite <- the inverse of its Cholesky factor L
// (a = L L^T), lower triangular, above it a as it was. False when a is not positive
// definite: then nothing has changed.
//
// By tiles (Golub & Van Loan, Matrix Computations, 4th ed., section 4.2.9, right-looking;
// then row by row of tiles, L^-1_ij = -L_ii^-1 sum over j <= k < i of L_ik L^-1_kj).
bool InverseCholesky(int64_t n, double* a, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_CORE_TENSOR_CHOLESKY_H_
