#include "core/kernels/integer_product.h"
#include "core/kernels/kernel_table.h"

#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "core/base/divide.h"
#include "core/base/testing.h"
#include "core/kernels/machine.h"
#include "core/kernels/pack.h"
#include "core/kernels/test_tensors.h"
#include "core/quant/integer_grid.h"
#include "core/tensor/hadamard.h"

namespace nibble::kernels {
namespace {

const KernelTable& Portable() { return *AvailableTables().front(); }

class EveryTable : public ::testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& table() const { return *GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(Kernels, EveryTable, ::testing::ValuesIn(AvailableTables()),
                         [](const auto& info) { return info.param->name; });

struct GridCase {
  int bits;
  bool asymmetric;
  QuantScheme::Divisor divisor;
  std::optional<std::pair<float, float>> fixed = std::nullopt;
};

// Quantizes x with the kernel and with core/quant and expects the same bits.
void ExpectSameCodes(const KernelTable& table, const GridCase& c, const std::vector<float>& x) {
  QuantScheme scheme = TokenScheme(c.bits, c.asymmetric);
  scheme.set_divisor(c.divisor);
  if (c.fixed.has_value()) {
    scheme.mutable_fixed()->set_min(c.fixed->first);
    scheme.mutable_fixed()->set_max(c.fixed->second);
  }
  ASSERT_OK_AND_ASSIGN(const Grid grid, ChooseGrid(scheme, c.bits, x));
  const float low = static_cast<float>(1 << (c.bits - 1));
  ActivationGrid fast{.bits = c.bits, .asymmetric = c.asymmetric, .scale_floor = std::numeric_limits<float>::min()};
  fast.divisor = c.divisor == QuantScheme::MAX_CODE ? low - 1 : c.divisor == QuantScheme::MIN_CODE ? low : low - 0.5f;
  if (c.fixed.has_value()) fast.fixed = true, fast.min = c.fixed->first, fast.max = c.fixed->second;
  std::vector<int8_t> codes(x.size() + 1, 77);
  float scale;
  int32_t zero;
  table.quantize_token(fast, x.data(), x.size(), codes.data(), &scale, &zero);
  const int32_t half = 1 << (c.bits - 1);
  EXPECT_EQ(scale, grid.scale);
  EXPECT_EQ(zero, grid.zero - half);
  EXPECT_EQ(codes.back(), 77);
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(codes[i], EncodeValue(grid, x[i], (1 << c.bits) - 1) - half) << "element " << i << " is " << x[i];
  }
}

TEST_P(EveryTable, QuantizesTokensToTheBit) {
  Rng rng(3);
  std::vector<std::vector<float>> tokens = {
      std::vector<float>(100, 0.0f), std::vector<float>(37, -3.5f), {0.25f}, {}, std::vector<float>(40, 1e-40f)};
  for (const int64_t n : {1, 7, 8, 15, 16, 17, 100, 333}) {
    for (const float size : {1e-20f, 1.0f, 1e20f}) {
      tokens.push_back(RandomFloats(n, rng, size));
      tokens.push_back(tokens.back());
      for (float& v : tokens.back()) v = std::fabs(v);
      tokens.push_back(RandomFloats(n, rng, size));
      tokens.back()[n / 2] *= -1e6f;  // one outlier
    }
  }
  std::vector<float> ties = {-64, 63.5f, 127, 127.5f};  // scales of 1 or 0.5: halves are exact ties
  for (float v = -20; v < 20; v += 0.25f) ties.push_back(v);
  tokens.push_back(ties);
  for (int bits = 2; bits <= 8; ++bits) {
    for (const auto& x : tokens) {
      ExpectSameCodes(table(), {bits, true, QuantScheme::MAX_CODE}, x);
      for (const auto divisor : {QuantScheme::MAX_CODE, QuantScheme::HALF_RANGE, QuantScheme::MIN_CODE}) {
        ExpectSameCodes(table(), {bits, false, divisor}, x);
      }
      ExpectSameCodes(table(), {bits, true, QuantScheme::MAX_CODE, {{-1.25f, 3.0f}}}, x);
      ExpectSameCodes(table(), {bits, false, QuantScheme::MAX_CODE, {{-0.75f, 0.5f}}}, x);
    }
  }
}

TEST_P(EveryTable, SumsOfCodes) {
  Rng rng(5);
  for (int64_t n : {0, 1, 31, 32, 33, 64, 1000}) {
    std::vector<int8_t> codes(n);
    for (int8_t& code : codes) code = static_cast<int8_t>(rng.Below(256));
    EXPECT_EQ(table().sum_codes(codes.data(), n), std::accumulate(codes.begin(), codes.end(), 0));
    std::fill(codes.begin(), codes.end(), -128);
    EXPECT_EQ(table().sum_codes(codes.data(), n), -128 * n);
  }
}

TEST_P(EveryTable, QuantizerStaysInRangeForBadValues) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -1e38f}) {
    for (const bool asymmetric : {false, true}) {
      std::vector<float> x(21, 1.0f);
      x[5] = bad;
      x[20] = bad;
      std::vector<int8_t> codes(x.size());
      float scale;
      int32_t zero;
      const ActivationGrid grid{.bits = 4, .asymmetric = asymmetric, .divisor = 7, .scale_floor = 1e-30f};
      table().quantize_token(grid, x.data(), x.size(), codes.data(), &scale, &zero);
      EXPECT_TRUE(zero >= -8 && zero <= 7);
      for (const int8_t code : codes) EXPECT_TRUE(code >= -8 && code <= 7);
      EXPECT_EQ(std::isnan(scale), !std::isfinite(bad));
    }
  }
}

