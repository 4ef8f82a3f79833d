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
#include "core/quant/encoded.h"

namespace nibble {

// How keys or values are stored. 16-bit caches round to nearest even. Integer
// caches keep codes on the grid that their scheme gives for each head of each
// position (SpinQuant's KV quantizers with the head as the group), and its scale
// and the value of code 0 in fp32. A block is decoded while it is in use;
// arithmetic stays fp32.
enum class CacheType { kFp32, kFp16, kBf16, kInt8, kInt4 };

// Of one stored channel, scales left out.
int CacheBits(CacheType type);

// The type that a scheme asks for (ir::CheckCacheScheme holds), and a type's
// usual scheme: integers asymmetric.
CacheType CacheTypeOf(const QuantScheme& scheme);
QuantScheme CacheScheme(CacheType type, int64_t head_dim);

class KvCache {
 public:
  // `keys` and `values` pass ir::CheckCacheScheme.
  KvCache(const QuantScheme& keys, const QuantScheme& values, int streams, int64_t kv_heads, int64_t head_dim, int64_t max_positions);

  // k, v: [head_dim] of one token and KV head, k already rotated. Calls for the
  // same head must not run at once: positions share bytes.
  void Store(int stream, int64_t kv_head, int64_t position, const float* k, const float* v);

  // The panels of the first `stored` positions of a block's keys or values as
  // fp32: where they lie, or decoded to `scratch` (block_floats() elements).
  // Panels lie key_step() and value_step() elements apart.
  const float* Keys(const kernels::KernelTable& table, int stream, int64_t kv_head, int64_t block, int64_t stored, float* scratch) const;
  const float* Values(const kernels::KernelTable& table, int stream, int64_t kv_head, int64_t block, int64_t stored,
                      float* scratch) const;

  int64_t kv_heads() const { return kv_heads_; }
  int64_t block_positions() const { return block_positions_; }
  int64_t key_step() const { return head_dim_ * kernels::kBlockRows; }
  int64_t value_step() const { return block_positions_ * kernels::kBlockRows; }
  int64_t block_floats() const;
  int64_t byte_size() const;

 private:
  // Elements, and for integers the scale and the value of code 0 of each position.
  struct Plane {
    QuantScheme scheme;
    CacheType type = CacheType::kFp32;
    std::vector<uint8_t> elements;
    std::vector<float> scales, lows;
    bool integer() const { return type == CacheType::kInt8 || type == CacheType::kInt4; }
  };

  // The first position of a block, counted over streams and heads.
  int64_t FirstPosition(int stream, int64_t kv_head, int64_t block) const;
  void Put(Plane& plane, int64_t i, float value) const;
  // Codes of x[0..head_dim), at the position's place in the plane; at(c) is the
  // element of channel c.
  template <typename At>
  void PutHead(Plane& plane, int64_t position, const float* x, const At& at) const;
  // n rows of 16 elements from `begin`.
  void Decode(const kernels::KernelTable& table, const Plane& plane, int64_t begin, int64_t n, bool by_lane, int64_t position,
              float* out) const;

  const int64_t kv_heads_, head_dim_, value_panels_, block_positions_, blocks_;
  Plane keys_, values_;
};

}  // namespace nibble

#endif  // NIBBLE_CORE_RUNTIME_KV_CACHE_H_
