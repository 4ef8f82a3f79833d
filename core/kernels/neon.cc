// The table for AArch64 with the dot-product extension (Cortex-A76, Neoverse N1,
// Apple M1 and later). A 128-bit register holds four columns of four rows, so a
// block's 16 rows take four. SDOT multiplies signed bytes by signed bytes: codes
// of up to four bits go as they are, 8-bit codes as u - 128, and the sum of the
// activations' codes makes up for that.

#include <arm_neon.h>

#include "core/kernels/instruction_sets.h"

namespace nibble::kernels {
namespace {

using V = float32x4_t;
using VI = int32x4_t;
constexpr int kLanes = 4;

inline V Load(const float* p) { return vld1q_f32(p); }
inline V LoadPart(const float* p, int64_t n, float rest) {
  switch (n) {
    case 0: return vdupq_n_f32(rest);
    case 1: return vld1q_lane_f32(p, vdupq_n_f32(rest), 0);
    case 2: return vcombine_f32(vld1_f32(p), vdup_n_f32(rest));
    case 3: return vld1q_lane_f32(p + 2, vcombine_f32(vld1_f32(p), vdup_n_f32(rest)), 2);
    default: return Load(p);
  }
}
inline void Store(float* p, V v) { vst1q_f32(p, v); }
inline void StorePart(float* p, int64_t n, V v) {
  if (n >= 2) vst1_f32(p, vget_low_f32(v));
  if (n == 1) vst1q_lane_f32(p, v, 0);
  if (n == 3) vst1q_lane_f32(p + 2, v, 2);
}
inline V LoadBf16(const uint16_t* p) { return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(p)), 16)); }
// Two vectors of columns as they come.
inline void LoadTwoBf16(const uint16_t* p, V* two) { two[0] = LoadBf16(p), two[1] = LoadBf16(p + kLanes); }
inline void MatchTwoBf16(V*) {}
inline V LoadFp16(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
inline V Set(float x) { return vdupq_n_f32(x); }
inline V Add(V a, V b) { return vaddq_f32(a, b); }
inline V Subtract(V a, V b) { return vsubq_f32(a, b); }
inline V Mul(V a, V b) { return vmulq_f32(a, b); }
inline V Div(V a, V b) { return vdivq_f32(a, b); }
inline V Fma(V a, V b, V c) { return vfmaq_f32(c, a, b); }
inline V FmaSplat(V a, const float* x, V c) { return Fma(a, Set(*x), c); }
inline V NegativeFma(V a, V b, V c) { return vfmsq_f32(c, a, b); }
// The second operand where either is NaN, which FMIN and FMAX would not give.
inline V Min(V a, V b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
inline V Max(V a, V b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
inline float SumLanes(V v) { return vaddvq_f32(v); }
inline float MaxOfLanes(V v) { return vmaxvq_f32(v); }
inline float SquareRoot(float x) { return vget_lane_f32(vsqrt_f32(vdup_n_f32(x)), 0); }
inline V ZeroWhereLess(V x, V limit, V v) {
  return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v), vcltq_f32(x, limit)));
}
inline VI RoundToInt(V v) { return vcvtnq_s32_f32(v); }
inline V ToFloat(VI v) { return vcvtq_f32_s32(v); }
inline VI SetInt(int32_t x) { return vdupq_n_s32(x); }
inline VI AddInt(VI a, VI b) { return vaddq_s32(a, b); }
inline VI SubtractInt(VI a, VI b) { return vsubq_s32(a, b); }
inline VI MinInt(VI a, VI b) { return vminq_s32(a, b); }
inline VI MaxInt(VI a, VI b) { return vmaxq_s32(a, b); }
inline VI Half(VI v) { return vshrq_n_s32(v, 1); }
inline V PowerOfTwo(VI n) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23)); }
inline void StoreBytes(int8_t* p, VI v) {
  const int16x4_t words = vmovn_s32(v);
  const int32_t bytes = vget_lane_s32(vreinterpret_s32_s8(vmovn_s16(vcombine_s16(words, words))), 0);
  __builtin_memcpy(p, &bytes, 4);
}

