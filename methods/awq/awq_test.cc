#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

std::string Step(const std::string& options = "") {
  return absl::StrCat("step { [nibble.awq] { data { text: \"text.txt\" window: 32 } samples: 8 ", options, " } } ");
}

// Change of the logits on the text that it calibrates on.
double Change(const std::string& steps) {
  const ir::Graph original = TinyGraph();
  ir::Graph graph = original;
  EXPECT_OK(ApplyText(steps, graph));
  const auto logits = [](const ir::Graph& g) { return *RunReference(g, LetterTokenizer().Encode("the cat sat on the mat and")); };
  return RelativeChange(logits(original), logits(graph));
}

TEST(Awq, ComesNearerThanRounding) {
  for (const char* scheme : {"bits: 3 group_size: 16", "bits: 3 group_size: 0"}) {
    const double rounded = Change(absl::StrCat("step { [nibble.rtn] { asymmetric: true ", scheme, " } }"));
    EXPECT_LT(Change(Step(scheme)), 0.95 * rounded) << scheme;
  }
}

TEST(Awq, TellsErrorsAndWhatItCouldNotScale) {
  ir::Graph graph = TinyGraph();
  ThreadPool pool(1);
  Context context(pool, TestWorkplace());
  ASSERT_OK(ApplyPipeline(context, ParsePipeline(Step("bits: 3 group_size: 16")).step(), graph));
  ASSERT_EQ(context.layer_errors().size(), 14u);
  double error = 0, rounding = 0;
  for (const LayerError& layer : context.layer_errors()) {
    EXPECT_EQ(layer.method, "awq");
    EXPECT_EQ(WeightScheme(graph, layer.layer).format(), "int3");
    error += layer.error, rounding += layer.rounding_error;
  }
  EXPECT_LT(error, rounding);
  // Two queries share a head's values: o_proj's inputs cannot be scaled one by one.
  ASSERT_EQ(context.events().count("awq.not_scaled"), 1u);
  EXPECT_EQ(context.events().at("awq.not_scaled").count, 2);
  EXPECT_THAT(context.events().at("awq.not_scaled").detail, HasSubstr("o_proj"));
}

// Without clips and with one exponent, 0.
TEST(Awq, WithoutASearchItIsRounding) {
  ir::Graph rounded = TinyGraph(), searched = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.rtn] { group_size: 16 asymmetric: true } }", rounded));
  ASSERT_OK(ApplyText(Step("group_size: 16 grid: 1 clip: false"), searched));
  EXPECT_EQ(TinyLogits(rounded), TinyLogits(searched));
}

TEST(Awq, OptionMistakesAreNamed) {
  EXPECT_THAT(ErrorOf("step { [nibble.awq] {} }"), HasSubstr("data { text"));
  EXPECT_THAT(ErrorOf(Step("bits: 9")), HasSubstr("bits: 9"));
  EXPECT_THAT(ErrorOf(Step("grid: 0")), HasSubstr("grid"));
  EXPECT_THAT(ErrorOf(Step("layers: \"head\"")), HasSubstr("lm_head"));
  EXPECT_THAT(ErrorOf("step { [nibble.rtn] {} } " + Step()), HasSubstr("already quantized"));
  EXPECT_THAT(ErrorOf("step { [nibble.lora] {} } " + Step()), HasSubstr("put awq before lora"));
}

}  // namespace
}  // namespace nibble
