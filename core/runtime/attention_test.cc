#include "core/runtime/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/rng.h"
#include "core/base/testing.h"
#include "core/quant/integer_grid.h"
#include "core/tensor/half.h"

namespace nibble {
namespace {

struct Shape {
  int64_t heads, kv_heads, head_dim;
  std::optional<int64_t> window;
};

ir::Op MakeOp(const Shape& shape) {
  ir::Op op;
  op.kind = ir::OpKind::kAttention;
  op.heads = shape.heads;
  op.kv_heads = shape.kv_heads;
  op.head_dim = shape.head_dim;
  op.sliding_window = shape.window;
  return op;
}

// What a cache gives back for a head of d channels.
std::vector<float> StoredHead(CacheType type, const float* x, int64_t d) {
  std::vector<float> stored(x, x + d);
  switch (type) {
    case CacheType::kFp32: break;
    case CacheType::kFp16:
    case CacheType::kBf16:
      for (float& value : stored) value = type == CacheType::kFp16 ? Fp16ToFloat(FloatToFp16(value)) : Bf16ToFloat(FloatToBf16(value));
      break;
    case CacheType::kInt8:
    case CacheType::kInt4:
      EXPECT_OK(FakeQuantizeRows(CacheScheme(type, d), 1, d, stored.data()));
  }
  return stored;
}

// The same for every head in x.
std::vector<float> StoredHeads(CacheType type, const std::vector<float>& x, int64_t d) {
  std::vector<float> stored;
  for (size_t i = 0; i < x.size(); i += d) {
    const std::vector<float> head = StoredHead(type, x.data() + i, d);
    stored.insert(stored.end(), head.begin(), head.end());
  }
  return stored;
}

// Queries, keys and values of one stream, and attention by its definition.
struct Sequence {
  Sequence(const Shape& shape, int64_t length, Rng& rng) : shape(shape), length(length) {
    const auto fill = [&](std::vector<float>& v, int64_t n) {
      for (int64_t i = 0; i < n; ++i) v.push_back(rng.Normal());
    };
    fill(q, length * shape.heads * shape.head_dim);
    fill(k, length * shape.kv_heads * shape.head_dim);
    fill(v, length * shape.kv_heads * shape.head_dim);
  }

  // Attention over keys and values as they are stored.
  double Expected(const std::vector<float>& k, const std::vector<float>& v, int64_t t, int64_t head, int64_t channel) const {
    const int64_t d = shape.head_dim, kv_width = shape.kv_heads * d, kv = head / (shape.heads / shape.kv_heads) * d;
    const int64_t oldest = shape.window.has_value() ? std::max<int64_t>(0, t + 1 - *shape.window) : 0;
    double total = 0, sum = 0;
    for (int64_t p = oldest; p <= t; ++p) {
      double score = 0;
      for (int64_t c = 0; c < d; ++c) {
        score += static_cast<double>(q[(t * shape.heads + head) * d + c]) * k[p * kv_width + kv + c];
      }
      const double e = std::exp(score / std::sqrt(static_cast<double>(d)));
      total += e;
      sum += e * v[p * kv_width + kv + channel];
    }
    return sum / total;
  }