// Codes of vector v of a row of a KV cache (KernelFunctions::decode_cache).
template <int kBits>
inline VI CacheCodes(const uint8_t* row, int v) {
  uint8x8_t bytes = vld1_u8(row + (kBits == 8 ? v / 2 * 8 : 0));
  if (kBits == 4) bytes = v < 2 ? vand_u8(bytes, vdup_n_u8(15)) : vshr_n_u8(bytes, 4);
  const uint16x8_t words = vmovl_u8(bytes);
  return vreinterpretq_s32_u32(vmovl_u16(v % 2 == 0 ? vget_low_u16(words) : vget_high_u16(words)));
}

// Sum of 32 signed bytes.
inline int32_t SumBytes(const int8_t* p) {
  const int8x16_t ones = vdupq_n_s8(1);
  return vaddvq_s32(vdotq_s32(vdotq_s32(SetInt(0), vld1q_s8(p), ones), vld1q_s8(p + 16), ones));
}

// The tile of a float product: 24 sums, four vectors of weights, one of x.
constexpr int kSumTokens = 6, kSumVectors = 4;

// Independent multiply-adds of a probe: four units with a latency of four.
constexpr int kProbeChains = 16;

// rows[i] becomes column i.
inline void Transpose(V* rows) {
  const auto wide = [](V v) { return vreinterpretq_f64_f32(v); };
  const auto narrow = [](float64x2_t v) { return vreinterpretq_f32_f64(v); };
  const V even01 = vtrn1q_f32(rows[0], rows[1]), odd01 = vtrn2q_f32(rows[0], rows[1]);
  const V even23 = vtrn1q_f32(rows[2], rows[3]), odd23 = vtrn2q_f32(rows[2], rows[3]);
  rows[0] = narrow(vtrn1q_f64(wide(even01), wide(even23)));
  rows[1] = narrow(vtrn1q_f64(wide(odd01), wide(odd23)));
  rows[2] = narrow(vtrn2q_f64(wide(even01), wide(even23)));
  rows[3] = narrow(vtrn2q_f64(wide(odd01), wide(odd23)));
}

#include "core/kernels/vector_body.inc"

// Zero points of a block's 16 rows in group g.
inline void ReadZeros(const PackedIntegers& w, int64_t block, int64_t g, VI* zeros) {
  if (w.zeros == nullptr) {
    for (int v = 0; v < kBlockVectors; ++v) zeros[v] = SetInt(w.zero);
    return;
  }
  const uint8x16_t bytes = vld1q_u8(w.zeros + (block * w.groups + g) * kBlockRows);
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_u8(vget_high_u8(bytes));
  zeros[0] = vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low)));
  zeros[1] = vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(low)));
  zeros[2] = vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high)));
  zeros[3] = vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(high)));
}

inline void ReadStoredScales(const PackedIntegers& w, int64_t at, V* scales) {
  const auto read = [scales](auto* from, auto load) {
#pragma GCC unroll 4
    for (int v = 0; v < kBlockVectors; ++v) scales[v] = load(from + v * kLanes);
  };
  switch (w.scale_type) {
    case ScaleType::kFp16: return read(static_cast<const uint16_t*>(w.scales) + at, LoadFp16);
    case ScaleType::kBf16: return read(static_cast<const uint16_t*>(w.scales) + at, LoadBf16);
    default: return read(static_cast<const float*>(w.scales) + at, Load);
  }
}

// Scales of the same rows.
inline void ReadScales(const PackedIntegers& w, int64_t block, int64_t g, V* scales) {
  ReadStoredScales(w, ScalePlace(w, block, g), scales);
  if (__builtin_expect(w.scale_codes == nullptr, 1)) return;
  const int8x16_t codes = vld1q_s8(w.scale_codes + (block * w.groups + g) * kBlockRows);
  const int16x8_t low = vmovl_s8(vget_low_s8(codes)), high = vmovl_s8(vget_high_s8(codes));
  const VI factors[kBlockVectors] = {vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)), vmovl_s16(vget_low_s16(high)),
                                     vmovl_s16(vget_high_s16(high))};
#pragma GCC unroll 4
  for (int v = 0; v < kBlockVectors; ++v) scales[v] = Mul(scales[v], ToFloat(factors[v]));
}

