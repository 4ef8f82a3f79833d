#include <cmath>

#include "methods/testing.h"

namespace nibble {
namespace {

constexpr char kSft[] =
    "step { [nibble.sft] { data { text: \"text.txt\" window: 32 } training { steps: 60 batch: 4 warmup: 3 learning_rate: 0.01 } } }";
constexpr char kRest[] = " data { text: \"text.txt\" window: 32 } training { steps: 25 batch: 4 warmup: 3 learning_rate: 0.01 }";

std::string Qat(const std::string& quantize, const std::string& more = "") {
  return absl::StrCat("step { [nibble.qat] { quantize { ", quantize, " } ", more, kRest, " } }");
}

double NegativeLogLikelihood(const ir::Graph& graph) {
  const std::vector<int32_t> tokens = LetterTokenizer().Encode("the cat sat on the mat and the rat");
  const std::vector<float> logits = RunReference(graph, tokens).value();
  const size_t vocab = logits.size() / tokens.size();
  double sum = 0;
  for (size_t t = 0; t + 1 < tokens.size(); ++t) {
    double total = 0;
    for (size_t v = 0; v < vocab; ++v) total += std::exp(static_cast<double>(logits[t * vocab + v]));
    sum += std::log(total) - logits[t * vocab + tokens[t + 1]];
  }
  return sum / static_cast<double>(tokens.size() - 1);
}

// At two bits rounding a trained model loses what training through the rounding
// keeps.
TEST(Qat, BeatsRoundingAfterwards) {
  SetProgressEnabled(false);
  ir::Graph rounded = TinyGraph();
  ASSERT_OK(ApplyText(kSft, rounded));
  ir::Graph trained = rounded;
  ASSERT_OK(ApplyText("step { [nibble.rtn] { bits: 2 } }", rounded));
  ASSERT_OK(ApplyText(Qat("[nibble.rtn] { bits: 2 }"), trained));
  EXPECT_EQ(WeightScheme(trained, "model.layers.1.mlp.down_proj").format(), "int2");
  EXPECT_TRUE(SameScheme(WeightScheme(trained, "model.layers.0.self_attn.q_proj"), WeightScheme(rounded, "model.layers.0.self_attn.q_proj")));
  EXPECT_LT(NegativeLogLikelihood(trained), NegativeLogLikelihood(rounded) - 0.2);
}

// The published scheme: untied tables, norms in fp32, activations quantized.
TEST(Qat, TrainsTheLlama32Scheme) {
  SetProgressEnabled(false);
  ir::Graph graph = TinyGraph();
  std::vector<LossCurve> curves;
  ASSERT_OK(ApplyText(Qat("[nibble.llama32_ptq] { scale: FP16 divisor: HALF_RANGE }", "quantize_after: 5"), graph, 1, &curves));
  EXPECT_FALSE(graph.tied());
  EXPECT_EQ(WeightScheme(graph, "lm_head").format(), "int8");
  EXPECT_EQ(WeightScheme(graph, "model.norm").format(), "fp32");
  EXPECT_TRUE(graph.FindOp("lm_head")->activation.has_value());
  EXPECT_LT(curves[0].loss.back(), 2);
  EXPECT_NEAR(NegativeLogLikelihood(graph), curves[0].loss.back(), 0.7);
}

TEST(Qat, LearnsFromTheUnquantizedModel) {
  SetProgressEnabled(false);
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText(kSft, graph));
  std::vector<LossCurve> curves;
  ASSERT_OK(ApplyText(Qat("[nibble.rtn] { bits: 2 }", "distill { weight: 1 }"), graph, 1, &curves));
  EXPECT_LT(curves[0].loss.back(), 0.7 * curves[0].loss.front());
}

TEST(Qat, SaysWhatIsWrong) {
  EXPECT_THAT(ErrorOf(absl::StrCat("step { [nibble.qat] { ", kRest, " } }")), ::testing::HasSubstr("quantize is empty"));
  EXPECT_THAT(ErrorOf("step { [nibble.rtn] {} } " + Qat("[nibble.rtn] {}")), ::testing::HasSubstr("already quantized"));
  EXPECT_THAT(ErrorOf(Qat(absl::StrCat("[nibble.sft] { ", kRest, " }"))), ::testing::HasSubstr("a step that learns"));
  EXPECT_THAT(ErrorOf(Qat("[nibble.rtn] {}", "distill { weight: 2 }")), ::testing::HasSubstr("distill.weight: 2, expected 0 to 1"));
  EXPECT_THAT(ErrorOf(Qat("[nibble.rtn] {}", "distill { temperature: 0 }")), ::testing::HasSubstr("distill.temperature: 0"));
  EXPECT_THAT(ErrorOf(Qat("[nibble.rtn] {}", "distill { hidden_weight: nan }")), ::testing::HasSubstr("distill.hidden_weight"));
  EXPECT_THAT(ErrorOf(Qat("[nibble.rtn] { bits: 4 group_size: 16 asymmetric: true }", "learn_scales: true")), ::testing::HasSubstr("no weight has scales to learn"));
  EXPECT_THAT(ErrorOf(Qat("[nibble.rtn] {}", "quantize_after: 100000")), ::testing::HasSubstr("below training.steps"));
}

}  // namespace
}  // namespace nibble
