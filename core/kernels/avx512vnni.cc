// The table for AVX-512 with VNNI (Cascade Lake and later). One 512-bit
// register holds four columns of a block's 16 rows.

#include <immintrin.h>

#include "core/kernels/instruction_sets.h"

namespace nibble::kernels {
namespace {

using V = __m512;
using VI = __m512i;
constexpr int kLanes = 16;

inline __mmask16 First(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
inline V Load(const float* p) { return _mm512_loadu_ps(p); }
inline V LoadPart(const float* p, int64_t n, float rest) { return _mm512_mask_loadu_ps(_mm512_set1_ps(rest), First(n), p); }
inline void Store(float* p, V v) { _mm512_storeu_ps(p, v); }
inline void StorePart(float* p, int64_t n, V v) { _mm512_mask_storeu_ps(p, First(n), v); }
inline V LoadBf16(const uint16_t* p) {
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
// Columns 2 i and 2 i + 1 of 32: a vector of words holds both, so that a whole line is
// one load.
inline void LoadTwoBf16(const uint16_t* p, V* two) {
  const VI pairs = _mm512_loadu_si512(p);
  two[0] = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
  two[1] = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))));
}
inline void MatchTwoBf16(V* x) {
  const VI even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const V first = _mm512_permutex2var_ps(x[0], even, x[1]);
  x[1] = _mm512_permutex2var_ps(x[0], _mm512_add_epi32(even, _mm512_set1_epi32(1)), x[1]);
  x[0] = first;
}
inline V LoadFp16(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline V Set(float x) { return _mm512_set1_ps(x); }
inline V Add(V a, V b) { return _mm512_add_ps(a, b); }
inline V Subtract(V a, V b) { return _mm512_sub_ps(a, b); }
inline V Mul(V a, V b) { return _mm512_mul_ps(a, b); }
inline V Div(V a, V b) { return _mm512_div_ps(a, b); }
inline V Fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
// a * splat(*x) + c with the broadcast inside the instruction: it takes a load
// but no issue slot of its own, which compilers do not choose for a number that
// is used twice.
inline V FmaSplat(V a, const float* x, V c) {
  asm("vfmadd231ps %1%{1to16%}, %2, %0" : "+v"(c) : "m"(*x), "v"(a));
  return c;
}
inline V NegativeFma(V a, V b, V c) { return _mm512_fnmadd_ps(a, b, c); }
inline V Min(V a, V b) { return _mm512_min_ps(a, b); }
inline V Max(V a, V b) { return _mm512_max_ps(a, b); }
inline float SumLanes(V v) { return _mm512_reduce_add_ps(v); }
inline float MaxOfLanes(V v) { return _mm512_reduce_max_ps(v); }
inline float SquareRoot(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
inline V ZeroWhereLess(V x, V limit, V v) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), v); }
inline VI RoundToInt(V v) { return _mm512_cvtps_epi32(v); }
inline V ToFloat(VI v) { return _mm512_cvtepi32_ps(v); }
inline VI SetInt(int32_t x) { return _mm512_set1_epi32(x); }
inline VI AddInt(VI a, VI b) { return _mm512_add_epi32(a, b); }
inline VI SubtractInt(VI a, VI b) { return _mm512_sub_epi32(a, b); }
inline VI MinInt(VI a, VI b) { return _mm512_min_epi32(a, b); }
inline VI MaxInt(VI a, VI b) { return _mm512_max_epi32(a, b); }
inline VI Half(VI v) { return _mm512_srai_epi32(v, 1); }
inline V PowerOfTwo(VI n) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23)); }
inline void StoreBytes(int8_t* p, VI v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v)); }

// Codes of a row of a KV cache (KernelFunctions::decode_cache).
template <int kBits>
inline VI CacheCodes(const uint8_t* row, int) {
  if (kBits == 8) return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row)));
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row));
  const __m128i nibbles = _mm_unpacklo_epi64(bytes, _mm_srli_epi16(bytes, 4));
  return _mm512_cvtepu8_epi32(_mm_and_si128(nibbles, _mm_set1_epi8(15)));
}

// Sum of 32 signed bytes: distances from -128, less 32 times that.
inline int32_t SumBytes(const int8_t* p) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i sums = _mm256_sad_epu8(_mm256_xor_si256(bytes, _mm256_set1_epi8(-128)), _mm256_setzero_si256());
  const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_srli_si128(two, 8))) - 32 * 128;
}

// The tile of a float product: 24 sums, two vectors of weights, one of x.
constexpr int kSumTokens = 12, kSumVectors = 2;

// Independent multiply-adds of a probe: enough to hide their latency.
constexpr int kProbeChains = 12;

