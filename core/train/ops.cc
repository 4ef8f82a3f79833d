#include "core/train/ops.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "core/base/divide.h"
#include "core/tensor/blas.h"

namespace nibble::train {
namespace {

constexpr int64_t kRowsOfPiece = 32;        // tokens of a piece of row-wise work
constexpr int64_t kElementsOfPiece = 16384;
constexpr int64_t kQueryBlock = 128;        // rows of scores held at a time

void Gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, const float* b, int64_t ldb,
          float beta, float* c, int64_t ldc) {
  blas::Sgemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
void Gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha, const double* a, int64_t lda, const double* b, int64_t ldb,
          double beta, double* c, int64_t ldc) {
  blas::Dgemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

// sigmoid of n values; `work` has n elements.
void Sigmoid(const kernels::KernelTable& table, const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = -std::fabs(x[i]);
  float max = 0;  // every value is at most 0, so the step is exp alone
  table.softmax_step(out, n, &max);
  for (int64_t i = 0; i < n; ++i) out[i] = (x[i] >= 0 ? 1.0f : out[i]) / (1.0f + out[i]);
}
void Sigmoid(const kernels::KernelTable&, const double* x, int64_t n, double* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = 1.0 / (1.0 + std::exp(-x[i]));
}

double MeanOfSquares(const float* x, int64_t n) {
  // Four sums, so that the additions do not wait for each other.
  double sums[4] = {};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (int j = 0; j < 4; ++j) sums[j] += static_cast<double>(x[i + j]) * x[i + j];
  }
  for (; i < n; ++i) sums[0] += static_cast<double>(x[i]) * x[i];
  return (sums[0] + sums[1] + sums[2] + sums[3]) / static_cast<double>(n);
}
double MeanOfSquares(const double* x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return sum / static_cast<double>(n);
}

template <typename T>
T InverseRms(const T* x, int64_t n, float eps) {
  return static_cast<T>(1.0 / std::sqrt(MeanOfSquares(x, n) + static_cast<double>(eps)));
}

// One head of one sequence.
template <typename T>
struct HeadOfSequence {
  int64_t first = 0, length = 0;       // tokens
  int64_t head = 0, kv_head = 0;
  int64_t q_width = 0, kv_width = 0, d = 0;

  int64_t q_at(int64_t t) const { return (first + t) * q_width + head * d; }
  int64_t kv_at(int64_t t) const { return (first + t) * kv_width + kv_head * d; }
};

template <typename T>
HeadOfSequence<T> Locate(const AttentionShape& shape, absl::Span<const int64_t> starts, int64_t task) {
  HeadOfSequence<T> at;
  const int64_t sequence = task / shape.heads;
  at.first = starts[sequence];
  at.length = starts[sequence + 1] - starts[sequence];
  at.head = task % shape.heads;
  at.kv_head = at.head / (shape.heads / shape.kv_heads);
  at.d = shape.head_dim;
  at.q_width = shape.heads * shape.head_dim;
  at.kv_width = shape.kv_heads * shape.head_dim;
  return at;
}

// A block of queries and the keys that any of them sees.
struct Block {
  int64_t begin = 0, rows = 0, key_begin = 0, keys = 0;

