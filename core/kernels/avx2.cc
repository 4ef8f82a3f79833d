// The table for AVX2 with FMA and F16C. Two 256-bit registers hold four
// columns of a block's 16 rows: rows 0 to 7 and rows 8 to 15.

#include <immintrin.h>

#include "core/kernels/instruction_sets.h"

namespace nibble::kernels {
namespace {

using V = __m256;
using VI = __m256i;
constexpr int kLanes = 8;

// All ones in the first n lanes.
inline VI First(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline V Load(const float* p) { return _mm256_loadu_ps(p); }
inline V LoadPart(const float* p, int64_t n, float rest) {
  const VI first = First(n);
  return _mm256_blendv_ps(_mm256_set1_ps(rest), _mm256_maskload_ps(p, first), _mm256_castsi256_ps(first));
}
inline void Store(float* p, V v) { _mm256_storeu_ps(p, v); }
inline void StorePart(float* p, int64_t n, V v) { _mm256_maskstore_ps(p, First(n), v); }
inline __m128i LoadHalves(const uint16_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
inline V LoadBf16(const uint16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(LoadHalves(p)), 16));
}
inline V LoadFp16(const uint16_t* p) { return _mm256_cvtph_ps(LoadHalves(p)); }
inline V Set(float x) { return _mm256_set1_ps(x); }
inline V Add(V a, V b) { return _mm256_add_ps(a, b); }
inline V Subtract(V a, V b) { return _mm256_sub_ps(a, b); }
inline V Mul(V a, V b) { return _mm256_mul_ps(a, b); }
inline V Div(V a, V b) { return _mm256_div_ps(a, b); }
inline V Fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
inline V NegativeFma(V a, V b, V c) { return _mm256_fnmadd_ps(a, b, c); }
inline V Min(V a, V b) { return _mm256_min_ps(a, b); }
inline V Max(V a, V b) { return _mm256_max_ps(a, b); }
inline float SumLanes(V v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float MaxOfLanes(V v) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
inline float SquareRoot(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
inline V ZeroWhereLess(V x, V limit, V v) { return _mm256_and_ps(_mm256_cmp_ps(x, limit, _CMP_NLT_UQ), v); }
inline VI RoundToInt(V v) { return _mm256_cvtps_epi32(v); }
inline V ToFloat(VI v) { return _mm256_cvtepi32_ps(v); }
inline VI SetInt(int32_t x) { return _mm256_set1_epi32(x); }
inline VI AddInt(VI a, VI b) { return _mm256_add_epi32(a, b); }
inline VI SubtractInt(VI a, VI b) { return _mm256_sub_epi32(a, b); }
inline VI MinInt(VI a, VI b) { return _mm256_min_epi32(a, b); }
inline VI MaxInt(VI a, VI b) { return _mm256_max_epi32(a, b); }
inline VI Half(VI v) { return _mm256_srai_epi32(v, 1); }
inline V PowerOfTwo(VI n) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23)); }
inline void StoreBytes(int8_t* p, VI v) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}

// The tile of a float product: 12 sums, two vectors of weights, one of x.
constexpr int kSumTokens = 6, kSumVectors = 2;