// rows[i] becomes column i.
inline void Transpose(V* rows) {
  V pairs[16], quads[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
  const auto unpack = [](V a, V b, bool high) {
    const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    return _mm512_castpd_ps(high ? _mm512_unpackhi_pd(x, y) : _mm512_unpacklo_pd(x, y));
  };
  // quads[4 q + c]: column 4 l + c of rows 4 q .. 4 q + 3 in 128-bit lane l.
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    quads[i] = unpack(pairs[i], pairs[i + 2], false);
    quads[i + 1] = unpack(pairs[i], pairs[i + 2], true);
    quads[i + 2] = unpack(pairs[i + 1], pairs[i + 3], false);
    quads[i + 3] = unpack(pairs[i + 1], pairs[i + 3], true);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const V low01 = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0x44), high01 = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0xEE);
    const V low23 = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0x44), high23 = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0xEE);
    rows[c] = _mm512_shuffle_f32x4(low01, low23, 0x88);
    rows[4 + c] = _mm512_shuffle_f32x4(low01, low23, 0xDD);
    rows[8 + c] = _mm512_shuffle_f32x4(high01, high23, 0x88);
    rows[12 + c] = _mm512_shuffle_f32x4(high01, high23, 0xDD);
  }
}

#include "core/kernels/vector_body.inc"

// Zero points of a block's 16 rows in group g.
inline VI ZerosOf(const PackedIntegers& w, int64_t block, int64_t g) {
  if (w.zeros == nullptr) return _mm512_set1_epi32(w.zero);
  const uint8_t* zeros = w.zeros + (block * w.groups + g) * kBlockRows;
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(zeros)));
}

inline V StoredScales(const PackedIntegers& w, int64_t at) {
  switch (w.scale_type) {
    case ScaleType::kFp16: return LoadFp16(static_cast<const uint16_t*>(w.scales) + at);
    case ScaleType::kBf16: return LoadBf16(static_cast<const uint16_t*>(w.scales) + at);
    default: return Load(static_cast<const float*>(w.scales) + at);
  }
}

inline V ScalesOf(const PackedIntegers& w, int64_t block, int64_t g) {
  const V scales = StoredScales(w, ScalePlace(w, block, g));
  if (__builtin_expect(w.scale_codes == nullptr, 1)) return scales;
  const int8_t* codes = w.scale_codes + (block * w.groups + g) * kBlockRows;
  return Mul(scales, ToFloat(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)))));
}

// Four columns as bytes: quad j of a chunk.
template <int kBits, int j>
inline VI Quad(VI chunk) {
  if (kBits == 8) return chunk;
  return _mm512_and_si512(j == 0 ? chunk : _mm512_srli_epi16(chunk, kBits * j), _mm512_set1_epi8((1 << kBits) - 1));
}

// Codes of a tile of tokens: token t lies at rows[t / 4] + (t % 4) * stride.
template <int kTokens>
struct TokenRows {
  static constexpr int kBases = (kTokens + 3) / 4;
  const int8_t* rows[kBases];
  int64_t stride, stride3;
};

// acc + weights * the four codes at row + kOffset of token t, in each lane. The
// instruction is spelled out because the compiler (GCC 12) would split the
// broadcast from it, copy every accumulator and keep a pointer for each token.
template <int t, int kOffset>
inline VI DotQuad(VI acc, VI weights, const int8_t* row, int64_t stride, int64_t stride3) {
  const auto& memory = *reinterpret_cast<const char(*)[]>(row);
  if constexpr (t % 4 == 0) {
    asm("vpdpbusd %c4(%2)%{1to16%}, %1, %0" : "+v"(acc) : "v"(weights), "r"(row), "m"(memory), "i"(kOffset));
  } else if constexpr (t % 4 == 1) {
    asm("vpdpbusd %c4(%2,%5)%{1to16%}, %1, %0" : "+v"(acc) : "v"(weights), "r"(row), "m"(memory), "i"(kOffset), "r"(stride));
  } else if constexpr (t % 4 == 2) {
    asm("vpdpbusd %c4(%2,%5,2)%{1to16%}, %1, %0" : "+v"(acc) : "v"(weights), "r"(row), "m"(memory), "i"(kOffset), "r"(stride));
  } else {
    asm("vpdpbusd %c4(%2,%5)%{1to16%}, %1, %0" : "+v"(acc) : "v"(weights), "r"(row), "m"(memory), "i"(kOffset), "r"(stride3));
  }
  return acc;
}

// acc[t] += weights * four columns at kOffset, for tokens t and on.
template <int kTokens, int kOffset, int t = 0>
inline __attribute__((always_inline)) void DotTokens(VI weights, const TokenRows<kTokens>& x, VI* acc) {
  acc[t] = DotQuad<t, kOffset>(acc[t], weights, x.rows[t / 4], x.stride, x.stride3);
  if constexpr (t + 1 < kTokens) DotTokens<kTokens, kOffset, t + 1>(weights, x, acc);
}

