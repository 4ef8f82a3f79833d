#include "methods/testing.h"

namespace nibble {
namespace {

TEST(DynamicInt8, IsItsTwoSteps) {
  ir::Graph recipe = TinyGraph(), steps = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.dynamic_int8] {} }", recipe));
  ASSERT_OK(ApplyText("step { [nibble.rtn] { bits: 8 } } step { [nibble.activations] { asymmetric: false } }", steps));
  EXPECT_EQ(TinyLogits(recipe), TinyLogits(steps));
}

TEST(DynamicInt8, LayersReachBothSteps) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.dynamic_int8] { layers: \"mlp\" asymmetric_activations: true } }", graph));
  EXPECT_EQ(WeightScheme(graph, "model.layers.0.mlp.up_proj").format(), "int8");
  EXPECT_TRUE(graph.FindOp("model.layers.0.mlp.up_proj")->activation->asymmetric());
  EXPECT_EQ(WeightScheme(graph, "model.layers.0.self_attn.q_proj").format(), "bf16");
  EXPECT_FALSE(graph.FindOp("model.layers.0.self_attn.q_proj")->activation.has_value());
}

}  // namespace
}  // namespace nibble
