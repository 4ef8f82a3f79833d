// Holds one table against the portable one over seeded random shapes, without
// any library, so that it cross-compiles to a static program for an emulator:
// kernel_table_test asks the same of the tables that this machine runs. Prints
// a line for each function; exits with 1 at the first disagreement.
//
// NIBBLE_CHECKED_FUNCTIONS and NIBBLE_CHECKED_PROBES name the table.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/base/divide.h"
#include "core/kernels/instruction_sets.h"
#include "core/kernels/integer_product.h"
#include "core/tensor/half.h"

namespace nibble::kernels {
namespace {

const KernelFunctions& kTable = NIBBLE_CHECKED_FUNCTIONS;
const KernelFunctions& kMeaning = kPortableFunctions;

// What buffers hold where nothing may be written.
constexpr int kGuard = 77;

// SplitMix64 (Steele et al., 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  int64_t Below(int64_t n) { return static_cast<int64_t>(Next() % static_cast<uint64_t>(n)); }
  float Uniform() { return static_cast<float>(Next() >> 40) * 0x1p-24f; }
  float Signed() { return 2 * Uniform() - 1; }
  template <size_t n>
  int64_t Among(const int64_t (&choices)[n]) { return choices[Below(n)]; }

 private:
  uint64_t state_;
};

std::vector<float> RandomFloats(int64_t n, Random& random, float size = 1) {
  std::vector<float> values(n);
  for (float& v : values) v = size * random.Signed();
  return values;
}

std::vector<float> Magnitudes(std::vector<float> values) {
  for (float& v : values) v = std::fabs(v);
  return values;
}

// The cases and the largest error of one function.
class Report {
 public:
  explicit Report(const char* function) : function_(function) {}
  Report(const Report&) = delete;
  ~Report() { std::printf("%-30s %5d cases, max error %.1e\n", function_, cases_, worst_); }

  void Case(std::string what) { ++cases_, what_ = std::move(what); }

  // Equal to the bit; NaN is NaN.
  template <typename T>
  void Same(const std::vector<T>& got, const std::vector<T>& expected) {
    for (size_t i = 0; i < expected.size(); ++i) {
      if (std::memcmp(&got[i], &expected[i], sizeof(T)) == 0 || (got[i] != got[i] && expected[i] != expected[i])) continue;
      Fail(i, static_cast<double>(got[i]), static_cast<double>(expected[i]));
    }
  }

  // Within `bound` of the magnitudes of what was summed, or exactly the same.
  void Near(const std::vector<float>& got, const std::vector<float>& expected, const std::vector<float>& magnitudes, double bound) {
    for (size_t i = 0; i < expected.size(); ++i) {
      if (got[i] == expected[i] || (std::isnan(got[i]) && std::isnan(expected[i]))) continue;
      const double error = std::fabs(static_cast<double>(got[i]) - expected[i]) / (magnitudes[i] + 1e-30);
      if (!(error <= bound)) Fail(i, got[i], expected[i]);
      worst_ = std::max(worst_, error);
    }
  }

 private:
  [[noreturn]] void Fail(size_t i, double got, double expected) {
    std::printf("%s: %s: element %zu is %.9g, expected %.9g\n", function_, what_.c_str(), i, got, expected);
    std::exit(1);
  }

  const char* function_;
  std::string what_;
  int cases_ = 0;
  double worst_ = 0;
};

std::string Numbers(std::initializer_list<int64_t> numbers) {
  std::string text;
  for (const int64_t n : numbers) text += (text.empty() ? "" : " ") + std::to_string(n);
  return text;
}


struct alignas(64) Line {
  uint8_t bytes[64];
};

enum class Fill { kRandom, kLowest, kHighest };

struct Shape {
  int bits;
  bool zero_per_group, table;
  ScaleType scale_type;
  int scale_shift;  // scales in two levels, unless it is negative
  int64_t group, rows, cols, tokens;
  Fill fill = Fill::kRandom;

