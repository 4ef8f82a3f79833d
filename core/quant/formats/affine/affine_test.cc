#include "core/quant/formats/affine/affine.h"

#include "core/base/testing.h"
#include "core/quant/format.h"

namespace nibble {
namespace {

QuantScheme Scheme(int bits, QuantScheme::ScaleType type = QuantScheme::FP32) {
  QuantScheme scheme;
  scheme.set_format(absl::StrCat("affine", bits));
  scheme.set_per(QuantScheme::PER_ROW);
  scheme.set_scale_type(type);
  return scheme;
}

TEST(Affine, MeetsBothEndsOfARangeThatHoldsNoZero) {
  const std::vector<float> values = {2.0f, 2.75f, 5.0f, 3.1f};
  ASSERT_OK_AND_ASSIGN(const EncodedTensor tensor, Encode(Scheme(2), {1, 4}, values));
  EXPECT_EQ(ToFloats(tensor.buffer("scales")), std::vector<float>{1.0f});
  EXPECT_EQ(ToFloats(tensor.buffer("zeros")), std::vector<float>{-2.0f});
  // 2.75 is nearest to 3; 3.1 to 3.
  EXPECT_EQ(Decode(tensor), (std::vector<float>{2, 3, 5, 3}));
}

TEST(Affine, TiesGoToTheEvenCode) {
  const AffineGrid grid{1.0f, 0.5f};
  EXPECT_EQ(AffineCode(grid, 3, 0.0f), 0);  // 0.5
  EXPECT_EQ(AffineCode(grid, 3, 1.0f), 2);  // 1.5
  EXPECT_EQ(AffineCode(grid, 3, 2.0f), 2);  // 2.5
  EXPECT_EQ(AffineCode(grid, 3, -4.0f), 0);
  EXPECT_EQ(AffineCode(grid, 3, 99.0f), 7);
}

TEST(Affine, OneBitHoldsTwoValues) {
  ASSERT_OK_AND_ASSIGN(const EncodedTensor tensor, Encode(Scheme(1), {1, 3}, {-0.5f, 0.25f, 0.24f}));
  EXPECT_THAT(Decode(tensor), ::testing::ElementsAre(-0.5f, ::testing::FloatEq(0.25f), ::testing::FloatEq(0.25f)));
  EXPECT_EQ(tensor.buffer("codes").byte_size(), 1);
}

TEST(Affine, EqualAndNearlyEqualValuesStayFinite) {
  for (const auto type : {QuantScheme::FP32, QuantScheme::FP16, QuantScheme::BF16}) {
    ASSERT_OK_AND_ASSIGN(const EncodedTensor equal, Encode(Scheme(4, type), {1, 3}, {-30.0f, -30.0f, -30.0f}));
    EXPECT_EQ(Decode(equal), (std::vector<float>{-30, -30, -30}));
    ASSERT_OK_AND_ASSIGN(const EncodedTensor near, Encode(Scheme(4, type), {1, 2}, {30.0f, 30.00001f}));
    for (const float v : Decode(near)) EXPECT_NEAR(v, 30.0f, 0.15f);
  }
}

TEST(Affine, GivenGridsAreStoredAsTheyAre) {
  const std::vector<AffineGrid> grids = {{0.5f, 1.25f}, {2.0f, -1.0f}};
  const EncodedTensor tensor = EncodeAffine(Scheme(3), {2, 2}, {0.0f, 1.0f, 4.0f, 100.0f}, grids, nullptr);
  // Row 0: codes round(1.25) = 1, round(3.25) = 3; row 1: 4 / 2 - 1 = 1, the largest.
  EXPECT_EQ(Decode(tensor), (std::vector<float>{-0.125f, 0.875f, 4.0f, 16.0f}));
}

TEST(Affine, OtherGridsFieldsAreRefused) {
  QuantScheme scheme = Scheme(4);
  scheme.set_asymmetric(true);
  EXPECT_FALSE(ValidateScheme(scheme).ok());
}

}  // namespace
}  // namespace nibble