inline void StoreRows(float* y, int64_t rows, V v) {
  if (rows >= kLanes) Store(y, v);
  else if (rows > 0) StorePart(y, rows, v);
}

// y of one token and four rows from their sum over groups.
inline void Finish(const PackedIntegers& w, int64_t block, int v, const QuantizedRows& x, int64_t token, V sum, float* y,
                   int64_t ldy) {
  const int64_t row = block * kBlockRows + v * kLanes;
  const V correction = Mul(Set(static_cast<float>(x.zeros[token])), Load(w.weight_sums + row));
  StoreRows(y + token * ldy + row, w.rows - row, Mul(Set(x.scales[token]), Subtract(sum, correction)));
}

// Signed codes are u - offset.
inline int32_t OffsetOf(const PackedIntegers& w) { return w.bits == 8 ? 128 : 0; }

// Products with signed codes become those with u - zero by adding (offset -
// zero) times the sum of the token's codes over the group. Where all groups
// have one zero, that is the same number for every row; else it is the sum
// times a factor for each row.
inline void ReadFactors(const PackedIntegers& w, int64_t block, int64_t g, VI* factors) {
#pragma GCC unroll 4
  for (int v = 0; v < kBlockVectors; ++v) factors[v] = SetInt(1);
  if (__builtin_expect(w.zeros == nullptr, 1)) return;
  ReadZeros(w, block, g, factors);
#pragma GCC unroll 4
  for (int v = 0; v < kBlockVectors; ++v) factors[v] = SubtractInt(SetInt(OffsetOf(w)), factors[v]);
}

// What the factors multiply. group_terms have the sum, or -zero times it.
inline int32_t TermOf(const PackedIntegers& w, int64_t g, const QuantizedRows& x, int64_t token) {
  const int32_t term = x.group_terms[g * x.term_stride + token], offset = OffsetOf(w);
  if (w.zeros != nullptr || offset == 0) return term;
  if (w.zero != 0) return term + offset * (term / -w.zero);
  return offset * SumCodes(x.codes + token * x.stride + g * w.padded_group, GroupColumns(w, g));
}

// Codes as a weight packs them, kQuads quads of columns in a chunk of 64 bytes.
template <int kBits>
struct Packed {
  static constexpr int kQuads = 8 / kBits;
  static constexpr bool kPrefetch = true;
  // Quad kIndex of four rows as signed bytes.
  template <int kIndex>
  static inline int8x16_t Quad(uint8x16_t chunk) {
    if constexpr (kBits == 8) return vreinterpretq_s8_u8(veorq_u8(chunk, vdupq_n_u8(128)));
    if constexpr (kIndex > 0) chunk = vshrq_n_u8(chunk, kBits * kIndex);
    if constexpr (kIndex + 1 < kQuads) chunk = vandq_u8(chunk, vdupq_n_u8((1 << kBits) - 1));
    return vreinterpretq_s8_u8(chunk);
  }
};

// Codes of a panel: signed bytes in the order of 8-bit codes.
struct Spread {
  static constexpr int kQuads = 1;
  static constexpr bool kPrefetch = false;
  template <int kIndex>
  static inline int8x16_t Quad(uint8x16_t chunk) { return vreinterpretq_s8_u8(chunk); }
};

// One token has two sums for each vector of rows: four would not hide the
// latency of the instruction.
template <int kTokens>
constexpr int kChains = kTokens == 1 ? 2 : 1;

// acc += products of quads kQuad to kQuads - 1 of `chunks` and codes[t].
template <typename Codes, int kTokens, int kQuads, int kQuad = 0>
inline __attribute__((always_inline)) void AddQuads(const uint8_t* chunks, const int8x16_t* codes, VI (*acc)[kBlockVectors]) {
  constexpr int kFirst = kQuad % kChains<kTokens> * kTokens;
  const uint8_t* at = chunks + 64 * (kQuad / Codes::kQuads);
#pragma GCC unroll 4
  for (int v = 0; v < kBlockVectors; ++v) {
    const int8x16_t weights = Codes::template Quad<kQuad % Codes::kQuads>(vld1q_u8(at + 16 * v));
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) acc[kFirst + t][v] = vdotq_laneq_s32(acc[kFirst + t][v], weights, codes[t], kQuad);
  }
  if constexpr (kQuad + 1 < kQuads) AddQuads<Codes, kTokens, kQuads, kQuad + 1>(chunks, codes, acc);
}