// acc[t] += the products of one group's chunks. Few tokens use two sums each,
// to hide the latency of the instruction.
template <int kBits, int kTokens>
inline __attribute__((always_inline)) void DotGroup(const uint8_t* chunk_at, int64_t chunks, TokenRows<kTokens> x, VI* acc) {
  constexpr bool kSplit = kTokens <= 2 && kBits < 8;
  VI second[kTokens];
  if (kSplit) {
    for (VI& v : second) v = _mm512_setzero_si512();
  }
  VI* odd = kSplit ? second : acc;
  for (const uint8_t* end = chunk_at + 64 * chunks; chunk_at != end; chunk_at += 64) {
    __builtin_prefetch(chunk_at + kPrefetchBytes);
    const VI chunk = _mm512_loadu_si512(chunk_at);
    DotTokens<kTokens, 0>(Quad<kBits, 0>(chunk), x, acc);
    if constexpr (kBits <= 4) DotTokens<kTokens, 4>(Quad<kBits, 1>(chunk), x, odd);
    if constexpr (kBits == 2) DotTokens<kTokens, 8>(Quad<kBits, 2>(chunk), x, acc);
    if constexpr (kBits == 2) DotTokens<kTokens, 12>(Quad<kBits, 3>(chunk), x, odd);
#pragma GCC unroll 3
    for (int i = 0; i < TokenRows<kTokens>::kBases; ++i) x.rows[i] += 32 / kBits;
  }
  if (kSplit) {
#pragma GCC unroll 2
    for (int t = 0; t < kTokens; ++t) acc[t] = AddInt(acc[t], second[t]);
  }
}

// Where the products of group g start: -zero times the sum of its codes.
// terms: of the group, one for each token.
template <int kTokens>
inline void StartGroup(const PackedIntegers& w, int64_t block, int64_t g, const int32_t* terms, VI* acc) {
  if (w.zeros == nullptr) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) acc[t] = SetInt(terms[t]);
    return;
  }
  const VI zeros = SubtractInt(_mm512_setzero_si512(), ZerosOf(w, block, g));
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) acc[t] = _mm512_mullo_epi32(zeros, SetInt(terms[t]));
}

// y of one token and block from its sum over groups.
inline void Finish(const PackedIntegers& w, int64_t block, const QuantizedRows& x, int64_t token, V sum, float* y, int64_t ldy) {
  const V correction = Mul(Set(static_cast<float>(x.zeros[token])), Load(w.weight_sums + block * kBlockRows));
  StorePart(y + token * ldy + block * kBlockRows, RowsInBlock(w, block), Mul(Set(x.scales[token]), Subtract(sum, correction)));
}

// Few tokens: codes are read as they are packed.
template <int kBits, int kTokens>
void MultiplyTile(const PackedIntegers& w, int64_t block, const QuantizedRows& x, int64_t token, float* y, int64_t ldy) {
  constexpr int64_t kColumns = 32 / kBits;
  V sums[kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) sums[t] = Set(0.0f);
  for (int64_t g = 0; g < w.groups; ++g) {
    PrefetchScales(w, block, g);
    VI acc[kTokens];
    StartGroup<kTokens>(w, block, g, x.group_terms + g * x.term_stride + token, acc);
    TokenRows<kTokens> rows{.rows = {}, .stride = x.stride, .stride3 = 3 * x.stride};
#pragma GCC unroll 2
    for (int i = 0; i < rows.kBases; ++i) rows.rows[i] = x.codes + (token + 4 * i) * x.stride + g * w.padded_group;
    const int64_t chunks = (GroupColumns(w, g) + kColumns - 1) / kColumns;
    DotGroup<kBits, kTokens>(BlockCodes(w, block) + g * w.padded_group * 2 * kBits, chunks, rows, acc);
    const V scales = ScalesOf(w, block, g);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) sums[t] = Fma(scales, ToFloat(acc[t]), sums[t]);
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) Finish(w, block, x, token + t, sums[t], y, ldy);
}

template <int kBits>
void MultiplyPacked(const PackedIntegers& w, int64_t block, const QuantizedRows& x, float* y, int64_t ldy) {
  int64_t t = 0;
  for (; t + 8 <= x.tokens; t += 8) MultiplyTile<kBits, 8>(w, block, x, t, y, ldy);
  if (t + 4 <= x.tokens) MultiplyTile<kBits, 4>(w, block, x, t, y, ldy), t += 4;
  if (t + 2 <= x.tokens) MultiplyTile<kBits, 2>(w, block, x, t, y, ldy), t += 2;
  if (t < x.tokens) MultiplyTile<kBits, 1>(w, block, x, t, y, ldy);
}

