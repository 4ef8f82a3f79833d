#include "core/quant/formats/gguf/gguf.h"

#include <cmath>
#include <cstring>
#include <map>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "core/base/file.h"
#include "core/base/rng.h"
#include "core/golden/golden_testing.h"
#include "core/kernels/linear.h"
#include "core/quant/format.h"
#include "core/quant/integer_grid.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

const char* const kTypes[] = {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"};

std::vector<float> Gaussian(int64_t n, uint64_t seed, float deviation = 1) {
  Rng rng(seed);
  std::vector<float> values(n);
  for (float& v : values) v = deviation * rng.Normal();
  return values;
}

// Root of the mean square, by weights where there are some.
double Rms(const std::vector<float>& a, const std::vector<float>& b, absl::Span<const float> column_weights = {}) {
  double sum = 0, weight = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double w = column_weights.empty() ? 1 : column_weights[i % column_weights.size()];
    sum += w * std::pow(static_cast<double>(a[i]) - b[i], 2);
    weight += w;
  }
  return std::sqrt(sum / weight);
}

EncodedTensor OfBlocks(const std::string& type, const Shape& shape, const Tensor& bytes) {
  EncodedTensor tensor{FloatScheme(type), shape, {}};
  tensor.buffers.emplace("blocks", bytes);
  return tensor;
}

class GgufGolden : public GoldenTest {
 protected:
  GgufGolden() : GoldenTest("gguf.safetensors") {}

  // "q4_k" is "Q4_K" there.
  Tensor Of(const std::string& type, const std::string& what) const { return Golden(absl::AsciiStrToUpper(type) + "." + what); }
};

TEST_F(GgufGolden, DecodesToTheBit) {
  for (const std::string type : kTypes) {
    const Tensor bytes = Of(type, "bytes"), decoded = Of(type, "decoded_f32");
    const EncodedTensor tensor = OfBlocks(type, decoded.shape(), bytes);
    ASSERT_OK(CheckEncoded(tensor));
    const std::vector<float> got = Decode(tensor), expected = ToFloats(decoded);
    EXPECT_EQ(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)), 0) << type;
  }
}

TEST_F(GgufGolden, EncodesTypesOf32ColumnsToTheByte) {
  const Tensor input = Golden("input_f32");
  for (const std::string type : {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0"}) {
    ASSERT_OK_AND_ASSIGN(const EncodedTensor tensor, Encode(FloatScheme(type), input.shape(), ToFloats(input)));
    const Tensor expected = Of(type, "bytes");
    const absl::Span<const uint8_t> got = tensor.buffer("blocks").bytes();
    ASSERT_EQ(got.size(), expected.bytes().size()) << type;
    for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], expected.bytes()[i]) << type << " byte " << i;
  }
}

// GGUF's 16-bit floats are number formats of their own: to the bit, there and back.
TEST_F(GgufGolden, FloatTypes) {
  struct FloatType {
    const char* type;
    const char* format;
    DType dtype;
  };
  const std::vector<float> input = ToFloats(Golden("input_f32"));
  for (const FloatType& f : {FloatType{"BF16", "bf16", DType::kBF16}, FloatType{"F16", "fp16", DType::kF16}}) {
    const Tensor bytes = Of(f.type, "bytes"), decoded = Of(f.type, "decoded_f32");
    ASSERT_OK_AND_ASSIGN(Tensor stored, Tensor::Borrow(f.dtype, decoded.shape(), bytes.bytes(), std::make_shared<Tensor>(bytes)));
    ASSERT_OK_AND_ASSIGN(const EncodedTensor tensor, WrapFloats(std::move(stored)));
    EXPECT_EQ(tensor.scheme.format(), f.format);
    const std::vector<float> got = Decode(tensor), expected = ToFloats(decoded);
    EXPECT_EQ(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)), 0) << f.type;
    ASSERT_OK_AND_ASSIGN(const EncodedTensor encoded, Encode(FloatScheme(f.format), decoded.shape(), input));
    EXPECT_EQ(encoded.buffer("values").bytes(), bytes.bytes()) << f.type;
  }
}