// The first kQuads quads of activations; the rest is not read.
template <int kQuads>
inline int8x16_t LoadQuads(const int8_t* codes) {
  int8_t quads[16] = {};
  __builtin_memcpy(quads, codes, 4 * kQuads);
  return vld1q_s8(quads);
}

// acc += products of `quads` quads, whole chunks, four quads at a time.
template <typename Codes, int kTokens>
inline __attribute__((always_inline)) void AddColumns(const uint8_t* chunks, const int8_t* codes, int64_t stride, int64_t quads,
                                                      VI (*acc)[kBlockVectors]) {
  constexpr int kStep = 256 / Codes::kQuads;  // bytes of chunks that hold four quads
  int8x16_t x[kTokens];
  for (; quads >= 4; quads -= 4, chunks += kStep, codes += 16) {
#pragma GCC unroll 4
    for (int i = 0; Codes::kPrefetch && i < kStep; i += 64) __builtin_prefetch(chunks + kPrefetchBytes + i);
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) x[t] = vld1q_s8(codes + t * stride);
    AddQuads<Codes, kTokens, 4>(chunks, x, acc);
  }
  for (; quads > 0; quads -= Codes::kQuads, chunks += 64, codes += 4 * Codes::kQuads) {
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) x[t] = LoadQuads<Codes::kQuads>(codes + t * stride);
    AddQuads<Codes, kTokens, Codes::kQuads>(chunks, x, acc);
  }
}

// Sums of products start from 0.
template <int kTokens>
inline __attribute__((always_inline)) void Clear(VI (*acc)[kBlockVectors]) {
#pragma GCC unroll 4
  for (int t = 0; t < kChains<kTokens> * kTokens; ++t) {
#pragma GCC unroll 4
    for (int v = 0; v < kBlockVectors; ++v) acc[t][v] = SetInt(0);
  }
}

// Both sums of one token into the first.
template <int kTokens>
inline __attribute__((always_inline)) void JoinChains(VI (*acc)[kBlockVectors]) {
#pragma GCC unroll 4
  for (int v = 0; kChains<kTokens> == 2 && v < kBlockVectors; ++v) acc[0][v] = AddInt(acc[0][v], acc[1][v]);
}

// Few tokens: codes are read as they are packed.
template <int kBits, int kTokens>
void MultiplyTile(const PackedIntegers& w, int64_t block, const QuantizedRows& x, int64_t token, float* y, int64_t ldy) {
  V sums[kTokens][kBlockVectors];
  for (auto& sum : sums) sum[0] = sum[1] = sum[2] = sum[3] = Set(0.0f);
  for (int64_t g = 0; g < w.groups; ++g) {
    const int64_t begin = g * w.padded_group, chunks = (GroupColumns(w, g) * kBits + 31) / 32;
    PrefetchScales(w, block, g);
    VI acc[kChains<kTokens> * kTokens][kBlockVectors];
    Clear<kTokens>(acc);
    AddColumns<Packed<kBits>, kTokens>(BlockCodes(w, block) + begin * 2 * kBits, x.codes + token * x.stride + begin, x.stride,
                                       chunks * Packed<kBits>::kQuads, acc);
    JoinChains<kTokens>(acc);
    VI factors[kBlockVectors];
    ReadFactors(w, block, g, factors);
    V scales[kBlockVectors];
    ReadScales(w, block, g, scales);
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const int32_t term = TermOf(w, g, x, token + t);
#pragma GCC unroll 4
      for (int v = 0; v < kBlockVectors; ++v) {
        sums[t][v] = Fma(scales[v], ToFloat(vmlaq_n_s32(acc[t][v], factors[v], term)), sums[t][v]);
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int v = 0; v < kBlockVectors; ++v) Finish(w, block, v, x, token + t, sums[t][v], y, ldy);
  }
}

