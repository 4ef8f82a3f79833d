#include "methods/testing.h"

namespace nibble {
namespace {

TEST(Clamp, MovesOutliersAndCountsThem) {
  ir::Graph graph = TinyGraph();
  const ir::ParameterId id = *graph.FindOp("model.layers.0.mlp.up_proj")->weight;
  std::vector<float> weights = *graph.parameter(id).LoadFloats();
  weights[5] = 4.0f;
  ASSERT_OK(graph.mutable_parameter(id).Replace(*Encode(FloatScheme("bf16"), graph.parameter(id).shape(), weights)));
  ThreadPool pool(1);
  Context context(pool);
  ASSERT_OK(ApplyPipeline(context, ParsePipeline("step { [nibble.clamp] { deviations: 2.5 } }").step(), graph));
  EXPECT_LT((*graph.parameter(id).LoadFloats())[5], 2.0f);
  EXPECT_GT(context.events().at("clamp.weights_moved").count, 0);
}

TEST(Clamp, ComposesWithRounding) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.clamp] {} } step { [nibble.rtn] { bits: 4 } }", graph));
  EXPECT_EQ(WeightScheme(graph, "model.layers.0.mlp.up_proj").format(), "int4");
}

TEST(Clamp, WrongOptionAndWrongOrderAreErrors) {
  ir::Graph graph = TinyGraph();
  EXPECT_FALSE(ApplyText("step { [nibble.clamp] { deviations: 0 } }", graph).ok());
  EXPECT_FALSE(ApplyText("step { [nibble.rtn] {} } step { [nibble.clamp] {} }", graph).ok());
}

TEST(Clamp, IsDocumented) {
  ASSERT_OK_AND_ASSIGN(const std::string text, DescribeMethod("clamp"));
  EXPECT_THAT(text, ::testing::HasSubstr("deviations: double = 3"));
}

}  // namespace
}  // namespace nibble
