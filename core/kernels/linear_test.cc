#include "core/kernels/linear.h"

#include <cmath>
#include <cstring>

#include "absl/strings/match.h"
#include "core/base/divide.h"
#include "core/base/testing.h"
#include "core/kernels/test_tensors.h"
#include "core/quant/format.h"
#include "core/quant/integer_grid.h"

namespace nibble::kernels {
namespace {

class EveryTable : public ::testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& table() const { return *GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(Kernels, EveryTable, ::testing::ValuesIn(AvailableTables()),
                         [](const auto& info) { return info.param->name; });

// Codes of three bits with all that a CodeView can have: scales in two levels, four
// groups sharing the upper one, and offsets under a scheme of their own.
class TestFormat : public Format {
 public:
  TestFormat(std::string name, QuantScheme offset_scheme) : name_(std::move(name)), offset_scheme_(std::move(offset_scheme)) {}

  std::string name() const override { return name_; }
  absl::Status Validate(const QuantScheme& scheme) const override { return ValidateScales(scheme); }
  std::string Describe(const QuantScheme& scheme) const override { return name_; }
  std::vector<QuantScheme> ExampleSchemes() const override { return {}; }

  std::vector<BufferSpec> Layout(const QuantScheme& scheme, const Shape& shape) const override {
    const int64_t groups = CeilDiv(shape[1], scheme.group_size());
    std::vector<BufferSpec> layout = {{"codes", DType::kU8, {shape[0], PackedRowBytes(3, shape[1])}},
                                      {"scales", DType::kF16, {shape[0], CeilDiv(groups, 4)}},
                                      {"scale_codes", DType::kI8, {shape[0], groups}}};
    for (BufferSpec& spec : (*FindFormat(offset_scheme_.format()))->Layout(offset_scheme_, {shape[0], groups})) {
      layout.push_back({"offset_" + spec.name, spec.dtype, spec.shape});
    }
    return layout;
  }

  // Random numbers: nothing here is about rounding.
  absl::StatusOr<EncodedTensor> Encode(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values, ThreadPool*) const override {
    Rng rng(shape[0] + shape[1]);
    const int64_t rows = shape[0], groups = CeilDiv(shape[1], scheme.group_size()), tops = CeilDiv(groups, 4);
    EncodedTensor tensor{scheme, shape, {}};
    Tensor codes = Tensor::Zeros(DType::kU8, {rows, PackedRowBytes(3, shape[1])}), scale_codes = Tensor::Zeros(DType::kI8, {rows, groups});
    std::vector<uint8_t> row(shape[1]);
    for (int64_t r = 0; r < rows; ++r) {
      for (uint8_t& code : row) code = static_cast<uint8_t>(rng.Below(8));
      PackRow(3, row, codes.mutable_as<uint8_t>().data() + r * PackedRowBytes(3, shape[1]));
    }
    for (int8_t& code : scale_codes.mutable_as<int8_t>()) code = static_cast<int8_t>(rng.Below(256) - 128);
    tensor.buffers = {{"codes", codes}, {"scale_codes", scale_codes}, {"scales", FloatsToDType(DType::kF16, {rows, tops}, RandomFloats(rows * tops, rng, 0.001f))}};
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor offsets, nibble::Encode(offset_scheme_, {rows, groups}, RandomFloats(rows * groups, rng, 0.1f)));
    for (const auto& [buffer, bytes] : offsets.buffers) tensor.buffers.emplace("offset_" + buffer, bytes);
    return tensor;
  }

