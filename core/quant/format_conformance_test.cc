// The conformance suite of number formats: every registered format, under each
// of its example schemes, over degenerate and ordinary tensors. A new format
// is covered by being registered.

#include <cmath>
#include <limits>

#include "core/base/divide.h"
#include "core/base/rng.h"
#include "core/base/testing.h"
#include "core/quant/encoded.h"
#include "core/quant/format.h"

namespace nibble {
namespace {

struct Case {
  std::string format;
  QuantScheme scheme;
};

std::vector<Case> AllCases() {
  std::vector<Case> cases;
  for (const std::string& name : FormatNames()) {
    const auto format = FindFormat(name);
    for (const QuantScheme& scheme : (*format)->ExampleSchemes()) cases.push_back({name, scheme});
  }
  return cases;
}

std::string CaseName(const ::testing::TestParamInfo<Case>& info) { return absl::StrCat(info.param.format, "_", info.index); }

std::vector<float> Gaussian(int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values(n);
  for (float& v : values) v = rng.Normal();
  return values;
}

float AbsMax(absl::Span<const float> values) {
  float absmax = 0;
  for (const float v : values) absmax = std::max(absmax, std::fabs(v));
  return absmax;
}

double RmsDifference(absl::Span<const float> a, absl::Span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

class FormatConformance : public ::testing::TestWithParam<Case> {
 protected:
  EncodedTensor MustEncode(const Shape& shape, absl::Span<const float> values) {
    auto encoded = Encode(GetParam().scheme, shape, values);
    EXPECT_OK(encoded);
    return *std::move(encoded);
  }

  int64_t row_multiple() const { return (*FindFormat(GetParam().format))->row_multiple(); }

  // The nearest length of a row, `cols` or more, that the format accepts.
  int64_t Width(int64_t cols) const { return RoundUp(cols, row_multiple()); }

  std::vector<Shape> Shapes() const {
    std::vector<Shape> shapes = {{1, 1}, {3, 7}, {5, 32}, {2, 33}, {7, 100}, {16, 64}, {9}};
    for (Shape& shape : shapes) shape.back() = Width(shape.back());
    return shapes;
  }
};

TEST(FormatRegistry, HoldsTheFormatsThatMustExist) {
  const std::vector<std::string> names = FormatNames();
  EXPECT_THAT(names, ::testing::IsSupersetOf({"fp32", "bf16", "fp16", "int2", "int3", "int4", "int5", "int6", "int7", "int8"}));
}

TEST(FormatRegistry, UnknownNameOffersTheNearest) {
  const auto format = FindFormat("imt4");
  ASSERT_FALSE(format.ok());
  EXPECT_THAT(std::string(format.status().message()), ::testing::HasSubstr("did you mean 'int4'"));
}

TEST_P(FormatConformance, LayoutIsWhatIsStored) {
  for (const Shape& shape : Shapes()) {
    const int64_t n = *CheckedElements(shape);
    const EncodedTensor encoded = MustEncode(shape, Gaussian(n, 1));
    EXPECT_OK(CheckEncoded(encoded));
    ASSERT_OK_AND_ASSIGN(const int64_t bytes, EncodedBytes(GetParam().scheme, shape));
    EXPECT_EQ(bytes, encoded.byte_size()) << ShapeToString(shape);
    EXPECT_EQ(encoded.shape, shape);
  }
}

TEST_P(FormatConformance, ZeroStaysZero) {
  const int64_t cols = Width(40);
  const std::vector<float> zeros(3 * cols, 0.0f);
  EXPECT_EQ(Decode(MustEncode({3, cols}, zeros)), zeros);
}

TEST_P(FormatConformance, ErrorIsBelowTheLargestMagnitude) {
  for (const Shape& shape : Shapes()) {
    const std::vector<float> values = Gaussian(*CheckedElements(shape), 2);
    const std::vector<float> decoded = Decode(MustEncode(shape, values));
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_TRUE(std::isfinite(decoded[i]));
      EXPECT_LE(std::fabs(decoded[i] - values[i]), AbsMax(values) * 1.0001f);
    }
  }
}

TEST_P(FormatConformance, EncodingADecodedTensorChangesNothing) {
  const int64_t cols = Width(64);
  const std::vector<float> values = Gaussian(6 * cols, 3);
  const std::vector<float> once = Decode(MustEncode({6, cols}, values));
  const std::vector<float> twice = Decode(MustEncode({6, cols}, once));
  // A format of blocks searches for scales and may find others for the decoded values:
  // what changes is small beside what encoding changed first.
  if (row_multiple() > 1) {
    EXPECT_LT(RmsDifference(once, twice), 0.25 * RmsDifference(once, values));
    return;
  }
  // A rounded scale, or one that a format stores in a way of its own, may miss the
  // largest magnitude by its own precision, and a clip search looks at hundredths
  // of the range: then the grid moves by as much.
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  GetParam().scheme.GetReflection()->ListFields(GetParam().scheme, &fields);
  const bool extended = std::any_of(fields.begin(), fields.end(), [](const auto* field) { return field->is_extension(); });
  const bool exact = GetParam().scheme.scale_type() == QuantScheme::FP32 && !GetParam().scheme.range().has_mse() && !extended;
  const float tolerance = exact ? 2e-6f : 0x1.0p-7f;
  for (size_t i = 0; i < once.size(); ++i) EXPECT_NEAR(once[i], twice[i], tolerance * AbsMax(once));
}

TEST_P(FormatConformance, ConstantOutlierAndTinyTensorsEncode) {
  const int64_t cols = Width(50);
  std::vector<float> values(4 * cols, 0.75f);
  MustEncode({4, cols}, values);
  values[17] = 1000.0f;
  const std::vector<float> decoded = Decode(MustEncode({4, cols}, values));
  EXPECT_NEAR(decoded[17], 1000.0f, 1000.0f * 0.5f);
  for (float& v : values) v *= std::numeric_limits<float>::denorm_min();
  for (const float v : Decode(MustEncode({4, cols}, values))) EXPECT_TRUE(std::isfinite(v));
}

TEST_P(FormatConformance, NotFiniteIsAnErrorWithItsPlace) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const int64_t cols = Width(8);
    std::vector<float> values(2 * cols, 1.0f);
    values[cols + 3] = bad;
    const auto encoded = Encode(GetParam().scheme, {2, cols}, values);
    ASSERT_FALSE(encoded.ok());
    EXPECT_THAT(std::string(encoded.status().message()), ::testing::HasSubstr("row 1, column 3"));
  }
}

