// Products of bf16 operands with AVX-512 BF16 (Cooper Lake, Sapphire Rapids,
// Zen 4 and later), beside the functions of the VNNI table. Compiled a second
// time for tests with the two instructions spelled out in AVX-512F, so that a
// machine without them checks everything around them.

#include <immintrin.h>

#include "core/kernels/instruction_sets.h"

namespace nibble::kernels {
namespace {

#ifdef NIBBLE_EMULATE_BF16
#define NIBBLE_BF16_MULTIPLY EmulatedMultiplyBf16Panels
#define NIBBLE_BF16_ROUND EmulatedRoundToBf16
#define NIBBLE_BF16_PROBE EmulatedProbeMultiplyBf16

// acc + the products of both halves of each pair, the odd one first.
inline __m512 DotPairs(__m512 acc, __m512i a, __m512i b) {
  const auto odd = [](__m512i v) { return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u)))); };
  const auto even = [](__m512i v) { return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)); };
  return _mm512_fmadd_ps(even(a), even(b), _mm512_fmadd_ps(odd(a), odd(b), acc));
}

// To nearest, ties to even; NaN stays NaN.
inline __m256i Round(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x), one = _mm512_set1_epi32(1);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF))), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(nan, rounded, _mm512_set1_epi32(0x7FC0)));
}
#else
#define NIBBLE_BF16_MULTIPLY MultiplyBf16Panels
#define NIBBLE_BF16_ROUND RoundToBf16
#define NIBBLE_BF16_PROBE ProbeMultiplyBf16

inline __m512 DotPairs(__m512 acc, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

inline __m256i Round(__m512 x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)); }
#endif

// Sums of kTokens tokens and two blocks stay in registers.
template <int kTokens>
void MultiplyTile(const float* panels, int64_t panel_step, int64_t rows, int64_t pairs, const float* tile, bool accumulate,
                  float* y, int64_t ldy) {
  __m512 sums[kTokens][2];
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) sums[t][0] = sums[t][1] = _mm512_setzero_ps();
  // What earlier panels gave has left the second-level cache.
  for (int t = 0; accumulate && t < kTokens; ++t) {
    __builtin_prefetch(y + t * ldy, 1);
    __builtin_prefetch(y + t * ldy + kBlockRows, 1);
  }
  for (int64_t k = 0; k < pairs; ++k, panels += kBlockRows, ++tile) {
    const __m512i first = _mm512_loadu_si512(panels), second = _mm512_loadu_si512(panels + panel_step);
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
      const __m512i x = _mm512_castps_si512(_mm512_set1_ps(tile[t * kTileStride]));
      sums[t][0] = DotPairs(sums[t][0], first, x);
      sums[t][1] = DotPairs(sums[t][1], second, x);
    }
  }
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int b = 0; b < 2; ++b) {
      const int64_t n = rows - b * kBlockRows;
      const __mmask16 some = static_cast<__mmask16>(n >= kBlockRows ? 0xFFFF : n > 0 ? (1 << n) - 1 : 0);
      float* out = y + t * ldy + b * kBlockRows;
      const __m512 before = accumulate ? _mm512_maskz_loadu_ps(some, out) : _mm512_setzero_ps();
      _mm512_mask_storeu_ps(out, some, _mm512_add_ps(before, sums[t][b]));
    }
  }
}

}  // namespace

void NIBBLE_BF16_MULTIPLY(const float* panels, int64_t panel_step, int64_t rows, int64_t pairs, const float* tile, int64_t tokens,
                          bool accumulate, float* y, int64_t ldy) {
  int64_t t = 0;
  const auto run = [&](auto multiply, int64_t n) {
    for (; t + n <= tokens; t += n) {
      for (int64_t r = 0; r < rows; r += 2 * kBlockRows) {
        multiply(panels + r / kBlockRows * panel_step, panel_step, rows - r, pairs, tile + t * kTileStride, accumulate, y + t * ldy + r, ldy);
      }
    }
  };
  run(MultiplyTile<12>, 12);
  run(MultiplyTile<4>, 4);
  run(MultiplyTile<1>, 1);
}

void NIBBLE_BF16_ROUND(const float* x, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 some = static_cast<__mmask16>(n - i >= 16 ? 0xFFFF : (1 << (n - i)) - 1);
    _mm256_mask_storeu_epi16(out + i, some, Round(_mm512_maskz_loadu_ps(some, x + i)));
  }
}

float NIBBLE_BF16_PROBE(int64_t iterations) {
  constexpr int kChains = kBf16ProbeChains;
  __m512 sums[kChains];
#pragma GCC unroll 16
  for (int j = 0; j < kChains; ++j) sums[j] = _mm512_set1_ps(static_cast<float>(j));
  const __m512i factors = _mm512_set1_epi32(0x3F003E80);  // 0.5 and 0.25
  for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kChains; ++j) sums[j] = DotPairs(sums[j], factors, factors);
  }
#pragma GCC unroll 16
  for (int j = 1; j < kChains; ++j) sums[0] = _mm512_add_ps(sums[0], sums[j]);
  return _mm512_reduce_add_ps(sums[0]);
}

}  // namespace nibble::kernels