// One packed weight with inputs in every form that kernels take.
struct Product {
  // With `table` codes stand for random values, which only float products know.
  Product(int bits, bool asymmetric, int64_t group, int64_t rows, int64_t cols, int64_t tokens, uint64_t seed, bool table = false)
      : rows(rows), cols(cols), tokens(tokens), rng(seed) {
    QuantScheme scheme = WeightScheme(bits, asymmetric, group);
    constexpr QuantScheme::ScaleType kScaleTypes[] = {QuantScheme::FP32, QuantScheme::FP16, QuantScheme::BF16};
    scheme.set_scale_type(kScaleTypes[seed % 3]);
    weight = RandomWeight(scheme, rows, cols, rng);
    CodeView view = *AsIntegers(weight);
    if (table) values = RandomFloats(int64_t{1} << bits, rng);
    view.values = values;
    decoded.resize(rows * cols);
    view.DecodeRows(0, rows, decoded.data());
    packed = PackCodes(view);
    const PackedIntegers& p = packed.view;
    x = RandomFloats(tokens * cols, rng);
    padded_x.resize(tokens * p.padded_cols);
    codes.resize(tokens * p.padded_cols);
    group_terms.resize(tokens * p.groups);
    for (int64_t t = 0; t < tokens; ++t) {
      scales.push_back(0.01f + static_cast<float>(rng.Uniform()));
      zeros.push_back(static_cast<int32_t>(rng.Below(256)) - 128);
      for (int64_t k = 0; k < cols; ++k) {
        const int64_t at = t * p.padded_cols + k / p.group * p.padded_group + k % p.group;
        padded_x[at] = x[t * cols + k];
        codes[at] = static_cast<int8_t>(rng.Below(256));
        decoded_codes.push_back(scales[t] * static_cast<float>(codes[at] - zeros[t]));
        group_terms[k / p.group * tokens + t] += codes[at] * (p.zeros == nullptr ? -p.zero : 1);
      }
    }
    quantized = {.tokens = tokens,
                 .codes = codes.data(),
                 .stride = p.padded_cols,
                 .scales = scales.data(),
                 .zeros = zeros.data(),
                 .group_terms = group_terms.data(),
                 .term_stride = tokens};
  }

  std::vector<float> Integers(const KernelTable& table) const {
    std::vector<float> y(tokens * (rows + 1), 7);
    for (int64_t b = 0; b < packed.blocks(); ++b) table.multiply_integers(packed.view, b, quantized, y.data(), rows + 1);
    return y;
  }

