// KvCache: keys and values of one attention op, in the order in which panels of
// the float kernels are read (core/kernels/kernel_types.h), so that neither
// prefill nor decode rearranges them. Positions come in blocks of up to
// kPanelDepth. For each KV head of a block:
//   keys:   [block / 16][head_dim][16]: the panel of 16 positions
//   values: [head_dim / 16][block][16]: the panel of 16 channels
// Query heads that share a KV head read the same panels (GQA without a copy). A cache of
// pairs, for products of bf16 operands, keeps two consecutive channels of a key, or
// positions of a value, where the others keep one float:
//   keys:   [block / 16][head_dim / 2][16][2]
//   values: [head_dim / 16][block / 2][16][2]
#ifndef NIBBLE_CORE_RUNTIME_KV_CACHE_H_
#define NIBBLE_CORE_RUNTIME_KV_CACHE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "core/ir/graph.h"
#include "core/kernels/kernel_table.h"
#include "core/quant/encoded.h"

namespace nibble {

// How keys or values are stored. 16-bit caches round to nearest even. Integer
// caches keep codes on the grid that their scheme gives for each head of each
// position (SpinQuant's KV quantizers with the head as the group), and its scale
// and the value of code 0 in fp32. A block is decoded to fp32 while it is in use, unless it
// is of pairs.
enum class CacheType { kFp32, kFp16, kBf16, kInt8, kInt4 };

// Of one stored channel, scales left out.
int CacheBits(CacheType type);

// The type that a scheme asks for (ir::CheckCacheScheme holds), and a type's
// usual scheme: integers asymmetric.
CacheType CacheTypeOf(const QuantScheme& scheme);
QuantScheme CacheScheme(CacheType type, int64_t head_dim);

struct CacheSchemes {
  QuantScheme keys, values;
};
// Of an attention op: its own, or else `type`, or else what its products read: bf16 where
// they round to bf16, fp32 where not.
CacheSchemes CacheSchemesOf(const ir::Op& op, std::optional<CacheType> type);

class KvCache {
 public:
  // The schemes pass ir::CheckCacheScheme; `pairs` needs bf16 for both and an even head_dim.
  KvCache(const CacheSchemes& schemes, int streams, int64_t kv_heads, int64_t head_dim, int64_t max_positions, bool pairs = false);

  // k, v: [head_dim] of one token and KV head, k already rotated. Calls for the
  // same head must not run at once: positions share bytes.
  void Store(int stream, int64_t kv_head, int64_t position, const float* k, const float* v);

  // The panels of the first `stored` positions of a block's keys or values as
  // fp32: where they lie, or decoded to `scratch` (block_floats() elements).
  // Panels lie key_step() and value_step() floats apart. Pairs are never decoded; those of
  // an odd number of values end with 0.
  const float* Keys(const kernels::KernelTable& table, int stream, int64_t kv_head, int64_t block, int64_t stored, float* scratch) const;
  const float* Values(const kernels::KernelTable& table, int stream, int64_t kv_head, int64_t block, int64_t stored,
                      float* scratch) const;

  int64_t kv_heads() const { return kv_heads_; }
  int64_t block_positions() const { return block_positions_; }
  bool pairs() const { return pairs_; }
  int64_t key_step() const { return head_dim_ * kernels::kBlockRows / (pairs_ ? 2 : 1); }
  int64_t value_step() const { return block_positions_ * kernels::kBlockRows / (pairs_ ? 2 : 1); }
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
  void StorePair(int64_t first, int64_t p, const float* k, const float* v);
  // Codes of x[0..head_dim), at the position's place in the plane; at(c) is the
  // element of channel c.
  template <typename At>
  void PutHead(Plane& plane, int64_t position, const float* x, const At& at) const;
  // n rows of 16 elements from `begin`.
  void Decode(const kernels::KernelTable& table, const Plane& plane, int64_t begin, int64_t n, bool by_lane, int64_t position,
              float* out) const;

  const int64_t kv_heads_, head_dim_, value_panels_, block_positions_, blocks_;
  const bool pairs_;
  Plane keys_, values_;
};

}  // namespace nibble

#endif  // NIBBLE_CORE_RUNTIME_KV_CACHE_H_
