// The tables for 256-bit dot products of bytes: AVX-VNNI (Alder Lake, Zen 5), and
// the same instruction as AVX-512VL has it. One text, compiled twice: the two
// differ in the encoding of one instruction, so a machine that has either tests
// both.

#include <immintrin.h>

#include "core/kernels/instruction_sets.h"

namespace nibble::kernels {
namespace {

#include "core/kernels/avx2_primitives.inc"
#include "core/kernels/vector_body.inc"
#include "core/kernels/half_blocks.inc"

#ifdef NIBBLE_VNNI_EVEX
#define NIBBLE_VNNI_DOT "vpdpbusd"
#define NIBBLE_VNNI_FUNCTIONS kAvx512VlVnniFunctions
#define NIBBLE_VNNI_PROBES kAvx512VlVnniProbes
#else
#define NIBBLE_VNNI_DOT "%{vex%} vpdpbusd"
#define NIBBLE_VNNI_FUNCTIONS kAvxVnniFunctions
#define NIBBLE_VNNI_PROBES kAvxVnniProbes
#endif

constexpr int kWidePlanes = 1;

// acc + weights * codes, four unsigned by four signed bytes in each lane.
inline VI Dot(VI acc, VI weights, VI codes) {
  asm(NIBBLE_VNNI_DOT " %2, %1, %0" : "+x"(acc) : "x"(weights), "x"(codes));
  return acc;
}

// Two sums for each half, which hide the latency of the instruction where
// tokens are few.
template <int kBits, int kTokens>
inline void AddPacked(const uint8_t* chunk_at, const int8_t* codes, int64_t stride, int64_t chunks, VI (*acc)[2]) {
  constexpr int kQuads = 8 / kBits;
  VI odd[kTokens][2];
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) odd[t][0] = odd[t][1] = _mm256_setzero_si256();
  for (int64_t c = 0; c < chunks; ++c, chunk_at += 64, codes += 4 * kQuads) {
    __builtin_prefetch(chunk_at + kPrefetchBytes);
    const VI chunk[2] = {LoadBytes(chunk_at), LoadBytes(chunk_at + 32)};
#pragma GCC unroll 4
    for (int j = 0; j < kQuads; ++j) {
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        const VI quad = BroadcastQuad(codes + t * stride + 4 * j);
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
          const VI weights = kBits == 8 ? chunk[h] : AndShifted(chunk[h], kBits * j, (1 << kBits) - 1);
          VI& sum = j % 2 == 0 ? acc[t][h] : odd[t][h];
          sum = Dot(sum, weights, quad);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    for (int h = 0; h < 2; ++h) acc[t][h] = AddInt(acc[t][h], odd[t][h]);
  }
}

// Spelled out so that twelve sums, two weights and a broadcast keep their
// registers.
template <int kOffset>
inline void AddQuad(VI low, VI high, const int8_t* codes, VI* acc) {
  VI quad;
  const auto& memory = *reinterpret_cast<const char(*)[]>(codes);
  asm("vpbroadcastd %c7(%5), %2\n\t" NIBBLE_VNNI_DOT " %2, %3, %0\n\t" NIBBLE_VNNI_DOT " %2, %4, %1"
      : "+x"(acc[0]), "+x"(acc[1]), "=&x"(quad)
      : "x"(low), "x"(high), "r"(codes), "m"(memory), "i"(kOffset));
}

template <int kTokens, int kOffset>
inline __attribute__((always_inline)) void AddQuads(const uint8_t* bytes, const int8_t* const* x, VI (*acc)[2]) {
  const VI low = LoadBytes(bytes + 16 * kOffset), high = LoadBytes(bytes + 16 * kOffset + 32);
#pragma GCC unroll 6
  for (int t = 0; t < kTokens; ++t) AddQuad<kOffset>(low, high, x[t], acc[t]);
}

template <int kPlanes, int kTokens>
inline __attribute__((always_inline)) void DotQuads(const uint8_t* bytes, int64_t, const int8_t* const* x, int64_t quads, VI (*acc)[2]) {
  static_assert(kPlanes == 1);
  if (quads == 8) {
    AddQuads<kTokens, 0>(bytes, x, acc), AddQuads<kTokens, 4>(bytes, x, acc), AddQuads<kTokens, 8>(bytes, x, acc);
    AddQuads<kTokens, 12>(bytes, x, acc), AddQuads<kTokens, 16>(bytes, x, acc), AddQuads<kTokens, 20>(bytes, x, acc);
    AddQuads<kTokens, 24>(bytes, x, acc), AddQuads<kTokens, 28>(bytes, x, acc);
    return;
  }
  const int8_t* rows[kTokens];
#pragma GCC unroll 6
  for (int t = 0; t < kTokens; ++t) rows[t] = x[t];
  for (int64_t q = 0; q < quads; ++q, bytes += 64) {
    AddQuads<kTokens, 0>(bytes, rows, acc);
#pragma GCC unroll 6
    for (int t = 0; t < kTokens; ++t) rows[t] += 4;
  }
}

#include "core/kernels/integer_tiles.inc"

int32_t ProbeMultiplyBytes(int64_t iterations) {
  VI sums[kProbeChains];
  for (int j = 0; j < kProbeChains; ++j) sums[j] = SetInt(j);
  const VI weights = _mm256_set1_epi8(3), codes = _mm256_set1_epi8(-5);
  for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kProbeChains; ++j) sums[j] = Dot(sums[j], weights, codes);
  }
  for (int j = 1; j < kProbeChains; ++j) sums[0] = AddInt(sums[0], sums[j]);
  return _mm256_extract_epi32(sums[0], 0);
}

}  // namespace

constinit const KernelFunctions NIBBLE_VNNI_FUNCTIONS = {
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

constinit const ProbeFunctions NIBBLE_VNNI_PROBES = {
    .sum = ProbeSum,
    .multiply_adds = ProbeMultiplyAdds,
    .flops_per_round = 2 * kProbeChains * kLanes,
    .multiply_bytes = ProbeMultiplyBytes,
    .byte_ops_per_round = 2 * kProbeChains * 32};

}  // namespace nibble::kernels
