// KvCache: keys and values of one attention op, in the order in which panels of
// the float kernels are read (core/kernels/kernel_types.h), so that neither
// prefill nor decode rearranges them. Positions come in blocks of up to
// kPanelDepth. For each KV head of a block:
//   keys:   [block / 16][head_dim][16]: the panel of 16 positions
//   values: [head_dim / 16][block][16]: the panel of 16 channels
// Query heads that share a KV head read the same panels (GQA without a copy).
#ifndef NIBBLE_CORE_RUNTIME_KV_CACHE_H_
#define NIBBLE_CORE_RUNTIME_KV_CACHE_H_

#include <cstdint>
#include <vector>

#include "core/kernels/kernel_table.h"

namespace nibble {

// How keys and values are stored. 16-bit caches round to nearest even and are
// decoded block by block; arithmetic stays fp32.
enum class CacheType { kFp32, kFp16, kBf16 };

class KvCache {
 public:
  KvCache(CacheType type, int streams, int64_t kv_heads, int64_t head_dim, int64_t max_positions);

  // k, v: [kv_heads, head_dim] of one token, already rotated.
  void Store(int stream, int64_t position, const float* k, const float* v);

  // The panels of a block's keys or values as fp32: stored, or decoded to
  // `scratch` (block_floats() elements). Panels lie key_step() and value_step()
  // elements apart.
  const float* Keys(const kernels::KernelTable& table, int stream, int64_t kv_head, int64_t block, float* scratch) const;
  const float* Values(const kernels::KernelTable& table, int stream, int64_t kv_head, int64_t block, float* scratch) const;

  int64_t block_positions() const { return block_positions_; }
  int64_t key_step() const { return head_dim_ * kernels::kBlockRows; }
  int64_t value_step() const { return block_positions_ * kernels::kBlockRows; }
  int64_t block_floats() const;
  int64_t byte_size() const { return static_cast<int64_t>(keys_.size() + values_.size()); }

 private:
  int64_t KeyPlane(int stream, int64_t kv_head, int64_t block) const;
  int64_t ValuePlane(int stream, int64_t kv_head, int64_t block) const;
  void Put(std::vector<uint8_t>& to, int64_t i, float value);
  const float* Decode(const kernels::KernelTable& table, const std::vector<uint8_t>& from, int64_t begin, int64_t n, float* scratch) const;

  const CacheType type_;
  const int64_t kv_heads_, head_dim_, value_panels_, block_positions_, blocks_;
  std::vector<uint8_t> keys_, values_;
};

}  // namespace nibble

#endif  // NIBBLE_CORE_RUNTIME_KV_CACHE_H_