// rows[i] becomes column i.
inline void Transpose(V* rows) {
  V pairs[8], quads[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
  // quads[4 q + c]: column 4 l + c of rows 4 q .. 4 q + 3 in 128-bit lane l.
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    quads[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    quads[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xEE);
    quads[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    quads[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xEE);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    rows[c] = _mm256_permute2f128_ps(quads[c], quads[4 + c], 0x20);
    rows[4 + c] = _mm256_permute2f128_ps(quads[c], quads[4 + c], 0x31);
  }
}

#include "core/kernels/vector_body.inc"

inline VI LoadBytes(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// Zero points in group g of eight rows of a block, from row 8 * half.
inline VI ZerosOf(const PackedIntegers& w, int64_t block, int64_t g, int half) {
  if (w.zeros == nullptr) return SetInt(w.zero);
  const uint8_t* zeros = w.zeros + (block * w.groups + g) * kBlockRows + 8 * half;
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(zeros)));
}

inline V ScalesOf(const PackedIntegers& w, int64_t block, int64_t g, int half) {
  const int64_t at = (block * w.groups + g) * kBlockRows + 8 * half;
  switch (w.scale_type) {
    case ScaleType::kFp16: return LoadFp16(static_cast<const uint16_t*>(w.scales) + at);
    case ScaleType::kBf16: return LoadBf16(static_cast<const uint16_t*>(w.scales) + at);
    default: return Load(static_cast<const float*>(w.scales) + at);
  }
}

inline VI BroadcastQuad(const int8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return _mm256_set1_epi32(quad);
}

inline VI AndShifted(VI bytes, int shift, int mask) {
  return _mm256_and_si256(_mm256_srli_epi16(bytes, shift), _mm256_set1_epi8(static_cast<char>(mask)));
}

// Products of bytes are summed in 16 bits over eight quads: 8 quads of two
// products of at most 15 * 128 are 30,720. 8-bit codes go as two nibbles, the
// high one weighted 16 when the sums widen to 32 bits.
template <int kBits, int kTokens>
inline void AddEightQuads(const uint8_t* chunks, const int8_t* x, int64_t stride, int64_t n_chunks, VI (*acc)[2]) {
  constexpr int kParts = kBits == 8 ? 2 : 1, kQuads = 8 / kBits, kWidth = kBits == 8 ? 4 : kBits;
  VI words[kTokens][2][kParts];
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    for (int p = 0; p < kParts; ++p) words[t][0][p] = words[t][1][p] = _mm256_setzero_si256();
  }
  for (int64_t c = 0; c < n_chunks; ++c, chunks += 64, x += 4 * kQuads) {
#pragma GCC unroll 4
    for (int j = 0; j < kQuads; ++j) {
#pragma GCC unroll 2
      for (int p = 0; p < kParts; ++p) {
        const VI weights[2] = {AndShifted(LoadBytes(chunks), kWidth * (j + p), (1 << kWidth) - 1),
                               AndShifted(LoadBytes(chunks + 32), kWidth * (j + p), (1 << kWidth) - 1)};
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) {
          const VI quad = BroadcastQuad(x + t * stride + 4 * j);
          words[t][0][p] = _mm256_add_epi16(words[t][0][p], _mm256_maddubs_epi16(weights[0], quad));
          words[t][1][p] = _mm256_add_epi16(words[t][1][p], _mm256_maddubs_epi16(weights[1], quad));
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      acc[t][half] = AddInt(acc[t][half], _mm256_madd_epi16(words[t][half][0], _mm256_set1_epi16(1)));
      if (kParts == 2) {
        acc[t][half] = AddInt(acc[t][half], _mm256_madd_epi16(words[t][half][kParts - 1], _mm256_set1_epi16(16)));
      }
    }
  }
}

inline void StoreRows(float* y, int64_t rows, V v) {
  if (rows >= kLanes) Store(y, v);
  else if (rows > 0) StorePart(y, rows, v);
}

// Where the products of group g start: -zero times the sum of its codes.
inline VI StartOf(const PackedIntegers& w, int64_t block, int64_t g, int half, int32_t term) {
  if (w.zeros == nullptr) return SetInt(term);
  return _mm256_mullo_epi32(ZerosOf(w, block, g, half), SetInt(-term));
}

// y of one token and half block from its sum over groups.
inline void Finish(const PackedIntegers& w, int64_t block, int half, const QuantizedRows& x, int64_t token, V sum, float* y,
                   int64_t ldy) {
  const V correction = Mul(Set(static_cast<float>(x.zeros[token])), Load(w.weight_sums + block * kBlockRows + 8 * half));
  StoreRows(y + token * ldy + block * kBlockRows + 8 * half, RowsInBlock(w, block) - 8 * half,
            Mul(Set(x.scales[token]), Subtract(sum, correction)));
}

// Few tokens: codes are read as they are packed.
template <int kBits, int kTokens>
void MultiplyTile(const PackedIntegers& w, int64_t block, const QuantizedRows& x, int64_t token, float* y, int64_t ldy) {
  constexpr int kColumns = 32 / kBits, kChunks = kBits;  // chunks that hold eight quads
  V sums[kTokens][2];
  for (int t = 0; t < kTokens; ++t) sums[t][0] = sums[t][1] = Set(0.0f);
  for (int64_t g = 0; g < w.groups; ++g) {
    VI acc[kTokens][2];
    for (int t = 0; t < kTokens; ++t) {
      for (int half = 0; half < 2; ++half) acc[t][half] = StartOf(w, block, g, half, x.group_terms[g * x.term_stride + token + t]);
    }
    const int64_t chunks = (GroupColumns(w, g) + kColumns - 1) / kColumns;
    const uint8_t* chunk_at = BlockCodes(w, block) + g * w.padded_group * 2 * kBits;
    const int8_t* codes = x.codes + token * x.stride + g * w.padded_group;
    for (int64_t c = 0; c < chunks; c += kChunks) {
      const int64_t n = chunks - c < kChunks ? chunks - c : kChunks;
      AddEightQuads<kBits, kTokens>(chunk_at + 64 * c, codes + kColumns * c, x.stride, n, acc);
    }
    for (int half = 0; half < 2; ++half) {
      const V scales = ScalesOf(w, block, g, half);
      for (int t = 0; t < kTokens; ++t) sums[t][half] = Fma(scales, ToFloat(acc[t][half]), sums[t][half]);
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int half = 0; half < 2; ++half) Finish(w, block, half, x, token + t, sums[t][half], y, ldy);
  }
}

template <int kBits, int kTokens>
void MultiplyPacked(const PackedIntegers& w, int64_t block, const QuantizedRows& x, float* y, int64_t ldy) {
  int64_t t = 0;
  for (; t + kTokens <= x.tokens; t += kTokens) MultiplyTile<kBits, kTokens>(w, block, x, t, y, ldy);
  for (; t < x.tokens; ++t) MultiplyTile<kBits, 1>(w, block, x, t, y, ldy);
}

// The codes of a block one to a byte, in the order of 8-bit codes; 8-bit codes
// as two planes, of low and of high nibbles.
template <int kBits>
void SpreadCodes(const PackedIntegers& w, int64_t block, uint8_t* out) {
  constexpr int kWidth = kBits == 8 ? 4 : kBits, kMask = (1 << kWidth) - 1;
  const int64_t plane = w.padded_cols * kBlockRows;
  const uint8_t* at = BlockCodes(w, block);
  const auto store = [](uint8_t* to, VI v) { _mm256_storeu_si256(reinterpret_cast<VI*>(to), v); };
  for (int64_t i = 0; i < plane * kBits / 8; i += 64) {
    const VI halves[2] = {LoadBytes(at + i), LoadBytes(at + i + 32)};
#pragma GCC unroll 4
    for (int j = 0; j < 8 / kWidth; ++j) {
      uint8_t* to = kBits == 8 ? out + j * plane + i : out + i * 8 / kBits + 64 * j;
      store(to, AndShifted(halves[0], kWidth * j, kMask));
      store(to + 32, AndShifted(halves[1], kWidth * j, kMask));
    }
  }
}

// words += products of the quad at `codes` + kOffset with low and high rows.
// Spelled out because twelve sums, two weights and two products fill the
// registers, and the compiler (GCC 12) spills where none is spare.
template <int kOffset>
inline void AddQuad(VI low, VI high, const int8_t* codes, VI* words) {
  VI quad, products;
  const auto& memory = *reinterpret_cast<const char(*)[]>(codes);
  asm("vpbroadcastd %c8(%6), %2\n\t"
      "vpmaddubsw %2, %4, %3\n\t"
      "vpmaddubsw %2, %5, %2\n\t"
      "vpaddw %3, %0, %0\n\t"
      "vpaddw %2, %1, %1"
      : "+x"(words[0]), "+x"(words[1]), "=&x"(quad), "=&x"(products)
      : "x"(low), "x"(high), "r"(codes), "m"(memory), "i"(kOffset));
}

template <int kTokens, int kOffset>
inline __attribute__((always_inline)) void AddQuads(const uint8_t* plane, const int8_t* const* x, VI (*words)[2]) {
  const VI low = LoadBytes(plane + 16 * kOffset), high = LoadBytes(plane + 16 * kOffset + 32);
#pragma GCC unroll 6
  for (int t = 0; t < kTokens; ++t) AddQuad<kOffset>(low, high, x[t], words[t]);
}

// words = the 16-bit sums of products over one to eight quads, for kTokens
// tokens and 16 rows.
template <int kTokens>
inline __attribute__((always_inline)) void SumQuads(const uint8_t* plane, const int8_t* const* x, int64_t quads, VI (*words)[2]) {
  const VI low = LoadBytes(plane), high = LoadBytes(plane + 32);
#pragma GCC unroll 6
  for (int t = 0; t < kTokens; ++t) {
    const VI quad = BroadcastQuad(x[t]);
    words[t][0] = _mm256_maddubs_epi16(low, quad), words[t][1] = _mm256_maddubs_epi16(high, quad);
  }
  if (quads == 8) {
    AddQuads<kTokens, 4>(plane, x, words), AddQuads<kTokens, 8>(plane, x, words), AddQuads<kTokens, 12>(plane, x, words);
    AddQuads<kTokens, 16>(plane, x, words), AddQuads<kTokens, 20>(plane, x, words), AddQuads<kTokens, 24>(plane, x, words);
    AddQuads<kTokens, 28>(plane, x, words);
    return;
  }
  const int8_t* rows[kTokens];
#pragma GCC unroll 6
  for (int t = 0; t < kTokens; ++t) rows[t] = x[t];
  for (int64_t q = 1; q < quads; ++q) {
    plane += 64;
#pragma GCC unroll 6
    for (int t = 0; t < kTokens; ++t) rows[t] += 4;
    AddQuads<kTokens, 0>(plane, rows, words);
  }
}

// acc += the products of up to eight quads.
template <int kPlanes, int kTokens>
inline __attribute__((always_inline)) void DotQuads(const uint8_t* bytes, int64_t plane, const int8_t* const* rows, int64_t quads,
                                                    VI (*acc)[2]) {
#pragma GCC unroll 2
  for (int p = 0; p < kPlanes; ++p) {
    VI words[kTokens][2];
    SumQuads<kTokens>(bytes + p * plane, rows, quads, words);
    const VI weight = _mm256_set1_epi16(p == 0 ? 1 : 16);
#pragma GCC unroll 6
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) acc[t][h] = AddInt(acc[t][h], _mm256_madd_epi16(words[t][h], weight));
    }
  }
}

