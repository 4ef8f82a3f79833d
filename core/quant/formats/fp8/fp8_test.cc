#include <cmath>
#include <limits>

#include "core/golden/golden_testing.h"
#include "core/quant/encoded.h"
#include "core/quant/format.h"

namespace nibble {
namespace {

QuantScheme PerTensor(const std::string& format) {
  QuantScheme scheme;
  scheme.set_format(format);
  scheme.set_per(QuantScheme::PER_TENSOR);
  return scheme;
}

// Codes of `values` at a scale of 1, which a range up to `largest`, the format's, makes.
std::vector<uint8_t> CodesAtOne(const std::string& format, absl::Span<const float> values, float largest) {
  QuantScheme scheme = PerTensor(format);
  scheme.mutable_fixed()->set_min(-largest);
  scheme.mutable_fixed()->set_max(largest);
  const EncodedTensor tensor = *Encode(scheme, {1, static_cast<int64_t>(values.size())}, values);
  EXPECT_EQ(tensor.buffer("scales").as<float>()[0], 1.0f);
  const absl::Span<const uint8_t> codes = tensor.buffer("codes").bytes();
  return {codes.begin(), codes.end()};
}

std::vector<float> TableOf(const std::string& format) {
  const absl::Span<const float> values = (*FindFormat(format))->Codes(*Encode(PerTensor(format), {1, 1}, {1.0f}))->values;
  return {values.begin(), values.end()};
}

// The same formats in numerics.safetensors, made by PyTorch.
struct GoldenFormat {
  const char* format;
  const char* golden;
  float largest;
};
constexpr GoldenFormat kGolden[] = {{"fp8_e4m3", "e4m3fn", 448.0f}, {"fp8_e5m2", "e5m2", 57344.0f}};

class Fp8Golden : public GoldenTest {
 protected:
  Fp8Golden() : GoldenTest("numerics.safetensors") {}
};

TEST_F(Fp8Golden, SaturatingCastOfEveryFiniteBf16) {
  const Tensor input = Golden("fp8.input_f32");
  ASSERT_EQ(input.elements(), 65280);
  for (const GoldenFormat& f : kGolden) {
    const std::vector<uint8_t> codes = CodesAtOne(f.format, input.as<float>(), f.largest);
    const Tensor expected = Golden(absl::StrCat("fp8.", f.golden, "_saturated"));
    ASSERT_EQ(codes.size(), expected.bytes().size());
    for (size_t i = 0; i < codes.size(); ++i) ASSERT_EQ(codes[i], expected.bytes()[i]) << f.format << " of " << input.as<float>()[i];
  }
}

// Signs of zeros and infinities included; any NaN equals any other.
TEST_F(Fp8Golden, DecodesEveryCode) {
  for (const GoldenFormat& f : kGolden) {
    const std::vector<float> table = TableOf(f.format);
    const Tensor expected = Golden(absl::StrCat("fp8.", f.golden, "_decoded"));
    ASSERT_EQ(expected.elements(), 256);
    for (int code = 0; code < 256; ++code) {
      const float got = table[code], want = expected.as<float>()[code];
      ASSERT_EQ(std::isnan(got), std::isnan(want)) << f.format << " code " << code;
      if (std::isnan(want)) continue;
      ASSERT_EQ(got, want) << f.format << " code " << code;
      ASSERT_EQ(std::signbit(got), std::signbit(want)) << f.format << " code " << code;
    }
  }
}

TEST(Fp8, TheLargestMagnitudeMakesTheScale) {
  const EncodedTensor tensor = *Encode(PerTensor("fp8_e4m3"), {1, 2}, {3.0f, -896.0f});
  EXPECT_EQ(tensor.buffer("scales").as<float>()[0], 2.0f);
  EXPECT_EQ(Decode(tensor), (std::vector<float>{3.0f, -896.0f}));
}

TEST(Fp8, E4m3NumbersOfTheStandard) {
  const std::vector<float> table = TableOf("fp8_e4m3");
  EXPECT_EQ(table[0x7E], 448.0f);
  EXPECT_EQ(table[0x01], 0x1p-9f);
  EXPECT_EQ(table[0x08], 0x1p-6f);
  EXPECT_EQ(table[0x38], 1.0f);
  EXPECT_EQ(table[0xB8], -1.0f);
  EXPECT_TRUE(std::isnan(table[0x7F]) && std::isnan(table[0xFF]));
}

TEST(Fp8, E5m2NumbersOfTheStandard) {
  const std::vector<float> table = TableOf("fp8_e5m2");
  EXPECT_EQ(table[0x7B], 57344.0f);
  EXPECT_EQ(table[0x01], 0x1p-16f);
  EXPECT_EQ(table[0x04], 0x1p-14f);
  EXPECT_EQ(table[0x3C], 1.0f);
  EXPECT_EQ(table[0x7C], std::numeric_limits<float>::infinity());
  EXPECT_EQ(table[0xFC], -std::numeric_limits<float>::infinity());
  for (int code = 0x7D; code <= 0x7F; ++code) EXPECT_TRUE(std::isnan(table[code]) && std::isnan(table[0x80 | code]));
}

// Every number has its own code.
TEST(Fp8, EveryNumberGoesThereAndBack) {
  for (const auto& [format, top] : {std::pair<std::string, int>("fp8_e4m3", 0x7E), {"fp8_e5m2", 0x7B}}) {
    const std::vector<float> table = TableOf(format);
    for (int code = 0; code <= top; ++code) {
      const uint8_t negative = static_cast<uint8_t>(code | 0x80), positive = static_cast<uint8_t>(code);
      EXPECT_EQ(CodesAtOne(format, {table[positive], table[negative]}, table[top]), (std::vector<uint8_t>{positive, negative}));
    }
  }
}

TEST(Fp8, TiesGoToEvenAndWhatIsBeyondSaturates) {
  const std::vector<float> table = TableOf("fp8_e4m3");
  const auto rounded = [&](float x) { return table[CodesAtOne("fp8_e4m3", {x}, 448.0f)[0]]; };
  EXPECT_EQ(rounded(17), 16);
  EXPECT_EQ(rounded(19), 20);
  EXPECT_EQ(rounded(-17), -16);
  EXPECT_EQ(rounded(0x1p-10f), 0);        // half of the least number
  EXPECT_EQ(rounded(0x3p-10f), 0x2p-9f);  // between one and two of it
  EXPECT_EQ(rounded(15.6f), 16);          // up to the next exponent
  EXPECT_EQ(rounded(440), 448);
  EXPECT_EQ(rounded(464), 448);  // where the next number, were there one, would be as near
  EXPECT_EQ(rounded(-1e30f), -448);
  // A scale in bf16 is a little too small: 464 would be halfway to no number.
  QuantScheme scheme = PerTensor("fp8_e4m3");
  scheme.set_scale_type(QuantScheme::BF16);
  const EncodedTensor tensor = *Encode(scheme, {1, 1}, {448.0f * 1.0019f});
  EXPECT_EQ(Decode(tensor)[0], 448.0f);
}

TEST(Fp8, AgreesWithASearchOfTheTable) {
  for (const auto& [format, top] : {std::pair<std::string, int>("fp8_e4m3", 0x7E), {"fp8_e5m2", 0x7B}}) {
    const std::vector<float> table = TableOf(format);
    std::vector<float> values;
    for (float x = 1e-7f; x < table[top]; x *= 1.0371f) values.push_back(x);
    const std::vector<uint8_t> codes = CodesAtOne(format, values, table[top]);
    for (size_t i = 0; i < values.size(); ++i) {
      float nearest = table[top];
      for (int code = 0; code <= top; ++code) nearest = std::min(nearest, std::fabs(table[code] - values[i]));
      EXPECT_EQ(std::fabs(table[codes[i]] - values[i]), nearest) << values[i];
    }
  }
}

}  // namespace
}  // namespace nibble