void MultiplyIntegers(const PackedIntegers& w, int64_t block, const QuantizedRows& x, float* y, int64_t ldy) {
  switch (w.bits) {
    case 2: return MultiplyPacked<2>(w, block, x, y, ldy);
    case 4: return MultiplyPacked<4>(w, block, x, y, ldy);
    default: return MultiplyPacked<8>(w, block, x, y, ldy);
  }
}

// The codes of a panel one to a byte, in the order of 8-bit codes.
template <int kBits>
void SpreadCodes(const PackedIntegers& w, int64_t block, const IntegerPanel& panel, uint8_t* out) {
  const uint8_t* at = BlockCodes(w, block) + panel.first * 2 * kBits;
  for (const uint8_t* end = at + panel.columns * 2 * kBits; at != end; at += 64) {
    const VI chunk = _mm512_loadu_si512(at);
    _mm512_store_si512(out, Quad<kBits, 0>(chunk));
    if constexpr (kBits <= 4) _mm512_store_si512(out + 64, Quad<kBits, 1>(chunk));
    if constexpr (kBits == 2) _mm512_store_si512(out + 128, Quad<kBits, 2>(chunk));
    if constexpr (kBits == 2) _mm512_store_si512(out + 192, Quad<kBits, 3>(chunk));
    out += 64 * 8 / kBits;
  }
}

void SpreadIntegers(const PackedIntegers& w, int64_t block, const IntegerPanel& panel, uint8_t* codes, float* scales) {
  for (int64_t g = 0; g < panel.groups; ++g) Store(scales + g * kBlockRows, ScalesOf(w, block, panel.group + g));
  switch (w.bits) {
    case 2: return SpreadCodes<2>(w, block, panel, codes);
    case 4: return SpreadCodes<4>(w, block, panel, codes);
    default: return SpreadCodes<8>(w, block, panel, codes);
  }
}

// The four codes at kOffset of token t in every lane.
template <int t, int kOffset>
inline VI BroadcastQuad(const int8_t* row, int64_t stride, int64_t stride3) {
  VI quad;
  const auto& memory = *reinterpret_cast<const char(*)[]>(row);
  if constexpr (t % 4 == 0) {
    asm("vpbroadcastd %c3(%1), %0" : "=v"(quad) : "r"(row), "m"(memory), "i"(kOffset));
  } else if constexpr (t % 4 == 1) {
    asm("vpbroadcastd %c3(%1,%4), %0" : "=v"(quad) : "r"(row), "m"(memory), "i"(kOffset), "r"(stride));
  } else if constexpr (t % 4 == 2) {
    asm("vpbroadcastd %c3(%1,%4,2), %0" : "=v"(quad) : "r"(row), "m"(memory), "i"(kOffset), "r"(stride));
  } else {
    asm("vpbroadcastd %c3(%1,%4), %0" : "=v"(quad) : "r"(row), "m"(memory), "i"(kOffset), "r"(stride3));
  }
  return quad;
}

inline VI Dot(VI acc, VI weights, VI codes) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(weights), "v"(codes));
  return acc;
}

// acc[b][t] += weights[b] * the quad at kOffset, for tokens t and on. A broadcast
// of its own serves all blocks but takes an issue slot, one folded into each
// product takes a load port for each: half of the tokens go either way.
template <int kTokens, int kBlocks, int kOffset, int t = 0>
inline __attribute__((always_inline)) void DotBytes(const VI* weights, const TokenRows<kTokens>& x, VI (*acc)[kTokens]) {
  if constexpr (t % 2 == 0) {
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) acc[b][t] = DotQuad<t, kOffset>(acc[b][t], weights[b], x.rows[t / 4], x.stride, x.stride3);
  } else {
    const VI quad = BroadcastQuad<t, kOffset>(x.rows[t / 4], x.stride, x.stride3);
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) acc[b][t] = Dot(acc[b][t], weights[b], quad);
  }
  if constexpr (t + 1 < kTokens) DotBytes<kTokens, kBlocks, kOffset, t + 1>(weights, x, acc);
}

// The same for kQuads quads from quad j.
template <int kTokens, int kBlocks, int kQuads, int j = 0>
inline __attribute__((always_inline)) void DotQuads(const uint8_t* bytes, int64_t block_bytes, const TokenRows<kTokens>& x,
                                                    VI (*acc)[kTokens]) {
  VI weights[kBlocks];
#pragma GCC unroll 4
  for (int b = 0; b < kBlocks; ++b) weights[b] = _mm512_loadu_si512(bytes + b * block_bytes + 64 * j);
  DotBytes<kTokens, kBlocks, 4 * j>(weights, x, acc);
  if constexpr (j + 1 < kQuads) DotQuads<kTokens, kBlocks, kQuads, j + 1>(bytes, block_bytes, x, acc);
}