  std::vector<float> ManyTokens(const KernelTable& table) const {
    std::vector<float> y(tokens * (rows + 1), 7);
    const std::vector<IntegerPanel> panels = IntegerPanels(packed.view);
    Tensor scratch = Tensor::Zeros(DType::kU8, {IntegerScratchBytes(panels, tokens)});
    for (uint8_t& byte : scratch.mutable_as<uint8_t>()) byte = 77;  // kernels may assume nothing
    for (int64_t b = 0; b < packed.blocks(); b += kIntegerBlocks) {
      MultiplyManyTokens(table, packed.view, panels, b, std::min(kIntegerBlocks, packed.blocks() - b), quantized,
                         scratch.mutable_as<uint8_t>().data(), y.data(), rows + 1);
    }
    return y;
  }

  std::vector<float> WeightOnly(const KernelTable& table) const {
    std::vector<float> y(tokens * (rows + 1), 7);
    for (int64_t b = 0; b < packed.blocks(); ++b) {
      table.multiply_weight_only(packed.view, b, padded_x.data(), packed.view.padded_cols, tokens, y.data(), rows + 1);
    }
    return y;
  }

  int64_t rows, cols, tokens;
  Rng rng;
  EncodedTensor weight;
  std::vector<float> values, decoded, x, padded_x, scales, decoded_codes;
  PackedWeights packed;
  std::vector<int8_t> codes;
  std::vector<int32_t> zeros, group_terms;
  QuantizedRows quantized;
};

void ExpectNear(const Product& p, const std::vector<float>& y, const Reference& reference, double bound) {
  for (int64_t t = 0; t < p.tokens; ++t) {
    for (int64_t r = 0; r < p.rows; ++r) {
      const int64_t i = t * p.rows + r;
      ASSERT_NEAR(y[t * (p.rows + 1) + r], reference.y[i], bound * reference.magnitude[i] + 1e-30)
          << "token " << t << " row " << r;
    }
    ASSERT_EQ(y[t * (p.rows + 1) + p.rows], 7) << "wrote beyond the rows";
  }
}

// Panels of every group, from its first column and from its second chunk.
void ExpectDecodes(const KernelTable& table, const Product& p) {
  const PackedIntegers& w = p.packed.view;
  std::vector<float> panel(kBlockRows * p.cols + 1);
  for (int64_t b = 0; b < p.packed.blocks(); ++b) {
    for (int64_t g = 0; g < w.groups; ++g) {
      const int64_t length = std::min(w.group, w.cols - g * w.group);
      for (int64_t first = 0; first < std::min(length, kChunkColumns + 1); first += kChunkColumns) {
        panel[(length - first) * kBlockRows] = 7;
        table.decode_panel(w, b, g, first, length - first, panel.data());
        ASSERT_EQ(panel[(length - first) * kBlockRows], 7) << "wrote beyond the columns";
        for (int64_t i = 0; i < (length - first) * kBlockRows; ++i) {
          const int64_t row = b * kBlockRows + i % kBlockRows, col = g * w.group + first + i / kBlockRows;
          if (row >= p.rows) continue;
          ASSERT_EQ(panel[i], p.decoded[row * p.cols + col]) << "row " << row << " column " << col;
        }
      }
    }
  }
}

void CheckProduct(const KernelTable& table, const Product& p) {
  // Integers are exact and the float steps the same: equal to the bit. The
  // bound against double allows for the cancellation of the zero point.
  const std::vector<float> integers = p.Integers(table);
  ASSERT_EQ(integers, p.Integers(Portable()));
  ASSERT_EQ(integers, p.ManyTokens(table));
  Reference reference = ReferenceProduct(p.decoded, p.decoded_codes, p.rows, p.cols, p.tokens);
  for (int64_t t = 0; t < p.tokens; ++t) {
    for (int64_t r = 0; r < p.rows; ++r) {
      double& magnitude = reference.magnitude[t * p.rows + r];
      for (int64_t k = 0; k < p.cols; ++k) magnitude += 256.0 * p.scales[t] * std::fabs(p.decoded[r * p.cols + k]);
    }
  }
  ExpectNear(p, integers, reference, 1e-6);

  ExpectNear(p, p.WeightOnly(table), ReferenceProduct(p.decoded, p.x, p.rows, p.cols, p.tokens), 4e-6);

  ExpectDecodes(table, p);
}