  // Keys of query `row`, relative to key_begin.
  int64_t first(const AttentionShape& shape, int64_t row) const {
    return shape.sliding_window.has_value() ? std::max<int64_t>(0, begin + row + 1 - *shape.sliding_window) - key_begin : 0;
  }
  int64_t last(int64_t row) const { return begin + row + 1 - key_begin; }
};

template <typename Task>
void ForBlocks(const AttentionShape& shape, int64_t length, const Task& task) {
  for (int64_t begin = 0; begin < length; begin += kQueryBlock) {
    Block block;
    block.begin = begin;
    block.rows = std::min(kQueryBlock, length - begin);
    block.key_begin = shape.sliding_window.has_value() ? std::max<int64_t>(0, begin + 1 - *shape.sliding_window) : 0;
    block.keys = begin + block.rows - block.key_begin;
    task(block);
  }
}

// Buffers of one worker.
template <typename T>
T* Reserve(std::vector<std::vector<T>>& buffers, int worker, int64_t size) {
  if (static_cast<int64_t>(buffers[worker].size()) < size) buffers[worker].resize(size);
  return buffers[worker].data();
}

template <typename T>
void Scores(const HeadOfSequence<T>& at, const Block& block, const T* q, const T* k, T* scores) {
  const T scale = static_cast<T>(1.0 / std::sqrt(static_cast<double>(at.d)));
  Gemm(false, true, block.rows, block.keys, at.d, scale, q + at.q_at(block.begin), at.q_width, k + at.kv_at(block.key_begin), at.kv_width,
       T(0), scores, block.keys);
}

// Scores become probabilities given each row's log_sum; what a row does not see
// becomes 0.
template <typename T>
void Probabilities(const kernels::KernelTable& table, const AttentionShape& shape, const Block& block, const T* log_sums, T* scores) {
  for (int64_t r = 0; r < block.rows; ++r) {
    T* row = scores + r * block.keys;
    const int64_t first = block.first(shape, r), last = block.last(r);
    T max = log_sums[block.begin + r];  // above every score, so the step only subtracts it
    SoftmaxStep(table, row + first, last - first, &max);
    std::fill(row, row + first, T(0));
    std::fill(row + last, row + block.keys, T(0));
  }
}

template <typename T>
void AttendBlock(const kernels::KernelTable& table, const AttentionShape& shape, const Block& block, T* scores, T* log_sums) {
  for (int64_t r = 0; r < block.rows; ++r) {
    T* row = scores + r * block.keys;
    const int64_t first = block.first(shape, r), last = block.last(r);
    T max = -std::numeric_limits<T>::infinity();
    const T sum = SoftmaxStep(table, row + first, last - first, &max);
    log_sums[block.begin + r] = max + std::log(sum);
    const T inverse = T(1) / sum;
    for (int64_t i = first; i < last; ++i) row[i] *= inverse;
    std::fill(row, row + first, T(0));
    std::fill(row + last, row + block.keys, T(0));
  }
}

// dP -> dS in place of dP: P (dP - D), D = rowsum(dout out).
template <typename T>
void ScoreGradients(const HeadOfSequence<T>& at, const Block& block, const T* out, const T* dout, const T* probabilities, T* gradients) {
  for (int64_t r = 0; r < block.rows; ++r) {
    const T *o = out + at.q_at(block.begin + r), *d_o = dout + at.q_at(block.begin + r);
    T dot = 0;
    for (int64_t i = 0; i < at.d; ++i) dot += o[i] * d_o[i];
    const T* p = probabilities + r * block.keys;
    T* g = gradients + r * block.keys;
    for (int64_t i = 0; i < block.keys; ++i) g[i] = p[i] * (g[i] - dot);
  }
}

}  // namespace

float SoftmaxStep(const kernels::KernelTable& table, float* row, int64_t n, float* max) { return table.softmax_step(row, n, max); }
double SoftmaxStep(const kernels::KernelTable&, double* row, int64_t n, double* max) {
  *max = std::max(*max, *std::max_element(row, row + n));
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += row[i] = std::exp(row[i] - *max);
  return sum;
}

template <typename T>
void RmsNorm(Machine machine, int64_t tokens, int64_t width, const T* x, const T* gain, float eps, T* y) {
  ForPieces(machine.pool, tokens, kRowsOfPiece, [&](int64_t first, int64_t last, int) {
    for (int64_t t = first; t < last; ++t) {
      const T* row = x + t * width;
      const T inverse = InverseRms(row, width, eps);
      for (int64_t i = 0; i < width; ++i) y[t * width + i] = row[i] * inverse * gain[i];
    }
  });
}