// Where a tile's products of one group start. Each sum is loaded by itself: the
// compiler would copy registers.
template <int kTokens, int kBlocks>
inline __attribute__((always_inline)) void StartTile(const PackedIntegers& w, int64_t block, int64_t g, const int32_t* terms,
                                                     VI (*acc)[kTokens]) {
#pragma GCC unroll 4
  for (int b = 0; b < kBlocks; ++b) {
#pragma GCC unroll 6
    for (int t = 0; t < kTokens; ++t) asm("vpbroadcastd %1, %0" : "=v"(acc[b][t]) : "m"(terms[t]));
    if (__builtin_expect(w.zeros != nullptr, 0)) {
      const VI zeros = SubtractInt(_mm512_setzero_si512(), ZerosOf(w, block + b, g));
#pragma GCC unroll 6
      for (int t = 0; t < kTokens; ++t) acc[b][t] = _mm512_mullo_epi32(zeros, acc[b][t]);
    }
  }
}

// acc += the products of `quads` quads. kQuads: their number where it is known.
template <int kTokens, int kBlocks, int kQuads>
inline __attribute__((always_inline)) void DotByteGroup(const uint8_t* codes, int64_t code_step, TokenRows<kTokens> rows, int64_t quads,
                                                        VI (*acc)[kTokens]) {
  if constexpr (kQuads > 0) return DotQuads<kTokens, kBlocks, kQuads>(codes, code_step, rows, acc);
  for (; quads >= 8; quads -= 8, codes += 512) {
    DotQuads<kTokens, kBlocks, 8>(codes, code_step, rows, acc);
#pragma GCC unroll 3
    for (int i = 0; i < TokenRows<kTokens>::kBases; ++i) rows.rows[i] += 32;
  }
  for (; quads > 0; --quads, codes += 64) {
    DotQuads<kTokens, kBlocks, 1>(codes, code_step, rows, acc);
#pragma GCC unroll 3
    for (int i = 0; i < TokenRows<kTokens>::kBases; ++i) rows.rows[i] += 4;
  }
}

// The sums over groups of a tile. Those of a small tile stay in registers beside
// a group's products. Those of a large one stay in memory, and only there:
// without the barriers the compiler keeps a second copy of each.
template <int kSums, bool kRegisters>
struct TileSums;

template <int kSums>
struct TileSums<kSums, true> {
  inline void Begin(int i, float* at, bool zero) { values[i] = zero ? Set(0.0f) : Load(at); }
  inline void Add(int i, float*, V scale, V products) { values[i] = Fma(scale, products, values[i]); }
  inline void End(int i, float* at) const { Store(at, values[i]); }
  inline void EndGroup() {}
  V values[kSums];
};

template <int kSums>
struct TileSums<kSums, false> {
  inline void Begin(int, float* at, bool zero) {
    if (zero) Store(at, Set(0.0f));
  }
  inline void Add(int, float* at, V scale, V products) { Store(at, Fma(scale, products, Load(at))); }
  inline void End(int, float*) const {}
  inline void EndGroup() { asm volatile("" : : : "memory"); }
};

// acc = the products that earlier panels left of the group.
template <int kTokens, int kBlocks>
inline __attribute__((always_inline)) void ResumeTile(const int32_t* products, VI (*acc)[kTokens]) {
#pragma GCC unroll 24
  for (int i = 0; i < kTokens * kBlocks; ++i) {
    acc[i / kTokens][i % kTokens] = _mm512_loadu_si512(products + i % kTokens * kSumStride + i / kTokens * kBlockRows);
  }
}

template <int kTokens, int kBlocks>
inline __attribute__((always_inline)) void KeepTile(const VI (*acc)[kTokens], int32_t* products) {
#pragma GCC unroll 24
  for (int i = 0; i < kTokens * kBlocks; ++i) {
    _mm512_storeu_si512(products + i % kTokens * kSumStride + i / kTokens * kBlockRows, acc[i / kTokens][i % kTokens]);
  }
}