TEST_P(EveryTable, IntegerProductsOfOddShapes) {
  Rng rng(11);
  const int64_t cols_choices[] = {1, 3, 7, 8, 31, 32, 33, 64, 100, 172, 576}, groups[] = {32, 64, 7, 0, -1, 1, 128};
  for (int i = 0; i < 280; ++i) {
    const int bits = 2 + i % 7;
    const bool asymmetric = i / 7 % 2;
    const int64_t group = groups[rng.Below(std::size(groups))], cols = cols_choices[rng.Below(std::size(cols_choices))];
    const int64_t rows = 1 + rng.Below(cols > 200 ? 35 : 70), tokens = 1 + rng.Below(i % 10 == 0 ? 45 : 9);
    SCOPED_TRACE(absl::StrCat("int", bits, asymmetric ? " asymmetric" : "", ", group ", group, ", ", rows, "x", cols,
                              ", ", tokens, " tokens"));
    CheckProduct(table(), Product(bits, asymmetric, group, rows, cols, tokens, i));
    if (HasFatalFailure()) return;
  }
}

TEST_P(EveryTable, CodesOfATable) {
  Rng rng(12);
  for (int i = 0; i < 60; ++i) {
    const int bits = 2 + i % 7;
    const int64_t cols = 1 + rng.Below(150), rows = 1 + rng.Below(40), tokens = 1 + rng.Below(9), group = i % 3 == 0 ? 0 : 1 + rng.Below(64);
    SCOPED_TRACE(absl::StrCat(bits, " bits, group ", group, ", ", rows, "x", cols, ", ", tokens, " tokens"));
    const Product p(bits, false, group, rows, cols, tokens, i, true);
    ExpectNear(p, p.WeightOnly(table()), ReferenceProduct(p.decoded, p.x, p.rows, p.cols, p.tokens), 4e-6);
    ExpectDecodes(table(), p);
    if (HasFatalFailure()) return;
  }
}

// The extremes of both operands over a long group: where 16-bit sums would
// overflow.
TEST_P(EveryTable, IntegerProductsDoNotSaturate) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const int8_t code : {-128, 127}) {
      Product p(bits, false, 0, 16, 1000, code > 0 ? 5 : 29, 1);
      Tensor extremes = Tensor::Zeros(DType::kU8, p.packed.codes.shape());
      for (uint8_t& c : extremes.mutable_as<uint8_t>()) c = 0xFF;
      p.packed.view.codes = extremes.bytes().data();
      for (auto& c : p.codes) c = code;
      for (auto& term : p.group_terms) term = 1000 * code * -p.packed.view.zero;
      // Padded columns hold codes 0.
      for (int64_t t = 0; t < p.tokens; ++t) {
        for (int64_t k = p.cols; k < p.packed.view.padded_cols; ++k) p.codes[t * p.packed.view.padded_cols + k] = 0;
      }
      EXPECT_EQ(p.Integers(table()), p.Integers(Portable())) << bits << " bits, code " << int{code};
    }
  }
}

