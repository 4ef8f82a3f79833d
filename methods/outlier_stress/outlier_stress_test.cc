#include <cmath>

#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

std::vector<float> NormOutput(const ir::Graph& graph) {
  std::vector<float> seen;
  EXPECT_OK(RunReference(graph, {5, 17, 3, 96, 0, 42}, [&](const ir::Op& op, absl::Span<const float> y) {
    if (op.name == "model.layers.1.post_attention_layernorm") seen.assign(y.begin(), y.end());
  }));
  return seen;
}

TEST(OutlierStress, KeepsTheFunctionToTheBit) {
  ir::Graph graph = TinyGraph();
  const std::vector<float> before = TinyLogits(graph), normed = NormOutput(graph);
  ASSERT_OK(ApplyText("step { [nibble.outlier_stress] { channels: 3 factor: 64 } }", graph));
  EXPECT_EQ(TinyLogits(graph), before);
  const std::vector<float> stressed = NormOutput(graph);
  int changed = 0;
  for (int64_t c = 0; c < graph.hidden_size(); ++c) {
    if (stressed[c] == normed[c]) continue;
    EXPECT_EQ(stressed[c], 64 * normed[c]);
    ++changed;
  }
  EXPECT_EQ(changed, 3);
  EXPECT_EQ(WeightScheme(graph, "model.layers.0.self_attn.q_proj").format(), "bf16");
}

// What it is for: int8 activations lose under it, and rotations give it back.
TEST(OutlierStress, HurtsActivationsAndRotationsRepair) {
  const std::vector<float> exact = TinyLogits(TinyGraph());
  const auto loss = [&](const std::string& steps) {
    ir::Graph graph = TinyGraph();
    EXPECT_OK(ApplyText(steps + " step { [nibble.activations] { bits: 6 } }", graph));
    return RelativeChange(exact, TinyLogits(graph));
  };
  const std::string stress = "step { [nibble.outlier_stress] { channels: 2 factor: 64 } } ";
  const double plain = loss(""), stressed = loss(stress), repaired = loss(stress + "step { [nibble.spinquant] {} }");
  EXPECT_GT(stressed, 3 * plain);
  EXPECT_LT(repaired, 0.5 * stressed);
}

TEST(OutlierStress, OptionMistakesAreNamed) {
  EXPECT_THAT(ErrorOf("step { [nibble.outlier_stress] { channels: 0 } }"), HasSubstr("channels: 0"));
  EXPECT_THAT(ErrorOf("step { [nibble.outlier_stress] { channels: 49 } }"), HasSubstr("the model has 48"));
  EXPECT_THAT(ErrorOf("step { [nibble.outlier_stress] { factor: 0 } }"), HasSubstr("factor"));
  EXPECT_THAT(ErrorOf("step { [nibble.rtn] {} } step { [nibble.outlier_stress] {} }"), HasSubstr("already quantized"));
}

}  // namespace
}  // namespace nibble
