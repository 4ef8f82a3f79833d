// The portable table: plain loops that say what every kernel means.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/kernels/instruction_sets.h"
#include "core/tensor/half.h"

namespace nibble::kernels {
namespace {

// Partial sums of a long float sum: fixed, so that the result is too.
constexpr int kLanes = 8;

int64_t RowsInBlock(const PackedIntegers& w, int64_t block) {
  const int64_t rest = w.rows - block * kBlockRows;
  return rest < kBlockRows ? rest : kBlockRows;
}

int64_t GroupColumns(const PackedIntegers& w, int64_t g) {
  const int64_t rest = w.cols - g * w.group;
  return rest < w.group ? rest : w.group;
}

// The code of row r, padded column k of a block.
template <int kBits>
int32_t Code(const PackedIntegers& w, int64_t block, int64_t r, int64_t k) {
  constexpr uint64_t kChunkColumns = 32 / kBits;
  const uint64_t column = static_cast<uint64_t>(k) % kChunkColumns, chunk = static_cast<uint64_t>(k) / kChunkColumns;
  const uint8_t* block_codes = w.codes + block * (w.padded_cols * kBlockRows * kBits / 8);
  return block_codes[64 * chunk + 4 * r + column % 4] >> (kBits * (column / 4)) & ((1 << kBits) - 1);
}

float StoredScale(const PackedIntegers& w, int64_t i) {
  switch (w.scale_type) {
    case ScaleType::kFp16: return Fp16ToFloat(static_cast<const uint16_t*>(w.scales)[i]);
    case ScaleType::kBf16: return Bf16ToFloat(static_cast<const uint16_t*>(w.scales)[i]);
    default: return static_cast<const float*>(w.scales)[i];
  }
}

float Scale(const PackedIntegers& w, int64_t block, int64_t r, int64_t g) {
  const float scale = StoredScale(w, (block * w.scale_groups + (g >> w.scale_shift)) * kBlockRows + r);
  return w.scale_codes == nullptr ? scale : scale * static_cast<float>(w.scale_codes[(block * w.groups + g) * kBlockRows + r]);
}

int32_t Zero(const PackedIntegers& w, int64_t block, int64_t r, int64_t g) {
  return w.zeros == nullptr ? w.zero : w.zeros[(block * w.groups + g) * kBlockRows + r];
}

// What a code stands for.
float Value(const PackedIntegers& w, int32_t code, int32_t zero) {
  return w.values != nullptr ? w.values[code] : static_cast<float>(code - zero);
}

void QuantizeToken(const ActivationGrid& grid, const float* x, int64_t n, int8_t* codes, float* scale, int32_t* zero) {
  float min = grid.fixed ? grid.min : 0, max = grid.fixed ? grid.max : 0;
  for (int64_t i = 0; !grid.fixed && i < n; ++i) {
    min = x[i] < min ? x[i] : min;
    max = x[i] > max ? x[i] : max;
  }
  const int32_t max_code = (1 << grid.bits) - 1, half = 1 << (grid.bits - 1);
  const float magnitude = -min > max ? -min : max;
  const float raw = grid.asymmetric ? (max - min) / static_cast<float>(max_code) : magnitude / grid.divisor;
  *scale = raw > grid.scale_floor ? raw : grid.scale_floor;
  const float inverse = 1.0f / *scale;
  const float magic = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to an integer, ties to even
  const float low = -((min * inverse + magic) - magic);
  const int32_t zero_code = !grid.asymmetric ? half : low > 0 ? (low < max_code ? static_cast<int32_t>(low) : max_code) : 0;
  *zero = zero_code - half;
  float bad = 0;
  for (int64_t i = 0; i < n; ++i) {
    bad += x[i] * 0.0f;
    float v = x[i] * inverse;
    v = v > -2097152.0f ? (v < 2097152.0f ? v : 2097152.0f) : -2097152.0f;  // NaN: the lowest code
    const int32_t code = static_cast<int32_t>((v + magic) - magic) + zero_code;
    codes[i] = static_cast<int8_t>((code < 0 ? 0 : code > max_code ? max_code : code) - half);
  }
  if (bad != 0) *scale = bad;
}

int32_t SumCodes(const int8_t* codes, int64_t n) {
  int32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += codes[i];
  return sum;
}

template <int kBits>
void MultiplyIntegers(const PackedIntegers& w, int64_t block, const QuantizedRows& x, float* y, int64_t ldy) {
  for (int64_t t = 0; t < x.tokens; ++t) {
    const int8_t* codes = x.codes + t * x.stride;
    for (int64_t r = 0; r < RowsInBlock(w, block); ++r) {
      float sum = 0;
      for (int64_t g = 0; g < w.groups; ++g) {
        int32_t products = 0;
        const int32_t zero = Zero(w, block, r, g);
        for (int64_t k = 0; k < GroupColumns(w, g); ++k) {
          const int64_t padded = g * w.padded_group + k;
          products += (Code<kBits>(w, block, r, padded) - zero) * codes[padded];
        }
        sum = std::fma(Scale(w, block, r, g), static_cast<float>(products), sum);
      }
      const float correction = static_cast<float>(x.zeros[t]) * w.weight_sums[block * kBlockRows + r];
      y[t * ldy + block * kBlockRows + r] = x.scales[t] * (sum - correction);
    }
  }
}

template <int kBits>
void MultiplyWeightOnly(const PackedIntegers& w, int64_t block, const float* x, int64_t ldx, int64_t tokens, float* y,
                        int64_t ldy) {
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < RowsInBlock(w, block); ++r) {
      float sum = 0;
      for (int64_t g = 0; g < w.groups; ++g) {
        float part = 0;
        const int32_t zero = Zero(w, block, r, g);
        for (int64_t k = 0; k < GroupColumns(w, g); ++k) {
          const int64_t padded = g * w.padded_group + k;
          part += Value(w, Code<kBits>(w, block, r, padded), zero) * x[t * ldx + padded];
        }
        sum += Scale(w, block, r, g) * part;
      }
      y[t * ldy + block * kBlockRows + r] = sum;
    }
  }
}