  Shape shape;
  int64_t length;
  std::vector<float> q, k, v;
};

class EveryTable : public ::testing::TestWithParam<const kernels::KernelTable*> {};

INSTANTIATE_TEST_SUITE_P(Attention, EveryTable, ::testing::ValuesIn(kernels::AvailableTables()),
                         [](const auto& info) { return info.param->name; });

// A prompt and then tokens one by one, over several blocks of positions.
std::vector<float> Attend(const kernels::KernelTable& table, const Sequence& s, CacheType type, int64_t prompt, int threads, bool rounds = false) {
  ir::Op op = MakeOp(s.shape);
  if (rounds) op.activation = FloatScheme("bf16");
  const int64_t q_width = s.shape.heads * s.shape.head_dim, kv_width = s.shape.kv_heads * s.shape.head_dim;
  ThreadPool pool(threads);
  const CacheSchemes schemes = {CacheScheme(type, s.shape.head_dim), CacheScheme(type, s.shape.head_dim)};
  KvCache cache(schemes, 2, s.shape.kv_heads, s.shape.head_dim, s.length, Attention::ReadsPairs(op, schemes, table));
  Attention attention(op, table);
  std::vector<float> out(s.length * q_width);
  for (int64_t begin = 0; begin < s.length; begin = std::max(begin + 1, prompt)) {
    const int64_t count = begin == 0 ? prompt : 1;
    for (int64_t p = begin; p < begin + count; ++p) {
      for (int64_t h = 0; h < s.shape.kv_heads; ++h) {
        const int64_t at = p * kv_width + h * s.shape.head_dim;
        cache.Store(1, h, p, s.k.data() + at, s.v.data() + at);
      }
    }
    attention.Run(cache, {{1, begin, 0, count}}, s.q.data() + begin * q_width, out.data() + begin * q_width, pool);
  }
  return out;
}

TEST_P(EveryTable, PromptsAndTokensAgreeWithTheDefinition) {
  Rng rng(1);
  const Shape shapes[] = {{4, 1, 64, {}}, {3, 3, 12, {}}, {9, 3, 20, 37}, {2, 1, 5, 300}, {8, 2, 128, {}}};
  for (const Shape& shape : shapes) {
    for (const CacheType type : {CacheType::kFp32, CacheType::kFp16, CacheType::kBf16, CacheType::kInt8, CacheType::kInt4}) {
      const Sequence s(shape, type == CacheType::kFp32 ? 530 : 270, rng);
      const std::vector<float> out = Attend(*GetParam(), s, type, s.length - 10, 2);
      const std::vector<float> k = StoredHeads(type, s.k, shape.head_dim), v = StoredHeads(type, s.v, shape.head_dim);
      for (int64_t t = 0; t < s.length; t += t < 20 || t > s.length - 20 ? 1 : 13) {
        const int64_t head = static_cast<int64_t>(rng.Below(shape.heads)), channel = static_cast<int64_t>(rng.Below(shape.head_dim));
        ASSERT_NEAR(out[(t * shape.heads + head) * shape.head_dim + channel], s.Expected(k, v, t, head, channel), 3e-6)
            << "token " << t << " head " << head << " of " << shape.heads << "/" << shape.kv_heads;
      }
    }
  }
}

// What bf16 products are defined to do, on a table that may have none.
void MultiplyPairs(const float* panels, int64_t panel_step, int64_t rows, int64_t pairs, const float* tile, int64_t tokens, bool accumulate,
                   float* y, int64_t ldy) {
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < rows; ++r) {
      const auto* w = reinterpret_cast<const uint16_t*>(panels + r / kernels::kBlockRows * panel_step + r % kernels::kBlockRows);
      const auto* x = reinterpret_cast<const uint16_t*>(tile + t * kernels::kTileStride);
      float sum = 0;
      for (int64_t k = 0; k < 2 * pairs; ++k) sum += Bf16ToFloat(w[k / 2 * 2 * kernels::kBlockRows + k % 2]) * Bf16ToFloat(x[k]);
      y[t * ldy + r] = accumulate ? y[t * ldy + r] + sum : sum;
    }
  }
}

kernels::KernelTable WithPairs(kernels::KernelTable table) {
  table.multiply_bf16_panels = MultiplyPairs;
  table.round_to_bf16 = [](const float* x, int64_t n, uint16_t* out) { std::transform(x, x + n, out, [](float v) { return FloatToBf16(v); }); };
  return table;
}

kernels::KernelTable WithoutPairs(kernels::KernelTable table) {
  table.multiply_bf16_panels = nullptr;
  return table;
}

// A softmax weight is off by at most 2^-9 of itself, so a sum of values by 2^-9 of their
// mean size and what rounded scores (within 1e-5 here) make of it.
TEST_P(EveryTable, RoundedProductsAgreeWithTheDefinition) {
  Rng rng(3);
  const Shape shapes[] = {{4, 1, 64, {}}, {3, 3, 12, {}}, {9, 3, 20, 37}, {2, 1, 5, 300}, {8, 2, 128, {}}};
  for (const Shape& shape : shapes) {
    const int64_t d = shape.head_dim;
    Sequence s(shape, 271, rng);
    std::vector<std::vector<float>> outs;
    for (const kernels::KernelTable& table : {*GetParam(), WithPairs(*GetParam()), WithoutPairs(*GetParam())}) {
      outs.push_back(Attend(table, s, CacheType::kBf16, 261, 2, /*rounds=*/true));
    }
    const std::vector<float> k = StoredHeads(CacheType::kBf16, s.k, d), v = StoredHeads(CacheType::kBf16, s.v, d);
    const float scale = 1 / std::sqrt(static_cast<float>(d));
    for (float& q : s.q) q = Bf16ToFloat(FloatToBf16(scale * q)) / scale;
    for (int64_t t = 0; t < s.length; t += t < 20 || t > s.length - 20 ? 1 : 13) {
      const int64_t head = static_cast<int64_t>(rng.Below(shape.heads)), channel = static_cast<int64_t>(rng.Below(d));
      const double expected = s.Expected(k, v, t, head, channel);
      const float bound = t == 0 ? 3e-6f : 6e-3f;  // one weight, 1, is exact
      for (const auto& out : outs) ASSERT_NEAR(out[(t * shape.heads + head) * d + channel], expected, bound) << "token " << t << " of " << d;
    }
  }
}