  std::string Text() const {
    return "bits, zeros, table, scale type, scale shift, group, rows, columns, tokens: " +
           Numbers({bits, zero_per_group, table, static_cast<int64_t>(scale_type), scale_shift, group, rows, cols, tokens});
  }
};

// Random codes, scales and zeros in the layout of PackedIntegers.
class Weight {
 public:
  Weight(const Shape& shape, Random& random) {
    SetShape(shape);
    const int64_t blocks = RoundUp(w_.rows, kBlockRows) / kBlockRows, scales = blocks * w_.groups * kBlockRows;
    block_bytes_ = w_.padded_cols * kBlockRows * w_.bits / 8;
    lines_.resize(blocks * block_bytes_ / 64);
    zeros_.resize(scales), scale_codes_.resize(scales), scales32_.resize(scales), scales16_.resize(scales), sums_.resize(blocks * kBlockRows);
    for (int64_t r = 0; r < w_.rows; ++r) FillRow(r, shape.fill, random);
    w_.codes = lines_.data()->bytes;
    w_.scales = w_.scale_type == ScaleType::kFp32 ? static_cast<const void*>(scales32_.data()) : scales16_.data();
    w_.scale_codes = shape.scale_shift < 0 ? nullptr : scale_codes_.data();
    w_.zeros = shape.zero_per_group ? zeros_.data() : nullptr;
    w_.zero = shape.zero_per_group ? 0 : static_cast<int32_t>(random.Among({0, 1 << (w_.bits - 1), random.Below(1 << w_.bits)}));
    w_.weight_sums = sums_.data();
    for (int i = 0; shape.table && i < 1 << w_.bits; ++i) values_.push_back(random.Signed());
    if (shape.table) w_.values = values_.data();
  }
  Weight(const Weight&) = delete;

  const PackedIntegers& packed() const { return w_; }
  int64_t blocks() const { return RoundUp(w_.rows, kBlockRows) / kBlockRows; }

 private:
  void SetShape(const Shape& shape) {
    w_.bits = shape.bits, w_.rows = shape.rows, w_.cols = shape.cols, w_.scale_type = shape.scale_type;
    w_.group = std::min(shape.group, shape.cols);
    w_.groups = RoundUp(w_.cols, w_.group) / w_.group;
    w_.scale_shift = shape.scale_shift < 0 ? 0 : shape.scale_shift;
    w_.scale_groups = RoundUp(w_.groups, int64_t{1} << w_.scale_shift) >> w_.scale_shift;
    w_.padded_group = RoundUp(w_.group, 32 / w_.bits);
    const int64_t whole = w_.groups - 1;
    w_.padded_cols = whole * w_.padded_group + RoundUp(w_.cols - whole * w_.group, 32 / w_.bits);
  }

  void FillRow(int64_t row, Fill fill, Random& random) {
    for (int64_t k = 0; k < w_.cols; ++k) {
      const int64_t most = (1 << w_.bits) - 1;
      PlaceCode(row, k, fill == Fill::kLowest ? 0 : fill == Fill::kHighest ? most : random.Below(most + 1));
    }
    for (int64_t g = 0; g < w_.groups; ++g) {
      const int64_t i = (row / kBlockRows * w_.groups + g) * kBlockRows + row % kBlockRows;
      scales32_[i] = 0.001f + 0.1f * random.Uniform();
      scales16_[i] = w_.scale_type == ScaleType::kFp16 ? FloatToFp16(scales32_[i]) : FloatToBf16(scales32_[i]);
      scale_codes_[i] = static_cast<int8_t>(random.Below(256) - 128);
      zeros_[i] = static_cast<uint8_t>(random.Below(1 << w_.bits));
    }
    sums_[row] = 10 * random.Signed();
  }

  void PlaceCode(int64_t row, int64_t k, int64_t code) {
    const int64_t at = k / w_.group * w_.padded_group + k % w_.group, columns = 32 / w_.bits, column = at % columns;
    uint8_t* block = lines_.data()->bytes + row / kBlockRows * block_bytes_;
    block[64 * (at / columns) + 4 * (row % kBlockRows) + column % 4] |= static_cast<uint8_t>(code << (w_.bits * (column / 4)));
  }

