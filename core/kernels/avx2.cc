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

#include "core/kernels/vector_body.inc"

inline VI LoadBytes(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// Zero points in group g of eight rows of a block, from row 8 * half.
inline VI ZerosOf(const PackedIntegers& w, int64_t block, int64_t g, int half) {
  if (w.zeros == nullptr) return SetInt(w.zero);
  const uint8_t* zeros = w.zeros + (block * w.groups + g) * kBlockRows + 8 * half;
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(zeros)));
}

inline V ScalesOf(const PackedIntegers& w, int64_t block, int64_t g, int half) {
  return Load(w.scales + (block * w.groups + g) * kBlockRows + 8 * half);
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

template <int kBits, int kTokens>
void MultiplyTile(const PackedIntegers& w, int64_t block, const QuantizedRows& x, int64_t token, float* y, int64_t ldy) {
  constexpr int kColumns = 32 / kBits, kChunks = kBits;  // chunks that hold eight quads
  const int32_t* group_sums = x.group_sums + token * w.groups;
  V sums[kTokens][2];
  for (int t = 0; t < kTokens; ++t) sums[t][0] = sums[t][1] = Set(0.0f);
  for (int64_t g = 0; g < w.groups; ++g) {
    VI acc[kTokens][2];
    for (int t = 0; t < kTokens; ++t) {
      const VI group_sum = SetInt(-group_sums[t * w.groups + g]);
      for (int half = 0; half < 2; ++half) acc[t][half] = _mm256_mullo_epi32(ZerosOf(w, block, g, half), group_sum);
    }
    const int64_t chunks = (GroupColumns(w, g) + kColumns - 1) / kColumns;
    const uint8_t* chunk_at = BlockCodes(w, block) + g * w.padded_group * 2 * kBits;
    const int8_t* codes = x.codes + token * x.stride + g * w.padded_group;
    for (int64_t c = 0; c < chunks; c += kChunks) {
      const int64_t n = chunks - c < kChunks ? chunks - c : kChunks;
      AddEightQuads<kBits, kTokens>(chunk_at + 64 * c, codes + kColumns * c, x.stride, n, acc);
    }
    for (int t = 0; t < kTokens; ++t) {
      for (int half = 0; half < 2; ++half) {
        sums[t][half] = Fma(ScalesOf(w, block, g, half), ToFloat(acc[t][half]), sums[t][half]);
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int half = 0; half < 2; ++half) {
      const V weight_sums = Load(w.weight_sums + block * kBlockRows + 8 * half);
      const V correction = Mul(Set(static_cast<float>(x.zeros[token + t])), weight_sums);
      const V out = Mul(Set(x.scales[token + t]), Subtract(sums[t][half], correction));
      StoreRows(y + (token + t) * ldy + block * kBlockRows + 8 * half, RowsInBlock(w, block) - 8 * half, out);
    }
  }
}

template <int kBits, int kTokens>
void MultiplyBlock(const PackedIntegers& w, int64_t block, const QuantizedRows& x, float* y, int64_t ldy) {
  int64_t t = 0;
  for (; t + kTokens <= x.tokens; t += kTokens) MultiplyTile<kBits, kTokens>(w, block, x, t, y, ldy);
  for (; t < x.tokens; ++t) MultiplyTile<kBits, 1>(w, block, x, t, y, ldy);
}

void MultiplyIntegers(const PackedIntegers& w, int64_t block, const QuantizedRows& x, float* y, int64_t ldy) {
  switch (w.bits) {
    case 2: return MultiplyBlock<2, 4>(w, block, x, y, ldy);
    case 4: return MultiplyBlock<4, 4>(w, block, x, y, ldy);
    default: return MultiplyBlock<8, 2>(w, block, x, y, ldy);
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

// Writes four columns, each a vector over eight rows, as four values in each row.
inline void StoreColumns(const V* columns, float* out, int64_t ldo) {
  const V ab_low = _mm256_unpacklo_ps(columns[0], columns[1]), ab_high = _mm256_unpackhi_ps(columns[0], columns[1]);
  const V cd_low = _mm256_unpacklo_ps(columns[2], columns[3]), cd_high = _mm256_unpackhi_ps(columns[2], columns[3]);
  const V rows[4] = {_mm256_shuffle_ps(ab_low, cd_low, 0x44), _mm256_shuffle_ps(ab_low, cd_low, 0xEE),
                     _mm256_shuffle_ps(ab_high, cd_high, 0x44), _mm256_shuffle_ps(ab_high, cd_high, 0xEE)};
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    _mm_storeu_ps(out + r * ldo, _mm256_castps256_ps128(rows[r]));
    _mm_storeu_ps(out + (r + 4) * ldo, _mm256_extractf128_ps(rows[r], 1));
  }
}

template <int kBits>
void DecodeHalf(const PackedIntegers& w, int64_t block, int half, float* out, int64_t ldo) {
  constexpr int kColumns = 32 / kBits;
  for (int64_t g = 0; g < w.groups; ++g) {
    const V zeros = ToFloat(ZerosOf(w, block, g, half)), scales = ScalesOf(w, block, g, half);
    const int64_t columns = GroupColumns(w, g);
    const uint8_t* chunk_at = BlockCodes(w, block) + g * w.padded_group * 2 * kBits + 32 * half;
    for (int64_t k = 0; k < columns; k += 4) {
      const int j = static_cast<int>(k % kColumns / 4);
      const VI chunk = LoadBytes(chunk_at + k / kColumns * 64);
      V quad[4];
      for (int i = 0; i < 4; ++i) quad[i] = Mul(scales, ReadCode<kBits>(chunk, i, j, zeros));
      float* at = out + g * w.group + k;
      if (columns - k >= 4) {
        StoreColumns(quad, at, ldo);
        continue;
      }
      float part[8][4];
      StoreColumns(quad, part[0], 4);
      for (int64_t r = 0; r < 8; ++r) __builtin_memcpy(at + r * ldo, part[r], (columns - k) * sizeof(float));
    }
  }
}

void DecodeBlock(const PackedIntegers& w, int64_t block, float* out, int64_t ldo) {
  for (int half = 0; half < 2; ++half) {
    float* at = out + 8 * half * ldo;
    switch (w.bits) {
      case 2: DecodeHalf<2>(w, block, half, at, ldo); break;
      case 4: DecodeHalf<4>(w, block, half, at, ldo); break;
      default: DecodeHalf<8>(w, block, half, at, ldo);
    }
  }
}

}  // namespace

constinit const KernelFunctions kAvx2Functions = {
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

constinit const ProbeFunctions kAvx2Probes = {
    .sum = ProbeSum, .multiply_adds = ProbeMultiplyAdds, .flops_per_round = 2 * kProbeChains * kLanes};

}  // namespace nibble::kernels