TEST_P(EveryTable, MatvecAndConversions) {
  Rng rng(5);
  for (const int64_t cols : {1, 3, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100, 172}) {
    for (const int64_t rows : {1, 2, 3, 4, 5, 9}) {
      const std::vector<float> x = RandomFloats(cols, rng), w = RandomFloats(rows * cols, rng);
      std::vector<uint16_t> bf16, fp16;
      std::vector<float> from_bf16, from_fp16, y(rows), converted(w.size() + 1, 7);
      for (const float v : w) {
        bf16.push_back(FloatToBf16(v));
        fp16.push_back(FloatToFp16(v));
        from_bf16.push_back(Bf16ToFloat(bf16.back()));
        from_fp16.push_back(Fp16ToFloat(fp16.back()));
      }
      const auto expect_product = [&](const std::vector<float>& values) {
        const Reference reference = ReferenceProduct(values, x, rows, cols, 1);
        for (int64_t r = 0; r < rows; ++r) ASSERT_NEAR(y[r], reference.y[r], 2e-6 * reference.magnitude[r]);
      };
      for (const bool in_order : {false, true}) {
        table().matvec_bf16(bf16.data(), rows, cols, x.data(), in_order, y.data());
        expect_product(from_bf16);
        table().matvec_fp16(fp16.data(), rows, cols, x.data(), in_order, y.data());
        expect_product(from_fp16);
        table().matvec_fp32(w.data(), rows, cols, x.data(), in_order, y.data());
        expect_product(w);
      }
      table().convert_bf16(bf16.data(), rows * cols, converted.data());
      EXPECT_TRUE(std::equal(from_bf16.begin(), from_bf16.end(), converted.begin()));
      table().convert_fp16(fp16.data(), rows * cols, converted.data());
      EXPECT_TRUE(std::equal(from_fp16.begin(), from_fp16.end(), converted.begin()));
      EXPECT_EQ(converted.back(), 7);
    }
  }
}

TEST_P(EveryTable, DecodesCaches) {
  Rng rng(6);
  for (const int bits : {4, 8}) {
    for (const bool by_lane : {false, true}) {
      const int64_t n = 23;
      std::vector<uint8_t> codes(2 * bits * n);
      for (uint8_t& byte : codes) byte = static_cast<uint8_t>(rng.Below(256));
      const std::vector<float> scale = RandomFloats(n, rng), low = RandomFloats(n, rng);
      std::vector<float> out(n * kBlockRows), expected(n * kBlockRows);
      table().decode_cache(codes.data(), bits, n, by_lane, scale.data(), low.data(), out.data());
      Portable().decode_cache(codes.data(), bits, n, by_lane, scale.data(), low.data(), expected.data());
      EXPECT_EQ(out, expected);
    }
  }
}

// Panels of every float format, and their products with tiles of tokens.
TEST_P(EveryTable, Panels) {
  Rng rng(7);
  for (const int64_t rows : {1, 7, 8, 9, 16, 17, 24, 32, 33, 50}) {
    for (const int64_t depth : {1, 5, 8, 16, 17, 100, 256}) {
      const int64_t tokens = 1 + rng.Below(kTileTokens), ldw = depth + 3, blocks = CeilDiv(rows, kBlockRows);
      const std::vector<float> w = RandomFloats(rows * ldw, rng);
      std::vector<float> panels((blocks + 1) * kPanelFloats, 0.5f), tile(kTileTokens * kTileStride), x, dense;
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t n = std::min(kBlockRows, rows - b * kBlockRows);
        table().panel_from_fp32(w.data() + b * kBlockRows * ldw, ldw, n, depth, panels.data() + b * kPanelFloats);
        for (int64_t i = 0; i < depth * kBlockRows; ++i) {
          const int64_t r = i % kBlockRows, row = b * kBlockRows + r;
          ASSERT_EQ(panels[b * kPanelFloats + i], r < n ? w[row * ldw + i / kBlockRows] : 0.0f);
        }
      }
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t k = 0; k < depth; ++k) x.push_back(tile[t * kTileStride + k] = rng.Normal());
      }
      for (int64_t r = 0; r < rows; ++r) dense.insert(dense.end(), w.begin() + r * ldw, w.begin() + r * ldw + depth);
      const Reference reference = ReferenceProduct(dense, x, rows, depth, tokens);
      std::vector<float> y(tokens * (rows + 1), 7);
      for (const bool accumulate : {false, true}) {
        table().multiply_panels(panels.data(), kPanelFloats, rows, depth, tile.data(), tokens, accumulate, y.data(), rows + 1);
        for (int64_t i = 0; i < tokens * rows; ++i) {
          ASSERT_NEAR(y[i / rows * (rows + 1) + i % rows], (accumulate ? 2 : 1) * reference.y[i], 8e-6 * reference.magnitude[i]);
        }
        for (int64_t t = 0; t < tokens; ++t) ASSERT_EQ(y[t * (rows + 1) + rows], 7) << "wrote beyond the rows";
      }
    }
  }
}

