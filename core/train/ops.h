// Forward and backward of the IR's ops, as functions of arrays. `float` is what
// training runs; `double` is the path that gradient checks differentiate
// numerically.
//
// Arrays are row-major [tokens, width]. Work is cut into tasks by shape alone,
// so results do not depend on the number of threads. A gradient is added to
// where its array is said to accumulate.
#ifndef NIBBLE_CORE_TRAIN_OPS_H_
#define NIBBLE_CORE_TRAIN_OPS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "core/base/divide.h"
#include "core/base/thread_pool.h"
#include "core/kernels/kernel_table.h"
#include "core/tensor/hadamard.h"

namespace nibble::train {

// What ops run on.
struct Machine {
  ThreadPool& pool;
  const kernels::KernelTable& table;
};

// c [m, n] = op(a) op(b), added to c where `accumulate`; op(a) is [m, k], op(b)
// is [k, n], transposed when stored as [k, m] or [n, k].
struct Product {
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
};
template <typename T>
void Multiply(Machine machine, const Product& product, const T* a, const T* b, bool accumulate, T* c);

// y = x / sqrt(mean(x^2) + eps) * gain.
template <typename T>
void RmsNorm(Machine machine, int64_t tokens, int64_t width, const T* x, const T* gain, float eps, T* y);
// With r = 1 / sqrt(mean(x^2) + eps) and g = dy gain:
//   dx += r (g - x r^2 mean(g x)),  dgain += sum over tokens of dy x r.
// `dx` or `dgain` may be null.
template <typename T>
void RmsNormBackward(Machine machine, int64_t tokens, int64_t width, const T* x, const T* gain, float eps, const T* dy, T* dx, T* dgain);

// y = silu(gate) up, silu(x) = x sigmoid(x).
template <typename T>
void SiluMul(Machine machine, int64_t count, const T* gate, const T* up, T* y);
// dgate += dy up silu'(gate), dup += dy silu(gate); either may be null.
// silu'(x) = sigmoid(x) (1 + x (1 - sigmoid(x))).
template <typename T>
void SiluMulBackward(Machine machine, int64_t count, const T* gate, const T* up, const T* dy, T* dgate, T* dup);

// y += scale x.
template <typename T>
void Accumulate(Machine machine, int64_t count, T scale, const T* x, T* y);

// Rotary embedding (half-split) of sequences that each start at position 0;
// `starts` are the first tokens of each and the number of tokens at the end.
// `inverse` rotates back, which is the gradient.
template <typename T>
struct RopeAngles {
  std::vector<T> cos, sin;  // [positions][head_dim / 2]

  // Makes them for positions up to `positions`, unless they are there.
  void Extend(absl::Span<const double> inverse_frequencies, int64_t positions);
};
template <typename T>
struct RopeShape {
  int64_t heads = 0, head_dim = 0;
  const RopeAngles<T>* angles = nullptr;  // of the longest sequence's positions at least
};
int64_t LongestSequence(absl::Span<const int64_t> starts);
// Each block of hadamard.size() of `count` values times the matrix, or its
// transpose. x and y may be the same.
template <typename T>
void Rotate(Machine machine, const Hadamard& hadamard, int64_t count, bool inverse, const T* x, T* y);

template <typename T>
void Rope(Machine machine, const RopeShape<T>& shape, absl::Span<const int64_t> starts, bool inverse, const T* x, T* y);

// Causal grouped-query attention within each sequence; scores are scaled by
// 1 / sqrt(head_dim).
struct AttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  std::optional<int64_t> sliding_window;  // keys no older than this, itself among them
};
// `log_sums` [heads, tokens] keeps each row's log of the sum of exp(score).
template <typename T>
void Attention(Machine machine, const AttentionShape& shape, absl::Span<const int64_t> starts, const T* q, const T* k, const T* v, T* out,
               T* log_sums);
// Probabilities are made again from `log_sums` (FlashAttention, section 3.1 and
// appendix B.2): dS = P (dP - rowsum(dout out)). dq, dk, dv are written.
template <typename T>
void AttentionBackward(Machine machine, const AttentionShape& shape, absl::Span<const int64_t> starts, const T* q, const T* k, const T* v,
                       const T* out, const T* log_sums, const T* dout, T* dq, T* dk, T* dv);

// Rows of `table` for tokens, and the gradient: dtable[token] += dy.
template <typename T>
void Embed(Machine machine, absl::Span<const int32_t> tokens, int64_t width, const T* table, T* y);
template <typename T>
void EmbedBackward(Machine machine, absl::Span<const int32_t> tokens, int64_t width, const T* dy, T* dtable);

// In place: row = exp(row - *max) with *max raised to the row's largest value
// where that is larger; returns the sum.
float SoftmaxStep(const kernels::KernelTable& table, float* row, int64_t n, float* max);
double SoftmaxStep(const kernels::KernelTable& table, double* row, int64_t n, double* max);

// task(first, last, worker) over pieces of [0, count) of `piece` elements.
template <typename Task>
void ForPieces(ThreadPool& pool, int64_t count, int64_t piece, const Task& task) {
  pool.ParallelFor(CeilDiv(count, piece), [&](int64_t i, int worker) {
    const int64_t first = i * piece;
    task(first, first + piece < count ? first + piece : count, worker);
  });
}

}  // namespace nibble::train

#endif  // NIBBLE_CORE_TRAIN_OPS_H_