  PackedIntegers w_;
  int64_t block_bytes_;
  std::vector<Line> lines_;
  std::vector<float> scales32_, sums_, values_;
  std::vector<uint16_t> scales16_;
  std::vector<uint8_t> zeros_;
  std::vector<int8_t> scale_codes_;
};

// Random tokens for a weight, as floats and in codes.
class Tokens {
 public:
  Tokens(const Shape& shape, const PackedIntegers& w, Random& random) : stride_(w.padded_cols + 3) {
    const int64_t n = shape.tokens;
    x_.resize(n * stride_), codes_.resize(n * stride_), terms_.resize(w.groups * (n + 1), kGuard);
    for (int64_t t = 0; t < n; ++t) {
      scales_.push_back(0.01f + random.Uniform());
      zeros_.push_back(static_cast<int32_t>(random.Below(256)) - 128);
      for (int64_t g = 0; g < w.groups; ++g) {
        int32_t sum = 0;
        for (int64_t k = 0; k < std::min(w.group, w.cols - g * w.group); ++k) {
          const int64_t at = t * stride_ + g * w.padded_group + k, random_code = random.Below(256) - 128;
          codes_[at] = static_cast<int8_t>(shape.fill == Fill::kRandom ? random_code : t % 2 == 0 ? -128 : 127);
          x_[at] = random.Signed();
          sum += codes_[at];
        }
        terms_[g * (n + 1) + t] = w.zeros == nullptr ? -w.zero * sum : sum;
      }
      for (int64_t k = w.padded_cols; k < stride_; ++k) codes_[t * stride_ + k] = kGuard, x_[t * stride_ + k] = kGuard;
    }
  }
  Tokens(const Tokens&) = delete;

  int64_t count() const { return static_cast<int64_t>(scales_.size()); }
  int64_t stride() const { return stride_; }
  const std::vector<float>& floats() const { return x_; }
  QuantizedRows quantized() const {
    return {.tokens = count(), .codes = codes_.data(), .stride = stride_, .scales = scales_.data(), .zeros = zeros_.data(),
            .group_terms = terms_.data(), .term_stride = count() + 1};
  }