// Blocks prepared for many tokens: codes one to a byte in kPlanes planes, scales
// in fp32 [block][groups][16].
struct ByteBlocks {
  const uint8_t* codes;
  const float* scales;
  int64_t plane, code_step, scale_step;  // elements between planes and blocks
};

// sums += scale * (products of group g - zero * sum of codes).
template <int kTokens>
inline __attribute__((always_inline)) void AddGroup(const PackedIntegers& w, int64_t block, int64_t g, const float* scales,
                                                    const int32_t* terms, VI (*acc)[2], float* sums) {
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const V scale = Load(scales + h * kLanes);
#pragma GCC unroll 6
    for (int t = 0; t < kTokens; ++t) {
      VI term = SetInt(terms[t]);
      if (__builtin_expect(w.zeros != nullptr, 0)) {
        term = _mm256_mullo_epi32(term, SubtractInt(SetInt(0), ZerosOf(w, block, g, h)));
      }
      float* sum = sums + (2 * t + h) * kLanes;
      Store(sum, Fma(scale, ToFloat(AddInt(acc[t][h], term)), Load(sum)));
    }
  }
}

// A tile of kTokens tokens and one block. kWhole: groups of 32 columns. The
// sums over groups live in the first-level cache, and only there: without the
// barriers the compiler keeps a second copy of each.
template <int kPlanes, int kTokens, bool kWhole>
void MultiplyByteTile(const PackedIntegers& w, int64_t block, const ByteBlocks& blocks, const QuantizedRows& x, int64_t token, float* y,
                      int64_t ldy) {
  alignas(32) float storage[kTokens * kBlockRows];
  float* sums = storage;
  asm volatile("" : "+r"(sums));
#pragma GCC unroll 12
  for (int i = 0; i < 2 * kTokens; ++i) Store(sums + i * kLanes, Set(0.0f));
  const int8_t* rows[kTokens];
#pragma GCC unroll 6
  for (int t = 0; t < kTokens; ++t) rows[t] = x.codes + (token + t) * x.stride;
  const uint8_t* codes = blocks.codes;
  const float* scales = blocks.scales;
  const int32_t* terms = x.group_terms + token;
  const int64_t groups = w.groups, plane = blocks.plane, term_step = x.term_stride;
  for (int64_t g = 0; g < groups; ++g) {
    VI acc[kTokens][2];
#pragma GCC unroll 6
    for (int t = 0; t < kTokens; ++t) acc[t][0] = acc[t][1] = _mm256_setzero_si256();
    const int64_t quads = kWhole ? 8 : g + 1 < groups ? w.padded_group / 4 : (GroupColumns(w, g) + 3) / 4;
    for (int64_t q = 0; q < quads; q += 8) {
      const int64_t n = kWhole || quads - q >= 8 ? 8 : quads - q;
      DotQuads<kPlanes, kTokens>(codes, plane, rows, n, acc);
      codes += 64 * n;
#pragma GCC unroll 6
      for (int t = 0; t < kTokens; ++t) rows[t] += 4 * n;
    }
    AddGroup<kTokens>(w, block, g, scales, terms, acc, sums);
    scales += kBlockRows, terms += term_step;
    asm volatile("" : : : "memory");
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int h = 0; h < 2; ++h) Finish(w, block, h, x, token + t, Load(sums + (2 * t + h) * kLanes), y, ldy);
  }
}