template <typename T>
void RmsNormBackward(Machine machine, int64_t tokens, int64_t width, const T* x, const T* gain, float eps, const T* dy, T* dx, T* dgain) {
  const int64_t pieces = CeilDiv(tokens, kRowsOfPiece);
  std::vector<T> partial(dgain != nullptr ? pieces * width : 0);
  ForPieces(machine.pool, tokens, kRowsOfPiece, [&](int64_t first, int64_t last, int) {
    T* sums = dgain != nullptr ? partial.data() + first / kRowsOfPiece * width : nullptr;
    for (int64_t t = first; t < last; ++t) {
      const T *row = x + t * width, *g = dy + t * width;
      const T inverse = InverseRms(row, width, eps);
      if (sums != nullptr) {
        for (int64_t i = 0; i < width; ++i) sums[i] += g[i] * row[i] * inverse;
      }
      if (dx == nullptr) continue;
      T dots[4] = {};
      int64_t i = 0;
      for (; i + 4 <= width; i += 4) {
        for (int j = 0; j < 4; ++j) dots[j] += g[i + j] * gain[i + j] * row[i + j];
      }
      for (; i < width; ++i) dots[0] += g[i] * gain[i] * row[i];
      const T pull = (dots[0] + dots[1] + dots[2] + dots[3]) * inverse * inverse / static_cast<T>(width);
      for (int64_t c = 0; c < width; ++c) dx[t * width + c] += inverse * (g[c] * gain[c] - row[c] * pull);
    }
  });
  if (dgain == nullptr) return;
  for (int64_t p = 0; p < pieces; ++p) {
    for (int64_t i = 0; i < width; ++i) dgain[i] += partial[p * width + i];
  }
}

template <typename T>
void SiluMul(Machine machine, int64_t count, const T* gate, const T* up, T* y) {
  ForPieces(machine.pool, count, kElementsOfPiece, [&](int64_t first, int64_t last, int) {
    Sigmoid(machine.table, gate + first, last - first, y + first);
    for (int64_t i = first; i < last; ++i) y[i] *= gate[i] * up[i];
  });
}

template <typename T>
void SiluMulBackward(Machine machine, int64_t count, const T* gate, const T* up, const T* dy, T* dgate, T* dup) {
  std::vector<std::vector<T>> buffers(machine.pool.threads());
  ForPieces(machine.pool, count, kElementsOfPiece, [&](int64_t first, int64_t last, int worker) {
    T* sigmoid = Reserve(buffers, worker, kElementsOfPiece);
    Sigmoid(machine.table, gate + first, last - first, sigmoid);
    const T* s = sigmoid - first;
    if (dup != nullptr) {
      for (int64_t i = first; i < last; ++i) dup[i] += dy[i] * gate[i] * s[i];
    }
    if (dgate == nullptr) return;
    for (int64_t i = first; i < last; ++i) dgate[i] += dy[i] * up[i] * s[i] * (T(1) + gate[i] * (T(1) - s[i]));
  });
}

template <typename T>
void Accumulate(Machine machine, int64_t count, T scale, const T* x, T* y) {
  ForPieces(machine.pool, count, kElementsOfPiece, [&](int64_t first, int64_t last, int) {
    for (int64_t i = first; i < last; ++i) y[i] += scale * x[i];
  });
}

int64_t LongestSequence(absl::Span<const int64_t> starts) {
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < starts.size(); ++s) longest = std::max(longest, starts[s + 1] - starts[s]);
  return longest;
}

template <typename T>
void RopeAngles<T>::Extend(absl::Span<const double> inverse_frequencies, int64_t positions) {
  const int64_t half = static_cast<int64_t>(inverse_frequencies.size());
  for (int64_t p = static_cast<int64_t>(cos.size()) / half; p < positions; ++p) {
    for (const double f : inverse_frequencies) {
      cos.push_back(static_cast<T>(std::cos(static_cast<double>(p) * f)));
      sin.push_back(static_cast<T>(std::sin(static_cast<double>(p) * f)));
    }
  }
}

template <typename T>
void Rope(Machine machine, const RopeShape<T>& shape, absl::Span<const int64_t> starts, bool inverse, const T* x, T* y) {
  const RopeAngles<T>& angles = *shape.angles;
  const int64_t d = shape.head_dim, half = d / 2, width = shape.heads * d;
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    ForPieces(machine.pool, starts[s + 1] - starts[s], kRowsOfPiece, [&](int64_t first, int64_t last, int) {
      for (int64_t p = first; p < last; ++p) {
        const T *cos = angles.cos.data() + p * half, *sin = angles.sin.data() + p * half;
        for (int64_t h = 0; h < shape.heads; ++h) {
          const int64_t at = (starts[s] + p) * width + h * d;
          for (int64_t i = 0; i < half; ++i) {
            const T a = x[at + i], b = x[at + half + i], turn = inverse ? -sin[i] : sin[i];
            y[at + i] = a * cos[i] - b * turn;
            y[at + half + i] = b * cos[i] + a * turn;
          }
        }
      }
    });
  }
}