TEST_P(EveryTable, PanelsOfHalves) {
  Rng rng(9);
  for (const int64_t rows : {1, 5, 16}) {
    for (const int64_t cols : {1, 7, 16, 19, 40}) {
      std::vector<uint16_t> halves(rows * (cols + 1));
      for (uint16_t& h : halves) h = FloatToBf16(rng.Normal());
      std::vector<float> panel(cols * kBlockRows);
      const auto expect = [&](float (*read)(uint16_t)) {
        for (int64_t i = 0; i < cols * kBlockRows; ++i) {
          const int64_t r = i % kBlockRows;
          ASSERT_EQ(panel[i], r < rows ? read(halves[r * (cols + 1) + i / kBlockRows]) : 0.0f);
        }
      };
      table().panel_from_bf16(halves.data(), cols + 1, rows, cols, panel.data());
      expect(Bf16ToFloat);
      for (uint16_t& h : halves) h = FloatToFp16(rng.Normal());
      table().panel_from_fp16(halves.data(), cols + 1, rows, cols, panel.data());
      expect(Fp16ToFloat);
    }
  }
}

TEST_P(EveryTable, ConvertsSpecialHalves) {
  std::vector<uint16_t> in;
  for (uint32_t bits = 0; bits < 65536; bits += 3) in.push_back(static_cast<uint16_t>(bits));
  std::vector<float> out(in.size());
  const auto expect_same = [&](float (*reference)(uint16_t)) {
    for (size_t i = 0; i < in.size(); ++i) {
      const float expected = reference(in[i]);
      if (std::isnan(expected)) ASSERT_TRUE(std::isnan(out[i])) << in[i];
      else ASSERT_EQ(out[i], expected) << in[i];
    }
  };
  table().convert_fp16(in.data(), in.size(), out.data());
  expect_same(Fp16ToFloat);
  table().convert_bf16(in.data(), in.size(), out.data());
  expect_same(Bf16ToFloat);
}

TEST_P(EveryTable, HadamardIsThatOfTheTensorLibrary) {
  for (const int64_t size : {1, 2, 8, 12, 64, 192, 576, 1536, 8192}) {
    ASSERT_OK_AND_ASSIGN(const Hadamard hadamard, Hadamard::Create(size));
    std::vector<float> x(size), scratch(size);
    std::vector<double> expected(size);
    for (int64_t i = 0; i < size; ++i) expected[i] = x[i] = static_cast<float>((i * 7919) % 23) - 11;
    hadamard.Apply(expected.data());
    table().hadamard(hadamard.signs().data(), hadamard.order(), hadamard.fast(), hadamard.scale(), x.data(), scratch.data());
    for (int64_t i = 0; i < size; ++i) ASSERT_NEAR(x[i], expected[i], 1e-4) << size;
  }
}

// silu(g) with up = 1/g is 1 / (1 + exp(-g)), which shows exp for large -g.
TEST_P(EveryTable, SiluMul) {
  std::vector<float> gate, up;
  for (float g = -86; g < 90; g += 0.0371f) gate.push_back(g);
  for (const float g : {0.0f, -0.0f, 1e-30f, 20.0f, 1000.0f}) gate.push_back(g);
  for (size_t i = 0; i < gate.size(); ++i) up.push_back(static_cast<float>(i % 7) - 3.5f);
  std::vector<float> out(gate.size());
  table().silu_mul(gate.data(), up.data(), gate.size(), out.data());
  for (size_t i = 0; i < gate.size(); ++i) {
    const double expected = static_cast<double>(gate[i]) / (1 + std::exp(-static_cast<double>(gate[i]))) * up[i];
    ASSERT_NEAR(out[i], expected, 6e-7 * std::fabs(expected)) << gate[i];
  }
  const float extremes[] = {-100, -1e30f, std::numeric_limits<float>::quiet_NaN()}, ones[] = {1, 1, 1};
  table().silu_mul(extremes, ones, 3, out.data());
  EXPECT_NEAR(out[0], 0, 1e-35);
  EXPECT_NEAR(out[1], 0, 1e-35);
  EXPECT_TRUE(std::isnan(out[2]));
}