template <int kBits>
void MultiplyPacked(const PackedIntegers& w, int64_t block, const QuantizedRows& x, float* y, int64_t ldy) {
  int64_t t = 0;
  for (; t + 4 <= x.tokens; t += 4) MultiplyTile<kBits, 4>(w, block, x, t, y, ldy);
  for (; t + 2 <= x.tokens; t += 2) MultiplyTile<kBits, 2>(w, block, x, t, y, ldy);
  if (t < x.tokens) MultiplyTile<kBits, 1>(w, block, x, t, y, ldy);
}

void MultiplyIntegers(const PackedIntegers& w, int64_t block, const QuantizedRows& x, float* y, int64_t ldy) {
  switch (w.bits) {
    case 2: return MultiplyPacked<2>(w, block, x, y, ldy);
    case 4: return MultiplyPacked<4>(w, block, x, y, ldy);
    default: return MultiplyPacked<8>(w, block, x, y, ldy);
  }
}

// The quads of a chunk from kQuad on, as a panel keeps them.
template <int kBits, int kQuad = 0>
inline void SpreadChunk(const uint8_t* chunk, uint8_t* out) {
#pragma GCC unroll 4
  for (int v = 0; v < kBlockVectors; ++v) {
    vst1q_u8(out + 64 * kQuad + 16 * v, vreinterpretq_u8_s8(Packed<kBits>::template Quad<kQuad>(vld1q_u8(chunk + 16 * v))));
  }
  if constexpr (kQuad + 1 < Packed<kBits>::kQuads) SpreadChunk<kBits, kQuad + 1>(chunk, out);
}

template <int kBits>
void SpreadCodes(const PackedIntegers& w, int64_t block, const IntegerPanel& panel, uint8_t* out) {
  const uint8_t* chunk = BlockCodes(w, block) + panel.first * 2 * kBits;
  for (int64_t k = 0; k < panel.columns; k += 32 / kBits, chunk += 64) SpreadChunk<kBits>(chunk, out + k * kBlockRows);
}

void SpreadIntegers(const PackedIntegers& w, int64_t block, const IntegerPanel& panel, uint8_t* codes, float* scales) {
  for (int64_t g = 0; g < panel.groups; ++g, scales += kBlockRows) {
    V of_rows[kBlockVectors];
    ReadScales(w, block, panel.group + g, of_rows);
    for (int v = 0; v < kBlockVectors; ++v) Store(scales + v * kLanes, of_rows[v]);
  }
  switch (w.bits) {
    case 2: return SpreadCodes<2>(w, block, panel, codes);
    case 4: return SpreadCodes<4>(w, block, panel, codes);
    default: return SpreadCodes<8>(w, block, panel, codes);
  }
}

// acc += the products that earlier panels left.
template <int kTokens>
inline void AddEarlier(const int32_t* products, VI (*acc)[kBlockVectors]) {
  for (int t = 0; t < kTokens; ++t) {
    for (int v = 0; v < kBlockVectors; ++v) acc[t][v] = AddInt(acc[t][v], vld1q_s32(products + t * kSumStride + v * kLanes));
  }
}

template <int kTokens>
inline void KeepProducts(const VI (*acc)[kBlockVectors], int32_t* products) {
  for (int t = 0; t < kTokens; ++t) {
    for (int v = 0; v < kBlockVectors; ++v) vst1q_s32(products + t * kSumStride + v * kLanes, acc[t][v]);
  }
}

// sums += scale * (products of group g - zero * sum of codes).
template <int kTokens>
inline __attribute__((always_inline)) void AddGroup(const PackedIntegers& w, int64_t block, int64_t g, const QuantizedRows& x,
                                                    int64_t token, const float* scales, const VI (*acc)[kBlockVectors], float* sums) {
  VI factors[kBlockVectors];
  ReadFactors(w, block, g, factors);
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    const int32_t term = TermOf(w, g, x, token + t);
#pragma GCC unroll 4
    for (int v = 0; v < kBlockVectors; ++v) {
      float* sum = sums + t * kSumStride + v * kLanes;
      Store(sum, Fma(Load(scales + v * kLanes), ToFloat(vmlaq_n_s32(acc[t][v], factors[v], term)), Load(sum)));
    }
  }
}

