#include "core/runtime/kv_cache.h"

#include <algorithm>
#include <cstring>

#include "core/tensor/dtype.h"

namespace nibble {
namespace {

using kernels::kBlockRows;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t ElementSize(CacheType type) { return type == CacheType::kFp32 ? 4 : 2; }

}  // namespace

KvCache::KvCache(CacheType type, int streams, int64_t kv_heads, int64_t head_dim, int64_t max_positions)
    : type_(type),
      kv_heads_(kv_heads),
      head_dim_(head_dim),
      value_panels_(CeilDiv(head_dim, kBlockRows)),
      block_positions_(std::min(kernels::kPanelDepth, CeilDiv(max_positions, kBlockRows) * kBlockRows)),
      blocks_(CeilDiv(max_positions, block_positions_)) {
  const int64_t planes = streams * kv_heads * blocks_ * block_positions_;
  // A kernel may read one panel beyond an odd number of them.
  keys_.resize((planes + kBlockRows) * head_dim * ElementSize(type));
  values_.resize((planes * value_panels_ + block_positions_) * kBlockRows * ElementSize(type));
}

int64_t KvCache::block_floats() const {
  return std::max((block_positions_ + kBlockRows) * head_dim_, (value_panels_ + 1) * value_step());
}

int64_t KvCache::KeyPlane(int stream, int64_t kv_head, int64_t block) const {
  return ((stream * kv_heads_ + kv_head) * blocks_ + block) * block_positions_ * head_dim_;
}

int64_t KvCache::ValuePlane(int stream, int64_t kv_head, int64_t block) const {
  return ((stream * kv_heads_ + kv_head) * blocks_ + block) * block_positions_ * value_panels_ * kBlockRows;
}

void KvCache::Put(std::vector<uint8_t>& to, int64_t i, float value) {
  if (type_ == CacheType::kFp32) {
    std::memcpy(to.data() + 4 * i, &value, 4);
  } else {
    const uint16_t half = type_ == CacheType::kFp16 ? FloatToFp16(value) : FloatToBf16(value);
    std::memcpy(to.data() + 2 * i, &half, 2);
  }
}

void KvCache::Store(int stream, int64_t position, const float* k, const float* v) {
  const int64_t block = position / block_positions_, p = position % block_positions_;
  for (int64_t h = 0; h < kv_heads_; ++h, k += head_dim_, v += head_dim_) {
    const int64_t key = KeyPlane(stream, h, block) + p / kBlockRows * key_step() + p % kBlockRows;
    const int64_t value = ValuePlane(stream, h, block) + p * kBlockRows;
    for (int64_t c = 0; c < head_dim_; ++c) {
      Put(keys_, key + c * kBlockRows, k[c]);
      Put(values_, value + c / kBlockRows * value_step() + c % kBlockRows, v[c]);
    }
  }
}

const float* KvCache::Decode(const kernels::KernelTable& table, const std::vector<uint8_t>& from, int64_t begin, int64_t n,
                             float* scratch) const {
  if (type_ == CacheType::kFp32) return reinterpret_cast<const float*>(from.data()) + begin;
  const uint16_t* halves = reinterpret_cast<const uint16_t*>(from.data()) + begin;
  (type_ == CacheType::kFp16 ? table.convert_fp16 : table.convert_bf16)(halves, n, scratch);
  return scratch;
}

const float* KvCache::Keys(const kernels::KernelTable& table, int stream, int64_t kv_head, int64_t block, float* scratch) const {
  return Decode(table, keys_, KeyPlane(stream, kv_head, block), block_positions_ * head_dim_, scratch);
}

const float* KvCache::Values(const kernels::KernelTable& table, int stream, int64_t kv_head, int64_t block, float* scratch) const {
  return Decode(table, values_, ValuePlane(stream, kv_head, block), block_positions_ * value_panels_ * kBlockRows, scratch);
}

}  // namespace nibble