// Two values: x[1] / x[0] is exp itself.
TEST_P(EveryTable, SoftmaxIsAccurateOverTheWholeRange) {
  double worst = 0;
  for (float d = -87.3f; d <= 0; d += 0.00731f) {
    float x[2] = {3, 3 + d}, max = 0;
    const float sum = table().softmax_step(x, 2, &max);
    const double e = std::exp(static_cast<double>(3 + d) - 3.0);
    EXPECT_EQ(max, 3);
    EXPECT_EQ(x[0], 1);
    worst = std::max({worst, std::fabs(x[1] / e - 1), std::fabs(sum / (1 + e) - 1)});
  }
  EXPECT_LT(worst, 4e-7);  // exp (3e-7 at most) and the rounding of the sum
  for (const float d : {-88.0f, -104.0f, -1e30f, -std::numeric_limits<float>::infinity()}) {
    float x[2] = {0, d}, max = -std::numeric_limits<float>::infinity();
    EXPECT_EQ(table().softmax_step(x, 2, &max), 1);
    EXPECT_EQ(max, 0);
    EXPECT_EQ(x[0], 1);
    EXPECT_EQ(x[1], 0);
  }
}

TEST_P(EveryTable, SoftmaxRmsNormScaleAddOfOddLengths) {
  Rng rng(9);
  for (const int64_t n : {1, 2, 7, 8, 9, 15, 16, 17, 100, 1000}) {
    const std::vector<float> a = RandomFloats(n, rng, 5), b = RandomFloats(n, rng);
    for (const float before : {-100.0f, 100.0f}) {
      std::vector<float> out = a;
      out.push_back(7);
      float running = before;
      const float total = table().softmax_step(out.data(), n, &running);
      double max = before, sum = 0;
      for (const float v : a) max = std::max(max, static_cast<double>(v));
      for (const float v : a) sum += std::exp(v - max);
      EXPECT_EQ(running, max);
      EXPECT_NEAR(total, sum, 1e-6 * sum + 1e-37);
      for (int64_t i = 0; i < n; ++i) EXPECT_NEAR(out[i], std::exp(a[i] - max), 1e-6 * out[i] + 1e-37);
      EXPECT_EQ(out[n], 7);
    }
    double square = 0;
    for (const float v : a) square += static_cast<double>(v) * v;
    std::vector<float> out(n);
    table().rms_norm(a.data(), b.data(), n, 1e-5f, out.data());
    for (int64_t i = 0; i < n; ++i) {
      const double expected = a[i] / std::sqrt(square / static_cast<double>(n) + 1e-5) * b[i];
      EXPECT_NEAR(out[i], expected, 2e-6 * std::fabs(expected));
    }
    out = b;
    table().scale_add(0.5f, a.data(), -2.0f, n, out.data());
    for (int64_t i = 0; i < n; ++i) EXPECT_NEAR(out[i], 0.5 * a[i] - 2.0 * b[i], 1e-5);
  }
}