template <int kBits>
void MultiplyBlocks(const PackedIntegers& w, int64_t block, int64_t n, const QuantizedRows& x, uint8_t* scratch, float* y, int64_t ldy) {
  if (x.tokens <= kFewIntegerTokens) {
    for (int64_t b = block; b < block + n; ++b) MultiplyPacked<kBits, kBits == 8 ? 2 : 4>(w, b, x, y, ldy);
    return;
  }
  constexpr int kPlanes = kBits == 8 ? 2 : 1;
  const int64_t plane = w.padded_cols * kBlockRows;
  float* scales = reinterpret_cast<float*>(scratch);
  uint8_t* codes = scratch + n * w.groups * kBlockRows * sizeof(float);
  for (int64_t b = 0; b < n; ++b) {
    for (int64_t g = 0; g < w.groups; ++g) {
      for (int h = 0; h < 2; ++h) Store(scales + (b * w.groups + g) * kBlockRows + h * kLanes, ScalesOf(w, block + b, g, h));
    }
    SpreadCodes<kBits>(w, block + b, codes + b * kPlanes * plane);
  }
  const auto run = [&](auto tile, int64_t t) {
    ByteBlocks blocks{codes, scales, plane, kPlanes * plane, w.groups * kBlockRows};
    for (int64_t b = 0; b < n; ++b, blocks.codes += blocks.code_step, blocks.scales += blocks.scale_step) {
      tile(w, block + b, blocks, x, t, y, ldy);
    }
  };
  const bool whole = w.group == 32 && w.cols % 32 == 0;
  int64_t t = 0;
  for (; t + 6 <= x.tokens; t += 6) run(whole ? MultiplyByteTile<kPlanes, 6, true> : MultiplyByteTile<kPlanes, 6, false>, t);
  for (; t + 2 <= x.tokens; t += 2) run(MultiplyByteTile<kPlanes, 2, false>, t);
  if (t < x.tokens) run(MultiplyByteTile<kPlanes, 1, false>, t);
}