  std::optional<CodeView> Codes(const EncodedTensor& tensor) const override {
    CodeView view;
    view.bits = 3, view.rows = tensor.rows(), view.cols = tensor.cols(), view.group = tensor.scheme.group_size();
    view.groups = CeilDiv(view.cols, view.group);
    view.codes = tensor.buffer("codes"), view.scales = tensor.buffer("scales"), view.scale_codes = tensor.buffer("scale_codes");
    view.scale_run = 4;
    view.one_zero = 3;
    EncodedTensor offsets{offset_scheme_, {view.rows, view.groups}, {}};
    for (const auto& [name, buffer] : tensor.buffers) {
      if (name.rfind("offset_", 0) == 0) offsets.buffers.emplace(name.substr(7), buffer);
    }
    view.offsets = std::make_shared<EncodedTensor>(std::move(offsets));
    return view;
  }

  void DecodeRows(const EncodedTensor& tensor, int64_t begin, int64_t end, float* out) const override {
    Codes(tensor)->DecodeRows(begin, end, out);
  }

 private:
  const std::string name_;
  const QuantScheme offset_scheme_;
};

const FormatRegistrar kFloatOffsets(std::make_unique<TestFormat>("test_float_offsets", FloatScheme("fp16")));
const FormatRegistrar kCodedOffsets(std::make_unique<TestFormat>("test_coded_offsets", WeightScheme(6, true, 8)));

std::vector<float> Product(const Linear& linear, const KernelTable& table, const std::vector<float>& x, int threads) {
  ThreadPool pool(threads);
  const int64_t tokens = static_cast<int64_t>(x.size()) / linear.cols();
  std::vector<float> y(tokens * linear.rows());
  PreparedInput input;
  NIBBLE_CHECK_OK(input.Prepare(linear.input_form(), table, x.data(), tokens, pool));
  NIBBLE_CHECK_OK(linear.Multiply(input, y.data(), linear.rows(), pool));
  return y;
}

// The activations as their scheme stores them.
std::vector<float> DecodedActivations(const std::optional<QuantScheme>& scheme, std::vector<float> x, int64_t cols) {
  if (scheme.has_value()) NIBBLE_CHECK_OK(FakeQuantizeRows(*scheme, static_cast<int64_t>(x.size()) / cols, cols, x.data()));
  return x;
}

struct SchemePair {
  QuantScheme weight;
  std::optional<QuantScheme> activation;
  Arithmetic arithmetic;
};

std::vector<SchemePair> SchemePairs() {
  std::vector<SchemePair> pairs;
  for (const char* weight : {"fp32", "bf16", "fp16"}) {
    pairs.push_back({FloatScheme(weight), std::nullopt, Arithmetic::kNative});
    for (const char* activation : {"fp32", "bf16", "fp16"}) {
      pairs.push_back({FloatScheme(weight), FloatScheme(activation), Arithmetic::kNative});
    }
    pairs.push_back({FloatScheme(weight), TokenScheme(8, true), Arithmetic::kSimulated});
  }
  for (int bits = 2; bits <= 8; ++bits) {
    for (const int64_t group : {32, 7, 0, -1}) {
      const QuantScheme weight = WeightScheme(bits, bits % 2 == 0, group);
      pairs.push_back({weight, std::nullopt, Arithmetic::kNative});
      pairs.push_back({weight, TokenScheme(8, group != 0), Arithmetic::kNative});
      pairs.push_back({weight, TokenScheme(bits, true), Arithmetic::kNative});
    }
  }
  const QuantScheme int4 = WeightScheme(4, false, 32);
  pairs.push_back({int4, FloatScheme("bf16"), Arithmetic::kNative});
  pairs.push_back({WeightScheme(4, false, 7), FloatScheme("bf16"), Arithmetic::kNative});
  for (const auto divisor : {QuantScheme::HALF_RANGE, QuantScheme::MIN_CODE, QuantScheme::NO_CLIPPING}) {
    QuantScheme activation = TokenScheme(8, false);
    activation.set_divisor(divisor);
    pairs.push_back({int4, activation, divisor == QuantScheme::NO_CLIPPING ? Arithmetic::kSimulated : Arithmetic::kNative});
  }
  std::vector<QuantScheme> slow(5, TokenScheme(8, true));
  slow[0].set_rounding(QuantScheme::DIVISION);
  slow[1].set_scale_type(QuantScheme::BF16);
  slow[2].mutable_range()->mutable_percentile();
  slow[3].mutable_range()->mutable_mse()->set_grid(4);
  slow[4].set_per(QuantScheme::PER_GROUP);
  slow[4].set_group_size(16);
  for (const QuantScheme& activation : slow) pairs.push_back({int4, activation, Arithmetic::kSimulated});
  const QuantScheme outliers = OutlierScheme(1.5f, false), columns = OutlierScheme(1.5f, true);
  for (const QuantScheme& activation : {outliers, columns}) {
    for (const int bits : {2, 4, 8}) pairs.push_back({WeightScheme(bits, bits == 4, 32), activation, Arithmetic::kNative});
    pairs.push_back({WeightScheme(8, false, 0), activation, Arithmetic::kNative});
    pairs.push_back({FloatScheme("bf16"), activation, Arithmetic::kSimulated});
  }
  for (const char* format : {"test_float_offsets", "test_coded_offsets"}) {
    for (const int64_t group : {5, 16, 32, 500}) {
      QuantScheme weight = WeightScheme(3, false, group);
      weight.set_format(format);
      pairs.push_back({weight, std::nullopt, Arithmetic::kNative});
      pairs.push_back({weight, FloatScheme("bf16"), Arithmetic::kNative});
      pairs.push_back({weight, TokenScheme(8, group != 16), Arithmetic::kNative});
      pairs.push_back({weight, outliers, Arithmetic::kNative});
      pairs.push_back({weight, columns, Arithmetic::kNative});
      pairs.push_back({weight, slow[0], Arithmetic::kSimulated});
    }
  }
  return pairs;
}

TEST_P(EveryTable, EverySchemePairAgainstDecodedProducts) {
  Rng rng(21);
  for (const SchemePair& pair : SchemePairs()) {
    const int64_t rows = 1 + rng.Below(70), cols = 1 + rng.Below(400);
    for (const int64_t tokens : {1, 3, 4, 16, 17, 50}) {
      SCOPED_TRACE(absl::StrCat(SchemeToString(pair.weight), " x ",
                                pair.activation ? SchemeToString(*pair.activation) : "-", ", ", rows, "x", cols, ", ",
                                tokens, " tokens"));
      const EncodedTensor weight = RandomWeight(pair.weight, rows, cols, rng);
      const std::vector<float> x = RandomFloats(tokens * cols, rng);
      ASSERT_OK_AND_ASSIGN(const auto linear, Linear::Create(weight, pair.activation, table()));
      EXPECT_EQ(linear->arithmetic(), pair.arithmetic);
      EXPECT_EQ(linear->rows(), rows);
      EXPECT_EQ(linear->cols(), cols);
      EXPECT_GT(linear->weight_bytes(), 0);
      const std::vector<float> y = Product(*linear, table(), x, 2);
      const std::vector<float> decoded_x = DecodedActivations(pair.activation, x, cols);
      const Reference reference = ReferenceProduct(Decode(weight), decoded_x, rows, cols, tokens);
      // An offset cancels a part of each product: what is rounded is larger than the sum's terms.
      const double bound = absl::StartsWith(pair.weight.format(), "test_") ? 5e-5 : 5e-6;
      for (size_t i = 0; i < y.size(); ++i) {
        ASSERT_NEAR(y[i], reference.y[i], bound * reference.magnitude[i] + 1e-6) << "element " << i;
      }
    }
  }
}

TEST_P(EveryTable, ThreadsDoNotChangeTheResult) {
  Rng rng(4);
  const std::vector<SchemePair> pairs = {
      {FloatScheme("bf16"), std::nullopt, {}},
      {WeightScheme(4, false, 32), std::nullopt, {}},
      {WeightScheme(4, true, 32), TokenScheme(8, true), {}},
      {WeightScheme(4, true, 32), WeightScheme(8, true, 16), {}},
      {WeightScheme(8, false, 0), OutlierScheme(3, true), {}},
      {[] {
         QuantScheme scheme = WeightScheme(3, false, 16);
         scheme.set_format("test_coded_offsets");
         return scheme;
       }(),
       std::nullopt,
       {}},
  };
  const int64_t rows = 530, cols = 96;
  for (const SchemePair& pair : pairs) {
    const EncodedTensor weight = RandomWeight(pair.weight, rows, cols, rng);
    ASSERT_OK_AND_ASSIGN(const auto linear, Linear::Create(weight, pair.activation, table()));
    for (const int64_t tokens : {1, 16, 150}) {
      const std::vector<float> x = RandomFloats(tokens * cols, rng), once = Product(*linear, table(), x, 1);
      EXPECT_EQ(once, Product(*linear, table(), x, 2));
      EXPECT_EQ(once, Product(*linear, table(), x, 3));
    }
  }
}

TEST_P(EveryTable, IntegerTokensDoNotDependOnTheirBatch) {
  Rng rng(6);
  const int64_t cols = 2048, tokens = 300;  // more than one slab of tokens
  const EncodedTensor weight = RandomWeight(WeightScheme(4, true, 32), 20, cols, rng);
  ASSERT_OK_AND_ASSIGN(const auto linear, Linear::Create(weight, TokenScheme(8, true), table()));
  const std::vector<float> x = RandomFloats(tokens * cols, rng), all = Product(*linear, table(), x, 2);
  for (const int64_t t : {0, 1, 11, 12, 127, 299}) {
    const std::vector<float> one = Product(*linear, table(), {x.begin() + t * cols, x.begin() + (t + 1) * cols}, 1);
    EXPECT_TRUE(std::equal(one.begin(), one.end(), all.begin() + t * 20)) << "token " << t;
  }
}

TEST_P(EveryTable, BorrowedWeightsNeedNoAlignment) {
  Rng rng(8);
  const int64_t rows = 9, cols = 33;
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    const Tensor aligned = FloatsToDType(dtype, {rows, cols}, RandomFloats(rows * cols, rng));
    const auto bytes = std::make_shared<std::vector<uint8_t>>(aligned.byte_size() + 1);
    std::memcpy(bytes->data() + 1, aligned.bytes().data(), aligned.byte_size());
    ASSERT_OK_AND_ASSIGN(const Tensor odd, Tensor::Borrow(dtype, {rows, cols}, absl::MakeSpan(*bytes).subspan(1), bytes));
    ASSERT_OK_AND_ASSIGN(const EncodedTensor a, WrapFloats(aligned));
    ASSERT_OK_AND_ASSIGN(const EncodedTensor b, WrapFloats(odd));
    ASSERT_OK_AND_ASSIGN(const auto from_aligned, Linear::Create(a, std::nullopt, table()));
    ASSERT_OK_AND_ASSIGN(const auto from_odd, Linear::Create(b, std::nullopt, table()));
    for (const int64_t tokens : {2, 18}) {
      const std::vector<float> x = RandomFloats(tokens * cols, rng);
      EXPECT_EQ(Product(*from_aligned, table(), x, 1), Product(*from_odd, table(), x, 1));
    }
  }
}

// One PreparedInput serves linears of different forms in turn.
TEST_P(EveryTable, OutliersOfAnEarlierInputAreGone) {
  Rng rng(9);
  const int64_t rows = 20, cols = 64;
  const EncodedTensor weight = RandomWeight(WeightScheme(8, false, 0), rows, cols, rng);
  ASSERT_OK_AND_ASSIGN(const auto mixed, Linear::Create(weight, OutlierScheme(0.5f, false), table()));
  ASSERT_OK_AND_ASSIGN(const auto plain, Linear::Create(weight, TokenScheme(8, false), table()));
  const std::vector<float> many = RandomFloats(3 * cols, rng), one = RandomFloats(cols, rng);
  ThreadPool pool(1);
  PreparedInput input;
  std::vector<float> y(3 * rows);
  ASSERT_OK(input.Prepare(mixed->input_form(), table(), many.data(), 3, pool));
  ASSERT_OK(mixed->Multiply(input, y.data(), rows, pool));
  ASSERT_OK(input.Prepare(plain->input_form(), table(), one.data(), 1, pool));
  ASSERT_OK(plain->Multiply(input, y.data(), rows, pool));
  y.resize(rows);
  EXPECT_EQ(y, Product(*plain, table(), one, 1));
}

TEST(LinearTest, EqualFormsCanBeShared) {
  Rng rng(2);
  const KernelTable& table = *AvailableTables().back();
  const auto form = [&](const QuantScheme& weight, const std::optional<QuantScheme>& activation, int64_t rows, int64_t cols) {
    const auto linear = Linear::Create(RandomWeight(weight, rows, cols, rng), activation, table);
    NIBBLE_CHECK(linear.ok());
    return (*linear)->input_form();
  };
  const QuantScheme int4 = WeightScheme(4, false, 32), a8 = TokenScheme(8, true);
  EXPECT_EQ(form(int4, a8, 5, 64), form(int4, a8, 9, 64));
  EXPECT_EQ(form(int4, std::nullopt, 5, 64), form(FloatScheme("bf16"), std::nullopt, 9, 64));
  EXPECT_FALSE(form(int4, a8, 5, 64) == form(int4, a8, 5, 96));
  EXPECT_FALSE(form(int4, a8, 5, 64) == form(int4, TokenScheme(8, false), 5, 64));
  EXPECT_FALSE(form(int4, a8, 5, 64) == form(WeightScheme(4, false, 0), a8, 5, 64));
}

TEST(LinearTest, InputsForAnotherWidthAreACheck) {
  Rng rng(2);
  const KernelTable& table = *AvailableTables().back();
  ASSERT_OK_AND_ASSIGN(const auto narrow, Linear::Create(RandomWeight(FloatScheme("bf16"), 4, 8, rng), std::nullopt, table));
  ASSERT_OK_AND_ASSIGN(const auto wide, Linear::Create(RandomWeight(FloatScheme("bf16"), 4, 9, rng), std::nullopt, table));
  const std::vector<float> x(8);
  std::vector<float> y(4);
  EXPECT_DEATH(
      {
        ThreadPool pool(1);
        PreparedInput input;
        NIBBLE_CHECK_OK(input.Prepare(narrow->input_form(), table, x.data(), 1, pool));
        (void)wide->Multiply(input, y.data(), 4, pool);
      },
      "check failed: x.form\\(\\) == form_");
}

TEST(LinearTest, BadTensorsAndActivationsAreErrors) {
  Rng rng(2);
  const KernelTable& table = *AvailableTables().back();
  EncodedTensor weight = RandomWeight(WeightScheme(4, false, 32), 4, 64, rng);
  EXPECT_FALSE(Linear::Create(weight, FloatScheme("int9"), table).ok());
  weight.buffers.erase("scales");
  EXPECT_FALSE(Linear::Create(weight, std::nullopt, table).ok());

  // fp16 activations that leave fp16.
  ThreadPool pool(2);
  const EncodedTensor small = RandomWeight(FloatScheme("bf16"), 4, 2, rng);
  ASSERT_OK_AND_ASSIGN(const auto linear, Linear::Create(small, FloatScheme("fp16"), table));
  PreparedInput input;
  const std::vector<float> x = {1, 2, 3, 1e6f, 1e7f, 4};
  const absl::Status status = input.Prepare(linear->input_form(), table, x.data(), 3, pool);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("token 1"));
}

}  // namespace
}  // namespace nibble::kernels