template <int kBits>
void DecodePanel(const PackedIntegers& w, int64_t block, int64_t g, int64_t first, int64_t n, float* panel) {
  for (int64_t k = 0; k < n; ++k) {
    for (int64_t r = 0; r < kBlockRows; ++r) {
      const int32_t code = Code<kBits>(w, block, r, g * w.padded_group + first + k);
      panel[k * kBlockRows + r] = Scale(w, block, r, g) * Value(w, code, Zero(w, block, r, g));
    }
  }
}

// Codes of a panel: [columns][16].
template <int kBits>
void SpreadIntegers(const PackedIntegers& w, int64_t block, const IntegerPanel& panel, uint8_t* codes, float* scales) {
  for (int64_t k = 0; k < panel.columns; ++k) {
    for (int64_t r = 0; r < kBlockRows; ++r) codes[k * kBlockRows + r] = static_cast<uint8_t>(Code<kBits>(w, block, r, panel.first + k));
  }
  for (int64_t g = 0; g < panel.groups; ++g) {
    for (int64_t r = 0; r < kBlockRows; ++r) scales[g * kBlockRows + r] = Scale(w, block, r, panel.group + g);
  }
}

void MultiplyIntegerPanel(const PackedIntegers& w, int64_t block, int64_t blocks, const IntegerPanel& panel, const QuantizedRows& x,
                          const IntegerWork& work) {
  for (int64_t i = 0; i < x.tokens * blocks * kBlockRows; ++i) {
    const int64_t t = i / (blocks * kBlockRows), b = i / kBlockRows % blocks, r = i % kBlockRows;
    const uint8_t* codes = work.codes + b * kSpreadBytes * kBlockRows * panel.columns;
    float& sum = work.sums[t * kSumStride + b * kBlockRows + r];
    int32_t& carried = work.products[t * kSumStride + b * kBlockRows + r];
    if (panel.first == 0) sum = 0;
    for (int64_t g = 0, k = 0; g < panel.groups; ++g) {
      const int32_t zero = Zero(w, block + b, r, panel.group + g);
      const int64_t end = panel.groups == 1 ? panel.columns : std::min(panel.columns, k + w.padded_group);
      int32_t products = panel.starts ? 0 : carried;
      for (; k < end; ++k) products += (codes[k * kBlockRows + r] - zero) * x.codes[t * x.stride + panel.first + k];
      if (!panel.ends) carried = products;
      else sum = std::fma(work.scales[(b * panel.groups + g) * kBlockRows + r], static_cast<float>(products), sum);
    }
  }
}

void FinishIntegers(const PackedIntegers& w, int64_t block, int64_t blocks, const QuantizedRows& x, const float* sums, float* y,
                    int64_t ldy) {
  const int64_t begin = block * kBlockRows, end = std::min(w.rows, begin + blocks * kBlockRows);
  for (int64_t t = 0; t < x.tokens; ++t) {
    for (int64_t r = begin; r < end; ++r) {
      const float correction = static_cast<float>(x.zeros[t]) * w.weight_sums[r];
      y[t * ldy + r] = x.scales[t] * (sums[t * kSumStride + r - begin] - correction);
    }
  }
}

// The same for the container's bits.
void MultiplyAnyIntegers(const PackedIntegers& w, int64_t block, const QuantizedRows& x, float* y, int64_t ldy) {
  (w.bits == 2 ? MultiplyIntegers<2> : w.bits == 4 ? MultiplyIntegers<4> : MultiplyIntegers<8>)(w, block, x, y, ldy);
}

