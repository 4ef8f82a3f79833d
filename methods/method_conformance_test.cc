// The conformance suite of methods: every registered method with its default
// options on a small model. A new method is covered by being in methods:all.

#include <cmath>

#include "methods/testing.h"

namespace nibble {
namespace {

TEST(MethodRegistry, HoldsTheMethodsThatMustExist) {
  std::vector<std::string> names;
  for (const auto& [name, info] : RegisteredMethods()) names.push_back(name);
  EXPECT_THAT(names, ::testing::IsSupersetOf({"activations", "baseline", "dpo", "dynamic_int8", "gptq", "kv_cache", "llama32_ptq", "lora", "outlier_stress", "qat", "rtn",
                                             "sft", "spinquant"}));
}

TEST(MethodRegistry, AStepHoldsExactlyOneMethod) {
  EXPECT_FALSE(MakeMethod(Step()).ok());
  const Pipeline two = ParsePipeline("step { [nibble.rtn] {} [nibble.baseline] {} }");
  EXPECT_FALSE(MakeMethod(two.step(0)).ok());
}

TEST(MethodRegistry, UnknownMethodOffersTheNearest) {
  const auto text = DescribeMethod("rtm");
  ASSERT_FALSE(text.ok());
  EXPECT_THAT(std::string(text.status().message()), ::testing::HasSubstr("did you mean 'rtn'"));
}

std::vector<std::string> MethodNames() {
  std::vector<std::string> names;
  for (const auto& [name, info] : RegisteredMethods()) names.push_back(name);
  return names;
}

class MethodConformance : public ::testing::TestWithParam<std::string> {
 protected:
  // Default options; methods that learn get a little to learn from.
  std::string StepText() const {
    const auto* options = RegisteredMethods().at(GetParam()).extension->message_type();
    std::string fields;
    if (options->FindFieldByName("quantize") != nullptr) fields += "quantize { [nibble.llama32_ptq] {} } ";
    if (const auto* data = options->FindFieldByName("data")) {
      const bool pairs = data->message_type()->FindFieldByName("pairs") != nullptr;
      fields += pairs ? "data { pairs: \"pairs.jsonl\" } " : "data { text: \"text.txt\" window: 32 } ";
      if (options->FindFieldByName("training") != nullptr) fields += "training { steps: 2 batch: 2 warmup: 0 learning_rate: 1e-3 }";
    }
    return absl::StrCat("step { [nibble.", GetParam(), "] { ", fields, " } }");
  }

  ir::Graph Applied(int threads = 1, bool tied = true) const {
    ir::Graph graph = TinyGraph(tied);
    EXPECT_OK(ApplyText(StepText(), graph, threads));
    return graph;
  }
};

TEST_P(MethodConformance, IsDocumented) {
  EXPECT_FALSE(MethodSummary(GetParam()).empty());
  ASSERT_OK_AND_ASSIGN(const std::string text, DescribeMethod(GetParam()));
  // An option without a comment prints an empty line of its indentation.
  EXPECT_THAT(text, ::testing::Not(::testing::HasSubstr("\n      \n")));
}

TEST_P(MethodConformance, LeavesAModelThatRuns) {
  for (const bool tied : {true, false}) {
    const ir::Graph graph = Applied(1, tied);
    ASSERT_OK(ir::Verify(graph));
    for (const float logit : TinyLogits(graph)) ASSERT_TRUE(std::isfinite(logit));
  }
}

TEST_P(MethodConformance, DoesNotTouchTheGraphItWasCopiedFrom) {
  ir::Graph original = TinyGraph();
  const std::vector<float> before = TinyLogits(original);
  ir::Graph copy = original;
  ASSERT_OK(ApplyText(StepText(), copy));
  EXPECT_EQ(TinyLogits(original), before);
}

TEST_P(MethodConformance, GivesTheSameModelForAnyThreadCount) {
  ASSERT_OK_AND_ASSIGN(const auto method, MakeMethod(ParsePipeline(StepText()).step(0)));
  if (method->depends_on_machine()) GTEST_SKIP() << "its choices are timings";
  const ir::Graph one = Applied(1), three = Applied(3);
  ASSERT_EQ(one.parameters().size(), three.parameters().size());
  for (size_t i = 0; i < one.parameters().size(); ++i) {
    const auto id = static_cast<ir::ParameterId>(i);
    ASSERT_OK_AND_ASSIGN(const EncodedTensor a, one.parameter(id).Load());
    ASSERT_OK_AND_ASSIGN(const EncodedTensor b, three.parameter(id).Load());
    ASSERT_TRUE(SameScheme(a.scheme, b.scheme));
    for (const auto& [name, buffer] : a.buffers) ASSERT_EQ(buffer.bytes(), b.buffer(name).bytes()) << one.parameter(id).name();
  }
}

TEST_P(MethodConformance, PlanAgreesWithTheReference) {
  const ir::Graph graph = Applied();
  const std::vector<float> expected = TinyLogits(graph);
  for (const kernels::KernelTable* table : kernels::AvailableTables()) {
    EXPECT_LT(RelativeChange(expected, PlanLogits(graph, *table)), 2e-2) << table->name;
  }
}

TEST_P(MethodConformance, TwiceIsRefusedOrLearnsMoreOrChangesNothing) {
  ir::Graph graph = Applied();
  const std::vector<float> once = TinyLogits(graph);
  const absl::Status again = ApplyText(StepText(), graph);
  if (again.ok()) {
    const Pipeline pipeline = ParsePipeline(StepText());
    ASSERT_OK_AND_ASSIGN(const auto method, MakeMethod(pipeline.step(0)));
    if (!method->learns()) EXPECT_EQ(TinyLogits(graph), once);
  } else {
    EXPECT_EQ(again.code(), absl::StatusCode::kFailedPrecondition) << again;
  }
}

INSTANTIATE_TEST_SUITE_P(Registered, MethodConformance, ::testing::ValuesIn(MethodNames()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace nibble
