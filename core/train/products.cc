// The matrix products of training, on OpenBLAS: a piece of the result for each
// task.
#include <algorithm>

#include "core/base/divide.h"
#include "core/tensor/blas.h"
#include "core/train/ops.h"

namespace nibble::train {
namespace {

void Gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, bool accumulate,
          float* c, int64_t ldc) {
  blas::Sgemm(ta, tb, m, n, k, 1.0f, a, lda, b, ldb, accumulate ? 1.0f : 0.0f, c, ldc);
}
void Gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, const double* b, int64_t ldb, bool accumulate,
          double* c, int64_t ldc) {
  blas::Dgemm(ta, tb, m, n, k, 1.0, a, lda, b, ldb, accumulate ? 1.0 : 0.0, c, ldc);
}

// Pieces of a length. Each packs its operands anew, so they are few; but on a
// shared machine one thread is often slower, and four let the other take three.
int64_t PieceOf(int64_t length, double operations) {
  const int64_t wanted = std::clamp<int64_t>(static_cast<int64_t>(operations / 1e9), 4, 16);
  const int64_t piece = CeilDiv(length, wanted);
  return std::max<int64_t>(16, (piece + 15) / 16 * 16);
}

}  // namespace

template <typename T>
void Multiply(Machine machine, const Product& p, const T* a, const T* b, bool accumulate, T* c) {
  const int64_t lda = p.transpose_a ? p.m : p.k, ldb = p.transpose_b ? p.k : p.n;
  const double operations = 2.0 * static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k);
  if (p.m > p.n) {
    ForPieces(machine.pool, p.m, PieceOf(p.m, operations), [&](int64_t first, int64_t last, int) {
      Gemm(p.transpose_a, p.transpose_b, last - first, p.n, p.k, a + (p.transpose_a ? first : first * lda), lda, b, ldb, accumulate,
           c + first * p.n, p.n);
    });
  } else {
    ForPieces(machine.pool, p.n, PieceOf(p.n, operations), [&](int64_t first, int64_t last, int) {
      Gemm(p.transpose_a, p.transpose_b, p.m, last - first, p.k, a, lda, b + (p.transpose_b ? first * ldb : first), ldb, accumulate, c + first,
           p.n);
    });
  }
}

template void Multiply(Machine, const Product&, const float*, const float*, bool, float*);
template void Multiply(Machine, const Product&, const double*, const double*, bool, double*);

}  // namespace nibble::train