TEST_P(FormatConformance, SameBytesForAnyThreadCount) {
  const int64_t cols = Width(65);
  const std::vector<float> values = Gaussian(37 * cols, 4);
  const EncodedTensor alone = MustEncode({37, cols}, values);
  for (int threads : {2, 3}) {
    ThreadPool pool(threads);
    ASSERT_OK_AND_ASSIGN(const EncodedTensor together, Encode(GetParam().scheme, {37, cols}, values, &pool));
    for (const auto& [name, buffer] : alone.buffers) EXPECT_EQ(buffer.bytes(), together.buffer(name).bytes()) << name;
  }
}

TEST_P(FormatConformance, RowsDecodeAlone) {
  const int64_t cols = Width(45);
  const EncodedTensor encoded = MustEncode({9, cols}, Gaussian(9 * cols, 5));
  const std::vector<float> all = Decode(encoded);
  for (int64_t r = 0; r < 9; ++r) {
    std::vector<float> row(cols);
    DecodeRows(encoded, r, r + 1, row.data());
    EXPECT_TRUE(std::equal(row.begin(), row.end(), all.begin() + r * cols));
  }
}

TEST_P(FormatConformance, WrongBuffersAreErrors) {
  const int64_t cols = Width(33);
  EncodedTensor encoded = MustEncode({4, cols}, Gaussian(4 * cols, 6));
  EncodedTensor reshaped = encoded;
  reshaped.shape = {5, cols};
  EXPECT_FALSE(CheckEncoded(reshaped).ok());
  EncodedTensor missing = encoded;
  missing.buffers.erase(missing.buffers.begin());
  EXPECT_FALSE(CheckEncoded(missing).ok());
  EncodedTensor extra = encoded;
  extra.buffers.emplace("surplus", Tensor::Zeros(DType::kU8, {1}));
  EXPECT_FALSE(CheckEncoded(extra).ok());
}

TEST_P(FormatConformance, RowsThatBlocksDoNotDivideAreErrors) {
  if (row_multiple() == 1) return;
  const int64_t cols = row_multiple() + 1;
  const auto encoded = Encode(GetParam().scheme, {2, cols}, Gaussian(2 * cols, 7));
  ASSERT_FALSE(encoded.ok());
  for (const int64_t number : {cols, row_multiple()}) {
    EXPECT_THAT(std::string(encoded.status().message()), ::testing::HasSubstr(absl::StrCat(number)));
  }
  EXPECT_FALSE(EncodedBytes(GetParam().scheme, {2, cols}).ok());
}

INSTANTIATE_TEST_SUITE_P(Registered, FormatConformance, ::testing::ValuesIn(AllCases()), CaseName);

}  // namespace
}  // namespace nibble