 private:
  int64_t stride_;
  std::vector<float> x_, scales_;
  std::vector<int8_t> codes_;
  std::vector<int32_t> zeros_, terms_;
};

// y is [tokens][rows + 1], the last of each a guard.
std::vector<float> NewOutput(const PackedIntegers& w, int64_t tokens) { return std::vector<float>(tokens * (w.rows + 1), kGuard); }

std::vector<float> FewTokens(const KernelFunctions& table, const Weight& weight, const Tokens& x) {
  const PackedIntegers& w = weight.packed();
  std::vector<float> y = NewOutput(w, x.count());
  for (int64_t b = 0; b < weight.blocks(); ++b) table.multiply_integers(w, b, x.quantized(), y.data(), w.rows + 1);
  return y;
}

std::vector<float> ManyTokens(const KernelFunctions& table, const Weight& weight, const Tokens& x) {
  const PackedIntegers& w = weight.packed();
  const std::vector<IntegerPanel> panels = IntegerPanels(w);
  std::vector<Line> scratch(IntegerScratchBytes(panels, x.count()) / 64 + 1);
  std::memset(scratch.data(), kGuard, scratch.size() * 64);
  std::vector<float> y = NewOutput(w, x.count());
  for (int64_t b = 0; b < weight.blocks(); b += kIntegerBlocks) {
    MultiplyManyTokens(table, w, panels, b, std::min(kIntegerBlocks, weight.blocks() - b), x.quantized(), scratch.data(), y.data(),
                       w.rows + 1);
  }
  return y;
}

std::vector<float> Finished(const KernelFunctions& table, const Weight& weight, const Tokens& x, const std::vector<float>& sums) {
  const PackedIntegers& w = weight.packed();
  std::vector<float> y = NewOutput(w, x.count());
  for (int64_t b = 0; b < weight.blocks(); b += 2) {
    table.finish_integers(w, b, std::min<int64_t>(2, weight.blocks() - b), x.quantized(), sums.data(), y.data(), w.rows + 1);
  }
  return y;
}

std::vector<float> WeightOnly(const KernelFunctions& table, const Weight& weight, const Tokens& x) {
  const PackedIntegers& w = weight.packed();
  std::vector<float> y = NewOutput(w, x.count());
  for (int64_t b = 0; b < weight.blocks(); ++b) {
    table.multiply_weight_only(w, b, x.floats().data(), x.stride(), x.count(), y.data(), w.rows + 1);
  }
  return y;
}

// Group g of a block from column `first`, and a column of guards.
std::vector<float> Decoded(const KernelFunctions& table, const PackedIntegers& w, int64_t block, int64_t g, int64_t first = 0) {
  const int64_t n = std::min(w.group, w.cols - g * w.group) - first;
  std::vector<float> panel((n + 1) * kBlockRows, kGuard);
  table.decode_panel(w, block, g, first, n, panel.data());
  return panel;
}

// Sums of |w x|, of which weight-only products may be wrong by a part.
std::vector<float> ProductMagnitudes(const Weight& weight, const Tokens& x) {
  const PackedIntegers& w = weight.packed();
  std::vector<float> y(x.count() * (w.rows + 1));
  for (int64_t i = 0; i < weight.blocks() * w.groups; ++i) {
    const int64_t block = i / w.groups, g = i % w.groups;
    const std::vector<float> panel = Decoded(kMeaning, w, block, g);
    for (int64_t j = 0; j < static_cast<int64_t>(panel.size()) - kBlockRows; ++j) {
      const int64_t row = block * kBlockRows + j % kBlockRows, k = g * w.padded_group + j / kBlockRows;
      for (int64_t t = 0; row < w.rows && t < x.count(); ++t) {
        y[t * (w.rows + 1) + row] += std::fabs(panel[j] * x.floats()[t * x.stride() + k]);
      }
    }
  }
  return y;
}

// The scales of every panel of the first block.
std::vector<float> SpreadScales(const KernelFunctions& table, const PackedIntegers& w) {
  std::vector<float> all;
  std::vector<Line> codes(kSpreadBytes * kBlockRows * kIntegerDepth / 64);
  for (const IntegerPanel& panel : IntegerPanels(w)) {
    std::vector<float> scales((panel.groups + 1) * kBlockRows, kGuard);
    table.spread_integers(w, 0, panel, codes.data()->bytes, scales.data());
    all.insert(all.end(), scales.begin(), scales.end());
  }
  return all;
}

Shape RandomShape(int i, Random& random) {
  constexpr int kBits[] = {2, 4, 8};
  constexpr ScaleType kScaleTypes[] = {ScaleType::kFp32, ScaleType::kFp16, ScaleType::kBf16};
  Shape shape{.bits = kBits[i % 3], .zero_per_group = i / 3 % 4 == 1, .table = i / 3 % 4 == 3, .scale_type = kScaleTypes[i / 6 % 3],
              .scale_shift = i % 7 == 2 ? static_cast<int>(random.Below(5)) : -1, .group = 0, .rows = 0,
              .cols = random.Among({1, 3, 7, 8, 31, 32, 33, 64, 100, 172, 260, 576, 700, 1300}), .tokens = 1 + random.Below(9)};
  if (i % 5 == 0) shape.tokens = 1 + random.Below(40);
  const int64_t row = shape.cols;
  shape.group = random.Among({1, 4, 7, 8, 12, 16, 20, 32, 32, 64, 100, 128, row, row});
  shape.rows = 1 + random.Below(shape.cols > 500 ? 20 : shape.cols > 100 ? 40 : 150);
  if (i % 13 == 0) shape.fill = i % 2 == 0 ? Fill::kLowest : Fill::kHighest;
  return shape;
}

void CheckIntegers(Random& random) {
  Report few("multiply_integers"), spread("spread_integers"), many("multiply_integer_panel"), finish("finish_integers"),
      weight_only("multiply_weight_only"), decode("decode_panel");
  for (int i = 0; i < 360; ++i) {
    const Shape shape = RandomShape(i, random);
    const Weight weight(shape, random);
    const PackedIntegers& w = weight.packed();
    const Tokens x(shape, w, random);
    for (Report* report : {&finish, &weight_only, &decode}) report->Case(shape.Text());
    for (Report* report : {&few, &spread, &many}) {
      if (!shape.table) report->Case(shape.Text());
    }
    if (!shape.table) {
      const std::vector<float> expected = FewTokens(kMeaning, weight, x);
      few.Same(FewTokens(kTable, weight, x), expected);
      spread.Same(SpreadScales(kTable, w), SpreadScales(kMeaning, w));
      many.Same(ManyTokens(kTable, weight, x), expected);
    }
    const std::vector<float> sums = RandomFloats(x.count() * kSumStride, random, 100);
    finish.Same(Finished(kTable, weight, x, sums), Finished(kMeaning, weight, x, sums));
    weight_only.Near(WeightOnly(kTable, weight, x), WeightOnly(kMeaning, weight, x), ProductMagnitudes(weight, x), 4e-6);
    for (int64_t g = 0; g < w.groups; ++g) {
      const int64_t block = random.Below(weight.blocks()), length = std::min(w.group, w.cols - g * w.group);
      for (int64_t first = 0; first < std::min(length, kChunkColumns + 1); first += kChunkColumns) {
        decode.Same(Decoded(kTable, w, block, g, first), Decoded(kMeaning, w, block, g, first));
      }
    }
  }
}

// Codes, a guard, the scale's bits and the zero of a token.
std::vector<int32_t> Quantized(const KernelFunctions& table, const ActivationGrid& grid, const std::vector<float>& x) {
  std::vector<int8_t> codes(x.size() + 1, kGuard);
  float scale;
  int32_t zero;
  table.quantize_token(grid, x.data(), static_cast<int64_t>(x.size()), codes.data(), &scale, &zero);
  std::vector<int32_t> result(codes.begin(), codes.end());
  result.push_back(std::bit_cast<int32_t>(scale)), result.push_back(zero);
  return result;
}

std::vector<std::vector<float>> TokensToQuantize(Random& random) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  std::vector<std::vector<float>> tokens = {{}, {0.25f}, {-0.0f}, std::vector<float>(100, 0.0f), std::vector<float>(37, -3.5f),
                                            std::vector<float>(40, 1e-40f), {1, kNaN, -2, 3, kNaN}, {kNaN, kNaN}, {-1e38f, 1e38f, 1}};
  for (const int64_t n : {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 100, 333}) {
    for (const float size : {1e-20f, 1.0f, 1e20f}) {
      tokens.push_back(RandomFloats(n, random, size));
      tokens.push_back(Magnitudes(tokens.back()));
      tokens.push_back(RandomFloats(n, random, size));
      tokens.back()[n / 2] *= -1e6f;  // one outlier
    }
  }
  std::vector<float> ties = {-64, 63.5f, 127, 127.5f};  // scales of 1 or 0.5: halves are exact ties
  for (float v = -20; v < 20; v += 0.25f) ties.push_back(v);
  tokens.push_back(ties);
  return tokens;
}

