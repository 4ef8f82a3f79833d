#include "core/runtime/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/clones.h"
#include "core/base/divide.h"
#include "core/tensor/half.h"

namespace nibble {
namespace {

using kernels::kTileFloats;
using kernels::kTileStride;
using kernels::kTileTokens;

// Query rows of a task: their queries, scores and sums fit a second-level cache
// beside a block of keys and values.
constexpr int64_t kTaskRows = 96;

template <typename T>
void Grow(std::vector<T>& v, int64_t size) {
  if (static_cast<int64_t>(v.size()) < size) v.resize(size);
}

NIBBLE_CLONES void Scale(float factor, const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = factor * x[i];
}

NIBBLE_CLONES void RoundToBf16(const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = Bf16ToFloat(FloatToBf16(x[i]));
}

}  // namespace

bool Attention::ReadsPairs(const ir::Op& op, const CacheSchemes& schemes, const kernels::KernelTable& table) {
  return op.activation.has_value() && schemes.keys.format() == "bf16" && schemes.values.format() == "bf16" && op.head_dim % 2 == 0 &&
         table.multiply_bf16_panels != nullptr;
}

void Attention::Round(const float* x, int64_t n, bool pairs, float* out) const {
  if (!pairs) return RoundToBf16(x, n, out);
  auto* rounded = reinterpret_cast<uint16_t*>(out);
  table_.round_to_bf16(x, n, rounded);
  if (n % 2 != 0) rounded[n] = 0;
}

int64_t Attention::Oldest(int64_t position) const {
  return op_.sliding_window.has_value() ? std::max<int64_t>(0, position + 1 - *op_.sliding_window) : 0;
}

void Attention::Run(const KvCache& cache, const std::vector<TokenRun>& runs, const float* q, float* out, ThreadPool& pool) {
  const int64_t step = std::max<int64_t>(1, kTaskRows / group());
  tasks_.clear();
  for (const TokenRun& run : runs) {
    for (int64_t h = 0; h < op_.kv_heads; ++h) {
      for (int64_t t = 0; t < run.count; t += step) tasks_.push_back({&run, h, t, std::min(step, run.count - t)});
    }
  }
  if (scratch_.size() < static_cast<size_t>(pool.threads())) scratch_.resize(pool.threads());
  pool.ParallelFor(static_cast<int64_t>(tasks_.size()),
                   [&](int64_t i, int worker) { RunTask(cache, tasks_[i], q, out, scratch_[worker]); });
}

void Attention::RunTask(const KvCache& cache, const Task& task, const float* q, float* out, Scratch& scratch) const {
  const int64_t d = op_.head_dim, width = op_.heads * d, rows = task.tokens * group();
  Grow(scratch.queries, rows * kTileStride);
  Grow(scratch.scores, kTileFloats);
  if (rounds()) Grow(scratch.weights, kTileFloats);
  Grow(scratch.parts, kTileTokens * d);
  Grow(scratch.keys, cache.block_floats());
  Grow(scratch.values, cache.block_floats());
  scratch.sums.assign(rows * d, 0.0f);
  scratch.max.assign(rows, -std::numeric_limits<float>::infinity());
  scratch.total.assign(rows, 0.0f);

  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  const int64_t first_row = task.run->begin + task.first, first_head = task.kv_head * group();
  const auto offset = [&](int64_t row) { return (first_row + row / group()) * width + (first_head + row % group()) * d; };
  for (int64_t row = 0; row < rows; ++row) {
    float scaled[kernels::kPanelDepth];
    float* query = scratch.queries.data() + row * kTileStride;
    Scale(scale, q + offset(row), d, rounds() ? scaled : query);
    if (rounds()) Round(scaled, d, cache.pairs(), query);
  }
  const int64_t start = task.run->position + task.first, last = start + task.tokens - 1;
  for (int64_t block = Oldest(start) / cache.block_positions(); block <= last / cache.block_positions(); ++block) {
    AddBlock(cache, task, block, scratch);
  }
  for (int64_t row = 0; row < rows; ++row) {
    Scale(1.0f / scratch.total[row], scratch.sums.data() + row * d, d, out + offset(row));
  }
}

// Scores of a tile of query rows against the block's keys, their softmax so
// far, and the weighted sum of its values.
void Attention::AddBlock(const KvCache& cache, const Task& task, int64_t block, Scratch& scratch) const {
  const int64_t d = op_.head_dim, rows = task.tokens * group(), block_begin = block * cache.block_positions();
  const int64_t stored = std::min(cache.block_positions(), task.run->position + task.first + task.tokens - block_begin);
  const float* keys = cache.Keys(table_, task.run->stream, task.kv_head, block, stored, scratch.keys.data());
  const float* values = cache.Values(table_, task.run->stream, task.kv_head, block, stored, scratch.values.data());
  const auto multiply = cache.pairs() ? table_.multiply_bf16_panels : table_.multiply_panels;
  const int64_t in_a_float = cache.pairs() ? 2 : 1;
  float* scores = scratch.scores.data();
  float* weights = rounds() ? scratch.weights.data() : scores;
  for (int64_t row = 0; row < rows; row += kTileTokens) {
    const int64_t n = std::min(kTileTokens, rows - row);
    multiply(keys, cache.key_step(), stored, d / in_a_float, scratch.queries.data() + row * kTileStride, n, false, scores, kTileStride);
    float factors[kTileTokens];
    Weigh(task, row, n, block_begin, stored, factors, scratch);
    for (int64_t i = 0; rounds() && i < n; ++i) Round(scores + i * kTileStride, stored, cache.pairs(), weights + i * kTileStride);
    multiply(values, cache.value_step(), d, CeilDiv(stored, in_a_float), weights, n, false, scratch.parts.data(), d);
    for (int64_t i = 0; i < n; ++i) {
      table_.scale_add(1.0f, scratch.parts.data() + i * d, factors[i], d, scratch.sums.data() + (row + i) * d);
    }
  }
}

void Attention::Weigh(const Task& task, int64_t row, int64_t n, int64_t block_begin, int64_t stored, float* factors, Scratch& scratch) const {
  for (int64_t i = 0; i < n; ++i) {
    // Positions [begin, end) of the block are seen by this query.
    const int64_t position = task.run->position + task.first + (row + i) / group();
    const int64_t end = std::clamp<int64_t>(position + 1 - block_begin, 0, stored);
    const int64_t begin = std::clamp<int64_t>(Oldest(position) - block_begin, 0, end);
    float* line = scratch.scores.data() + i * kTileStride;
    float& max = scratch.max[row + i];
    const float before = max;
    factors[i] = 1;
    if (begin < end) {
      const float sum = table_.softmax_step(line + begin, end - begin, &max);
      factors[i] = std::exp(before - max);
      scratch.total[row + i] = scratch.total[row + i] * factors[i] + sum;
    }
    std::fill(line, line + begin, 0.0f);
    std::fill(line + end, line + stored, 0.0f);
  }
}

}  // namespace nibble