void SpreadAnyIntegers(const PackedIntegers& w, int64_t block, const IntegerPanel& panel, uint8_t* codes, float* scales) {
  (w.bits == 2 ? SpreadIntegers<2> : w.bits == 4 ? SpreadIntegers<4> : SpreadIntegers<8>)(w, block, panel, codes, scales);
}

void MultiplyAnyWeightOnly(const PackedIntegers& w, int64_t block, const float* x, int64_t ldx, int64_t tokens, float* y,
                           int64_t ldy) {
  const auto multiply = w.bits == 2 ? MultiplyWeightOnly<2> : w.bits == 4 ? MultiplyWeightOnly<4> : MultiplyWeightOnly<8>;
  multiply(w, block, x, ldx, tokens, y, ldy);
}

void DecodeAnyPanel(const PackedIntegers& w, int64_t block, int64_t g, int64_t first, int64_t n, float* panel) {
  (w.bits == 2 ? DecodePanel<2> : w.bits == 4 ? DecodePanel<4> : DecodePanel<8>)(w, block, g, first, n, panel);
}

void DecodeCache(const uint8_t* codes, int bits, int64_t n, bool by_lane, const float* scale, const float* low, float* out) {
  for (int64_t i = 0; i < n; ++i, codes += 2 * bits, out += kBlockRows) {
    for (int64_t r = 0; r < kBlockRows; ++r) {
      const int code = bits == 8 ? codes[r] : codes[r % 8] >> (r / 8 * 4) & 15;
      out[r] = std::fma(scale[by_lane ? r : i], static_cast<float>(code), low[by_lane ? r : i]);
    }
  }
}

// Elements may lie at any address: files promise no alignment.
template <typename T>
T LoadAt(const T* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

float ReadBf16(const uint16_t* p) { return Bf16ToFloat(LoadAt(p)); }
float ReadFp16(const uint16_t* p) { return Fp16ToFloat(LoadAt(p)); }
float ReadFp32(const float* p) { return LoadAt(p); }

float SumLanes(const float* lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

template <typename T, float (*kRead)(const T*)>
float DotProduct(const T* a, const float* b, int64_t n) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] += kRead(a + i + j) * b[i + j];
  }
  for (int j = 0; i < n; ++i, ++j) lanes[j] += kRead(a + i) * b[i];
  return SumLanes(lanes);
}

template <typename T, float (*kRead)(const T*)>
void Matvec(const T* w, int64_t rows, int64_t cols, const float* x, bool, float* y) {
  for (int64_t r = 0; r < rows; ++r) y[r] = DotProduct<T, kRead>(w + r * cols, x, cols);
}

template <typename T, float (*kRead)(const T*)>
void PanelFrom(const T* w, int64_t ldw, int64_t rows, int64_t cols, float* panel) {
  for (int64_t k = 0; k < cols; ++k) {
    for (int64_t r = 0; r < kBlockRows; ++r) panel[k * kBlockRows + r] = r < rows ? kRead(w + r * ldw + k) : 0.0f;
  }
}

void MultiplyPanels(const float* panels, int64_t panel_step, int64_t rows, int64_t depth, const float* tile, int64_t tokens,
                    bool accumulate, float* y, int64_t ldy) {
  for (int64_t first = 0; first < rows; first += kBlockRows, panels += panel_step) {
    const int64_t n = rows - first < kBlockRows ? rows - first : kBlockRows;
    for (int64_t t = 0; t < tokens; ++t) {
      float sums[kBlockRows] = {};
      for (int64_t k = 0; k < depth; ++k) {
        for (int64_t r = 0; r < kBlockRows; ++r) sums[r] += panels[k * kBlockRows + r] * tile[t * kTileStride + k];
      }
      float* out = y + t * ldy + first;
      for (int64_t r = 0; r < n; ++r) out[r] = accumulate ? out[r] + sums[r] : sums[r];
    }
  }
}

template <float (*kRead)(const uint16_t*)>
void Convert(const uint16_t* in, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = kRead(in + i);
}

float Exp(float x) {
  using C = ExpConstants;
  if (x < C::kLowest) return 0;
  if (x != x) return x;
  x = x < C::kHighest ? x : C::kHighest;
  const float magic = 12582912.0f;
  const float n = (x * C::kLog2E + magic) - magic;
  const float r = (x - n * C::kLn2High) - n * C::kLn2Low;
  const float p = (1 + r) + r * r * (C::c2 + r * (C::c3 + r * (C::c4 + r * (C::c5 + r * C::c6))));
  const int32_t power = static_cast<int32_t>(n), first = power >> 1;
  const auto power_of_two = [](int32_t e) { return std::bit_cast<float>((e + 127) << 23); };
  return p * power_of_two(first) * power_of_two(power - first);
}