// A tile of kTokens tokens and kBlocks blocks of a panel. kQuads: those of every
// group, where they are known.
template <int kTokens, int kBlocks, int kQuads>
void MultiplyPanelTile(const PackedIntegers& w, int64_t block, const IntegerPanel& panel, const QuantizedRows& x, int64_t token,
                       const IntegerWork& work) {
  constexpr int kSums = kTokens * kBlocks;
  TileSums<kSums, (kSums <= 12)> sums;
  float* const sums_at = work.sums + token * kSumStride;
  int32_t* const products = work.products + token * kSumStride;
  const auto at = [&](int i) { return sums_at + i % kTokens * kSumStride + i / kTokens * kBlockRows; };
  const bool zero = panel.first == 0;
#pragma GCC unroll 24
  for (int i = 0; i < kSums; ++i) sums.Begin(i, at(i), zero);
  TokenRows<kTokens> rows{.rows = {}, .stride = x.stride, .stride3 = 3 * x.stride};
#pragma GCC unroll 3
  for (int i = 0; i < rows.kBases; ++i) rows.rows[i] = x.codes + (token + 4 * i) * x.stride + panel.first;
  const uint8_t* codes = work.codes;
  const float* scales = work.scales;
  const int32_t* terms = x.group_terms + panel.group * x.term_stride + token;
  const int64_t code_step = kSpreadBytes * kBlockRows * panel.columns, scale_step = panel.groups * kBlockRows, term_step = x.term_stride;
  const int64_t group_quads = kQuads > 0 ? kQuads : panel.groups == 1 ? panel.columns / 4 : w.padded_group / 4;
  int64_t left = panel.columns / 4;
  for (int64_t g = 0; g < panel.groups; ++g) {
    VI acc[kBlocks][kTokens];
    if (kQuads > 0 || panel.starts) StartTile<kTokens, kBlocks>(w, block, panel.group + g, terms, acc);
    else ResumeTile<kTokens, kBlocks>(products, acc);
    DotByteGroup<kTokens, kBlocks, kQuads>(codes, code_step, rows, group_quads < left ? group_quads : left, acc);
    if (kQuads == 0 && !panel.ends) {  // the panel's only group: the sums stay as they began
      KeepTile<kTokens, kBlocks>(acc, products);
      break;
    }
#pragma GCC unroll 2
    for (int b = 0; b < kBlocks; ++b) {
      const V scale = Load(scales + b * scale_step);
#pragma GCC unroll 12
      for (int t = 0; t < kTokens; ++t) sums.Add(b * kTokens + t, at(b * kTokens + t), scale, ToFloat(acc[b][t]));
    }
    codes += 64 * group_quads, scales += kBlockRows, terms += term_step, left -= group_quads;
#pragma GCC unroll 3
    for (int i = 0; i < rows.kBases; ++i) rows.rows[i] += 4 * group_quads;
    sums.EndGroup();
  }
#pragma GCC unroll 24
  for (int i = 0; i < kSums; ++i) sums.End(i, at(i));
}

// Tiles of small groups keep their sums in registers.
constexpr int64_t kSmallGroup = 32;

template <int kBlocks>
void MultiplyPanelBlocks(const PackedIntegers& w, int64_t block, const IntegerPanel& panel, const QuantizedRows& x, const IntegerWork& work) {
  const bool whole = w.padded_group == 32 && panel.columns == 32 * panel.groups;
  int64_t t = 0;
  const auto run = [&](auto tile, int64_t tokens) {
    for (; t + tokens <= x.tokens; t += tokens) tile(w, block, panel, x, t, work);
  };
  if (w.padded_group > kSmallGroup) run(MultiplyPanelTile<12, kBlocks, 0>, 12);
  run(whole ? MultiplyPanelTile<6, kBlocks, 8> : MultiplyPanelTile<6, kBlocks, 0>, 6);
  run(MultiplyPanelTile<2, kBlocks, 0>, 2);
  run(MultiplyPanelTile<1, kBlocks, 0>, 1);
}

void MultiplyIntegerPanel(const PackedIntegers& w, int64_t block, int64_t blocks, const IntegerPanel& panel, const QuantizedRows& x,
                          const IntegerWork& work) {
  IntegerWork at = work;
  const auto advance = [&](int64_t n) {
    at.codes += n * kSpreadBytes * kBlockRows * panel.columns, at.scales += n * panel.groups * kBlockRows;
    at.sums += n * kBlockRows, at.products += n * kBlockRows;
  };
  int64_t b = 0;
  for (; b + 2 <= blocks; b += 2, advance(2)) MultiplyPanelBlocks<2>(w, block + b, panel, x, at);
  if (b < blocks) MultiplyPanelBlocks<1>(w, block + b, panel, x, at);
}

void FinishIntegers(const PackedIntegers& w, int64_t block, int64_t blocks, const QuantizedRows& x, const float* sums, float* y,
                    int64_t ldy) {
  for (int64_t t = 0; t < x.tokens; ++t) {
    for (int64_t b = 0; b < blocks; ++b) Finish(w, block + b, x, t, Load(sums + t * kSumStride + b * kBlockRows), y, ldy);
  }
}

// What the value of a code depends on.
enum class Codes { kOneZero, kZeros, kTable };

// What codes stand for, as floats, for byte i of quad j in each row's lane. With
// one zero for all rows and few bits a table look-up does it in two instructions:
// a permutation reads only the low four bits of its index.
template <int kBits, Codes kCodes>
struct CodeReader {
  explicit CodeReader(const PackedIntegers& w) : values(w.values) {
    alignas(64) float all[16];
    for (int i = 0; i < 16; ++i) {
      const int code = i & ((1 << kBits) - 1);
      all[i] = kCodes == Codes::kTable ? values[code] : static_cast<float>(code - (kCodes == Codes::kZeros ? 0 : w.zero));
    }
    table = _mm512_load_ps(all);
    SetZeros(Set(static_cast<float>(w.zero)));
  }
  void SetZeros(V group_zeros) { zeros = group_zeros; }