void CheckQuantizer(Random& random) {
  Report report("quantize_token");
  for (const std::vector<float>& x : TokensToQuantize(random)) {
    for (int bits = 2; bits <= 8; ++bits) {
      const float low = static_cast<float>(1 << (bits - 1));
      for (const float divisor : {0.0f, low - 1, low - 0.5f, low}) {
        const ActivationGrid grid{.bits = bits, .asymmetric = divisor == 0, .divisor = divisor, .scale_floor = 1.17549435e-38f};
        const int64_t twice = static_cast<int64_t>(2 * divisor), length = static_cast<int64_t>(x.size());
        report.Case("bits, twice the divisor, length: " + Numbers({bits, twice, length}));
        report.Same(Quantized(kTable, grid, x), Quantized(kMeaning, grid, x));
        ActivationGrid fixed = grid;
        fixed.fixed = true, fixed.min = -random.Uniform(), fixed.max = 3 * random.Uniform();
        report.Same(Quantized(kTable, fixed, x), Quantized(kMeaning, fixed, x));
      }
    }
  }
}

void CheckSumOfCodes(Random& random) {
  Report report("sum_codes");
  for (int64_t n = 0; n < 140; ++n) {
    std::vector<int8_t> codes(8 * n);
    for (int8_t& code : codes) code = static_cast<int8_t>(n % 4 == 0 ? -128 : random.Below(256) - 128);
    for (const int64_t length : {n, 8 * n}) {
      report.Case("length " + Numbers({length}));
      report.Same<int32_t>({kTable.sum_codes(codes.data(), length)}, {kMeaning.sum_codes(codes.data(), length)});
    }
  }
}

