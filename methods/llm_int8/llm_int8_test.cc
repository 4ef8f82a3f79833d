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

TEST(LlmInt8, ThresholdZeroIsPlainInt8) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.llm_int8] { threshold: 0 } }", graph));
  EXPECT_FALSE(graph.FindOp("model.layers.0.mlp.up_proj")->activation->has_outlier_threshold());
}

// The largest error that a token's quantization gives its product, with a planted
// outlier of 100 in one column.
double ErrorBesideAnOutlier(float threshold) {
  constexpr int64_t kCols = 64, kRows = 24;
  Rng rng(5);
  std::vector<float> w(kRows * kCols), x(kCols);
  for (float& v : w) v = static_cast<float>(rng.Normal());
  for (float& v : x) v = static_cast<float>(rng.Normal());
  x[11] = 100;
  const EncodedTensor weight = *Encode(IntegerScheme(8, 0, false), {kRows, kCols}, w);
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
  const std::vector<float> decoded = Decode(weight);
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

TEST(LlmInt8, BadThresholdsAreErrors) {
  ir::Graph graph = TinyGraph();
  EXPECT_THAT(ErrorOf("step { [nibble.llm_int8] { threshold: -1 } }"), ::testing::HasSubstr("threshold"));
}

}  // namespace
}  // namespace nibble