// 2 sin(0.7 i), worked out from the layouts: d in fp16, then codes.
TEST(Gguf, BlocksByHand) {
  std::vector<float> x(32);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(2 * std::sin(0.7 * static_cast<double>(i)));
  const auto hex = [](const EncodedTensor& tensor) { return absl::BytesToHexString(BytesOf(tensor.buffer("blocks").bytes())); };
  ASSERT_OK_AND_ASSIGN(const EncodedTensor q4, Encode(FloatScheme("q4_0"), {1, 32}, x));
  EXPECT_EQ(hex(q4), "f1b3" "f8d38031051b6fbffdf8d38031051b6f");
  EXPECT_NEAR(Rms(Decode(q4), x), 0.0871418, 1e-7);
  ASSERT_OK_AND_ASSIGN(const EncodedTensor q8, Encode(FloatScheme("q8_0"), {1, 32}, x));
  EXPECT_EQ(hex(q8).substr(0, 20), "0124" "00527e6e2bd39182");  // codes 0, 82, 126, 110, 43, -45, -111, -126
}

// A block's parts, put together by the formula, are what decoding gives.
TEST(Gguf, PartsMakeTheTensor) {
  const Shape shape = {3, 512};
  for (const std::string type : kTypes) {
    if (type == "iq4_nl") continue;  // its codes stand for a table's values
    ASSERT_OK_AND_ASSIGN(const EncodedTensor tensor, Encode(FloatScheme(type), shape, Gaussian(3 * 512, 1)));
    const GgufParts parts = SplitGgufBlocks(tensor);
    const std::vector<float> decoded = Decode(tensor), scales = ToFloats(parts.scales), mins = ToFloats(parts.mins);
    std::vector<uint8_t> codes(512);
    for (int64_t r = 0; r < 3; ++r) {
      UnpackRow(parts.bits, parts.codes.bytes().data() + r * PackedRowBytes(parts.bits, 512), absl::MakeSpan(codes));
      for (int64_t c = 0; c < 512; ++c) {
        const int64_t g = r * parts.groups + c / parts.group, b = g / parts.groups_per_block;
        const float scale = scales[b] * static_cast<float>(parts.scale_codes.as<int8_t>()[g]);
        const float value = scale * static_cast<float>(codes[c] - parts.zero) - mins[b] * static_cast<float>(parts.min_codes.as<uint8_t>()[g]);
        ASSERT_EQ(value, decoded[r * 512 + c]) << type << " " << r << " " << c;
        ASSERT_TRUE(parts.has_mins || mins[b] == 0) << type;
      }
    }
  }
}

// What kernels see is what decoding gives: to the bit but for the sum with an offset.
TEST(Gguf, ViewsAreWhatDecodingGives) {
  for (const std::string type : kTypes) {
    ASSERT_OK_AND_ASSIGN(const EncodedTensor tensor, Encode(FloatScheme(type), {5, 512}, Gaussian(5 * 512, 2)));
    const auto view = (*FindFormat(type))->Codes(tensor);
    ASSERT_TRUE(view.has_value()) << type;
    const std::vector<float> decoded = Decode(tensor);
    std::vector<float> seen(decoded.size());
    view->DecodeRows(0, 5, seen.data());
    for (size_t i = 0; i < seen.size(); ++i) ASSERT_NEAR(seen[i], decoded[i], view->offsets == nullptr ? 0 : 2e-6) << type << " " << i;
  }
}

