#include "core/runtime/plan.h"
#include "core/runtime/session.h"
#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

std::string Step(const std::string& options = "") {
  return absl::StrCat("step { [nibble.static_int8] { data { text: \"text.txt\" window: 32 } ", options, " } } ");
}

TEST(StaticInt8, EveryInputHasItsRange) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText(Step("layers: \"mlp\""), graph));
  const auto& gate = graph.FindOp("model.layers.0.mlp.gate_proj")->activation;
  ASSERT_TRUE(gate.has_value() && gate->has_fixed());
  EXPECT_LT(gate->fixed().min(), 0);
  EXPECT_GT(gate->fixed().max(), 0);
  EXPECT_THAT(SchemeToString(*gate), HasSubstr("int8 per tensor static ["));
  EXPECT_TRUE(SameScheme(*gate, *graph.FindOp("model.layers.0.mlp.up_proj")->activation));
  EXPECT_FALSE(SameScheme(*gate, *graph.FindOp("model.layers.1.mlp.up_proj")->activation));
  EXPECT_FALSE(graph.FindOp("model.layers.0.self_attn.q_proj")->activation.has_value());
  EXPECT_EQ(WeightScheme(graph, "model.layers.0.mlp.up_proj").format(), "int8");
}

TEST(StaticInt8, RunsInIntegersAsTheReferenceSays) {
  for (const char* options : {"", "asymmetric_activations: false per: PER_TENSOR"}) {
    ir::Graph graph = TinyGraph();
    ASSERT_OK(ApplyText(Step(options), graph));
    ASSERT_OK_AND_ASSIGN(const auto* table, kernels::ChooseTable());
    ASSERT_OK_AND_ASSIGN(const auto plan, Plan::Create(graph, *table));
    EXPECT_THAT(plan->simulated_ops(), ::testing::IsEmpty()) << options;
  }
}

TEST(StaticInt8, EveryRuleStaysNear) {
  for (const char* rule : {"absmax {}", "moving_average {}", "percentile {}", "mse {}", "kl {}"}) EXPECT_LT(ChangeBy(Step(rule)), 0.2) << rule;
}

TEST(StaticInt8, SmoothingHelpsUnderOutliers) {
  const std::string stress = "step { [nibble.baseline] { dtype: FP32 } } step { [nibble.outlier_stress] { channels: 2 factor: 64 } } ";
  const std::string smooth = "step { [nibble.smoothquant] { data { text: \"text.txt\" window: 32 } } } ";
  EXPECT_LT(ChangeBy(stress + smooth + Step()), 0.5 * ChangeBy(stress + Step()));
}

TEST(StaticInt8, OptionMistakesAreNamed) {
  EXPECT_THAT(ErrorOf("step { [nibble.static_int8] {} }"), HasSubstr("data { text"));
  EXPECT_THAT(ErrorOf(Step("samples: 0")), HasSubstr("samples"));
  EXPECT_THAT(ErrorOf(Step("moving_average { momentum: 1 }")), HasSubstr("momentum: 1"));
  EXPECT_THAT(ErrorOf(Step("percentile { share: 0 }")), HasSubstr("share: 0"));
  EXPECT_THAT(ErrorOf(Step("per: PER_TOKEN")), HasSubstr("PER_TOKEN"));
  EXPECT_THAT(ErrorOf(Step("layers: \"head\"")), HasSubstr("lm_head"));
}

}  // namespace
}  // namespace nibble