// Values beyond an odd number of them belong to an earlier text.
TEST_P(EveryTable, PairsForgetWhatWasRewound) {
  Rng rng(4);
  const Shape shape = {2, 1, 16, {}};
  Sequence s(shape, 9, rng);
  ir::Op op = MakeOp(shape);
  op.activation = FloatScheme("bf16");
  const kernels::KernelTable table = WithPairs(*GetParam());
  ThreadPool pool(1);
  const CacheSchemes schemes = CacheSchemesOf(op, std::nullopt);
  const auto run = [&](bool used) {
    KvCache cache(schemes, 1, 1, 16, 9, /*pairs=*/true);
    const std::vector<float> endless(16, std::numeric_limits<float>::infinity());
    for (int64_t p = 0; used && p < 9; ++p) cache.Store(0, 0, p, endless.data(), endless.data());
    for (int64_t p = 0; p < 7; ++p) cache.Store(0, 0, p, s.k.data() + 16 * p, s.v.data() + 16 * p);
    std::vector<float> out(7 * 32);
    Attention(op, table).Run(cache, {{0, 0, 0, 7}}, s.q.data(), out.data(), pool);
    return out;
  };
  EXPECT_EQ(run(true), run(false));
}

TEST_P(EveryTable, ThreadsDoNotChangeTheResult) {
  Rng rng(2);
  const Sequence s({6, 2, 16, {}}, 300, rng);
  const std::vector<float> once = Attend(*GetParam(), s, CacheType::kFp32, 290, 1);
  EXPECT_EQ(once, Attend(*GetParam(), s, CacheType::kFp32, 290, 2));
  EXPECT_EQ(once, Attend(*GetParam(), s, CacheType::kFp32, 290, 3));
}

TEST(KvCacheTest, IntegersKeepConstantsAndSurviveBadValues) {
  const auto& table = *kernels::AvailableTables().front();
  for (const CacheType type : {CacheType::kInt8, CacheType::kInt4}) {
    KvCache cache({CacheScheme(type, 4), CacheScheme(type, 4)}, 1, 1, 4, 16);
    const float infinity = std::numeric_limits<float>::infinity();
    const std::vector<float> constant(4, -2.5f), bad = {1, std::nanf(""), 2, 3}, endless = {1, infinity, 2, 3};
    cache.Store(0, 0, 0, constant.data(), constant.data());
    cache.Store(0, 0, 1, bad.data(), bad.data());
    cache.Store(0, 0, 2, endless.data(), endless.data());
    std::vector<float> scratch(cache.block_floats());
    const float* keys = cache.Keys(table, 0, 0, 0, 3, scratch.data());
    for (int c = 0; c < 4; ++c) {
      EXPECT_NEAR(keys[c * kernels::kBlockRows], -2.5f, 1e-6);
      for (int position : {1, 2}) EXPECT_FALSE(std::isfinite(keys[c * kernels::kBlockRows + position]));
    }
  }
}

TEST(KvCacheTest, KeysAndValuesApart) {
  const auto& table = *kernels::AvailableTables().front();
  KvCache cache({CacheScheme(CacheType::kInt4, 4), CacheScheme(CacheType::kFp32, 4)}, 1, 1, 4, 16);
  const std::vector<float> x = {0.1f, 0.7f, -1.3f, 0.2f};
  cache.Store(0, 0, 0, x.data(), x.data());
  std::vector<float> scratch(cache.block_floats()), expected = x;
  ASSERT_OK(FakeQuantizeRows(CacheScheme(CacheType::kInt4, 4), 1, 4, expected.data()));
  const float* keys = cache.Keys(table, 0, 0, 0, 1, scratch.data());
  for (int c = 0; c < 4; ++c) EXPECT_NEAR(keys[c * kernels::kBlockRows], expected[c], 1e-6);
  const float* values = cache.Values(table, 0, 0, 0, 1, scratch.data());
  for (int c = 0; c < 4; ++c) EXPECT_EQ(values[c], x[c]);
}

TEST(KvCacheTest, BytesFollowTheSchemes) {
  const auto bytes = [](CacheType keys, CacheType values) {
    return KvCache({CacheScheme(keys, 64), CacheScheme(values, 64)}, 1, 8, 64, 2048).byte_size();
  };
  const int64_t full = bytes(CacheType::kFp32, CacheType::kFp32), scales = 2 * 4 * 8 * 2048;  // a scale and a least value for each head
  EXPECT_EQ(bytes(CacheType::kFp16, CacheType::kFp16) * 2, full);
  EXPECT_EQ(bytes(CacheType::kInt4, CacheType::kInt4), full / 8 + 2 * scales);
  EXPECT_EQ(bytes(CacheType::kInt4, CacheType::kFp32) + bytes(CacheType::kFp32, CacheType::kInt4), full + bytes(CacheType::kInt4, CacheType::kInt4));
  EXPECT_LT(full, 1.02 * 2 * 8 * 64 * 2048 * 4);
}

}  // namespace
}  // namespace nibble
