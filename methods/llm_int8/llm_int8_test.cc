#include <cmath>

#include "core/base/rng.h"
#include "core/kernels/linear.h"
#include "methods/testing.h"

namespace nibble {
namespace {

TEST(LlmInt8, WithoutOutliersIsPlainInt8) {
  ir::Graph mixed = TinyGraph(), plain = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.llm_int8] { threshold: 1e6 } }", mixed));
  ASSERT_OK(ApplyText("step { [nibble.rtn] { bits: 8 } } step { [nibble.activations] { asymmetric: false scale_floor: 0 } }", plain));
  EXPECT_EQ(TinyLogits(mixed), TinyLogits(plain));
}

ir::Graph TinyLlmInt8(const std::string& options) {
  ir::Graph graph = TinyGraph();
  EXPECT_OK(ApplyText(absl::StrCat("step { [nibble.llm_int8] { threshold: 1.5 ", options, " } }"), graph));
  return graph;
}

// What shares a column with an outlier leaves the int8 product too, so that a prompt's tokens
// differ from the same ones one by one; values alone do not.
TEST(LlmInt8, ColumnsDependOnTheBatchValuesDoNot) {
  for (const kernels::KernelTable* table : kernels::AvailableTables()) {
    const ir::Graph columns = TinyLlmInt8(""), values = TinyLlmInt8("outliers: VALUES");
    EXPECT_GT(RelativeChange(PlanLogits(columns, *table, 1), PlanLogits(columns, *table)), 1e-3) << table->name;
    EXPECT_LT(RelativeChange(PlanLogits(values, *table, 1), PlanLogits(values, *table)), 1e-5) << table->name;
  }
}

TEST(LlmInt8, PlanAgreesWithTheReferenceBesideOutliers) {
  for (const char* outliers : {"outliers: COLUMNS", "outliers: VALUES"}) {
    const ir::Graph graph = TinyLlmInt8(outliers);
    for (const kernels::KernelTable* table : kernels::AvailableTables()) {
      EXPECT_LT(RelativeChange(TinyLogits(graph), PlanLogits(graph, *table)), 5e-3) << outliers << ", " << table->name;
    }
  }
}

TEST(LlmInt8, ThresholdZeroIsPlainInt8) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.llm_int8] { threshold: 0 } }", graph));
  EXPECT_FALSE(graph.FindOp("model.layers.0.mlp.up_proj")->activation->has_outlier_threshold());
}

constexpr int64_t kCols = 64, kRows = 24;

std::vector<float> NormalValues(int64_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values(count);
  for (float& v : values) v = static_cast<float>(rng.Normal());
  return values;
}

// The product of one token with int8 weights [kRows, kCols].
std::vector<float> Multiplied(const EncodedTensor& weight, float threshold, const std::vector<float>& x) {
  QuantScheme activation = IntegerScheme(8, 0, false);
  activation.set_per(QuantScheme::PER_TOKEN);
  activation.set_outlier_threshold(threshold);
  const kernels::KernelTable& table = *kernels::AvailableTables().back();
  const auto linear = *kernels::Linear::Create(weight, activation, table);
  ThreadPool pool(1);
  kernels::PreparedInput input;
  NIBBLE_CHECK_OK(input.Prepare(linear->input_form(), table, x.data(), 1, pool));
  std::vector<float> y(kRows);
  NIBBLE_CHECK_OK(linear->Multiply(input, y.data(), kRows, pool));
  return y;
}

// The largest error that a token's quantization gives its product, with a planted
// outlier of 100 in one column.
double ErrorBesideAnOutlier(float threshold) {
  const EncodedTensor weight = *Encode(IntegerScheme(8, 0, false), {kRows, kCols}, NormalValues(kRows * kCols, 5));
  std::vector<float> x = NormalValues(kCols, 6);
  x[11] = 100;
  const std::vector<float> y = Multiplied(weight, threshold, x), decoded = Decode(weight);
  double worst = 0;
  for (int64_t r = 0; r < kRows; ++r) {
    double exact = 0;
    for (int64_t k = 0; k < kCols; ++k) exact += static_cast<double>(decoded[r * kCols + k]) * x[k];
    worst = std::max(worst, std::fabs(y[r] - exact));
  }
  return worst;
}

TEST(LlmInt8, AnOutlierDoesNotStretchTheScaleOfOthers) {
  const double mixed = ErrorBesideAnOutlier(6), plain = ErrorBesideAnOutlier(0);
  EXPECT_LT(mixed, plain / 10);
}

// On weights that int8 holds exactly outliers add their product and change nothing else,
// however many and however large they are.
TEST(LlmInt8, OutliersAddTheirProductAlone) {
  Rng rng(7);
  std::vector<float> w(kRows * kCols);
  for (float& v : w) v = (static_cast<float>(rng.Below(255)) - 127) / 64;
  for (int64_t r = 0; r < kRows; ++r) w[r * kCols] = 127.0f / 64;  // which makes the scale 1 / 64
  const EncodedTensor weight = *Encode(IntegerScheme(8, 0, false), {kRows, kCols}, w);
  ASSERT_EQ(Decode(weight), w);
  std::vector<float> x = NormalValues(kCols, 8);
  for (int64_t k = 1; k < kCols; k += 5) x[k] = 0;  // where outliers go
  const std::vector<float> without = Multiplied(weight, 6, x);
  for (const int64_t outliers : {1, 4, 13}) {
    for (const float size : {8.0f, 100.0f, 4096.0f}) {
      std::vector<float> planted = x;
      for (int64_t i = 0; i < outliers; ++i) planted[1 + 5 * i] = i % 2 == 0 ? size : -size;
      const std::vector<float> y = Multiplied(weight, 6, planted);
      for (int64_t r = 0; r < kRows; ++r) {
        double sum = without[r], magnitude = std::fabs(sum);
        for (int64_t i = 0; i < outliers; ++i) {
          const double product = static_cast<double>(planted[1 + 5 * i]) * w[r * kCols + 1 + 5 * i];
          sum += product, magnitude += std::fabs(product);
        }
        EXPECT_NEAR(y[r], sum, 1e-6 * magnitude) << outliers << " of " << size;
      }
    }
  }
}

TEST(LlmInt8, BadThresholdsAreErrors) {
  ir::Graph graph = TinyGraph();
  EXPECT_THAT(ErrorOf("step { [nibble.llm_int8] { threshold: -1 } }"), ::testing::HasSubstr("threshold"));
}

}  // namespace
}  // namespace nibble
