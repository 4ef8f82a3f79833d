#include "core/ir/passes.h"
#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

std::string Step(const std::string& options = "") {
  return absl::StrCat("step { [nibble.awq] { data { text: \"text.txt\" window: 32 } samples: 8 ", options, " } } ");
}

// Change of the logits on the text that it calibrates on.
double ChangeFrom(const ir::Graph& original, const ir::Graph& graph) {
  const auto logits = [](const ir::Graph& g) { return *RunReference(g, LetterTokenizer().Encode("the cat sat on the mat and")); };
  return RelativeChange(logits(original), logits(graph));
}

double Change(const std::string& steps) {
  const ir::Graph original = TinyGraph();
  ir::Graph graph = original;
  EXPECT_OK(ApplyText(steps, graph));
  return ChangeFrom(original, graph);
}

std::string AttentionOp(int layer, const std::string& name) { return absl::StrCat("model.layers.", layer, ".self_attn.", name); }

ir::Parameter& WeightOf(ir::Graph& graph, const std::string& op) { return graph.mutable_parameter(*graph.FindOp(op)->weight); }

// As many heads of keys and values as of queries, in fp32. Every sixth channel of the
// values is 64 times as large and its column of o_proj as much smaller, so that rounding
// to a few bits loses those columns.
ir::Graph MultiHeadGraph() {
  LlamaConfig config = *ShapePreset("tiny");
  config.num_key_value_heads = config.num_attention_heads;
  ir::Graph graph = *BuildLlama(config, SyntheticWeights(config, 3));
  EXPECT_OK(ApplyText("step { [nibble.baseline] { dtype: FP32 } }", graph));
  std::vector<double> factors(config.num_attention_heads * config.head_dim, 1.0);
  for (size_t i = 0; i < factors.size(); i += 6) factors[i] = 64;
  const auto index = [&](const std::string& op) { return static_cast<size_t>(graph.FindOp(op) - graph.ops().data()); };
  for (int layer = 0; layer < graph.num_layers(); ++layer) {
    EXPECT_OK(ir::ScaleChannels(graph, index(AttentionOp(layer, "v_proj")), {index(AttentionOp(layer, "o_proj"))}, factors));
  }
  return graph;
}

// The sum of a row's magnitudes.
double RowSum(const std::vector<float>& values, size_t cols, size_t row) {
  double sum = 0;
  for (size_t c = 0; c < cols; ++c) sum += std::fabs(values[row * cols + c]);
  return sum;
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

// v_proj's rows take up the scales of o_proj's columns where every head has values of
// its own.
TEST(Awq, FoldsValuesOfMultiHeadAttention) {
  const ir::Graph original = MultiHeadGraph();
  ir::Graph rounded = original, scaled = original;
  const std::string options = "bits: 6 group_size: 0 layers: \"*.o_proj\" ";
  ASSERT_OK(ApplyText("step { [nibble.rtn] { asymmetric: true " + options + "} }", rounded));
  ThreadPool pool(1);
  Context context(pool, TestWorkplace());
  ASSERT_OK(ApplyPipeline(context, ParsePipeline(Step(options + "clip: false")).step(), scaled));
  EXPECT_EQ(context.events().count("awq.not_scaled"), 0u);
  EXPECT_LT(ChangeFrom(original, scaled), 0.6 * ChangeFrom(original, rounded));

  // The same scales without the rounding: nothing changes.
  ir::Graph folded = original;
  for (int layer = 0; layer < original.num_layers(); ++layer) {
    ASSERT_OK_AND_ASSIGN(const std::vector<float> before, WeightOf(folded, AttentionOp(layer, "v_proj")).LoadFloats());
    ASSERT_OK_AND_ASSIGN(const std::vector<float> after, WeightOf(scaled, AttentionOp(layer, "v_proj")).LoadFloats());
    ASSERT_OK(WeightOf(folded, AttentionOp(layer, "v_proj")).ReplaceEncoded(FloatScheme("fp32"), after, nullptr));
    ir::Parameter& output = WeightOf(folded, AttentionOp(layer, "o_proj"));
    ASSERT_OK_AND_ASSIGN(std::vector<float> columns, output.LoadFloats());
    const size_t width = output.shape().back(), hidden = before.size() / width;
    bool differs = false;
    for (size_t i = 0; i < columns.size(); ++i) {
      const double scale = RowSum(before, hidden, i % width) / RowSum(after, hidden, i % width);
      columns[i] = static_cast<float>(columns[i] * scale);
      differs |= std::fabs(scale - 1) > 0.1;
    }
    EXPECT_TRUE(differs) << layer;
    ASSERT_OK(output.ReplaceEncoded(FloatScheme("fp32"), columns, nullptr));
    ASSERT_OK_AND_ASSIGN(const std::vector<float> encoded, WeightOf(scaled, AttentionOp(layer, "o_proj")).LoadFloats());
    EXPECT_LT(RelativeChange(columns, encoded), 0.15) << layer;
  }
  EXPECT_LT(ChangeFrom(original, folded), 1e-5);
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
