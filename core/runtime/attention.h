// Causal attention over a KvCache with an online softmax (Milakov and
// Gimelshein 2018; tiled as in FlashAttention, Dao et al. 2022): scores of one
// block of positions at a time, so that memory does not grow with the context
// and long prompts stay in the cache. An op with a bf16 activation rounds queries, after
// they are scaled, and softmax weights to bf16; sums stay fp32.
#ifndef NIBBLE_CORE_RUNTIME_ATTENTION_H_
#define NIBBLE_CORE_RUNTIME_ATTENTION_H_

#include <cstdint>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/ir/graph.h"
#include "core/kernels/kernel_table.h"
#include "core/runtime/kv_cache.h"

namespace nibble {

// Consecutive positions of a stream among the rows of a batch.
struct TokenRun {
  int stream;
  int64_t position;  // of its first token
  int64_t begin;     // its first row
  int64_t count;
};

class Attention {
 public:
  Attention(const ir::Op& op, const kernels::KernelTable& table) : op_(op), table_(table) {}

  // Whether its products read pairs from a cache of such schemes.
  static bool ReadsPairs(const ir::Op& op, const CacheSchemes& schemes, const kernels::KernelTable& table);

  // q, out: [rows, heads * head_dim]; the runs' keys and values are stored.
  // Results do not depend on the pool, nor on how tokens came in runs beyond
  // the rounding of sums.
  void Run(const KvCache& cache, const std::vector<TokenRun>& runs, const float* q, float* out, ThreadPool& pool);

 private:
  // Query rows that pass over the cache together: `tokens` tokens of all query
  // heads of one KV head.
  struct Task {
    const TokenRun* run;
    int64_t kv_head, first, tokens;
  };
  // What a worker needs, kept between calls.
  struct Scratch {
    std::vector<float> keys, values, queries, scores, weights, sums, parts;
    std::vector<float> max, total;
  };

  void RunTask(const KvCache& cache, const Task& task, const float* q, float* out, Scratch& scratch) const;
  void AddBlock(const KvCache& cache, const Task& task, int64_t block, Scratch& scratch) const;
  // Softmax weights of n query rows from `row` on, in place of their scores.
  void Weigh(const Task& task, int64_t row, int64_t n, int64_t block_begin, int64_t stored, float* factors, Scratch& scratch) const;
  // n floats as a product's operand in bf16: as floats, or packed to pairs.
  void Round(const float* x, int64_t n, bool pairs, float* out) const;
  int64_t Oldest(int64_t position) const;
  bool rounds() const { return op_.activation.has_value(); }
  int64_t group() const { return op_.heads / op_.kv_heads; }

  const ir::Op& op_;
  const kernels::KernelTable& table_;
  std::vector<Task> tasks_;
  std::vector<Scratch> scratch_;  // per worker
};

}  // namespace nibble

#endif  // NIBBLE_CORE_RUNTIME_ATTENTION_H_