// Values in each format.
std::vector<uint16_t> AsBf16(const std::vector<float>& values) {
  std::vector<uint16_t> halves;
  for (const float v : values) halves.push_back(FloatToBf16(v));
  return halves;
}
std::vector<uint16_t> AsFp16(const std::vector<float>& values) {
  std::vector<uint16_t> halves;
  for (const float v : values) halves.push_back(FloatToFp16(v));
  return halves;
}
std::vector<float> AsFp32(const std::vector<float>& values) { return values; }

template <typename Matvec, typename Encode>
void CheckMatvec(const char* name, Matvec KernelFunctions::*matvec, Encode encode, Random& random) {
  Report report(name);
  for (const int64_t cols : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 172, 1000}) {
    for (const int64_t rows : {1, 2, 3, 4, 5, 9}) {
      const std::vector<float> x = RandomFloats(cols, random), values = RandomFloats(rows * cols + 1, random);
      const auto w = encode(values), absolute = encode(Magnitudes(values));
      std::vector<float> got(rows + 1, kGuard), expected = got, magnitudes = got;
      (kMeaning.*matvec)(w.data() + 1, rows, cols, x.data(), false, expected.data());
      (kMeaning.*matvec)(absolute.data() + 1, rows, cols, Magnitudes(x).data(), false, magnitudes.data());
      for (const bool in_order : {false, true}) {
        (kTable.*matvec)(w.data() + 1, rows, cols, x.data(), in_order, got.data());
        report.Case("rows, columns, in order: " + Numbers({rows, cols, in_order}));
        report.Near(got, expected, magnitudes, 1e-6);
      }
    }
  }
}

template <typename PanelFrom, typename Encode>
void CheckPanelFrom(const char* name, PanelFrom KernelFunctions::*panel_from, Encode encode, Random& random) {
  Report report(name);
  for (int64_t rows = 1; rows <= kBlockRows; ++rows) {
    for (const int64_t cols : {1, 2, 3, 4, 5, 7, 16, 19, 40}) {
      const auto w = encode(RandomFloats(rows * (cols + 3) + 1, random));
      std::vector<float> got((cols + 1) * kBlockRows, kGuard), expected = got;
      (kTable.*panel_from)(w.data() + 1, cols + 3, rows, cols, got.data());
      (kMeaning.*panel_from)(w.data() + 1, cols + 3, rows, cols, expected.data());
      report.Case("rows, columns: " + Numbers({rows, cols}));
      report.Same(got, expected);
    }
  }
}

void CheckConvert(const char* name, void (*KernelFunctions::*convert)(const uint16_t*, int64_t, float*)) {
  Report report(name);
  std::vector<uint16_t> every(65536);
  for (size_t i = 0; i < every.size(); ++i) every[i] = static_cast<uint16_t>(i);
  for (const int64_t n : {0, 1, 2, 3, 4, 5, 6, 7, 9, 15, 17, 31, 65536}) {
    std::vector<float> got(n + 1, kGuard), expected = got;
    (kTable.*convert)(every.data() + 65536 - n, n, got.data());
    (kMeaning.*convert)(every.data() + 65536 - n, n, expected.data());
    report.Case("length " + Numbers({n}));
    report.Same(got, expected);
  }
}

void CheckMultiplyPanels(Random& random) {
  Report report("multiply_panels");
  for (const int64_t rows : {1, 3, 4, 5, 8, 11, 15, 16, 17, 24, 32, 33, 50}) {
    for (const int64_t depth : {1, 5, 16, 100, 256}) {
      const int64_t blocks = RoundUp(rows, kBlockRows) / kBlockRows, tokens = 1 + random.Below(kTileTokens), ldy = rows + 1;
      const std::vector<float> panels = RandomFloats((blocks + 1) * kPanelFloats, random), all_panels = Magnitudes(panels);
      const std::vector<float> tile = RandomFloats(kTileTokens * kTileStride, random), all_tile = Magnitudes(tile);
      std::vector<float> got(tokens * ldy, kGuard), expected = got, magnitudes = got;
      for (const bool accumulate : {false, true}) {
        const auto multiply = [&](const KernelFunctions& table, const auto& p, const auto& x, std::vector<float>& y) {
          table.multiply_panels(p.data(), kPanelFloats, rows, depth, x.data(), tokens, accumulate, y.data(), ldy);
        };
        multiply(kTable, panels, tile, got);
        multiply(kMeaning, panels, tile, expected);
        multiply(kMeaning, all_panels, all_tile, magnitudes);
        report.Case("rows, columns, tokens, accumulate: " + Numbers({rows, depth, tokens, accumulate}));
        report.Near(got, expected, magnitudes, 2e-6);
      }
    }
  }
}

