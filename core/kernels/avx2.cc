// The table for AVX2 with FMA and F16C. It has no dot product of bytes that
// cannot saturate, so codes of up to four bits are summed in 16 bits over eight
// quads, and 8-bit codes go as two nibbles.

#include <immintrin.h>

#include "core/kernels/instruction_sets.h"

namespace nibble::kernels {
namespace {

#include "core/kernels/avx2_primitives.inc"
#include "core/kernels/vector_body.inc"
#include "core/kernels/half_blocks.inc"

// An 8-bit code is two nibbles.
constexpr int kWidePlanes = 2;

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
    __builtin_prefetch(chunks + kPrefetchBytes);
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

template <int kBits, int kTokens>
inline void AddPacked(const uint8_t* chunk_at, const int8_t* codes, int64_t stride, int64_t chunks, VI (*acc)[2]) {
  constexpr int kColumns = 32 / kBits, kChunks = kBits;  // chunks that hold eight quads
  for (int64_t c = 0; c < chunks; c += kChunks) {
    const int64_t n = chunks - c < kChunks ? chunks - c : kChunks;
    AddEightQuads<kBits, kTokens>(chunk_at + 64 * c, codes + kColumns * c, stride, n, acc);
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

#include "core/kernels/integer_tiles.inc"

// Sums in 16 bits may wrap around here: only time is read.
int32_t ProbeMultiplyBytes(int64_t iterations) {
  VI sums[kProbeChains];
  for (int j = 0; j < kProbeChains; ++j) sums[j] = SetInt(j);
  VI weights = _mm256_set1_epi8(3), codes = _mm256_set1_epi8(-5);
  for (int64_t i = 0; i < iterations; ++i) {
    // The product is the same each time, which the compiler may not know.
    asm("" : "+x"(weights), "+x"(codes));
#pragma GCC unroll 16
    for (int j = 0; j < kProbeChains; ++j) {
      VI product;
      asm("vpmaddubsw %2, %1, %0" : "=x"(product) : "x"(weights), "x"(codes));
      sums[j] = _mm256_add_epi16(sums[j], product);
    }
  }
  for (int j = 1; j < kProbeChains; ++j) sums[0] = AddInt(sums[0], sums[j]);
  return _mm256_extract_epi32(sums[0], 0);
}

}  // namespace

constinit const KernelFunctions kAvx2Functions = {
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

constinit const ProbeFunctions kAvx2Probes = {
    .sum = ProbeSum,
    .multiply_adds = ProbeMultiplyAdds,
    .flops_per_round = 2 * kProbeChains * kLanes,
    .multiply_bytes = ProbeMultiplyBytes,
    .byte_ops_per_round = 2 * kProbeChains * 32};

}  // namespace nibble::kernels