template <typename T>
void Attention(Machine machine, const AttentionShape& shape, absl::Span<const int64_t> starts, const T* q, const T* k, const T* v, T* out,
               T* log_sums) {
  std::vector<std::vector<T>> buffers(machine.pool.threads());
  const int64_t tokens = starts.back(), tasks = static_cast<int64_t>(starts.size() - 1) * shape.heads;
  machine.pool.ParallelFor(tasks, [&](int64_t task, int worker) {
    const HeadOfSequence<T> at = Locate<T>(shape, starts, task);
    T* scores = Reserve(buffers, worker, kQueryBlock * at.length);
    T* sums = log_sums + at.head * tokens + at.first;
    ForBlocks(shape, at.length, [&](const Block& block) {
      Scores(at, block, q, k, scores);
      AttendBlock(machine.table, shape, block, scores, sums);
      Gemm(false, false, block.rows, at.d, block.keys, T(1), scores, block.keys, v + at.kv_at(block.key_begin), at.kv_width, T(0),
           out + at.q_at(block.begin), at.q_width);
    });
  });
}

template <typename T>
void AttentionBackward(Machine machine, const AttentionShape& shape, absl::Span<const int64_t> starts, const T* q, const T* k, const T* v,
                       const T* out, const T* log_sums, const T* dout, T* dq, T* dk, T* dv) {
  const int64_t tokens = starts.back(), d = shape.head_dim, tasks = static_cast<int64_t>(starts.size() - 1) * shape.heads;
  const T scale = static_cast<T>(1.0 / std::sqrt(static_cast<double>(d)));
  // Heads that share keys and values each sum their own part first.
  std::vector<T> key_parts(shape.heads * tokens * d), value_parts(shape.heads * tokens * d);
  std::vector<std::vector<T>> buffers(machine.pool.threads());
  machine.pool.ParallelFor(tasks, [&](int64_t task, int worker) {
    const HeadOfSequence<T> at = Locate<T>(shape, starts, task);
    T* probabilities = Reserve(buffers, worker, 2 * kQueryBlock * at.length);
    T* gradients = probabilities + kQueryBlock * at.length;
    const T* sums = log_sums + at.head * tokens + at.first;
    T* key_part = key_parts.data() + (at.head * tokens + at.first) * d;
    T* value_part = value_parts.data() + (at.head * tokens + at.first) * d;
    ForBlocks(shape, at.length, [&](const Block& block) {
      const T* dout_block = dout + at.q_at(block.begin);
      Scores(at, block, q, k, probabilities);
      Probabilities(machine.table, shape, block, sums, probabilities);
      Gemm(true, false, block.keys, d, block.rows, T(1), probabilities, block.keys, dout_block, at.q_width, T(1),
           value_part + block.key_begin * d, d);
      Gemm(false, true, block.rows, block.keys, d, T(1), dout_block, at.q_width, v + at.kv_at(block.key_begin), at.kv_width, T(0), gradients,
           block.keys);
      ScoreGradients(at, block, out, dout, probabilities, gradients);
      Gemm(false, false, block.rows, d, block.keys, scale, gradients, block.keys, k + at.kv_at(block.key_begin), at.kv_width, T(0),
           dq + at.q_at(block.begin), at.q_width);
      Gemm(true, false, block.keys, d, block.rows, scale, gradients, block.keys, q + at.q_at(block.begin), at.q_width, T(1),
           key_part + block.key_begin * d, d);
    });
  });
  const int64_t share = shape.heads / shape.kv_heads;
  ForPieces(machine.pool, tokens, kRowsOfPiece, [&](int64_t first, int64_t last, int) {
    for (int64_t t = first; t < last; ++t) {
      for (int64_t h = 0; h < shape.kv_heads; ++h) {
        const int64_t to = (t * shape.kv_heads + h) * d;
        for (int64_t i = 0; i < d; ++i) {
          T key = 0, value = 0;
          for (int64_t part = h * share; part < (h + 1) * share; ++part) {
            key += key_parts[(part * tokens + t) * d + i];
            value += value_parts[(part * tokens + t) * d + i];
          }
          dk[to + i] = key;
          dv[to + i] = value;
        }
      }
    }
  });
}