// Products run on the codes, with float activations and, but for a table's, integer ones.
TEST(Gguf, ProductsAreNative) {
  QuantScheme by_token = IntegerScheme(8, 0, true);
  by_token.set_per(QuantScheme::PER_TOKEN);
  ThreadPool pool(2);
  const kernels::KernelTable& table = *kernels::AvailableTables().back();
  for (const std::string type : kTypes) {
    ASSERT_OK_AND_ASSIGN(const EncodedTensor tensor, Encode(FloatScheme(type), {37, 512}, Gaussian(37 * 512, 5)));
    const std::vector<float> decoded = Decode(tensor);
    for (const bool integers : {false, true}) {
      const auto activation = integers ? std::optional<QuantScheme>(by_token) : std::nullopt;
      ASSERT_OK_AND_ASSIGN(const auto linear, kernels::Linear::Create(tensor, activation, table));
      EXPECT_EQ(linear->arithmetic() == kernels::Arithmetic::kNative, !integers || type != "iq4_nl") << type;
      for (const int64_t tokens : {1, 5, 40}) {
        std::vector<float> x = Gaussian(tokens * 512, 6), y(tokens * 37);
        kernels::PreparedInput input;
        ASSERT_OK(input.Prepare(linear->input_form(), table, x.data(), tokens, pool));
        ASSERT_OK(linear->Multiply(input, y.data(), 37, pool));
        if (integers) ASSERT_OK(FakeQuantizeRows(by_token, tokens, 512, x.data()));
        for (int64_t i = 0; i < tokens * 37; ++i) {
          double sum = 0;
          for (int64_t k = 0; k < 512; ++k) sum += static_cast<double>(decoded[i % 37 * 512 + k]) * x[i / 37 * 512 + k];
          ASSERT_NEAR(y[i], sum, 1e-3) << type << " " << tokens << " tokens";
        }
      }
    }
  }
}

// Bands of the error on Gaussian values, as shares of their deviation. ggml's own
// encoders (ik_llama.cpp 8337e4cd, same values up to the generator) lie within.
TEST(Gguf, ErrorsAreWhatTheirBitsAllow) {
  struct Band {
    const char* type;
    double low, high;
  };
  const Band bands[] = {{"q4_0", 0.080, 0.100}, {"q4_1", 0.070, 0.090}, {"q5_0", 0.040, 0.050}, {"q5_1", 0.034, 0.044}, {"q8_0", 0.0045, 0.0065},
                        {"iq4_nl", 0.070, 0.085}, {"q2_k", 0.26, 0.34}, {"q3_k", 0.13, 0.19}, {"q4_k", 0.065, 0.080}, {"q5_k", 0.032, 0.040},
                        {"q6_k", 0.015, 0.020}};
  const std::vector<float> values = Gaussian(32 * 1024, 3, 0.02f);
  for (const Band& band : bands) {
    ASSERT_OK_AND_ASSIGN(const EncodedTensor tensor, Encode(FloatScheme(band.type), {32, 1024}, values));
    const double error = Rms(Decode(tensor), values) / 0.02;
    EXPECT_GT(error, band.low) << band.type;
    EXPECT_LT(error, band.high) << band.type;
  }
}

TEST(Gguf, ImportanceMovesTheErrorToWhereItCountsLess) {
  const std::vector<float> values = Gaussian(16 * 512, 4);
  std::vector<float> importance(512);
  Rng rng(5);
  for (float& v : importance) v = std::exp(2 * rng.Normal());
  for (const std::string type : kTypes) {
    ASSERT_OK_AND_ASSIGN(const EncodedTensor plain, EncodeGgufBlocks(type, {16, 512}, values, {}, nullptr));
    ASSERT_OK_AND_ASSIGN(const EncodedTensor weighted, EncodeGgufBlocks(type, {16, 512}, values, importance, nullptr));
    if (type == "q8_0") {
      EXPECT_EQ(plain.buffer("blocks").bytes(), weighted.buffer("blocks").bytes());
      continue;
    }
    EXPECT_LT(Rms(Decode(weighted), values, importance), 0.97 * Rms(Decode(plain), values, importance)) << type;
  }
}

