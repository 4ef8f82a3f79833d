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
inline V LoadFp16(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline V Set(float x) { return _mm512_set1_ps(x); }
inline V Add(V a, V b) { return _mm512_add_ps(a, b); }
inline V Subtract(V a, V b) { return _mm512_sub_ps(a, b); }
inline V Mul(V a, V b) { return _mm512_mul_ps(a, b); }
inline V Div(V a, V b) { return _mm512_div_ps(a, b); }
inline V Fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
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

#include "core/kernels/vector_body.inc"

// Zero points of a block's 16 rows in group g.
inline VI ZerosOf(const PackedIntegers& w, int64_t block, int64_t g) {
  if (w.zeros == nullptr) return _mm512_set1_epi32(w.zero);
  const uint8_t* zeros = w.zeros + (block * w.groups + g) * kBlockRows;
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(zeros)));
}

inline V ScalesOf(const PackedIntegers& w, int64_t block, int64_t g) {
  return Load(w.scales + (block * w.groups + g) * kBlockRows);
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

template <int kBits, int kTokens>
void MultiplyTile(const PackedIntegers& w, int64_t block, const QuantizedRows& x, int64_t token, float* y, int64_t ldy) {
  constexpr int64_t kColumns = 32 / kBits;
  const int32_t* group_sums = x.group_sums + token * w.groups;
  // A sum of codes of up to 255 columns fits in 16 bits, for which
  // multiplication takes one instruction in place of two.
  const bool short_sums = w.group <= 255;
  V sums[kTokens];
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) sums[t] = Set(0.0f);
  for (int64_t g = 0; g < w.groups; ++g) {
    VI acc[kTokens];
    const VI zeros = SubtractInt(_mm512_setzero_si512(), ZerosOf(w, block, g));
    if (short_sums) {
      const VI words = _mm512_and_si512(zeros, SetInt(0xFFFF));
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) acc[t] = _mm512_madd_epi16(words, SetInt(group_sums[t * w.groups + g]));
    } else {
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) acc[t] = _mm512_mullo_epi32(zeros, SetInt(group_sums[t * w.groups + g]));
    }
    TokenRows<kTokens> rows{.rows = {}, .stride = x.stride, .stride3 = 3 * x.stride};
#pragma GCC unroll 3
    for (int i = 0; i < rows.kBases; ++i) rows.rows[i] = x.codes + (token + 4 * i) * x.stride + g * w.padded_group;
    const int64_t chunks = (GroupColumns(w, g) + kColumns - 1) / kColumns;
    DotGroup<kBits, kTokens>(BlockCodes(w, block) + g * w.padded_group * 2 * kBits, chunks, rows, acc);
    const V scales = ScalesOf(w, block, g);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) sums[t] = Fma(scales, ToFloat(acc[t]), sums[t]);
  }
  const V weight_sums = Load(w.weight_sums + block * kBlockRows);
  const int64_t rows = RowsInBlock(w, block);
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
    const V correction = Mul(Set(static_cast<float>(x.zeros[token + t])), weight_sums);
    const V out = Mul(Set(x.scales[token + t]), Subtract(sums[t], correction));
    StorePart(y + (token + t) * ldy + block * kBlockRows, rows, out);
  }
}

template <int kBits>
void MultiplyBlock(const PackedIntegers& w, int64_t block, const QuantizedRows& x, float* y, int64_t ldy) {
  int64_t t = 0;
  for (; t + 12 <= x.tokens; t += 12) MultiplyTile<kBits, 12>(w, block, x, t, y, ldy);
  for (; t + 4 <= x.tokens; t += 4) MultiplyTile<kBits, 4>(w, block, x, t, y, ldy);
  if (t + 2 <= x.tokens) MultiplyTile<kBits, 2>(w, block, x, t, y, ldy), t += 2;
  if (t < x.tokens) MultiplyTile<kBits, 1>(w, block, x, t, y, ldy);
}

void MultiplyIntegers(const PackedIntegers& w, int64_t block, const QuantizedRows& x, float* y, int64_t ldy) {
  switch (w.bits) {
    case 2: return MultiplyBlock<2>(w, block, x, y, ldy);
    case 4: return MultiplyBlock<4>(w, block, x, y, ldy);
    default: return MultiplyBlock<8>(w, block, x, y, ldy);
  }
}

// u - zero as floats, for byte i of quad j in each row's lane. With one zero
// for all rows and few bits a table look-up does it in two instructions: a
// permutation reads only the low four bits of its index.
template <int kBits, bool kZeros>
struct CodeReader {
  explicit CodeReader(const PackedIntegers& w) {
    alignas(64) float values[16];
    for (int i = 0; i < 16; ++i) values[i] = static_cast<float>((i & ((1 << kBits) - 1)) - (kZeros ? 0 : w.zero));
    table = _mm512_load_ps(values);
    SetZeros(Set(static_cast<float>(w.zero)));
  }
  void SetZeros(V group_zeros) { zeros = group_zeros; }