// A tile of kTokens tokens and one block of a panel.
template <int kTokens>
void MultiplyPanelTile(const PackedIntegers& w, int64_t block, const IntegerPanel& panel, const QuantizedRows& x, int64_t token,
                       const IntegerWork& work) {
  float* sums = work.sums + token * kSumStride;
  int32_t* products = work.products + token * kSumStride;
  for (int i = 0; panel.first == 0 && i < kTokens * kBlockVectors; ++i) {
    Store(sums + i / kBlockVectors * kSumStride + i % kBlockVectors * kLanes, Set(0.0f));
  }
  const int8_t* codes = x.codes + token * x.stride + panel.first;
  const uint8_t* weights = work.codes;
  int64_t left = panel.columns / 4;  // quads
  for (int64_t g = 0; g < panel.groups; ++g) {
    const int64_t whole = w.padded_group / 4, quads = panel.groups == 1 || left < whole ? left : whole;
    VI acc[kChains<kTokens> * kTokens][kBlockVectors];
    Clear<kTokens>(acc);
    AddColumns<Spread, kTokens>(weights, codes, x.stride, quads, acc);
    JoinChains<kTokens>(acc);
    if (!panel.starts) AddEarlier<kTokens>(products, acc);
    if (!panel.ends) return KeepProducts<kTokens>(acc, products);
    AddGroup<kTokens>(w, block, panel.group + g, x, token, work.scales + g * kBlockRows, acc, sums);
    weights += 64 * quads, codes += 4 * quads, left -= quads;
  }
}

void MultiplyIntegerPanel(const PackedIntegers& w, int64_t block, int64_t blocks, const IntegerPanel& panel, const QuantizedRows& x,
                          const IntegerWork& work) {
  for (int64_t b = 0; b < blocks; ++b) {
    const IntegerWork own = {work.codes + b * kSpreadBytes * kBlockRows * panel.columns, work.scales + b * panel.groups * kBlockRows,
                             work.sums + b * kBlockRows, work.products + b * kBlockRows};
    int64_t t = 0;
    for (; t + 4 <= x.tokens; t += 4) MultiplyPanelTile<4>(w, block + b, panel, x, t, own);
    for (; t + 2 <= x.tokens; t += 2) MultiplyPanelTile<2>(w, block + b, panel, x, t, own);
    if (t < x.tokens) MultiplyPanelTile<1>(w, block + b, panel, x, t, own);
  }
}

void FinishIntegers(const PackedIntegers& w, int64_t block, int64_t blocks, const QuantizedRows& x, const float* sums, float* y,
                    int64_t ldy) {
  for (int64_t t = 0; t < x.tokens; ++t) {
    for (int64_t i = 0; i < blocks * kBlockVectors; ++i) {
      Finish(w, block + i / kBlockVectors, i % kBlockVectors, x, t, Load(sums + t * kSumStride + i * kLanes), y, ldy);
    }
  }
}

// What codes stand for: u - zero, or with kTable what a table says.
template <int kBits, bool kTable>
struct CodeReader {
  explicit CodeReader(const PackedIntegers& w) : values(w.values) {
    alignas(16) float all[16] = {};
    if constexpr (kTable && kBits <= 4) __builtin_memcpy(all, values, sizeof(float) << kBits);
    bytes = vld1q_u8_x4(reinterpret_cast<const uint8_t*>(all));
  }

  // Four rows as floats, column i of the chunk. The shift is spelled as an
  // operator because the intrinsic takes only literals.
  inline V Read(uint32x4_t chunk, int i, V zeros) const {
    const uint32x4_t code = vandq_u32(chunk >> (8 * (i % 4) + kBits * (i / 4)), vdupq_n_u32((1 << kBits) - 1));
    if constexpr (!kTable) {
      return Subtract(vcvtq_f32_u32(code), zeros);
    } else if constexpr (kBits == 8) {
      const float lanes[4] = {values[vgetq_lane_u32(code, 0)], values[vgetq_lane_u32(code, 1)], values[vgetq_lane_u32(code, 2)],
                              values[vgetq_lane_u32(code, 3)]};
      return vld1q_f32(lanes);
    } else {
      // The four bytes of entry c lie at 4 c.
      const uint32x4_t places = vaddq_u32(vmulq_n_u32(code, 0x04040404u), vdupq_n_u32(0x03020100u));
      return vreinterpretq_f32_u8(vqtbl4q_u8(bytes, vreinterpretq_u8_u32(places)));
    }
  }

