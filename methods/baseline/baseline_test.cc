#include "methods/testing.h"

namespace nibble {
namespace {

TEST(Baseline, KeepsWhatHasTheType) {
  ir::Graph graph = TinyGraph();
  const std::vector<float> before = TinyLogits(graph);
  ASSERT_OK(ApplyText("step { [nibble.baseline] { dtype: BF16 } }", graph));
  EXPECT_EQ(TinyLogits(graph), before);
  for (const ir::Parameter& parameter : graph.parameters()) EXPECT_FALSE(parameter.resident()) << parameter.name();
}

TEST(Baseline, ConvertsEveryParameter) {
  for (const auto& [type, format] : {std::pair{"FP16", "fp16"}, {"FP32", "fp32"}}) {
    ir::Graph graph = TinyGraph();
    ASSERT_OK(ApplyText(absl::StrCat("step { [nibble.baseline] { dtype: ", type, " } }"), graph));
    for (const ir::Parameter& parameter : graph.parameters()) EXPECT_EQ(parameter.Load()->scheme.format(), format);
  }
}

TEST(Baseline, ValueBeyondFp16IsAnErrorThatNamesTheParameter) {
  ir::Graph graph = TinyGraph();
  const ir::ParameterId id = *graph.FindOp("model.layers.0.mlp.up_proj")->weight;
  std::vector<float> values = *graph.parameter(id).LoadFloats();
  values[3] = 1e6f;
  ASSERT_OK(graph.mutable_parameter(id).Replace(*Encode(FloatScheme("fp32"), graph.parameter(id).shape(), values)));
  const absl::Status status = ApplyText("step { [nibble.baseline] { dtype: FP16 } }", graph);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("model.layers.0.mlp.up_proj.weight"));
}

TEST(Baseline, RoundsActivationsWhereAsked) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.baseline] { dtype: BF16 activations: BF16 } }", graph));
  EXPECT_EQ(graph.FindOp("model.layers.1.mlp.down_proj")->activation->format(), "bf16");
  EXPECT_EQ(graph.head().activation->format(), "bf16");
}

}  // namespace
}  // namespace nibble