  template <int kByte, int j>
  V Read(VI chunk) const {
    constexpr int kShift = 8 * kByte + kBits * j;
    if constexpr (kBits == 8) {
      const VI code = _mm512_and_si512(kShift == 0 ? chunk : _mm512_srli_epi32(chunk, kShift), _mm512_set1_epi32(255));
      return Subtract(_mm512_cvtepi32_ps(code), zeros);
    } else {
      const V value = _mm512_permutexvar_ps(kShift == 0 ? chunk : _mm512_srli_epi32(chunk, kShift), table);
      return kZeros ? Subtract(value, zeros) : value;
    }
  }

  V table, zeros;
};

template <int kBits, int kTokens, bool kZeros, int j>
inline void AddFloatQuad(const CodeReader<kBits, kZeros>& reader, VI chunk, const float* x, int64_t ldx, V (*sums)[4]) {
  const V columns[4] = {reader.template Read<0, j>(chunk), reader.template Read<1, j>(chunk),
                        reader.template Read<2, j>(chunk), reader.template Read<3, j>(chunk)};
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sums[t][i] = Fma(columns[i], Set(x[t * ldx + 4 * j + i]), sums[t][i]);
  }
}

template <int kBits, int kTokens, bool kZeros>
void MultiplyFloatTile(const PackedIntegers& w, int64_t block, const float* x, int64_t ldx, float* y, int64_t ldy) {
  constexpr int kColumns = 32 / kBits;
  CodeReader<kBits, kZeros> reader(w);
  V totals[kTokens];
  for (V& total : totals) total = Set(0.0f);
  for (int64_t g = 0; g < w.groups; ++g) {
    V sums[kTokens][4];
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) sums[t][0] = sums[t][1] = sums[t][2] = sums[t][3] = Set(0.0f);
    if (kZeros) reader.SetZeros(_mm512_cvtepi32_ps(ZerosOf(w, block, g)));
    const int64_t begin = g * w.padded_group, end = begin + GroupColumns(w, g);
    const uint8_t* chunk_at = BlockCodes(w, block) + begin * 2 * kBits;
    for (int64_t k = begin; k < end; k += kColumns, chunk_at += 64) {
      const VI chunk = _mm512_loadu_si512(chunk_at);
      AddFloatQuad<kBits, kTokens, kZeros, 0>(reader, chunk, x + k, ldx, sums);
      if constexpr (kBits <= 4) AddFloatQuad<kBits, kTokens, kZeros, 1>(reader, chunk, x + k, ldx, sums);
      if constexpr (kBits == 2) AddFloatQuad<kBits, kTokens, kZeros, 2>(reader, chunk, x + k, ldx, sums);
      if constexpr (kBits == 2) AddFloatQuad<kBits, kTokens, kZeros, 3>(reader, chunk, x + k, ldx, sums);
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

template <int kBits, bool kZeros>
void MultiplyFloatBlock(const PackedIntegers& w, int64_t block, const float* x, int64_t ldx, int64_t tokens, float* y,
                        int64_t ldy) {
  int64_t t = 0;
  for (; t + 4 <= tokens; t += 4) MultiplyFloatTile<kBits, 4, kZeros>(w, block, x + t * ldx, ldx, y + t * ldy, ldy);
  if (t + 2 <= tokens) MultiplyFloatTile<kBits, 2, kZeros>(w, block, x + t * ldx, ldx, y + t * ldy, ldy), t += 2;
  if (t < tokens) MultiplyFloatTile<kBits, 1, kZeros>(w, block, x + t * ldx, ldx, y + t * ldy, ldy);
}

void MultiplyWeightOnly(const PackedIntegers& w, int64_t block, const float* x, int64_t ldx, int64_t tokens, float* y,
                        int64_t ldy) {
  const auto run = [&](auto multiply) { multiply(w, block, x, ldx, tokens, y, ldy); };
  const bool zeros = w.zeros != nullptr;
  switch (w.bits) {
    case 2: return run(zeros ? MultiplyFloatBlock<2, true> : MultiplyFloatBlock<2, false>);
    case 4: return run(zeros ? MultiplyFloatBlock<4, true> : MultiplyFloatBlock<4, false>);
    default: return run(zeros ? MultiplyFloatBlock<8, true> : MultiplyFloatBlock<8, false>);
  }
}

// Writes four columns, each a vector over 16 rows, as four values in each row.
inline void StoreColumns(const V* columns, float* out, int64_t ldo) {
  const __m512d ab_low = _mm512_castps_pd(_mm512_unpacklo_ps(columns[0], columns[1]));
  const __m512d ab_high = _mm512_castps_pd(_mm512_unpackhi_ps(columns[0], columns[1]));
  const __m512d cd_low = _mm512_castps_pd(_mm512_unpacklo_ps(columns[2], columns[3]));
  const __m512d cd_high = _mm512_castps_pd(_mm512_unpackhi_ps(columns[2], columns[3]));
  const V rows[4] = {
      _mm512_castpd_ps(_mm512_unpacklo_pd(ab_low, cd_low)), _mm512_castpd_ps(_mm512_unpackhi_pd(ab_low, cd_low)),
      _mm512_castpd_ps(_mm512_unpacklo_pd(ab_high, cd_high)), _mm512_castpd_ps(_mm512_unpackhi_pd(ab_high, cd_high))};
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    _mm_storeu_ps(out + r * ldo, _mm512_castps512_ps128(rows[r]));
    _mm_storeu_ps(out + (r + 4) * ldo, _mm512_extractf32x4_ps(rows[r], 1));
    _mm_storeu_ps(out + (r + 8) * ldo, _mm512_extractf32x4_ps(rows[r], 2));
    _mm_storeu_ps(out + (r + 12) * ldo, _mm512_extractf32x4_ps(rows[r], 3));
  }
}

template <int kBits, bool kZeros, int j>
inline void DecodeQuad(const CodeReader<kBits, kZeros>& reader, VI chunk, V scales, int64_t n, float* out, int64_t ldo) {
  if (n <= 4 * j) return;
  const V columns[4] = {Mul(scales, reader.template Read<0, j>(chunk)), Mul(scales, reader.template Read<1, j>(chunk)),
                        Mul(scales, reader.template Read<2, j>(chunk)), Mul(scales, reader.template Read<3, j>(chunk))};
  if (n >= 4 * j + 4) return StoreColumns(columns, out + 4 * j, ldo);
  float part[kBlockRows][4];
  StoreColumns(columns, part[0], 4);
  for (int64_t r = 0; r < kBlockRows; ++r) __builtin_memcpy(out + r * ldo + 4 * j, part[r], (n - 4 * j) * sizeof(float));
}

template <int kBits, bool kZeros>
void DecodeBits(const PackedIntegers& w, int64_t block, float* out, int64_t ldo) {
  constexpr int kColumns = 32 / kBits;
  CodeReader<kBits, kZeros> reader(w);
  for (int64_t g = 0; g < w.groups; ++g) {
    if (kZeros) reader.SetZeros(_mm512_cvtepi32_ps(ZerosOf(w, block, g)));
    const V scales = ScalesOf(w, block, g);
    const int64_t columns = GroupColumns(w, g);
    const uint8_t* chunk_at = BlockCodes(w, block) + g * w.padded_group * 2 * kBits;
    for (int64_t k = 0; k < columns; k += kColumns, chunk_at += 64) {
      const VI chunk = _mm512_loadu_si512(chunk_at);
      float* at = out + g * w.group + k;
      DecodeQuad<kBits, kZeros, 0>(reader, chunk, scales, columns - k, at, ldo);
      if constexpr (kBits <= 4) DecodeQuad<kBits, kZeros, 1>(reader, chunk, scales, columns - k, at, ldo);
      if constexpr (kBits == 2) DecodeQuad<kBits, kZeros, 2>(reader, chunk, scales, columns - k, at, ldo);
      if constexpr (kBits == 2) DecodeQuad<kBits, kZeros, 3>(reader, chunk, scales, columns - k, at, ldo);
    }
  }
}

void DecodeBlock(const PackedIntegers& w, int64_t block, float* out, int64_t ldo) {
  const bool zeros = w.zeros != nullptr;
  switch (w.bits) {
    case 2: return zeros ? DecodeBits<2, true>(w, block, out, ldo) : DecodeBits<2, false>(w, block, out, ldo);
    case 4: return zeros ? DecodeBits<4, true>(w, block, out, ldo) : DecodeBits<4, false>(w, block, out, ldo);
    default: return zeros ? DecodeBits<8, true>(w, block, out, ldo) : DecodeBits<8, false>(w, block, out, ldo);
  }
}

}  // namespace

constinit const KernelFunctions kAvx512VnniFunctions = {
    .quantize_token = QuantizeToken,
    .multiply_integers = MultiplyIntegers,
    .multiply_weight_only = MultiplyWeightOnly,
    .decode_block = DecodeBlock,
    .matvec_bf16 = Matvec<Bf16>,
    .matvec_fp16 = Matvec<Fp16>,
    .matvec_fp32 = Matvec<Fp32>,
    .convert_bf16 = Convert<Bf16>,
    .convert_fp16 = Convert<Fp16>,
    .rms_norm = RmsNorm,
    .silu_mul = SiluMul,
    .softmax = Softmax,
    .dot = Dot,
    .axpy = Axpy,
};

constinit const ProbeFunctions kAvx512VnniProbes = {
    .sum = ProbeSum, .multiply_adds = ProbeMultiplyAdds, .flops_per_round = 2 * kProbeChains * kLanes};

}  // namespace nibble::kernels
