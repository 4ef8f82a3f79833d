#include "methods/testing.h"

namespace nibble {
namespace {

TEST(Rtn, RoundsTheBlocksByDefault) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.rtn] { bits: 4 group_size: 32 } }", graph));
  const QuantScheme scheme = WeightScheme(graph, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(scheme.format(), "int4");
  EXPECT_EQ(scheme.per(), QuantScheme::PER_GROUP);
  EXPECT_EQ(scheme.group_size(), 32);
  EXPECT_EQ(WeightScheme(graph, "model.embed_tokens").format(), "bf16");
  EXPECT_TRUE(graph.tied());
}

TEST(Rtn, IsTheFormatsOwnRounding) {
  ir::Graph graph = TinyGraph();
  const ir::Op& op = *graph.FindOp("model.layers.1.mlp.gate_proj");
  const std::vector<float> weights = *graph.parameter(*op.weight).LoadFloats();
  ASSERT_OK(ApplyText("step { [nibble.rtn] { bits: 3 asymmetric: true range { mse {} } } }", graph));
  ASSERT_OK_AND_ASSIGN(const EncodedTensor encoded, graph.parameter(*op.weight).Load());
  ASSERT_OK_AND_ASSIGN(const EncodedTensor expected, Encode(encoded.scheme, encoded.shape, weights));
  EXPECT_EQ(encoded.buffer("codes").bytes(), expected.buffer("codes").bytes());
}

TEST(Rtn, OneOfATiedPairUntiesTheHead) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.rtn] { bits: 8 layers: \"head\" } }", graph));
  EXPECT_FALSE(graph.tied());
  EXPECT_EQ(WeightScheme(graph, "lm_head").format(), "int8");
  EXPECT_EQ(WeightScheme(graph, "model.embed_tokens").format(), "bf16");
}

TEST(Rtn, BothOfATiedPairStayOneTable) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.rtn] { bits: 8 layers: \"head\" layers: \"embedding\" } }", graph));
  EXPECT_TRUE(graph.tied());
}

TEST(Rtn, LayersComposeButNeverTwice) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.rtn] { bits: 8 layers: \"attention\" } } step { [nibble.rtn] { bits: 4 layers: \"mlp\" } }", graph));
  EXPECT_EQ(WeightScheme(graph, "model.layers.0.self_attn.o_proj").format(), "int8");
  EXPECT_EQ(WeightScheme(graph, "model.layers.0.mlp.up_proj").format(), "int4");
  const absl::Status status = ApplyText("step { [nibble.rtn] { layers: \"*.o_proj\" } }", graph);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("already quantized"));
}

TEST(Rtn, OptionMistakesAreNamed) {
  for (const auto& [options, word] : {std::pair{"bits: 9", "bits: 9"}, {"bits: 1", "2..8"}, {"per: PER_TOKEN", "activations"},
                                      {"group_size: -4", "group_size"}, {"per: PER_ROW group_size: 8", "PER_GROUP"},
                                      {"range { mse { grid: 0 } }", "mse"}, {"layers: \"nothing\"", "selects nothing"}}) {
    ir::Graph graph = TinyGraph();
    const absl::Status status = ApplyText(absl::StrCat("step { [nibble.rtn] { ", options, " } }"), graph);
    ASSERT_FALSE(status.ok()) << options;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(word));
  }
}

}  // namespace
}  // namespace nibble