constexpr int64_t kLengths[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 100, 1000};

void CheckNorm(Random& random) {
  Report report("rms_norm");
  for (const int64_t n : kLengths) {
    const std::vector<float> x = RandomFloats(n, random, 5), gain = RandomFloats(n, random);
    std::vector<float> got(n + 1, kGuard), expected = got;
    kTable.rms_norm(x.data(), gain.data(), n, 1e-5f, got.data());
    kMeaning.rms_norm(x.data(), gain.data(), n, 1e-5f, expected.data());
    report.Case("length " + Numbers({n}));
    report.Near(got, expected, Magnitudes(expected), 2e-6);
  }
}

// A grid over the range of exp, special values and odd lengths.
void CheckSiluMul(Random& random) {
  Report report("silu_mul");
  std::vector<float> gate;
  for (float g = -86; g < 90; g += 0.0371f) gate.push_back(g);
  for (const float g : {0.0f, -0.0f, 1e-30f, 20.0f, 1000.0f, -100.0f, -1e30f}) gate.push_back(g);
  gate.push_back(std::numeric_limits<float>::quiet_NaN());
  const std::vector<float> up = RandomFloats(static_cast<int64_t>(gate.size()), random, 3);
  std::vector<int64_t> lengths(std::begin(kLengths), std::end(kLengths));
  lengths.push_back(static_cast<int64_t>(gate.size()));
  for (const int64_t n : lengths) {
    const size_t at = gate.size() - n;
    std::vector<float> got(n + 1, kGuard), expected = got;
    kTable.silu_mul(gate.data() + at, up.data() + at, n, got.data());
    kMeaning.silu_mul(gate.data() + at, up.data() + at, n, expected.data());
    report.Case("length " + Numbers({n}));
    report.Near(got, expected, Magnitudes(expected), 1e-6);
  }
}

void CheckHadamard(Random& random) {
  Report report("hadamard");
  for (const int64_t order : {1, 4, 12, 20}) {
    std::vector<float> signs(order * order);
    for (float& sign : signs) sign = random.Below(2) == 0 ? 1.0f : -1.0f;
    for (int64_t fast = 1; fast <= 2048; fast *= 2) {
      const int64_t n = order * fast;
      std::vector<float> got = RandomFloats(n, random);
      float magnitude = 0;
      for (const float v : got) magnitude += std::fabs(v) / 8;
      got.push_back(kGuard);
      std::vector<float> expected = got, scratch(n);
      kTable.hadamard(signs.data(), order, fast, 0.125f, got.data(), scratch.data());
      kMeaning.hadamard(signs.data(), order, fast, 0.125f, expected.data(), scratch.data());
      report.Case("order, fast: " + Numbers({order, fast}));
      report.Near(got, expected, std::vector<float>(n + 1, magnitude), 1e-6);
    }
  }
}

// x after a step, a guard, the maximum and the sum.
std::vector<float> SoftmaxOf(const KernelFunctions& table, std::vector<float> x, float max) {
  const int64_t n = static_cast<int64_t>(x.size());
  x.push_back(kGuard);
  const float sum = table.softmax_step(x.data(), n, &max);
  x.push_back(max), x.push_back(sum);
  return x;
}

void CheckSoftmax(Random& random) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  Report report("softmax_step");
  const auto check = [&](const std::vector<float>& x, float max) {
    const std::vector<float> expected = SoftmaxOf(kMeaning, x, max);
    report.Case("length " + Numbers({static_cast<int64_t>(x.size())}) + ", maximum before " + std::to_string(max));
    report.Near(SoftmaxOf(kTable, x, max), expected, Magnitudes(expected), 1e-6);
  };
  for (const int64_t n : kLengths) {
    for (const float max : {-kInfinity, -100.0f, 100.0f}) check(RandomFloats(n, random, 20), max);
  }
  for (float d = -88; d <= 0; d += 0.0731f) check({3, 3 + d}, 0);
  for (const float d : {-104.0f, -1e30f, -kInfinity}) check({0, d}, -kInfinity);
}

