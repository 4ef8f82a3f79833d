#include "core/tensor/tensor.h"

#include <cmath>
#include <limits>

#include "core/base/testing.h"

namespace nibble {
namespace {

TEST(Fp16, EveryFiniteCodeRoundTrips) {
  for (uint32_t code = 0; code < 0x10000; ++code) {
    const float value = Fp16ToFloat(static_cast<uint16_t>(code));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(Fp16ToFloat(FloatToFp16(value))));
    } else {
      ASSERT_EQ(FloatToFp16(value), code);
    }
  }
}

TEST(Fp16, TiesGoToEven) {
  EXPECT_EQ(FloatToFp16(1.0f + 0x1.0p-11f), 0x3C00);        // midway 1.0 and its successor
  EXPECT_EQ(FloatToFp16(1.0f + 3 * 0x1.0p-11f), 0x3C02);    // midway, odd below
  EXPECT_EQ(FloatToFp16(65519.0f), 0x7BFF);
  EXPECT_EQ(FloatToFp16(65520.0f), 0x7C00);
  EXPECT_EQ(FloatToFp16(0x1.0p-25f), 0x0000);               // half the least subnormal
  EXPECT_EQ(FloatToFp16(0x1.8p-24f), 0x0002);
  EXPECT_EQ(FloatToFp16(-0.0f), 0x8000);
}

TEST(Bf16, TiesGoToEven) {
  EXPECT_EQ(FloatToBf16(1.0f), 0x3F80);
  EXPECT_EQ(FloatToBf16(1.0f + 0x1.0p-8f), 0x3F80);
  EXPECT_EQ(FloatToBf16(1.0f + 3 * 0x1.0p-8f), 0x3F82);
  EXPECT_EQ(FloatToBf16(std::numeric_limits<float>::max()), 0x7F80);
  EXPECT_TRUE(std::isnan(Bf16ToFloat(FloatToBf16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(Tensor, ElementsAreCountedWithinBounds) {
  EXPECT_EQ(CheckedElements({}).value(), 1);
  EXPECT_EQ(CheckedElements({3, 0, 5}).value(), 0);
  EXPECT_EQ(CheckedElements({kMaxElements}).value(), kMaxElements);
  const int64_t large = int64_t{1} << 40;
  for (const Shape& shape : {Shape{-1}, {2, -3}, {kMaxElements + 1}, {large, large}, {0, large, large}, {large, large, 0}, {0, -1}}) {
    EXPECT_FALSE(CheckedElements(shape).ok()) << ShapeToString(shape);
  }
}

TEST(Tensor, BorrowChecksByteCount) {
  const uint8_t bytes[6] = {};
  EXPECT_OK(Tensor::Borrow(DType::kBF16, {3}, bytes, nullptr));
  const auto wrong = Tensor::Borrow(DType::kF32, {2}, bytes, nullptr);
  ASSERT_FALSE(wrong.ok());
  EXPECT_THAT(std::string(wrong.status().message()), ::testing::HasSubstr("needs 8 bytes, got 6"));
}

TEST(Tensor, StreamedTensorsOwnTheirBytes) {
  std::vector<Tensor> tensors;
  for (const int64_t n : {int64_t{0}, int64_t{1}, int64_t{1000}, int64_t{70} << 20, int64_t{40} << 20, int64_t{30} << 20, int64_t{5}}) {
    Tensor& tensor = tensors.emplace_back(Tensor::ZerosForStreaming(DType::kU8, {n}));
    ASSERT_EQ(tensor.byte_size(), n);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.bytes().data()) % 64, 0u);
    if (n == 0) continue;
    EXPECT_EQ(tensor.bytes().front(), 0);
    EXPECT_EQ(tensor.bytes().back(), 0);
    tensor.mutable_as<uint8_t>().front() = tensor.mutable_as<uint8_t>().back() = static_cast<uint8_t>(tensors.size());
  }
  for (size_t i = 1; i < tensors.size(); ++i) {
    EXPECT_EQ(tensors[i].bytes().front(), i + 1);
    EXPECT_EQ(tensors[i].bytes().back(), i + 1);
  }
  // What is left lives on without its neighbours.
  const Tensor kept = tensors[2];
  tensors.clear();
  EXPECT_EQ(kept.bytes().back(), 3);
  EXPECT_EQ(Tensor::ZerosForStreaming(DType::kF32, {4}).as<float>()[3], 0);
}

TEST(Tensor, ImpossibleShapesAreErrors) {
  EXPECT_FALSE(CheckedElements({-1}).ok());
  EXPECT_FALSE(CheckedElements({int64_t{1} << 40, int64_t{1} << 40}).ok());
  EXPECT_EQ(*CheckedElements({0, 5}), 0);
}

TEST(Tensor, FloatsRoundTripThroughEachType) {
  const std::vector<float> values = {0, 1, -2.5f, 0.15625f};
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    EXPECT_EQ(ToFloats(FloatsToDType(dtype, {4}, values)), values);
  }
}

}  // namespace
}  // namespace nibble
