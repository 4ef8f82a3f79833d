#include "core/runtime/kv_cache.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/base/check.h"
#include "core/base/divide.h"
#include "core/quant/integer_grid.h"
#include "core/tensor/dtype.h"

namespace nibble {
namespace {

using kernels::kBlockRows;

}  // namespace

int CacheBits(CacheType type) {
  switch (type) {
    case CacheType::kFp32: return 32;
    case CacheType::kFp16:
    case CacheType::kBf16: return 16;
    case CacheType::kInt8: return 8;
    case CacheType::kInt4: return 4;
  }
  return 0;
}

CacheType CacheTypeOf(const QuantScheme& scheme) {
  if (scheme.format() == "fp32") return CacheType::kFp32;
  if (scheme.format() == "fp16") return CacheType::kFp16;
  if (scheme.format() == "bf16") return CacheType::kBf16;
  return scheme.format() == "int8" ? CacheType::kInt8 : CacheType::kInt4;
}

QuantScheme CacheScheme(CacheType type, int64_t head_dim) {
  switch (type) {
    case CacheType::kFp32: return FloatScheme("fp32");
    case CacheType::kFp16: return FloatScheme("fp16");
    case CacheType::kBf16: return FloatScheme("bf16");
    default: return ir::IntegerCacheScheme(CacheBits(type), /*asymmetric=*/true, head_dim);
  }
}

CacheSchemes CacheSchemesOf(const ir::Op& op, std::optional<CacheType> type) {
  const CacheType products = op.activation.has_value() ? CacheType::kBf16 : CacheType::kFp32;
  const QuantScheme otherwise = CacheScheme(type.value_or(products), op.head_dim);
  return {op.keys.value_or(otherwise), op.values.value_or(otherwise)};
}

KvCache::KvCache(const CacheSchemes& schemes, int streams, int64_t kv_heads, int64_t head_dim, int64_t max_positions, bool pairs)
    : kv_heads_(kv_heads),
      head_dim_(head_dim),
      value_panels_(CeilDiv(head_dim, kBlockRows)),
      block_positions_(std::min(kernels::kPanelDepth, CeilDiv(max_positions, kBlockRows) * kBlockRows)),
      blocks_(CeilDiv(max_positions, block_positions_)),
      pairs_(pairs) {
  const int64_t positions = streams * kv_heads * blocks_ * block_positions_;
  keys_.scheme = schemes.keys;
  values_.scheme = schemes.values;
  for (Plane* plane : {&keys_, &values_}) {
    plane->type = CacheTypeOf(plane->scheme);
    if (plane->integer()) plane->scales.resize(positions), plane->lows.resize(positions);
    NIBBLE_CHECK(!pairs || (plane->type == CacheType::kBf16 && head_dim % 2 == 0));
  }
  // A kernel may read one panel beyond an odd number of them.
  keys_.elements.resize((positions + kBlockRows) * head_dim * CacheBits(keys_.type) / 8);
  values_.elements.resize((positions * value_panels_ + block_positions_) * kBlockRows * CacheBits(values_.type) / 8);
}

int64_t KvCache::block_floats() const {
  return std::max((block_positions_ + kBlockRows) * head_dim_, (value_panels_ + 1) * value_step());
}

int64_t KvCache::byte_size() const {
  return static_cast<int64_t>(keys_.elements.size() + values_.elements.size() + 8 * (keys_.scales.size() + values_.scales.size()));
}

int64_t KvCache::FirstPosition(int stream, int64_t kv_head, int64_t block) const {
  return ((stream * kv_heads_ + kv_head) * blocks_ + block) * block_positions_;
}

void KvCache::Put(Plane& plane, int64_t i, float value) const {
  if (plane.type == CacheType::kFp32) {
    std::memcpy(plane.elements.data() + 4 * i, &value, 4);
  } else {
    const uint16_t half = plane.type == CacheType::kFp16 ? FloatToFp16(value) : FloatToBf16(value);
    std::memcpy(plane.elements.data() + 2 * i, &half, 2);
  }
}

template <typename At>
void KvCache::PutHead(Plane& plane, int64_t position, const float* x, const At& at) const {
  if (!plane.integer()) {
    for (int64_t c = 0; c < head_dim_; ++c) Put(plane, at(c), x[c]);
    return;
  }
  const int bits = CacheBits(plane.type);
  const bool finite = std::all_of(x, x + head_dim_, [](float v) { return std::isfinite(v); });
  const auto chosen = ChooseGrid(plane.scheme, bits, absl::MakeConstSpan(x, head_dim_));
  const bool encodes = finite && chosen.ok();
  // What is not finite has no grid, and comes back as NaN.
  const Grid grid = encodes ? *chosen : Grid{std::numeric_limits<float>::quiet_NaN(), 1, 0};
  plane.scales[position] = grid.scale;
  plane.lows[position] = -grid.scale * static_cast<float>(grid.zero);
  for (int64_t c = 0; c < head_dim_; ++c) {
    const uint8_t code = encodes ? static_cast<uint8_t>(EncodeValue(grid, x[c], (1 << bits) - 1)) : 0;
    const int64_t i = at(c);
    if (plane.type == CacheType::kInt8) {
      plane.elements[i] = code;
    } else {
      const int64_t lane = i % kBlockRows;
      uint8_t& byte = plane.elements[i / kBlockRows * 8 + lane % 8];
      byte = lane < 8 ? static_cast<uint8_t>((byte & 0xF0) | code) : static_cast<uint8_t>((byte & 0x0F) | code << 4);
    }
  }
}

void KvCache::Store(int stream, int64_t kv_head, int64_t position, const float* k, const float* v) {
  const int64_t first = FirstPosition(stream, kv_head, position / block_positions_), p = position % block_positions_;
  if (pairs_) return StorePair(first, p, k, v);
  const int64_t key = first * head_dim_ + p / kBlockRows * key_step() + p % kBlockRows;
  const int64_t value = first * value_panels_ * kBlockRows + p * kBlockRows;
  PutHead(keys_, first + p, k, [&](int64_t c) { return key + c * kBlockRows; });
  PutHead(values_, first + p, v, [&](int64_t c) { return value + c / kBlockRows * value_step() + c % kBlockRows; });
}

void KvCache::StorePair(int64_t first, int64_t p, const float* k, const float* v) {
  auto* key = reinterpret_cast<uint16_t*>(keys_.elements.data()) + first * head_dim_ + p / kBlockRows * kBlockRows * head_dim_ + p % kBlockRows * 2;
  for (int64_t c = 0; c < head_dim_; c += 2, key += 2 * kBlockRows) {
    key[0] = FloatToBf16(k[c]);
    key[1] = FloatToBf16(k[c + 1]);
  }
  auto* value = reinterpret_cast<uint16_t*>(values_.elements.data()) + first * value_panels_ * kBlockRows + p / 2 * 2 * kBlockRows;
  for (int64_t begin = 0; begin < head_dim_; begin += kBlockRows, value += block_positions_ * kBlockRows) {
    for (int64_t c = 0; c < std::min(kBlockRows, head_dim_ - begin); ++c) {
      value[2 * c + p % 2] = FloatToBf16(v[begin + c]);
      if (p % 2 == 0) value[2 * c + 1] = 0;
    }
  }
}

void KvCache::Decode(const kernels::KernelTable& table, const Plane& plane, int64_t begin, int64_t n, bool by_lane, int64_t position,
                     float* out) const {
  const uint8_t* at = plane.elements.data() + begin * CacheBits(plane.type) / 8;
  switch (plane.type) {
    case CacheType::kFp32: return;
    case CacheType::kFp16: return table.convert_fp16(reinterpret_cast<const uint16_t*>(at), n * kBlockRows, out);
    case CacheType::kBf16: return table.convert_bf16(reinterpret_cast<const uint16_t*>(at), n * kBlockRows, out);
    case CacheType::kInt8:
    case CacheType::kInt4:
      table.decode_cache(at, CacheBits(plane.type), n, by_lane, plane.scales.data() + position, plane.lows.data() + position, out);
  }
}

const float* KvCache::Keys(const kernels::KernelTable& table, int stream, int64_t kv_head, int64_t block, int64_t stored,
                           float* scratch) const {
  const int64_t first = FirstPosition(stream, kv_head, block), begin = first * head_dim_;
  if (keys_.type == CacheType::kFp32) return reinterpret_cast<const float*>(keys_.elements.data()) + begin;
  if (pairs_) return reinterpret_cast<const float*>(keys_.elements.data()) + begin / 2;
  for (int64_t p = 0; p < stored; p += kBlockRows) {
    Decode(table, keys_, begin + p * head_dim_, head_dim_, true, first + p, scratch + p * head_dim_);
  }
  return scratch;
}

const float* KvCache::Values(const kernels::KernelTable& table, int stream, int64_t kv_head, int64_t block, int64_t stored,
                             float* scratch) const {
  const int64_t first = FirstPosition(stream, kv_head, block), begin = first * value_panels_ * kBlockRows;
  if (values_.type == CacheType::kFp32) return reinterpret_cast<const float*>(values_.elements.data()) + begin;
  if (pairs_) return reinterpret_cast<const float*>(values_.elements.data()) + begin / 2;
  for (int64_t panel = 0; panel < value_panels_; ++panel) {
    Decode(table, values_, begin + panel * value_step(), stored, false, first, scratch + panel * value_step());
  }
  return scratch;
}

}  // namespace nibble