// Two rows of five columns by hand: the bytes are the layout's definition.
TEST(PackTest, LayoutByHand) {
  EncodedTensor weight;
  weight.scheme = WeightScheme(4, true, 3);
  weight.shape = {2, 5};
  const uint8_t codes[2][5] = {{1, 2, 3, 4, 5}, {6, 7, 8, 9, 10}};
  Tensor packed_codes = Tensor::Zeros(DType::kU8, {2, 3}), zeros = Tensor::Zeros(DType::kU8, {2, 2});
  for (int r = 0; r < 2; ++r) PackRow(4, codes[r], packed_codes.mutable_as<uint8_t>().data() + 3 * r);
  for (int i = 0; i < 4; ++i) zeros.mutable_as<uint8_t>()[i] = static_cast<uint8_t>(i);
  weight.buffers = {{"codes", packed_codes}, {"scales", Tensor::FromFloats({2, 2}, {1, 2, 3, 4})}, {"zeros", zeros}};
  ASSERT_OK(CheckEncoded(weight));
  const PackedWeights packed = PackCodes(*AsIntegers(weight));
  EXPECT_EQ(packed.view.padded_group, 8);
  EXPECT_EQ(packed.view.padded_cols, 16);  // groups {3, 2}, each padded to 8
  std::vector<uint8_t> expected(128);
  expected[0] = 1, expected[1] = 2, expected[2] = 3;  // row 0, group 0
  expected[4] = 6, expected[5] = 7, expected[6] = 8;  // row 1
  expected[64] = 4, expected[65] = 5;                 // row 0, group 1
  expected[68] = 9, expected[69] = 10;
  EXPECT_EQ(std::vector<uint8_t>(packed.view.codes, packed.view.codes + 128), expected);
  const float* scales = static_cast<const float*>(packed.view.scales);
  EXPECT_EQ(scales[0], 1);
  EXPECT_EQ(scales[1], 3);
  EXPECT_EQ(scales[16], 2);
  EXPECT_EQ(scales[17], 4);
  EXPECT_EQ(scales[2], 0);
  EXPECT_EQ(packed.view.zeros[17], 3);
  EXPECT_EQ(packed.view.weight_sums[0], 1 * 6 + 2 * (9 - 2));
  EXPECT_EQ(packed.view.weight_sums[1], 3 * (21 - 6) + 4 * (19 - 6));
}

TEST(PackTest, NibblesAndPairsOfBits) {
  for (const int bits : {2, 4, 8}) {
    Rng rng(bits);
    const EncodedTensor weight = RandomWeight(WeightScheme(bits, false, 0), 1, 32, rng);
    const PackedWeights packed = PackCodes(*AsIntegers(weight));
    std::vector<uint8_t> codes(32);
    AsIntegers(weight)->UnpackCodes(0, absl::MakeSpan(codes));
    const int columns = 32 / bits;
    for (int i = 0; i < 4; ++i) {
      int expected = 0;
      for (int j = 0; j < 8 / bits; ++j) expected |= codes[columns + 4 * j + i] << (bits * j);
      EXPECT_EQ(packed.view.codes[64 + i], expected) << bits << " bits, byte " << i;  // the second chunk
    }
  }
  EXPECT_EQ(ContainerBits(2), 2);
  EXPECT_EQ(ContainerBits(3), 4);
  EXPECT_EQ(ContainerBits(5), 8);
}

TEST(ChooseTableTest, ForcedByTheEnvironment) {
  const char* before = std::getenv("NIBBLE_ISA");
  const std::string saved = before == nullptr ? "" : before;
  for (const KernelTable* table : AvailableTables()) {
    setenv("NIBBLE_ISA", table->name.c_str(), 1);
    ASSERT_OK_AND_ASSIGN(const KernelTable* chosen, ChooseTable());
    EXPECT_EQ(chosen, table);
  }
  setenv("NIBBLE_ISA", "portabel", 1);
  const auto unknown = ChooseTable();
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unknown.status().message()), ::testing::HasSubstr("did you mean 'portable'"));
  setenv("NIBBLE_ISA", "", 1);
  ASSERT_OK_AND_ASSIGN(const KernelTable* fastest, ChooseTable());
  EXPECT_EQ(fastest, AvailableTables().back());
  setenv("NIBBLE_ISA", saved.c_str(), 1);
}

TEST(MachineTest, DescribesAndMeasures) {
  const MachineInfo machine = DescribeMachine();
  EXPECT_GE(machine.cpus, 1);
  EXPECT_FALSE(machine.cpu.empty());
  EXPECT_FALSE(machine.kernel_table.empty());
  EXPECT_GT(MeasureReadBandwidth(2, 8), 0);
}

}  // namespace
}  // namespace nibble::kernels
