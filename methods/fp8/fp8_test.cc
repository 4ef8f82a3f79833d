#include "core/runtime/plan.h"
#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

TEST(Fp8Method, RoundsWeightsARow) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.fp8] {} }", graph));
  EXPECT_EQ(SchemeToString(WeightScheme(graph, "model.layers.0.mlp.down_proj")), "fp8_e4m3 per row, fp32 scales");
  EXPECT_FALSE(graph.FindOp("model.layers.0.mlp.down_proj")->activation.has_value());
}

TEST(Fp8Method, ActivationsByTokenRunOnCodesToo) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.fp8] { weights: E5M2 per: PER_TENSOR dynamic_activations: true } }", graph));
  const ir::Op& op = *graph.FindOp("model.layers.0.mlp.down_proj");
  EXPECT_EQ(SchemeToString(WeightScheme(graph, op.name)), "fp8_e5m2 per tensor, fp32 scales");
  ASSERT_TRUE(op.activation.has_value());
  EXPECT_EQ(SchemeToString(*op.activation), "fp8_e4m3 per token dynamic, fp32 scales");
  ASSERT_OK_AND_ASSIGN(const auto* table, kernels::ChooseTable());
  ASSERT_OK_AND_ASSIGN(const auto plan, Plan::Create(graph, *table));
  EXPECT_THAT(plan->simulated_ops(), ::testing::IsEmpty());
}

TEST(Fp8Method, CostsLittleAndE4m3TheLess) {
  const auto change = [](const std::string& options) { return ChangeBy("step { [nibble.fp8] { " + options + " } }"); };
  const double e4m3 = change(""), e5m2 = change("weights: E5M2"), both = change("dynamic_activations: true");
  EXPECT_LT(e4m3, 0.1);
  EXPECT_LT(e4m3, e5m2);
  EXPECT_LT(e4m3, both);
}

TEST(Fp8Method, OptionMistakesAreNamed) {
  EXPECT_THAT(ErrorOf("step { [nibble.fp8] { per: PER_TOKEN } }"), HasSubstr("PER_TOKEN is not for fp8"));
  EXPECT_THAT(ErrorOf("step { [nibble.fp8] { activations: E5M2 } }"), HasSubstr("of no use without"));
}

TEST(Fp8Method, StaticActivationsHaveARangeAndRunNatively) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.fp8] { static_activations { data { text: \"text.txt\" window: 32 } } } }", graph));
  const auto& activation = graph.FindOp("model.layers.0.mlp.up_proj")->activation;
  ASSERT_TRUE(activation.has_value() && activation->has_fixed());
  EXPECT_THAT(SchemeToString(*activation), ::testing::HasSubstr("static ["));
  ASSERT_OK_AND_ASSIGN(const auto* table, kernels::ChooseTable());
  ASSERT_OK_AND_ASSIGN(const auto plan, Plan::Create(graph, *table));
  EXPECT_THAT(plan->simulated_ops(), ::testing::IsEmpty());
}

TEST(Fp8Method, StaticAndDynamicActivationsExcludeEachOther) {
  EXPECT_THAT(ErrorOf("step { [nibble.fp8] { dynamic_activations: true static_activations { data { text: \"text.txt\" } } } }"),
              ::testing::HasSubstr("dynamic_activations"));
  EXPECT_THAT(ErrorOf("step { [nibble.fp8] { static_activations {} } }"), ::testing::HasSubstr("data { text"));
}

}  // namespace
}  // namespace nibble