void CheckDecodeCache(Random& random) {
  Report report("decode_cache");
  for (const int64_t n : {1, 2, 15, 16, 40}) {
    for (int i = 0; i < 4; ++i) {
      const int bits = i % 2 == 0 ? 4 : 8;
      std::vector<uint8_t> codes(2 * bits * n);
      for (uint8_t& byte : codes) byte = static_cast<uint8_t>(random.Below(256));
      const std::vector<float> scale = RandomFloats(n + 16, random), low = RandomFloats(n + 16, random);
      std::vector<float> got(n * kBlockRows + 1, kGuard), expected = got;
      kTable.decode_cache(codes.data(), bits, n, i < 2, scale.data(), low.data(), got.data());
      kMeaning.decode_cache(codes.data(), bits, n, i < 2, scale.data(), low.data(), expected.data());
      report.Case("bits, rows: " + Numbers({bits, n}));
      report.Same(got, expected);
    }
  }
}

void CheckScaleAdd(Random& random) {
  Report report("scale_add");
  for (const int64_t n : kLengths) {
    const std::vector<float> x = RandomFloats(n, random);
    std::vector<float> got = RandomFloats(n + 1, random), expected = got, magnitudes = Magnitudes(got);
    kTable.scale_add(0.7f, x.data(), -1.9f, n, got.data());
    kMeaning.scale_add(0.7f, x.data(), -1.9f, n, expected.data());
    kMeaning.scale_add(0.7f, Magnitudes(x).data(), 1.9f, n, magnitudes.data());
    report.Case("length " + Numbers({n}));
    report.Near(got, expected, magnitudes, 3e-7);
  }
}

// The number that multiply_adds and multiply_bytes return is each table's own:
// that they end is all that is asked.
void CheckProbes(Random& random) {
  const ProbeFunctions& probes = NIBBLE_CHECKED_PROBES;
  Report sum("probe sum"), adds("probe multiply_adds"), bytes("probe multiply_bytes");
  for (const int64_t n : {256, 1024, 4096}) {
    const std::vector<float> x = RandomFloats(n, random);
    float magnitude = 0;
    for (const float v : x) magnitude += std::fabs(v);
    sum.Case("length " + Numbers({n}));
    sum.Near({probes.sum(x.data(), n)}, {kPortableProbes.sum(x.data(), n)}, {magnitude}, 1e-6);
  }
  adds.Case("100 rounds");
  adds.Same<int32_t>({std::isfinite(probes.multiply_adds(100)) && probes.flops_per_round > 0}, {1});
  bytes.Case("100 rounds");
  volatile int32_t result = probes.multiply_bytes(100);
  (void)result;
  bytes.Same<int32_t>({probes.byte_ops_per_round > 0}, {1});
}

void CheckEverything() {
  Random random(20);
  using F = KernelFunctions;
  CheckQuantizer(random);
  CheckSumOfCodes(random);
  CheckIntegers(random);
  CheckPanelFrom("panel_from_bf16", &F::panel_from_bf16, AsBf16, random);
  CheckPanelFrom("panel_from_fp16", &F::panel_from_fp16, AsFp16, random);
  CheckPanelFrom("panel_from_fp32", &F::panel_from_fp32, AsFp32, random);
  CheckMultiplyPanels(random);
  CheckMatvec("matvec_bf16", &F::matvec_bf16, AsBf16, random);
  CheckMatvec("matvec_fp16", &F::matvec_fp16, AsFp16, random);
  CheckMatvec("matvec_fp32", &F::matvec_fp32, AsFp32, random);
  CheckConvert("convert_bf16", &F::convert_bf16);
  CheckConvert("convert_fp16", &F::convert_fp16);
  CheckDecodeCache(random);
  CheckNorm(random);
  CheckSiluMul(random);
  CheckHadamard(random);
  CheckSoftmax(random);
  CheckScaleAdd(random);
  CheckProbes(random);
}

}  // namespace
}  // namespace nibble::kernels

int main() {
  nibble::kernels::CheckEverything();
  std::puts("every function agrees with the portable table");
  return 0;
}