  const float* values;
  uint8x16x4_t bytes;
};

inline uint32x4_t LoadWords(const uint8_t* p) { return vreinterpretq_u32_u8(vld1q_u8(p)); }

// A block for kTokens tokens. Without the barriers the compiler reads all of a
// chunk's activations before it uses them, more than registers hold.
template <int kBits, bool kTable, int kTokens>
void MultiplyFloatTile(const PackedIntegers& w, int64_t block, const float* x, int64_t ldx, float* y, int64_t ldy) {
  constexpr int kColumns = 32 / kBits;
  const CodeReader<kBits, kTable> reader(w);
  V totals[kTokens][kBlockVectors];
  for (auto& total : totals) total[0] = total[1] = total[2] = total[3] = Set(0.0f);
  for (int64_t g = 0; g < w.groups; ++g) {
    PrefetchScales(w, block, g);
    V sums[kTokens][kBlockVectors];
    for (auto& sum : sums) sum[0] = sum[1] = sum[2] = sum[3] = Set(0.0f);
    VI zeros[kBlockVectors];
    ReadZeros(w, block, g, zeros);
    const int64_t begin = g * w.padded_group, end = begin + GroupColumns(w, g);
    const uint8_t* chunk = BlockCodes(w, block) + begin * 2 * kBits;
    for (int64_t k = begin; k < end; k += kColumns, chunk += 64) {
      __builtin_prefetch(chunk + kPrefetchBytes);
      uint32x4_t words[kBlockVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kBlockVectors; ++v) words[v] = LoadWords(chunk + 16 * v);
#pragma GCC unroll 16
      for (int i = 0; i < kColumns; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < kBlockVectors; ++v) {
          const V weights = reader.Read(words[v], i, ToFloat(zeros[v]));
#pragma GCC unroll 2
          for (int t = 0; t < kTokens; ++t) sums[t][v] = vfmaq_n_f32(sums[t][v], weights, x[t * ldx + k + i]);
        }
        asm volatile("" : : : "memory");
      }
    }
    V scales[kBlockVectors];
    ReadScales(w, block, g, scales);
#pragma GCC unroll 2
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int v = 0; v < kBlockVectors; ++v) totals[t][v] = Fma(scales[v], sums[t][v], totals[t][v]);
    }
  }
  const int64_t row = block * kBlockRows;
  for (int t = 0; t < kTokens; ++t) {
    for (int v = 0; v < kBlockVectors; ++v) StoreRows(y + t * ldy + row + v * kLanes, w.rows - row - v * kLanes, totals[t][v]);
  }
}

template <int kBits, bool kTable>
void MultiplyFloatBlock(const PackedIntegers& w, int64_t block, const float* x, int64_t ldx, int64_t tokens, float* y, int64_t ldy) {
  int64_t t = 0;
  for (; t + 2 <= tokens; t += 2) MultiplyFloatTile<kBits, kTable, 2>(w, block, x + t * ldx, ldx, y + t * ldy, ldy);
  if (t < tokens) MultiplyFloatTile<kBits, kTable, 1>(w, block, x + t * ldx, ldx, y + t * ldy, ldy);
}

void MultiplyWeightOnly(const PackedIntegers& w, int64_t block, const float* x, int64_t ldx, int64_t tokens, float* y,
                        int64_t ldy) {
  const auto run = [&](auto multiply) { multiply(w, block, x, ldx, tokens, y, ldy); };
  const bool table = w.values != nullptr;
  switch (w.bits) {
    case 2: return run(table ? MultiplyFloatBlock<2, true> : MultiplyFloatBlock<2, false>);
    case 4: return run(table ? MultiplyFloatBlock<4, true> : MultiplyFloatBlock<4, false>);
    default: return run(table ? MultiplyFloatBlock<8, true> : MultiplyFloatBlock<8, false>);
  }
}

