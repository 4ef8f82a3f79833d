#include <cmath>

#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

std::string Step(const std::string& options) {
  return absl::StrCat("step { [nibble.gptq] { data { text: \"text.txt\" window: 32 } ", options, " } }");
}

double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
  return std::sqrt(sum);
}

// Logits on the text that it calibrated on.
std::vector<float> Logits(const ir::Graph& graph) { return *RunReference(graph, LetterTokenizer().Encode("the cat sat on the mat and")); }

TEST(Gptq, ComesNearerThanRounding) {
  ir::Graph original = TinyGraph();
  const std::vector<float> expected = Logits(original);
  ir::Graph rounded = original;
  ASSERT_OK(ApplyText("step { [nibble.rtn] { bits: 3 } }", rounded));
  for (const char* options : {"", "act_order: false", "sequential: false", "propagate: 0", "act_order: false static_groups: false", "range { absmax {} }"}) {
    ir::Graph solved = original;
    ASSERT_OK(ApplyText(Step(absl::StrCat("bits: 3 ", options)), solved));
    EXPECT_LT(Distance(Logits(solved), expected), 0.8 * Distance(Logits(rounded), expected)) << options;
    EXPECT_EQ(WeightScheme(solved, "model.layers.1.mlp.down_proj").format(), "int3");
    EXPECT_TRUE(solved.tied());
  }
}

TEST(Gptq, TakesAnyIntegerScheme) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText(Step("bits: 4 group_size: 16 asymmetric: true scale_type: FP16 layers: \"mlp\""), graph));
  const QuantScheme scheme = WeightScheme(graph, "model.layers.0.mlp.up_proj");
  EXPECT_TRUE(scheme.asymmetric());
  EXPECT_EQ(scheme.group_size(), 16);
  EXPECT_EQ(WeightScheme(graph, "model.layers.0.self_attn.q_proj").format(), "bf16");
}

// Schemes side by side in one pass: what a linear becomes depends on what those before it
// became, and on nothing else.
TEST(Gptq, SeveralSchemesInOnePass) {
  ir::Graph mixed = TinyGraph(), plain = TinyGraph();
  ASSERT_OK(ApplyText(Step("bits: 4 other { layers: \"model.layers.1.*\" bits: 3 group_size: 16 } other { layers: \"*.up_proj\" bits: 8 }"), mixed));
  ASSERT_OK(ApplyText(Step("bits: 4"), plain));
  const std::string first = "model.layers.0.self_attn.q_proj";
  EXPECT_EQ(WeightScheme(mixed, first).format(), "int4");
  EXPECT_EQ(*mixed.parameter(*mixed.FindOp(first)->weight).LoadFloats(), *plain.parameter(*plain.FindOp(first)->weight).LoadFloats());
  EXPECT_EQ(WeightScheme(mixed, "model.layers.0.mlp.up_proj").format(), "int8");
  EXPECT_EQ(WeightScheme(mixed, "model.layers.1.mlp.up_proj").format(), "int3");
  EXPECT_EQ(WeightScheme(mixed, "model.layers.1.mlp.down_proj").group_size(), 16);
  ir::Graph part = TinyGraph();
  ASSERT_OK(ApplyText(Step("layers: \"*.q_proj\" other { layers: \"*.k_proj\" bits: 8 }"), part));
  EXPECT_EQ(WeightScheme(part, first).format(), "int4");
  EXPECT_EQ(WeightScheme(part, "model.layers.0.self_attn.k_proj").format(), "int8");
  EXPECT_EQ(WeightScheme(part, "model.layers.0.self_attn.v_proj").format(), "bf16");
}

TEST(Gptq, FollowsRotations) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.spinquant] {} } " + Step("bits: 4"), graph));
  EXPECT_EQ(WeightScheme(graph, "model.layers.0.mlp.down_proj").format(), "int4");
}

TEST(Gptq, SaysWhenTheTextIsShort) {
  ir::Graph graph = TinyGraph();
  ThreadPool pool(1);
  Context context(pool, TestWorkplace());
  ASSERT_OK(ApplyPipeline(context, ParsePipeline(Step("samples: 1000")).step(), graph));
  EXPECT_EQ(context.events().count("calibration.fewer_samples"), 1);
}

TEST(Gptq, TellsTheErrorOfEveryLinear) {
  ir::Graph graph = TinyGraph();
  ThreadPool pool(1);
  Context context(pool, TestWorkplace());
  ASSERT_OK(ApplyPipeline(context, ParsePipeline(Step("bits: 3")).step(), graph));
  ASSERT_EQ(context.layer_errors().size(), 14u);  // seven in each of two blocks
  int worse = 0;
  for (const LayerError& error : context.layer_errors()) {
    EXPECT_EQ(error.method, "gptq");
    ASSERT_NE(graph.FindOp(error.layer), nullptr) << error.layer;
    EXPECT_EQ(WeightScheme(graph, error.layer).format(), "int3");
    EXPECT_GT(error.error, 0);
    if (error.error > error.rounding_error) ++worse;
  }
  const auto counted = context.events().find("gptq.worse_than_rounding");
  EXPECT_EQ(worse, counted == context.events().end() ? 0 : counted->second.count);
}

TEST(Gptq, OptionMistakesAreNamed) {
  EXPECT_THAT(ErrorOf("step { [nibble.gptq] {} }"), HasSubstr("data { text"));
  EXPECT_THAT(ErrorOf(Step("bits: 1")), HasSubstr("bits: 1"));
  EXPECT_THAT(ErrorOf(Step("damping: 2")), HasSubstr("damping"));
  EXPECT_THAT(ErrorOf(Step("samples: 0")), HasSubstr("samples"));
  EXPECT_THAT(ErrorOf(Step("propagate: -1")), HasSubstr("propagate"));
  EXPECT_THAT(ErrorOf(Step("group_size: 8 static_groups: false")), HasSubstr("static_groups"));
  EXPECT_THAT(ErrorOf(Step("layers: \"head\"")), HasSubstr("lm_head"));
  EXPECT_THAT(ErrorOf("step { [nibble.rtn] {} } " + Step("")), HasSubstr("already quantized"));
}

}  // namespace
}  // namespace nibble
