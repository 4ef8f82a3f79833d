// Hand-written golden values of integer grids: rules, ties, packing.

#include "core/quant/integer_grid.h"

#include <limits>

#include "core/base/rng.h"
#include "core/base/testing.h"

namespace nibble {
namespace {

QuantScheme Int(int bits, QuantScheme::Granularity per = QuantScheme::PER_ROW) {
  QuantScheme scheme;
  scheme.set_format(absl::StrCat("int", bits));
  scheme.set_per(per);
  return scheme;
}

// Signed codes of one row.
std::vector<int> Codes(const QuantScheme& scheme, const std::vector<float>& values) {
  const auto encoded = Encode(scheme, {1, static_cast<int64_t>(values.size())}, values);
  EXPECT_OK(encoded);
  const auto view = AsIntegers(*encoded);
  std::vector<uint8_t> codes(values.size());
  view->UnpackCodes(0, absl::MakeSpan(codes));
  std::vector<int> out;
  for (const uint8_t c : codes) out.push_back(static_cast<int>(c) - (1 << (view->bits - 1)));
  return out;
}

double SquaredError(const QuantScheme& scheme, const std::vector<float>& values) {
  const auto decoded = Decode(*Encode(scheme, {1, static_cast<int64_t>(values.size())}, values));
  double error = 0;
  for (size_t i = 0; i < values.size(); ++i) error += (decoded[i] - values[i]) * (decoded[i] - values[i]);
  return error;
}

const std::vector<float> kRow = {.75f, -.30f, .11f, -.75f, .52f, -.06f, 0, .33f};

TEST(IntegerGrid, SpinQuantSymmetricInt4) {
  const QuantScheme scheme = Int(4);
  EXPECT_EQ(Codes(scheme, kRow), (std::vector<int>{7, -3, 1, -7, 5, -1, 0, 3}));
  EXPECT_NEAR(SquaredError(scheme, kRow), .00301020, 1e-7);
}

TEST(IntegerGrid, TorchaoSymmetricInt4ClipsThePositiveEnd) {
  QuantScheme scheme = Int(4);
  scheme.set_divisor(QuantScheme::HALF_RANGE);
  EXPECT_EQ(Codes(scheme, kRow), (std::vector<int>{7, -3, 1, -8, 5, -1, 0, 3}));
  EXPECT_NEAR(SquaredError(scheme, kRow), .008, 1e-6);
}

TEST(IntegerGrid, NoClippingErrorMatchesSpinQuantHere) {
  QuantScheme scheme = Int(4);
  scheme.set_divisor(QuantScheme::NO_CLIPPING);
  EXPECT_EQ(Codes(scheme, kRow), Codes(Int(4), kRow));
}

TEST(IntegerGrid, AsymmetricActivationInt8) {
  QuantScheme scheme = Int(8);
  scheme.set_asymmetric(true);
  const std::vector<float> x = {-1, 0, .5f, 3};
  const auto encoded = Encode(scheme, {1, 4}, x);
  ASSERT_OK(encoded);
  const auto view = AsIntegers(*encoded);
  EXPECT_FLOAT_EQ(view->scale(0, 0), 4.0f / 255);
  EXPECT_EQ(view->zero(0, 0) - 128, -64);
  EXPECT_EQ(Codes(scheme, x), (std::vector<int>{-128, -64, -32, 127}));
  const std::vector<float> decoded = Decode(*encoded);
  EXPECT_FLOAT_EQ(decoded[0], -1.0039216f);
  EXPECT_EQ(decoded[1], 0);
  EXPECT_FLOAT_EQ(decoded[2], .5019608f);
  EXPECT_FLOAT_EQ(decoded[3], 2.9960784f);
}

TEST(IntegerGrid, TiesRoundToEven) {
  // scale 1 exactly: absmax 7 over 7.
  EXPECT_EQ(Codes(Int(4), {7, .5f, 1.5f, 2.5f, -.5f, -1.5f, -2.5f, 3.5f}), (std::vector<int>{7, 0, 2, 2, 0, -2, -2, 4}));
}

TEST(IntegerGrid, ReciprocalAndDivisionDifferAtNearTies) {
  QuantScheme divide = Int(4);
  divide.set_rounding(QuantScheme::DIVISION);
  Rng rng(9);
  int differing = 0;
  for (int trial = 0; trial < 2000; ++trial) {
    std::vector<float> row(32);
    // Multiples of half a step make ties common.
    const float step = static_cast<float>(rng.Uniform() + 0.1);
    for (float& v : row) v = step * 0.5f * static_cast<float>(static_cast<int>(rng.Below(29)) - 14);
    differing += Codes(Int(4), row) != Codes(divide, row);
  }
  EXPECT_GT(differing, 0);
  EXPECT_LT(differing, 2000);
}

TEST(IntegerGrid, ClipSearchNeverHurtsItsOwnNorm) {
  Rng rng(4);
  QuantScheme clipped = Int(4);
  clipped.mutable_range()->mutable_mse()->set_norm(2);
  for (int trial = 0; trial < 50; ++trial) {
    std::vector<float> row(32);
    for (float& v : row) v = rng.Normal();
    row[trial % 32] *= 6;
    EXPECT_LE(SquaredError(clipped, row), SquaredError(Int(4), row) * 1.0000001);
  }
}

TEST(IntegerGrid, ClipSearchReachesTheLowestCode) {
  QuantScheme clipped = Int(4);
  clipped.mutable_range()->mutable_mse();
  Rng rng(5);
  bool reached = false;
  for (int trial = 0; trial < 200 && !reached; ++trial) {
    std::vector<float> row(32);
    for (float& v : row) v = rng.Normal();
    for (const int code : Codes(clipped, row)) reached = reached || code == -8;
  }
  EXPECT_TRUE(reached);
}

TEST(IntegerGrid, ErrorIsAtMostHalfAStepWithoutClipping) {
  Rng rng(6);
  for (const bool asymmetric : {false, true}) {
    for (int bits = 2; bits <= 8; ++bits) {
      QuantScheme scheme = Int(bits);
      scheme.set_asymmetric(asymmetric);
      std::vector<float> row(100);
      for (float& v : row) v = rng.Normal() + 0.3f;
      const auto encoded = Encode(scheme, {1, 100}, row);
      ASSERT_OK(encoded);
      const float scale = AsIntegers(*encoded)->scale(0, 0);
      const std::vector<float> decoded = Decode(*encoded);
      for (size_t i = 0; i < row.size(); ++i) EXPECT_LE(std::fabs(decoded[i] - row[i]), scale * 0.50001f);
    }
  }
}

TEST(IntegerGrid, MoreBitsAndSmallerGroupsNeverHurt) {
  Rng rng(7);
  std::vector<float> row(256);
  for (float& v : row) v = rng.Normal();
  double before = std::numeric_limits<double>::infinity();
  for (int bits = 2; bits <= 8; ++bits) {
    const double error = SquaredError(Int(bits), row);
    EXPECT_LT(error, before);
    before = error;
  }
  before = std::numeric_limits<double>::infinity();
  for (int group : {256, 128, 64, 32, 16}) {
    QuantScheme scheme = Int(4, QuantScheme::PER_GROUP);
    scheme.set_group_size(group);
    const double error = SquaredError(scheme, row);
    EXPECT_LT(error, before * 1.02);
    before = error;
  }
}

TEST(IntegerGrid, ScalesAreRoundedBeforeCodesAreChosen) {
  QuantScheme scheme = Int(4);
  scheme.set_scale_type(QuantScheme::BF16);
  const auto grid = GridForRange(scheme, 4, -1.0f, 1.0f);
  ASSERT_OK(grid);
  EXPECT_EQ(grid->scale, Bf16ToFloat(FloatToBf16(1.0f / 7)));
  EXPECT_EQ(grid->inverse, Bf16ToFloat(FloatToBf16(1.0f / grid->scale)));
}

TEST(IntegerGrid, ScaleBeyondFp16IsAnError) {
  QuantScheme scheme = Int(4);
  scheme.set_scale_type(QuantScheme::FP16);
  const auto encoded = Encode(scheme, {2, 2}, {1, 2, 1e7f, 3});
  ASSERT_FALSE(encoded.ok());
  EXPECT_THAT(std::string(encoded.status().message()), ::testing::HasSubstr("row 1"));
}

TEST(IntegerGrid, PackingIsLeastSignificantFirst) {
  uint8_t out[3] = {};
  PackRow(4, {1, 2, 15}, out);
  EXPECT_EQ(out[0], 0x21);
  EXPECT_EQ(out[1], 0x0F);
  PackRow(2, {1, 2, 3, 0, 2}, out);
  EXPECT_EQ(out[0], 0b00111001);
  EXPECT_EQ(out[1], 0b10);
  PackRow(3, {5, 6, 7}, out);  // 101, 110, 111 -> bits 111 110 101
  EXPECT_EQ(out[0], 0b11110101);
  EXPECT_EQ(out[1], 0b1);
}

TEST(IntegerGrid, PackUnpackPackGivesTheSameBytes) {
  Rng rng(8);
  for (int bits = 2; bits <= 8; ++bits) {
    for (int64_t n : {1, 7, 8, 33, 64}) {
      std::vector<uint8_t> codes(n), back(n);
      for (uint8_t& c : codes) c = static_cast<uint8_t>(rng.Below(1u << bits));
      std::vector<uint8_t> packed(PackedRowBytes(bits, n));
      PackRow(bits, codes, packed.data());
      UnpackRow(bits, packed.data(), absl::MakeSpan(back));
      EXPECT_EQ(codes, back) << bits << " bits, " << n;
    }
  }
}

TEST(FakeQuantize, IsEncodeThenDecodePerToken) {
  QuantScheme scheme = Int(8, QuantScheme::PER_TOKEN);
  scheme.set_asymmetric(true);
  Rng rng(10);
  std::vector<float> x(5 * 33);
  for (float& v : x) v = rng.Normal();
  QuantScheme by_row = scheme;
  by_row.set_per(QuantScheme::PER_ROW);
  const std::vector<float> expected = Decode(*Encode(by_row, {5, 33}, x));
  ASSERT_OK(FakeQuantizeRows(scheme, 5, 33, x.data()));
  EXPECT_EQ(x, expected);
}

// Scales of 1: 127 is the largest of what is left in each token.
TEST(FakeQuantize, OutliersPassAloneOrWithTheirColumn) {
  QuantScheme scheme = Int(8, QuantScheme::PER_TOKEN);
  scheme.set_outlier_threshold(200);
  const std::vector<float> x = {127, 3.4f, 50.3f, -300,  //
                                -127, 200.5f, 0.6f, 7.7f};
  std::vector<float> values(8), columns(8);
  ASSERT_OK(FakeQuantizeRows(scheme, 2, 4, x.data(), values.data(), nullptr));
  EXPECT_THAT(values, ::testing::ElementsAre(127, 3, 50, -300, -127, 200, 1, 8));  // 200.5 in bf16 is 200
  scheme.set_outlier_columns(true);
  ASSERT_OK(FakeQuantizeRows(scheme, 2, 4, x.data(), columns.data(), nullptr));
  EXPECT_THAT(columns, ::testing::ElementsAre(127, 3.40625f, 50, -300, -127, 200, 1, 7.6875f));  // 3.4 and 7.7 in bf16
}

TEST(Scheme, MistakesAreNamed) {
  QuantScheme scheme = Int(4, QuantScheme::PER_GROUP);
  EXPECT_THAT(std::string(ValidateScheme(scheme).message()), ::testing::HasSubstr("group_size"));
  scheme = Int(4);
  scheme.set_group_size(32);
  EXPECT_FALSE(ValidateScheme(scheme).ok());
  scheme = FloatScheme("bf16");
  scheme.set_asymmetric(true);
  EXPECT_FALSE(ValidateScheme(scheme).ok());
  scheme = Int(8, QuantScheme::PER_TOKEN);
  scheme.set_outlier_columns(true);
  EXPECT_THAT(std::string(ValidateScheme(scheme).message()), ::testing::HasSubstr("outlier_threshold"));
}

// The clip search against every clip of the definition, by std::pow.
TEST(MseRange, IsTheBestOfAllClips) {
  Rng rng(31);
  for (int i = 0; i < 300; ++i) {
    QuantScheme scheme = IntegerScheme(2 + i % 5, 0, i % 2 == 1);
    auto& mse = *scheme.mutable_range()->mutable_mse();
    if (i % 3 == 1) mse.set_norm(i % 2 == 0 ? 2 : 3.5);
    if (i % 9 == 2) mse.set_norm(i % 2 == 0 ? 0.7 : 9);
    if (i % 7 == 0) scheme.set_scale_type(QuantScheme::BF16);
    if (i % 5 == 0 && i % 2 == 0) scheme.set_divisor(QuantScheme::HALF_RANGE);
    const int bits = 2 + i % 5, max_code = (1 << bits) - 1;
    std::vector<float> values(1 + rng.Below(70));
    for (float& v : values) v = rng.Normal() * (i % 11 == 0 ? 1e-3f : 1.0f);
    if (i % 4 == 0) values[rng.Below(values.size())] *= 8;
    const float magnitude = i % 13 == 3 ? 1e-20f : i % 13 == 7 ? 1e18f : 1.0f;
    if (scheme.scale_type() == QuantScheme::FP32) for (float& v : values) v *= magnitude;
    // One value far below many small ones above zero.
    if (i % 6 == 0) {
      values.resize(575);
      for (float& v : values) v = 0.2f + 0.2f * static_cast<float>(rng.Uniform());
      values[rng.Below(values.size())] = -1;
    }
    float min = 0, max = 0;
    for (const float v : values) min = std::min(min, v), max = std::max(max, v);
    double least = std::numeric_limits<double>::infinity();
    Grid best;
    for (int step = 0; step < 80; ++step) {
      const float p = 1.0f - static_cast<float>(step) / 100.0f;
      ASSERT_OK_AND_ASSIGN(const Grid grid, GridForRange(scheme, bits, min * p, max * p));
      double error = 0;
      for (const float v : values) error += std::pow(std::fabs(static_cast<double>(DecodeValue(grid, EncodeValue(grid, v, max_code))) - v), mse.norm());
      if (error < least * (1 - 1e-9)) least = error, best = grid;
    }
    ASSERT_OK_AND_ASSIGN(const Grid chosen, ChooseGrid(scheme, bits, values));
    EXPECT_EQ(chosen.scale, best.scale) << i;
    EXPECT_EQ(chosen.zero, best.zero) << i;
  }
}

}  // namespace
}  // namespace nibble
