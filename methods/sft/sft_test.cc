#include "methods/testing.h"

namespace nibble {
namespace {

constexpr char kData[] = "data { text: \"text.txt\" window: 32 }";

TEST(Sft, LearnsTheText) {
  SetProgressEnabled(false);
  ir::Graph graph = TinyGraph();
  std::vector<LossCurve> curves;
  ASSERT_OK(ApplyText(absl::StrCat("step { [nibble.sft] { ", kData, " training { steps: 30 batch: 4 warmup: 3 learning_rate: 0.01 } } }"), graph, 1,
                      &curves));
  ASSERT_EQ(curves.size(), 1);
  EXPECT_EQ(curves[0].loss.size(), 30);
  EXPECT_GT(curves[0].loss.front(), 4);
  EXPECT_LT(curves[0].loss.back(), 1.5);
  EXPECT_EQ(curves[0].tokens, 30 * 4 * 32);
  EXPECT_EQ(WeightScheme(graph, "model.layers.0.mlp.up_proj").format(), "bf16");
  EXPECT_TRUE(graph.tied());
}

TEST(Sft, LayersNarrowWhatIsTrained) {
  SetProgressEnabled(false);
  ir::Graph graph = TinyGraph();
  const ir::Graph before = graph;
  ASSERT_OK(ApplyText(absl::StrCat("step { [nibble.sft] { ", kData, " layers: \"*.q_proj\" training { steps: 2 batch: 2 warmup: 0 learning_rate: 0.01 } } }"),
                      graph));
  for (const ir::Parameter& parameter : before.parameters()) {
    const auto id = static_cast<ir::ParameterId>(&parameter - before.parameters().data());
    const bool same = parameter.LoadFloats().value() == graph.parameter(id).LoadFloats().value();
    EXPECT_EQ(same, parameter.name().find("q_proj") == std::string::npos) << parameter.name();
  }
}

// A finished training is read back, bit for bit; another one is not.
TEST(Sft, IsKeptInTheCache) {
  SetProgressEnabled(false);
  const std::string cache = TestTempDir();
  const auto run = [&](double rate, bool* reused) {
    ir::Graph graph = TinyGraph();
    std::vector<LossCurve> curves;
    EXPECT_OK(ApplyText(absl::StrCat("step { [nibble.sft] { ", kData, " training { steps: 3 batch: 2 warmup: 0 learning_rate: ", rate, " } } }"), graph,
                        1, &curves, cache));
    *reused = curves[0].reused;
    return TinyLogits(graph);
  };
  bool reused = true;
  const std::vector<float> first = run(0.01, &reused);
  EXPECT_FALSE(reused);
  EXPECT_EQ(run(0.01, &reused), first);
  EXPECT_TRUE(reused);
  EXPECT_NE(run(0.02, &reused), first);
  EXPECT_FALSE(reused);
}

TEST(Sft, SaysWhatIsWrong) {
  const auto message = [](const std::string& options) {
    return ErrorOf(absl::StrCat("step { [nibble.sft] { ", options, " } }"));
  };
  EXPECT_THAT(message(""), ::testing::HasSubstr("data is empty"));
  EXPECT_THAT(message("data { text: \"nowhere.txt\" }"), ::testing::HasSubstr("nowhere.txt"));
  EXPECT_THAT(message("data { text: \"text.txt\" window: 100000 }"), ::testing::HasSubstr("less than one window"));
  EXPECT_THAT(message("training { steps: 0 }"), ::testing::HasSubstr("training.steps"));
  EXPECT_THAT(message("training { learning_rate: 3 }"), ::testing::HasSubstr("training.learning_rate"));
}

}  // namespace
}  // namespace nibble
