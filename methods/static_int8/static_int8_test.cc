#include "core/kernels/linear.h"
#include "core/runtime/plan.h"
#include "core/runtime/session.h"
#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

std::string Step(const std::string& options = "") {
  return absl::StrCat("step { [nibble.static_int8] { data { text: \"text.txt\" window: 32 } ", options, " } } ");
}

const std::string kSmooth = "step { [nibble.smoothquant] { data { text: \"text.txt\" window: 32 } } } ";
const std::vector<int32_t> kTokens = {5, 17, 3, 96, 0, 42};

TEST(StaticInt8, EveryInputHasItsRange) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText(Step("layers: \"mlp\""), graph));
  const auto& gate = graph.FindOp("model.layers.0.mlp.gate_proj")->activation;
  ASSERT_TRUE(gate.has_value() && gate->has_fixed());
  EXPECT_LT(gate->fixed().min(), 0);
  EXPECT_GT(gate->fixed().max(), 0);
  EXPECT_THAT(SchemeToString(*gate), HasSubstr("int8 per tensor static ["));
  EXPECT_TRUE(SameScheme(*gate, *graph.FindOp("model.layers.0.mlp.up_proj")->activation));
  EXPECT_FALSE(SameScheme(*gate, *graph.FindOp("model.layers.1.mlp.up_proj")->activation));
  EXPECT_FALSE(graph.FindOp("model.layers.0.self_attn.q_proj")->activation.has_value());
  EXPECT_EQ(WeightScheme(graph, "model.layers.0.mlp.up_proj").format(), "int8");
}

TEST(StaticInt8, RunsInIntegersAsTheReferenceSays) {
  for (const char* options : {"", "asymmetric_activations: false per: PER_TENSOR"}) {
    ir::Graph graph = TinyGraph();
    ASSERT_OK(ApplyText(Step(options), graph));
    ASSERT_OK_AND_ASSIGN(const auto* table, kernels::ChooseTable());
    ASSERT_OK_AND_ASSIGN(const auto plan, Plan::Create(graph, *table));
    EXPECT_THAT(plan->simulated_ops(), ::testing::IsEmpty()) << options;
  }
}

// What the linears of SmoothQuant's static W8A8 are: one scale a weight, one an input,
// no zero points.
ir::Graph SmoothedPerTensor() {
  ir::Graph graph = TinyGraph();
  EXPECT_OK(ApplyText(kSmooth + Step("per: PER_TENSOR asymmetric_activations: false"), graph));
  return graph;
}

TEST(StaticInt8, AfterSmoothquantItIsThePublishedScheme) {
  const ir::Graph graph = SmoothedPerTensor();
  for (const ir::Op& op : graph.ops()) {
    if (op.kind != ir::OpKind::kLinear) continue;
    ASSERT_OK_AND_ASSIGN(const EncodedTensor weight, graph.parameter(*op.weight).Load());
    EXPECT_EQ(weight.scheme.format(), "int8") << op.name;
    EXPECT_FALSE(weight.scheme.asymmetric()) << op.name;
    EXPECT_EQ(weight.buffer("scales").elements(), 1) << op.name;
    ASSERT_TRUE(op.activation.has_value() && op.activation->has_fixed()) << op.name;
    EXPECT_EQ(op.activation->format(), "int8") << op.name;
    EXPECT_EQ(op.activation->per(), QuantScheme::PER_TENSOR) << op.name;
    EXPECT_FALSE(op.activation->asymmetric()) << op.name;
  }
}

// Each linear on the inputs that the reference gave it, then the whole model, where a
// last-bit difference may move an input by a step.
TEST(StaticInt8, ThePublishedSchemeRunsAsTheReferenceSays) {
  const ir::Graph graph = SmoothedPerTensor();
  std::vector<std::vector<float>> values(graph.values().size());
  ASSERT_OK_AND_ASSIGN(const std::vector<float> expected, RunReference(graph, kTokens, [&](const ir::Op& op, absl::Span<const float> y) {
                         values[op.output].assign(y.begin(), y.end());
                       }));
  ThreadPool pool(2);
  const int64_t tokens = static_cast<int64_t>(kTokens.size());
  for (const kernels::KernelTable* table : kernels::AvailableTables()) {
    for (const ir::Op& op : graph.ops()) {
      if (op.kind != ir::OpKind::kLinear) continue;
      ASSERT_OK_AND_ASSIGN(const EncodedTensor weight, graph.parameter(*op.weight).Load());
      ASSERT_OK_AND_ASSIGN(const auto linear, kernels::Linear::Create(weight, op.activation, *table));
      EXPECT_EQ(linear->arithmetic(), kernels::Arithmetic::kNative) << op.name;
      kernels::PreparedInput input;
      ASSERT_OK(input.Prepare(linear->input_form(), *table, values[op.inputs[0]].data(), tokens, pool));
      std::vector<float> y(tokens * linear->rows());
      ASSERT_OK(linear->Multiply(input, y.data(), linear->rows(), pool));
      EXPECT_LT(RelativeChange(values[op.output], y), 3e-6) << op.name << " on " << table->name;
    }
    ASSERT_OK_AND_ASSIGN(const auto plan, Plan::Create(graph, *table));
    EXPECT_EQ(plan->arithmetic(), kernels::Arithmetic::kNative) << table->name;
    ASSERT_OK_AND_ASSIGN(const auto session, Session::Create(*plan, pool, {1, tokens}));
    std::vector<float> hidden, logits(tokens * plan->vocab_size());
    ASSERT_OK(session->Forward({{0, kTokens}}, &hidden));
    ASSERT_OK(session->Logits(hidden.data(), tokens, logits.data()));
    EXPECT_LT(RelativeChange(expected, logits), 2e-2) << table->name;
  }
}

TEST(StaticInt8, EveryRuleStaysNear) {
  for (const char* rule : {"absmax {}", "moving_average {}", "percentile {}", "mse {}", "kl {}"}) EXPECT_LT(ChangeBy(Step(rule)), 0.2) << rule;
}

TEST(StaticInt8, SmoothingHelpsUnderOutliers) {
  const std::string stress = "step { [nibble.baseline] { dtype: FP32 } } step { [nibble.outlier_stress] { channels: 2 factor: 64 } } ";
  EXPECT_LT(ChangeBy(stress + kSmooth + Step()), 0.5 * ChangeBy(stress + Step()));
}

TEST(StaticInt8, OptionMistakesAreNamed) {
  EXPECT_THAT(ErrorOf("step { [nibble.static_int8] {} }"), HasSubstr("data { text"));
  EXPECT_THAT(ErrorOf(Step("samples: 0")), HasSubstr("samples"));
  EXPECT_THAT(ErrorOf(Step("moving_average { momentum: 1 }")), HasSubstr("momentum: 1"));
  EXPECT_THAT(ErrorOf(Step("percentile { share: 0 }")), HasSubstr("share: 0"));
  EXPECT_THAT(ErrorOf(Step("per: PER_TOKEN")), HasSubstr("PER_TOKEN"));
  EXPECT_THAT(ErrorOf(Step("layers: \"head\"")), HasSubstr("lm_head"));
}

}  // namespace
}  // namespace nibble
