#include <cmath>

#include "core/ir/adapters.h"
#include "methods/testing.h"

namespace nibble {
namespace {

constexpr char kDpo[] = "step { [nibble.dpo] { beta: 0.5 data { pairs: \"pairs.jsonl\" } training { steps: 12 batch: 4 warmup: 2 learning_rate: 0.01 } } }";

// The published order: a quantized backbone, adapters, then preferences on both.
TEST(Dpo, TrainsBackboneAndAdapters) {
  SetProgressEnabled(false);
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.llama32_ptq] {} } step { [nibble.lora] { rank: 4 } }", graph));
  const ir::Graph before = graph;
  std::vector<LossCurve> curves;
  ASSERT_OK(ApplyText(kDpo, graph, 1, &curves));
  EXPECT_NEAR(curves[0].loss.front(), std::log(2.0), 1e-6);
  EXPECT_LT(curves[0].loss.back(), 0.3);
  EXPECT_EQ(curves[0].accuracy.back(), 1);
  EXPECT_EQ(WeightScheme(graph, "model.layers.0.mlp.up_proj").format(), "int4");
  EXPECT_EQ(ir::AdaptersOf(graph).size(), 14);
  for (const char* name : {"model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj.lora_B"}) {
    const ir::ParameterId id = *graph.FindOp(name)->weight;
    EXPECT_NE(before.parameter(id).LoadFloats().value(), graph.parameter(id).LoadFloats().value()) << name;
  }
}

// Grids that a search chose are not those that rounding finds again.
TEST(Dpo, WeightsThatAreRoundedAnewAreCounted) {
  SetProgressEnabled(false);
  for (const auto& [rtn, rounded_anew] : std::map<std::string, bool>{{"bits: 4 group_size: 16", false}, {"bits: 4 group_size: 16 range { mse {} }", true}}) {
    ir::Graph graph = TinyGraph();
    ThreadPool pool(1);
    Context context(pool, TestWorkplace());
    ASSERT_OK(ApplyPipeline(context, ParsePipeline(absl::StrCat("step { [nibble.rtn] { ", rtn, " } } ", kDpo)).step(), graph));
    EXPECT_EQ(context.events().count("training.rounded_anew"), rounded_anew) << rtn;
  }
}

TEST(Dpo, SaysWhatIsWrong) {
  const auto message = [](const std::string& options) {
    return ErrorOf(absl::StrCat("step { [nibble.dpo] { ", options, " } }"));
  };
  EXPECT_THAT(message(""), ::testing::HasSubstr("data is empty"));
  const std::string data = "data { pairs: \"pairs.jsonl\" } ";
  EXPECT_THAT(message(data + "beta: 0"), ::testing::HasSubstr("beta"));
  EXPECT_THAT(message(data + "label_smoothing: 0.5"), ::testing::HasSubstr("label_smoothing"));
  EXPECT_THAT(message("data { pairs: \"pairs.jsonl\" window: 1 }"), ::testing::HasSubstr("data.window: 1, expected 2 or more"));
  EXPECT_THAT(message("data { shuffled { text: \"text.txt\" window: 32 } shuffled_pairs: 0 }"), ::testing::HasSubstr("data.shuffled_pairs: 0"));
  EXPECT_THAT(message("data { shuffled { text: \"text.txt\" window: 4 } }"), ::testing::HasSubstr("data.shuffled.window: 4"));
  EXPECT_THAT(message("data { pairs: \"pairs.jsonl\" window: 3 }"), ::testing::HasSubstr("no pair fits"));
}

}  // namespace
}  // namespace nibble
