#include "core/ir/adapters.h"
#include "methods/testing.h"

namespace nibble {
namespace {

constexpr char kTrain[] = "data { text: \"text.txt\" window: 32 } training { steps: 20 batch: 4 warmup: 2 learning_rate: 0.02 }";

// B begins as zero: the model is what it was.
TEST(Lora, ChangesNothingAtFirst) {
  ir::Graph graph = TinyGraph();
  const std::vector<float> before = TinyLogits(graph);
  ASSERT_OK(ApplyText("step { [nibble.lora] { rank: 4 alpha: 8 } }", graph));
  const std::vector<ir::Adapter> adapters = ir::AdaptersOf(graph);
  ASSERT_EQ(adapters.size(), 14);
  EXPECT_EQ(adapters[0].module, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(adapters[0].rank, 4);
  EXPECT_EQ(adapters[0].scale, 2);
  EXPECT_EQ(TinyLogits(graph), before);
  EXPECT_FALSE(ApplyText("step { [nibble.lora] {} }", graph).ok());
}

TEST(Lora, TrainsOnAFrozenQuantizedBackbone) {
  SetProgressEnabled(false);
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.llama32_ptq] {} }", graph));
  const ir::Graph backbone = graph;
  std::vector<LossCurve> curves;
  ASSERT_OK(ApplyText(absl::StrCat("step { [nibble.lora] { rank: 8 alpha: 16 ", kTrain, " } }"), graph, 1, &curves));
  EXPECT_LT(curves[0].loss.back(), curves[0].loss.front() - 0.4);
  for (size_t id = 0; id < backbone.parameters().size(); ++id) {
    const auto p = static_cast<ir::ParameterId>(id);
    EXPECT_EQ(backbone.parameter(p).LoadFloats().value(), graph.parameter(p).LoadFloats().value());
  }
  EXPECT_EQ(WeightScheme(graph, "model.layers.0.mlp.up_proj.lora_B").format(), "bf16");
  // Later steps leave adapters alone unless they name them.
  ir::Graph again = graph;
  EXPECT_OK(ApplyText("step { [nibble.rtn] { bits: 8 layers: \"adapters\" } }", again));
  EXPECT_EQ(WeightScheme(again, "model.layers.0.mlp.up_proj.lora_B").format(), "int8");
}

TEST(Lora, MergesIntoTheBackbonesScheme) {
  SetProgressEnabled(false);
  ir::Graph served = TinyGraph(), merged = TinyGraph();
  ASSERT_OK(ApplyText(absl::StrCat("step { [nibble.rtn] { bits: 8 } } step { [nibble.lora] { rank: 4 ", kTrain, " } }"), served));
  ASSERT_OK(ApplyText(absl::StrCat("step { [nibble.rtn] { bits: 8 } } step { [nibble.lora] { rank: 4 merge: true ", kTrain, " } }"), merged));
  EXPECT_TRUE(ir::AdaptersOf(merged).empty());
  EXPECT_EQ(WeightScheme(merged, "model.layers.0.mlp.up_proj").format(), "int8");
  const std::vector<float> a = TinyLogits(served), b = TinyLogits(merged);
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += a[i] * a[i];
  }
  EXPECT_LT(difference, 1e-3 * norm);
}

TEST(Lora, SaysWhatIsWrong) {
  ir::Graph graph = TinyGraph();
  EXPECT_THAT(std::string(ApplyText("step { [nibble.lora] { rank: 0 } }", graph).message()), ::testing::HasSubstr("rank"));
  EXPECT_FALSE(ApplyText("step { [nibble.lora] { layers: \"head\" } }", graph).ok());
  EXPECT_THAT(std::string(ApplyText("step { [nibble.lora] { training { steps: 30 } } }", graph).message()), ::testing::HasSubstr("training is given without data"));
  const std::string twice = absl::StrCat("step { [nibble.lora] { layers: \"attention\" } } step { [nibble.lora] { layers: \"mlp\" ", kTrain, " } }");
  EXPECT_THAT(std::string(ApplyText(twice, graph).message()), ::testing::HasSubstr("the model has adapters already"));
}

}  // namespace
}  // namespace nibble