template <typename T>
void Embed(Machine machine, absl::Span<const int32_t> tokens, int64_t width, const T* table, T* y) {
  ForPieces(machine.pool, static_cast<int64_t>(tokens.size()), kRowsOfPiece, [&](int64_t first, int64_t last, int) {
    for (int64_t t = first; t < last; ++t) std::copy_n(table + tokens[t] * width, width, y + t * width);
  });
}

template <typename T>
void EmbedBackward(Machine machine, absl::Span<const int32_t> tokens, int64_t width, const T* dy, T* dtable) {
  // By columns: a token may occur many times.
  ForPieces(machine.pool, width, 64, [&](int64_t first, int64_t last, int) {
    for (size_t t = 0; t < tokens.size(); ++t) {
      for (int64_t i = first; i < last; ++i) dtable[tokens[t] * width + i] += dy[static_cast<int64_t>(t) * width + i];
    }
  });
}

template <typename T>
void Rotate(Machine machine, const Hadamard& hadamard, int64_t count, bool inverse, const T* x, T* y) {
  const int64_t size = hadamard.size(), blocks = std::max<int64_t>(1, kElementsOfPiece / size);  // of a task
  machine.pool.ParallelFor(CeilDiv(count / size, blocks), [&](int64_t task, int) {
    const int64_t begin = task * blocks * size, end = std::min(count, begin + blocks * size);
    if (x != y) std::copy(x + begin, x + end, y + begin);
    std::vector<T> scratch(size);
    for (T* at = y + begin; at < y + end; at += size) {
      if constexpr (std::is_same_v<T, float>) {
        machine.table.hadamard(hadamard.signs(inverse).data(), hadamard.order(), hadamard.fast(), hadamard.scale(), at, scratch.data());
      } else {
        inverse ? hadamard.ApplyTransposed(at) : hadamard.Apply(at);
      }
    }
  });
}

template struct RopeAngles<float>;
template struct RopeAngles<double>;

#define NIBBLE_INSTANTIATE_OPS(T)                                                                                                     \
  template void RmsNorm(Machine, int64_t, int64_t, const T*, const T*, float, T*);                                                    \
  template void RmsNormBackward(Machine, int64_t, int64_t, const T*, const T*, float, const T*, T*, T*);                              \
  template void SiluMul(Machine, int64_t, const T*, const T*, T*);                                                                    \
  template void SiluMulBackward(Machine, int64_t, const T*, const T*, const T*, T*, T*);                                              \
  template void Accumulate(Machine, int64_t, T, const T*, T*);                                                                          \
  template void Rope(Machine, const RopeShape<T>&, absl::Span<const int64_t>, bool, const T*, T*);                                    \
  template void Rotate(Machine, const Hadamard&, int64_t, bool, const T*, T*);                                                        \
  template void Attention(Machine, const AttentionShape&, absl::Span<const int64_t>, const T*, const T*, const T*, T*, T*);           \
  template void AttentionBackward(Machine, const AttentionShape&, absl::Span<const int64_t>, const T*, const T*, const T*, const T*,  \
                                  const T*, const T*, T*, T*, T*);                                                                    \
  template void Embed(Machine, absl::Span<const int32_t>, int64_t, const T*, T*);                                                     \
  template void EmbedBackward(Machine, absl::Span<const int32_t>, int64_t, const T*, T*);
NIBBLE_INSTANTIATE_OPS(float)
NIBBLE_INSTANTIATE_OPS(double)
#undef NIBBLE_INSTANTIATE_OPS

}  // namespace nibble::train