void MultiplyIntegers(const PackedIntegers& w, int64_t block, int64_t blocks, const QuantizedRows& x, uint8_t* scratch, float* y,
                      int64_t ldy) {
  switch (w.bits) {
    case 2: return MultiplyBlocks<2>(w, block, blocks, x, scratch, y, ldy);
    case 4: return MultiplyBlocks<4>(w, block, blocks, x, scratch, y, ldy);
    default: return MultiplyBlocks<8>(w, block, blocks, x, scratch, y, ldy);
  }
}

// u - zero as floats, byte i of quad j in each row's lane.
template <int kBits>
inline V ReadCode(VI chunk, int i, int j, V zeros) {
  const VI code = _mm256_and_si256(_mm256_srli_epi32(chunk, 8 * i + kBits * j), _mm256_set1_epi32((1 << kBits) - 1));
  return Subtract(_mm256_cvtepi32_ps(code), zeros);
}

// Eight rows of a block for kTokens tokens.
template <int kBits, int kTokens>
void MultiplyFloatTile(const PackedIntegers& w, int64_t block, int half, const float* x, int64_t ldx, float* y, int64_t ldy) {
  constexpr int kColumns = 32 / kBits;
  V totals[kTokens];
  for (V& total : totals) total = Set(0.0f);
  for (int64_t g = 0; g < w.groups; ++g) {
    V sums[kTokens][4];
#pragma GCC unroll 2
    for (int t = 0; t < kTokens; ++t) sums[t][0] = sums[t][1] = sums[t][2] = sums[t][3] = Set(0.0f);
    const V zeros = ToFloat(ZerosOf(w, block, g, half));
    const int64_t begin = g * w.padded_group, end = begin + GroupColumns(w, g);
    const uint8_t* chunk_at = BlockCodes(w, block) + begin * 2 * kBits + 32 * half;
    for (int64_t k = begin; k < end; k += kColumns, chunk_at += 64) {
      const VI chunk = LoadBytes(chunk_at);
#pragma GCC unroll 4
      for (int j = 0; j < 8 / kBits; ++j) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          const V weights = ReadCode<kBits>(chunk, i, j, zeros);
#pragma GCC unroll 2
          for (int t = 0; t < kTokens; ++t) sums[t][i] = Fma(weights, Set(x[t * ldx + k + 4 * j + i]), sums[t][i]);
        }
      }
    }
