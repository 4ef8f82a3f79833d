#include "core/runtime/plan.h"
#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

TEST(Nf4Method, RoundsTheBlocksByDefault) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.nf4] {} }", graph));
  EXPECT_EQ(SchemeToString(WeightScheme(graph, "model.layers.0.mlp.down_proj")), "nf4 per group of 64, fp32 scales");
  EXPECT_EQ(WeightScheme(graph, "model.embed_tokens").format(), "bf16");
}

TEST(Nf4Method, RunsOnItsCodes) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.nf4] { type: FP4 double_quantization: true block_size: 20 } }", graph));
  EXPECT_EQ(SchemeToString(WeightScheme(graph, "model.layers.1.self_attn.q_proj")), "fp4 per group of 20, 8-bit scales in blocks of 256");
  ASSERT_OK_AND_ASSIGN(const auto* table, kernels::ChooseTable());
  ASSERT_OK_AND_ASSIGN(const auto plan, Plan::Create(graph, *table));
  EXPECT_THAT(plan->simulated_ops(), ::testing::IsEmpty());
}

TEST(Nf4Method, OptionMistakesAreNamed) {
  EXPECT_THAT(ErrorOf("step { [nibble.nf4] { block_size: 0 } }"), HasSubstr("group_size"));
  EXPECT_THAT(ErrorOf("step { [nibble.nf4] {} } step { [nibble.nf4] {} }"), HasSubstr("already quantized"));
}

}  // namespace
}  // namespace nibble