std::string BytesHash(const std::string& type, absl::Span<const float> importance) {
  const EncodedTensor tensor = *EncodeGgufBlocks(type, {16, 512}, Gaussian(16 * 512, 7, 0.03f), importance, nullptr);
  return Sha256(BytesOf(tensor.buffer("blocks").bytes())).substr(0, 12);
}

// Whatever instructions the machine has.
TEST(Gguf, BytesAreTheSameOnEveryMachine) {
  std::vector<float> importance(512);
  for (size_t c = 0; c < importance.size(); ++c) importance[c] = static_cast<float>(1 + c * 37 % 64) / 16;
  const std::map<std::string, std::pair<std::string, std::string>> expected = {
      {"q4_0", {"563adee665ef", "8f15dfc677fa"}},
      {"q4_1", {"69718c87fea4", "4d57887723fb"}},
      {"q5_0", {"93cd63f5ab4c", "b532dd8fb156"}},
      {"q5_1", {"9fe8f691a521", "a8fb2a56636e"}},
      {"q8_0", {"31f254c67c78", "31f254c67c78"}},
      {"iq4_nl", {"afc81cabfb71", "662dd8767abc"}},
      {"q2_k", {"948874c996d2", "81f3f6cf3f5a"}},
      {"q3_k", {"d8d06e1d53bf", "f5d94c417e87"}},
      {"q4_k", {"30fcdcde3f54", "e401419724eb"}},
      {"q5_k", {"d00a8d7308e0", "090ace4b2b8f"}},
      {"q6_k", {"dcb8ebbacc61", "043c44efee9b"}}};
  for (const std::string type : kTypes) {
    EXPECT_EQ(BytesHash(type, {}), expected.at(type).first) << type;
    EXPECT_EQ(BytesHash(type, importance), expected.at(type).second) << type << " by importance";
  }
}

TEST(Gguf, RefusesWhatItCannotHonour) {
  QuantScheme scheme = FloatScheme("q4_k");
  scheme.set_group_size(32);
  EXPECT_THAT(std::string(ValidateScheme(scheme).message()), HasSubstr("q4_k fixes everything itself"));
  const std::vector<float> values(512, 1.0f);
  EXPECT_THAT(std::string(EncodeGgufBlocks("q4_x", {2, 256}, values, {}, nullptr).status().message()), HasSubstr("q4_x"));
  EXPECT_THAT(std::string(EncodeGgufBlocks("q4_k", {2, 256}, values, std::vector<float>(255, 1), nullptr).status().message()),
              HasSubstr("importance of 255 columns for 256"));
  std::vector<float> importance(256, 1.0f);
  importance[9] = -1;
  EXPECT_THAT(std::string(EncodeGgufBlocks("q4_k", {2, 256}, values, importance, nullptr).status().message()), HasSubstr("column 9"));
}

TEST(Gguf, AScaleBeyondHalfPrecisionIsAnErrorWithItsPlace) {
  for (const std::string type : kTypes) {
    for (const float huge : {3e8f, 3e38f}) {
      std::vector<float> values(2 * 256, 1.0f);
      values[256 + 40] = huge;
      const auto encoded = Encode(FloatScheme(type), {2, 256}, values);
      ASSERT_FALSE(encoded.ok()) << type << " " << huge;
      EXPECT_THAT(std::string(encoded.status().message()), HasSubstr("row 1")) << type;
    }
  }
}

// Importance of nothing but zeros gives a tensor, if a bad one.
TEST(Gguf, ZeroImportanceEncodes) {
  const std::vector<float> values = Gaussian(512, 6), none(256, 0.0f);
  for (const std::string type : kTypes) {
    ASSERT_OK_AND_ASSIGN(const EncodedTensor tensor, EncodeGgufBlocks(type, {2, 256}, values, none, nullptr));
    for (const float v : Decode(tensor)) ASSERT_TRUE(std::isfinite(v)) << type;
  }
}

}  // namespace
}  // namespace nibble
