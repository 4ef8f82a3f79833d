#include <cmath>

#include "core/base/rng.h"
#include "core/base/testing.h"
#include "core/quant/encoded.h"
#include "core/quant/format.h"
#include "core/quant/formats/nf4/nf4.pb.h"

namespace nibble {
namespace {

QuantScheme Blocks(const std::string& format, int size) {
  QuantScheme scheme;
  scheme.set_format(format);
  scheme.set_per(QuantScheme::PER_GROUP);
  scheme.set_group_size(size);
  return scheme;
}

std::vector<uint8_t> CodesOf(const EncodedTensor& tensor, int64_t row = 0) {
  const CodeView view = *(*FindFormat(tensor.scheme.format()))->Codes(tensor);
  std::vector<uint8_t> codes(view.cols);
  view.UnpackCodes(row, absl::MakeSpan(codes));
  return codes;
}

std::vector<float> TableOf(const std::string& format) {
  const absl::Span<const float> values = (*FindFormat(format))->Codes(*Encode(Blocks(format, 64), {1, 1}, {1.0f}))->values;
  return {values.begin(), values.end()};
}

std::vector<float> Gaussian(int64_t n) {
  Rng rng(8);
  std::vector<float> values(n);
  for (float& v : values) v = rng.Normal();
  return values;
}

double MeanSquare(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return sum / static_cast<double>(a.size());
}

TEST(Nf4, TheTableIsTheNormalQuantiles) {
  const std::vector<float> table = TableOf("nf4");
  ASSERT_EQ(table.size(), 16u);
  EXPECT_EQ(table[0], -1.0f);
  EXPECT_EQ(table[7], 0.0f);
  EXPECT_EQ(table[15], 1.0f);
  // Equal steps of the distribution function between the halves' ends.
  const auto phi = [](double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); };
  const double end = 1.8481308, above = (0.9677083 - 0.5) / 8, below = (0.9677083 - 0.5) / 7;
  for (int i = 8; i < 16; ++i) EXPECT_NEAR(phi(table[i] * end), 0.9677083 - above * (15 - i), 2e-6) << i;
  for (int i = 0; i < 7; ++i) EXPECT_NEAR(phi(-table[i] * end), 0.9677083 - below * i, 2e-6) << i;
}

TEST(Nf4, CodesOfKnownValues) {
  // 2 is absmax; half of each: 1, 0.1, -0.05, -0.7, 0.04 (above the middle 0.0398), 0.
  const EncodedTensor tensor = *Encode(Blocks("nf4", 64), {1, 6}, {2.0f, 0.2f, -0.1f, -1.4f, 0.08f, 0.0f});
  EXPECT_EQ(CodesOf(tensor), (std::vector<uint8_t>{15, 8, 6, 1, 8, 7}));
  EXPECT_EQ(Decode(tensor)[0], 2.0f);
  EXPECT_EQ(tensor.buffer("codes").bytes()[0], 15 | 8 << 4);
}

TEST(Nf4, AMiddleGoesDown) {
  const float middle = (0.7229568362236023f + 1.0f) / 2;
  const EncodedTensor tensor = *Encode(Blocks("nf4", 64), {1, 3}, {1.0f, middle, std::nextafter(middle, 1.0f)});
  EXPECT_EQ(CodesOf(tensor), (std::vector<uint8_t>{15, 14, 15}));
}

TEST(Fp4, CodesOfKnownValues) {
  const EncodedTensor tensor = *Encode(Blocks("fp4", 64), {1, 6}, {-3.0f, 1.0f, 2.0f, 0.01f, -0.5f, 0.0f});
  EXPECT_EQ(CodesOf(tensor), (std::vector<uint8_t>{11, 4, 2, 1, 14, 0}));
}

TEST(Nf4, IsNearerThanInt4OnNormalWeights) {
  const std::vector<float> values = Gaussian(128 * 512);
  const Shape shape = {128, 512};
  const double nf4 = MeanSquare(Decode(*Encode(Blocks("nf4", 64), shape, values)), values);
  const double fp4 = MeanSquare(Decode(*Encode(Blocks("fp4", 64), shape, values)), values);
  const double int4 = MeanSquare(Decode(*Encode(Blocks("int4", 64), shape, values)), values);
  EXPECT_LT(nf4, 0.95 * int4);
  EXPECT_LT(nf4, fp4);
}

TEST(Nf4, DoubleQuantizationCostsLittleAndStoresAByteAScale) {
  const std::vector<float> values = Gaussian(256 * 512);
  const Shape shape = {256, 512};
  QuantScheme scheme = Blocks("nf4", 64);
  const EncodedTensor once = *Encode(scheme, shape, values);
  scheme.MutableExtension(double_quantization);
  const EncodedTensor twice = *Encode(scheme, shape, values);
  EXPECT_EQ(once.buffer("codes").bytes(), twice.buffer("codes").bytes());
  // 4 + 8 / 64 + 32 / (64 * 256) bits, and the mean.
  EXPECT_EQ(twice.byte_size(), 256 * 512 / 2 + 256 * 8 + 4 * 8 + 4);
  const double a = MeanSquare(Decode(once), values), b = MeanSquare(Decode(twice), values);
  EXPECT_LT(b, 1.03 * a);
  EXPECT_NE(a, b);
  EXPECT_EQ(SchemeToString(scheme), "nf4 per group of 64, 8-bit scales in blocks of 256");
}

TEST(Nf4, EqualScalesSurviveDoubleQuantization) {
  QuantScheme scheme = Blocks("nf4", 4);
  scheme.MutableExtension(double_quantization)->set_block(2);
  const std::vector<float> values = {1, -1, 0, 1, 1, 1, 0, 1, -1, 1, 1, 1};
  EXPECT_EQ(Decode(*Encode(scheme, {1, 12}, values)), values);
}

TEST(Nf4, WhatDoesNotApplyIsRefused) {
  QuantScheme scheme = Blocks("nf4", 64);
  scheme.set_asymmetric(true);
  EXPECT_THAT(std::string(ValidateScheme(scheme).message()), ::testing::HasSubstr("asymmetric"));
  scheme = Blocks("nf4", 64);
  scheme.set_scale_type(QuantScheme::FP16);
  scheme.MutableExtension(double_quantization);
  EXPECT_THAT(std::string(ValidateScheme(scheme).message()), ::testing::HasSubstr("scale_type"));
  scheme = Blocks("nf4", 64);
  scheme.MutableExtension(double_quantization)->set_block(0);
  EXPECT_THAT(std::string(ValidateScheme(scheme).message()), ::testing::HasSubstr("block: 0"));
}

}  // namespace
}  // namespace nibble