  template <int kByte, int j>
  V Read(VI chunk) const {
    constexpr int kShift = 8 * kByte + kBits * j;
    if constexpr (kBits == 8) {
      const VI code = _mm512_and_si512(kShift == 0 ? chunk : _mm512_srli_epi32(chunk, kShift), _mm512_set1_epi32(255));
      if constexpr (kCodes == Codes::kTable) return _mm512_i32gather_ps(code, values, 4);
      return Subtract(_mm512_cvtepi32_ps(code), zeros);
    } else {
      const V value = _mm512_permutexvar_ps(kShift == 0 ? chunk : _mm512_srli_epi32(chunk, kShift), table);
      return kCodes == Codes::kZeros ? Subtract(value, zeros) : value;
    }
  }

  const float* values;
  V table, zeros;
};

template <int kBits, int kTokens, Codes kCodes, int j>
inline void AddFloatQuad(const CodeReader<kBits, kCodes>& reader, VI chunk, const float* x, int64_t ldx, V (*sums)[4]) {
  const V columns[4] = {reader.template Read<0, j>(chunk), reader.template Read<1, j>(chunk),
                        reader.template Read<2, j>(chunk), reader.template Read<3, j>(chunk)};
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sums[t][i] = Fma(columns[i], Set(x[t * ldx + 4 * j + i]), sums[t][i]);
  }
}

template <int kBits, int kTokens, Codes kCodes>
void MultiplyFloatTile(const PackedIntegers& w, int64_t block, const float* x, int64_t ldx, float* y, int64_t ldy) {
  constexpr int kColumns = 32 / kBits;
  CodeReader<kBits, kCodes> reader(w);
  V totals[kTokens];
  for (V& total : totals) total = Set(0.0f);
  for (int64_t g = 0; g < w.groups; ++g) {
    PrefetchScales(w, block, g);
    V sums[kTokens][4];
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) sums[t][0] = sums[t][1] = sums[t][2] = sums[t][3] = Set(0.0f);
    if (kCodes == Codes::kZeros) reader.SetZeros(_mm512_cvtepi32_ps(ZerosOf(w, block, g)));
    const int64_t begin = g * w.padded_group, end = begin + GroupColumns(w, g);
    const uint8_t* chunk_at = BlockCodes(w, block) + begin * 2 * kBits;
    for (int64_t k = begin; k < end; k += kColumns, chunk_at += 64) {
      __builtin_prefetch(chunk_at + kPrefetchBytes);
      const VI chunk = _mm512_loadu_si512(chunk_at);
      AddFloatQuad<kBits, kTokens, kCodes, 0>(reader, chunk, x + k, ldx, sums);
      if constexpr (kBits <= 4) AddFloatQuad<kBits, kTokens, kCodes, 1>(reader, chunk, x + k, ldx, sums);
      if constexpr (kBits == 2) AddFloatQuad<kBits, kTokens, kCodes, 2>(reader, chunk, x + k, ldx, sums);
      if constexpr (kBits == 2) AddFloatQuad<kBits, kTokens, kCodes, 3>(reader, chunk, x + k, ldx, sums);
    }
    const V scales = ScalesOf(w, block, g);
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      totals[t] = Fma(scales, Add(Add(sums[t][0], sums[t][1]), Add(sums[t][2], sums[t][3])), totals[t]);
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) StorePart(y + t * ldy + block * kBlockRows, RowsInBlock(w, block), totals[t]);
}

template <int kBits, Codes kCodes>
void MultiplyFloatBlock(const PackedIntegers& w, int64_t block, const float* x, int64_t ldx, int64_t tokens, float* y,
                        int64_t ldy) {
  int64_t t = 0;
  for (; t + 4 <= tokens; t += 4) MultiplyFloatTile<kBits, 4, kCodes>(w, block, x + t * ldx, ldx, y + t * ldy, ldy);
  if (t + 2 <= tokens) MultiplyFloatTile<kBits, 2, kCodes>(w, block, x + t * ldx, ldx, y + t * ldy, ldy), t += 2;
  if (t < tokens) MultiplyFloatTile<kBits, 1, kCodes>(w, block, x + t * ldx, ldx, y + t * ldy, ldy);
}

