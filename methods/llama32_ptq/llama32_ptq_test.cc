#include "methods/testing.h"

namespace nibble {
namespace {

TEST(Llama32Ptq, IsThePublishedScheme) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.llama32_ptq] {} }", graph));
  EXPECT_FALSE(graph.tied());
  const QuantScheme block = WeightScheme(graph, "model.layers.1.self_attn.v_proj");
  EXPECT_EQ(block.format(), "int4");
  EXPECT_EQ(block.group_size(), 32);
  EXPECT_FALSE(block.asymmetric());
  EXPECT_EQ(block.divisor(), QuantScheme::MAX_CODE);
  for (const char* table : {"model.embed_tokens", "lm_head"}) {
    EXPECT_EQ(WeightScheme(graph, table).format(), "int8");
    EXPECT_EQ(WeightScheme(graph, table).per(), QuantScheme::PER_ROW);
  }
  EXPECT_EQ(WeightScheme(graph, "model.norm").format(), "fp32");
  for (const ir::Op& op : graph.ops()) {
    if (!op.is_linear()) continue;
    ASSERT_TRUE(op.activation.has_value()) << op.name;
    EXPECT_EQ(op.activation->format(), "int8");
    EXPECT_TRUE(op.activation->asymmetric());
  }
}

TEST(Llama32Ptq, TiedTableKeepsOne) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.llama32_ptq] { tied_table: true } }", graph));
  EXPECT_TRUE(graph.tied());
}

TEST(Llama32Ptq, ScaleTypesAreStored) {
  for (const auto& [type, dtype] : {std::pair{"FP16", DType::kF16}, {"BF16", DType::kBF16}, {"FP32", DType::kF32}}) {
    ir::Graph graph = TinyGraph();
    ASSERT_OK(ApplyText(absl::StrCat("step { [nibble.llama32_ptq] { scale: ", type, " } }"), graph));
    const EncodedTensor weight = *graph.parameter(*graph.FindOp("model.layers.0.mlp.up_proj")->weight).Load();
    EXPECT_EQ(weight.buffer("scales").dtype(), dtype);
  }
}

}  // namespace
}  // namespace nibble