#pragma GCC unroll 2
    for (int t = 0; t < kTokens; ++t) {
      const V sum = Add(Add(sums[t][0], sums[t][1]), Add(sums[t][2], sums[t][3]));
      totals[t] = Fma(ScalesOf(w, block, g, half), sum, totals[t]);
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    StoreRows(y + t * ldy + block * kBlockRows + 8 * half, RowsInBlock(w, block) - 8 * half, totals[t]);
  }
}

template <int kBits>
void MultiplyFloatBlock(const PackedIntegers& w, int64_t block, const float* x, int64_t ldx, int64_t tokens, float* y,
                        int64_t ldy) {
  for (int half = 0; half < 2; ++half) {
    int64_t t = 0;
    for (; t + 2 <= tokens; t += 2) MultiplyFloatTile<kBits, 2>(w, block, half, x + t * ldx, ldx, y + t * ldy, ldy);
    if (t < tokens) MultiplyFloatTile<kBits, 1>(w, block, half, x + t * ldx, ldx, y + t * ldy, ldy);
  }
}

void MultiplyWeightOnly(const PackedIntegers& w, int64_t block, const float* x, int64_t ldx, int64_t tokens, float* y,
                        int64_t ldy) {
  switch (w.bits) {
    case 2: return MultiplyFloatBlock<2>(w, block, x, ldx, tokens, y, ldy);
    case 4: return MultiplyFloatBlock<4>(w, block, x, ldx, tokens, y, ldy);
    default: return MultiplyFloatBlock<8>(w, block, x, ldx, tokens, y, ldy);
  }
}

// Eight rows of columns [first, first + n) of group g.
template <int kBits>
void DecodeHalf(const PackedIntegers& w, int64_t block, int64_t g, int half, int64_t first, int64_t n, float* panel) {
  constexpr int kColumns = 32 / kBits;
  const V zeros = ToFloat(ZerosOf(w, block, g, half)), scales = ScalesOf(w, block, g, half);
  const uint8_t* chunk_at = BlockCodes(w, block) + (g * w.padded_group + first) * 2 * kBits + 32 * half;
  float* out = panel + 8 * half;
  for (int64_t k = 0; k < n; k += kColumns, chunk_at += 64) {
    const VI chunk = LoadBytes(chunk_at);
#pragma GCC unroll 16
    for (int i = 0; i < kColumns; ++i) {
      if (k + i < n) Store(out + (k + i) * kBlockRows, Mul(scales, ReadCode<kBits>(chunk, i % 4, i / 4, zeros)));
    }
  }
}

void DecodePanel(const PackedIntegers& w, int64_t block, int64_t g, int64_t first, int64_t n, float* panel) {
  for (int half = 0; half < 2; ++half) {
    switch (w.bits) {
      case 2: DecodeHalf<2>(w, block, g, half, first, n, panel); break;
      case 4: DecodeHalf<4>(w, block, g, half, first, n, panel); break;
      default: DecodeHalf<8>(w, block, g, half, first, n, panel);
    }
  }
}

}  // namespace

constinit const KernelFunctions kAvx2Functions = {
    .quantize_token = QuantizeToken,
    .multiply_integers = MultiplyIntegers,
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
    .rms_norm = RmsNorm,
    .silu_mul = SiluMul,
    .softmax_step = SoftmaxStep,
    .scale_add = ScaleAdd,
};

constinit const ProbeFunctions kAvx2Probes = {
    .sum = ProbeSum, .multiply_adds = ProbeMultiplyAdds, .flops_per_round = 2 * kProbeChains * kLanes};

}  // namespace nibble::kernels