void MultiplyWeightOnly(const PackedIntegers& w, int64_t block, const float* x, int64_t ldx, int64_t tokens, float* y,
                        int64_t ldy) {
  const auto run = [&](auto multiply) { multiply(w, block, x, ldx, tokens, y, ldy); };
  const auto choose = [&](auto one_zero, auto zeros, auto table) { run(w.values != nullptr ? table : w.zeros != nullptr ? zeros : one_zero); };
  switch (w.bits) {
    case 2: return choose(MultiplyFloatBlock<2, Codes::kOneZero>, MultiplyFloatBlock<2, Codes::kZeros>, MultiplyFloatBlock<2, Codes::kTable>);
    case 4: return choose(MultiplyFloatBlock<4, Codes::kOneZero>, MultiplyFloatBlock<4, Codes::kZeros>, MultiplyFloatBlock<4, Codes::kTable>);
    default: return choose(MultiplyFloatBlock<8, Codes::kOneZero>, MultiplyFloatBlock<8, Codes::kZeros>, MultiplyFloatBlock<8, Codes::kTable>);
  }
}

// Columns 4 j .. 4 j + 3 of a chunk, of which n are wanted.
template <int kBits, Codes kCodes, int j>
inline void DecodeQuad(const CodeReader<kBits, kCodes>& reader, VI chunk, V scales, int64_t n, float* panel) {
  if (n > 4 * j) Store(panel + kBlockRows * (4 * j), Mul(scales, reader.template Read<0, j>(chunk)));
  if (n > 4 * j + 1) Store(panel + kBlockRows * (4 * j + 1), Mul(scales, reader.template Read<1, j>(chunk)));
  if (n > 4 * j + 2) Store(panel + kBlockRows * (4 * j + 2), Mul(scales, reader.template Read<2, j>(chunk)));
  if (n > 4 * j + 3) Store(panel + kBlockRows * (4 * j + 3), Mul(scales, reader.template Read<3, j>(chunk)));
}

template <int kBits, Codes kCodes>
void DecodeBits(const PackedIntegers& w, int64_t block, int64_t g, int64_t first, int64_t n, float* panel) {
  constexpr int kColumns = 32 / kBits;
  CodeReader<kBits, kCodes> reader(w);
  if (kCodes == Codes::kZeros) reader.SetZeros(_mm512_cvtepi32_ps(ZerosOf(w, block, g)));
  const V scales = ScalesOf(w, block, g);
  const uint8_t* chunk_at = BlockCodes(w, block) + (g * w.padded_group + first) * 2 * kBits;
  for (; n > 0; n -= kColumns, chunk_at += 64, panel += kColumns * kBlockRows) {
    const VI chunk = _mm512_loadu_si512(chunk_at);
    DecodeQuad<kBits, kCodes, 0>(reader, chunk, scales, n, panel);
    if constexpr (kBits <= 4) DecodeQuad<kBits, kCodes, 1>(reader, chunk, scales, n, panel);
    if constexpr (kBits == 2) DecodeQuad<kBits, kCodes, 2>(reader, chunk, scales, n, panel);
    if constexpr (kBits == 2) DecodeQuad<kBits, kCodes, 3>(reader, chunk, scales, n, panel);
  }
}

void DecodePanel(const PackedIntegers& w, int64_t block, int64_t g, int64_t first, int64_t n, float* panel) {
  const auto run = [&](auto decode) { decode(w, block, g, first, n, panel); };
  const auto choose = [&](auto one_zero, auto zeros, auto table) { run(w.values != nullptr ? table : w.zeros != nullptr ? zeros : one_zero); };
  switch (w.bits) {
    case 2: return choose(DecodeBits<2, Codes::kOneZero>, DecodeBits<2, Codes::kZeros>, DecodeBits<2, Codes::kTable>);
    case 4: return choose(DecodeBits<4, Codes::kOneZero>, DecodeBits<4, Codes::kZeros>, DecodeBits<4, Codes::kTable>);
    default: return choose(DecodeBits<8, Codes::kOneZero>, DecodeBits<8, Codes::kZeros>, DecodeBits<8, Codes::kTable>);
  }
}

int32_t ProbeMultiplyBytes(int64_t iterations) {
  VI sums[kProbeChains];
  for (int j = 0; j < kProbeChains; ++j) sums[j] = SetInt(j);
  const VI weights = _mm512_set1_epi8(3), codes = _mm512_set1_epi8(-5);
  for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kProbeChains; ++j) sums[j] = Dot(sums[j], weights, codes);
  }
  for (int j = 1; j < kProbeChains; ++j) sums[0] = AddInt(sums[0], sums[j]);
  return _mm512_reduce_add_epi32(sums[0]);
}

}  // namespace

constinit const KernelFunctions kAvx512VnniFunctions = {
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

constinit const ProbeFunctions kAvx512VnniProbes = {
    .sum = ProbeSum,
    .multiply_adds = ProbeMultiplyAdds,
    .flops_per_round = 2 * kProbeChains * kLanes,
    .multiply_bytes = ProbeMultiplyBytes,
    .byte_ops_per_round = 2 * kProbeChains * 64};

}  // namespace nibble::kernels