void RmsNorm(const float* x, const float* gain, int64_t n, float eps, float* out) {
  const float mean = DotProduct<float, ReadFp32>(x, x, n) / static_cast<float>(n);
  const float inverse = 1.0f / std::sqrt(mean + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * inverse * gain[i];
}

void SiluMul(const float* gate, const float* up, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = gate[i] / (1.0f + Exp(-gate[i])) * up[i];
}

void Hadamard(const float* signs, int64_t order, int64_t fast, float scale, float* x, float* scratch) {
  const int64_t n = order * fast;
  for (int64_t i = 0; i < n; ++i) x[i] *= scale;
  for (int64_t half = 1; half < fast; half *= 2) {
    for (int64_t i = 0; i < n; ++i) {
      if (i & half) continue;
      const float a = x[i], b = x[i + half];
      x[i] = a + b;
      x[i + half] = a - b;
    }
  }
  if (order == 1) return;
  for (int64_t i = 0; i < n; ++i) scratch[i] = x[i];
  for (int64_t i = 0; i < n; ++i) {
    x[i] = 0;
    for (int64_t j = 0; j < order; ++j) x[i] += scratch[j * fast + i % fast] * signs[j * order + i / fast];
  }
}

float SoftmaxStep(float* x, int64_t n, float* max) {
  for (int64_t i = 0; i < n; ++i) *max = x[i] > *max ? x[i] : *max;
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % kLanes] += x[i] = Exp(x[i] - *max);
  return SumLanes(lanes);
}

void ScaleAdd(float a, const float* x, float b, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = a * x[i] + b * y[i];
}

float Sum(const float* x, int64_t n) {
  float lanes[32] = {};
  for (int64_t i = 0; i + 32 <= n; i += 32) {
    for (int j = 0; j < 32; ++j) lanes[j] += x[i + j];
  }
  return SumLanes(lanes) + SumLanes(lanes + 8) + SumLanes(lanes + 16) + SumLanes(lanes + 24);
}

float MultiplyAdds(int64_t iterations) {
  float lanes[32];
  for (int j = 0; j < 32; ++j) lanes[j] = static_cast<float>(j);
  for (int64_t i = 0; i < iterations; ++i) {
    for (int j = 0; j < 32; ++j) lanes[j] = lanes[j] * 0.999f + 0.5f;
  }
  return SumLanes(lanes) + SumLanes(lanes + 8) + SumLanes(lanes + 16) + SumLanes(lanes + 24);
}

int32_t MultiplyBytes(int64_t iterations) {
  int32_t lanes[32];
  for (int j = 0; j < 32; ++j) lanes[j] = j;
  volatile uint8_t weight = 3;
  volatile int8_t code = -5;
  for (int64_t i = 0; i < iterations; ++i) {
    const int32_t product = weight * code;
    for (int j = 0; j < 32; ++j) lanes[j] += product;
  }
  int32_t sum = 0;
  for (const int32_t lane : lanes) sum += lane;
  return sum;
}

}  // namespace

constinit const KernelFunctions kPortableFunctions = {
    .quantize_token = QuantizeToken,
    .sum_codes = SumCodes,
    .multiply_integers = MultiplyAnyIntegers,
    .spread_integers = SpreadAnyIntegers,
    .multiply_integer_panel = MultiplyIntegerPanel,
    .finish_integers = FinishIntegers,
    .multiply_weight_only = MultiplyAnyWeightOnly,
    .decode_panel = DecodeAnyPanel,
    .panel_from_bf16 = PanelFrom<uint16_t, ReadBf16>,
    .panel_from_fp16 = PanelFrom<uint16_t, ReadFp16>,
    .panel_from_fp32 = PanelFrom<float, ReadFp32>,
    .multiply_panels = MultiplyPanels,
    .matvec_bf16 = Matvec<uint16_t, ReadBf16>,
    .matvec_fp16 = Matvec<uint16_t, ReadFp16>,
    .matvec_fp32 = Matvec<float, ReadFp32>,
    .convert_bf16 = Convert<ReadBf16>,
    .convert_fp16 = Convert<ReadFp16>,
    .decode_cache = DecodeCache,
    .rms_norm = RmsNorm,
    .silu_mul = SiluMul,
    .hadamard = Hadamard,
    .softmax_step = SoftmaxStep,
    .scale_add = ScaleAdd,
};

constinit const ProbeFunctions kPortableProbes = {.sum = Sum, .multiply_adds = MultiplyAdds, .flops_per_round = 64,
                                          .multiply_bytes = MultiplyBytes, .byte_ops_per_round = 64};

}  // namespace nibble::kernels
