#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

std::string Step(const std::string& options) {
  return absl::StrCat("step { [nibble.autoquant] { data { text: \"text.txt\" window: 32 } positions: 40 rounds: 1 ", options, " } }");
}

BuildRecord Apply(const std::string& steps, ir::Graph& graph) {
  ThreadPool pool(1);
  Context context(pool, TestWorkplace());
  EXPECT_OK(ApplyPipeline(context, ParsePipeline(steps).step(), graph));
  return context.record();
}

const std::string kInt8 = "candidate { name: \"w8\" weight { format: \"int8\" per: PER_ROW } } ";
const std::string kInt2 = "candidate { name: \"w2\" weight { format: \"int2\" per: PER_ROW } } ";

// A bound that rules out int2, so int8 or nothing remains, whatever is faster.
TEST(Autoquant, NeverExceedsTheBound) {
  ir::Graph graph = TinyGraph();
  const BuildRecord record = Apply(Step(absl::StrCat(kInt8, kInt2, "max_error: 0.05")), graph);
  for (const ir::Op& op : graph.ops()) {
    if (op.kind == ir::OpKind::kLinear) EXPECT_NE(WeightScheme(graph, op.name).format(), "int2") << op.name;
  }
  ASSERT_EQ(record.tables.size(), 2u);
  EXPECT_THAT(record.tables[0].title, HasSubstr("milliseconds"));
  // Three schemes for each of the tiny model's shapes.
  EXPECT_EQ(record.tables[0].rows.size() % 3, 0u);
  EXPECT_THAT(record.tables[1].columns, ::testing::ElementsAre("scheme", "linears", "largest error"));
}

// A candidate is timed and bounded with the inputs that it names.
TEST(Autoquant, RefusesActivationSchemesThatItDidNotChoose) {
  EXPECT_THAT(ErrorOf(absl::StrCat("step { [nibble.activations] { bits: 4 } } ", Step(kInt8))), HasSubstr("an earlier step quantized what it reads"));
}

TEST(Autoquant, NothingFitsATinyBound) {
  ir::Graph graph = TinyGraph();
  const BuildRecord record = Apply(Step("max_error: 1e-9"), graph);
  for (const ir::Op& op : graph.ops()) {
    if (op.kind == ir::OpKind::kLinear) EXPECT_EQ(WeightScheme(graph, op.name).format(), "bf16") << op.name;
  }
  ASSERT_EQ(record.tables[1].rows.size(), 1u);
  EXPECT_EQ(record.tables[1].rows[0][0], "unchanged");
}

TEST(Autoquant, SelectsLayers) {
  ir::Graph graph = TinyGraph();
  Apply(Step(absl::StrCat(kInt8, "layers: \"mlp\"")), graph);
  EXPECT_EQ(WeightScheme(graph, "model.layers.0.self_attn.q_proj").format(), "bf16");
}

TEST(Autoquant, OptionMistakesAreNamed) {
  EXPECT_THAT(ErrorOf("step { [nibble.autoquant] {} }"), HasSubstr("data { text"));
  EXPECT_THAT(ErrorOf(Step("max_error: 0")), HasSubstr("max_error: 0"));
  EXPECT_THAT(ErrorOf(Step("prompt: 0 reply: 0")), HasSubstr("prompt: 0"));
  EXPECT_THAT(ErrorOf(Step("batch: 0")), HasSubstr("batch: 0"));
  EXPECT_THAT(ErrorOf(Step(kInt8 + kInt8)), HasSubstr("'w8' is empty or taken"));
  EXPECT_THAT(ErrorOf(Step("candidate { name: \"a\" weight { format: \"int9\" } }")), HasSubstr("int9"));
  EXPECT_THAT(ErrorOf(Step("layers: \"head\"")), HasSubstr("lm_head"));
}

}  // namespace
}  // namespace nibble