// Rows 4 v to 4 v + 3 of columns [first, first + n) of group g.
template <int kBits, bool kTable>
void DecodeRows(const PackedIntegers& w, int64_t block, int64_t g, int v, V zeros, V scales, int64_t first, int64_t n, float* panel) {
  constexpr int kColumns = 32 / kBits;
  const uint8_t* chunk = BlockCodes(w, block) + (g * w.padded_group + first) * 2 * kBits + 16 * v;
  const CodeReader<kBits, kTable> reader(w);
  float* out = panel + v * kLanes;
  for (int64_t k = 0; k < n; k += kColumns, chunk += 64) {
    const uint32x4_t words = LoadWords(chunk);
#pragma GCC unroll 16
    for (int i = 0; i < kColumns; ++i) {
      if (k + i < n) Store(out + (k + i) * kBlockRows, Mul(scales, reader.Read(words, i, zeros)));
    }
  }
}

void DecodePanel(const PackedIntegers& w, int64_t block, int64_t g, int64_t first, int64_t n, float* panel) {
  VI zeros[kBlockVectors];
  ReadZeros(w, block, g, zeros);
  V scales[kBlockVectors];
  ReadScales(w, block, g, scales);
  const auto run = [&](auto decode) {
    for (int v = 0; v < kBlockVectors; ++v) decode(w, block, g, v, ToFloat(zeros[v]), scales[v], first, n, panel);
  };
  const bool table = w.values != nullptr;
  switch (w.bits) {
    case 2: return run(table ? DecodeRows<2, true> : DecodeRows<2, false>);
    case 4: return run(table ? DecodeRows<4, true> : DecodeRows<4, false>);
    default: return run(table ? DecodeRows<8, true> : DecodeRows<8, false>);
  }
}

int32_t ProbeMultiplyBytes(int64_t iterations) {
  VI sums[kProbeChains];
#pragma GCC unroll 16
  for (int j = 0; j < kProbeChains; ++j) sums[j] = SetInt(j);
  const int8x16_t weights = vdupq_n_s8(3), codes = vdupq_n_s8(-5);
  for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kProbeChains; ++j) sums[j] = vdotq_s32(sums[j], weights, codes);
  }
#pragma GCC unroll 16
  for (int j = 1; j < kProbeChains; ++j) sums[0] = AddInt(sums[0], sums[j]);
  return vgetq_lane_s32(sums[0], 0);
}

}  // namespace

constinit const KernelFunctions kNeonFunctions = {
    .quantize_token = QuantizeToken,
    .sum_codes = SumCodes,
    .multiply_integers = MultiplyIntegers,
    .spread_integers = SpreadIntegers,
    .multiply_integer_panel = MultiplyIntegerPanel,
    .finish_integers = FinishIntegers,
    .multiply_weight_only = MultiplyWeightOnly,
    .decode_panel = DecodePanel,
    .panel_from_bf16 = PanelFrom<Bf16>,
    .panel_from_fp16 = PanelFrom<Fp16>,
    .panel_from_fp32 = PanelFrom<Fp32>,
    .multiply_panels = MultiplyPanels,
    .matvec_bf16 = Matvec<Bf16>,
    .matvec_fp16 = Matvec<Fp16>,
    .matvec_fp32 = Matvec<Fp32>,
    .convert_bf16 = Convert<Bf16>,
    .convert_fp16 = Convert<Fp16>,
    .decode_cache = DecodeCache,
    .rms_norm = RmsNorm,
    .silu_mul = SiluMul,
    .hadamard = Hadamard,
    .softmax_step = SoftmaxStep,
    .scale_add = ScaleAdd,
};

constinit const ProbeFunctions kNeonProbes = {
    .sum = ProbeSum,
    .multiply_adds = ProbeMultiplyAdds,
    .flops_per_round = 2 * kProbeChains * kLanes,
    .multiply_bytes = ProbeMultiplyBytes,
    .byte_ops_per_round = 2 * kProbeChains * 16};

}  // namespace nibble::kernels
