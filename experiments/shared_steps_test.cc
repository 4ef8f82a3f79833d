#include "experiments/shared_steps.h"

#include "core/base/testing.h"
#include "methods/testing.h"

namespace nibble {
namespace {

const char kCalibrated[] = "step { [nibble.gptq] { bits: 3 samples: 2 data { text: \"text.txt\" window: 16 } } } ";

// Logits of each pipeline and the record of its build, by shared steps or alone.
struct Built {
  std::vector<float> logits;
  BuildRecord record;
};

Built Build(const std::function<absl::Status(Context&, ir::Graph&)>& apply) {
  ThreadPool pool(1);
  Context context(pool, TestWorkplace());
  ir::Graph graph = TinyGraph();
  EXPECT_OK(apply(context, graph));
  return {TinyLogits(graph), context.record()};
}

TEST(SharedSteps, GiveWhatEachPipelineGivesAlone) {
  const std::string a8 = "step { [nibble.activations] {} }", a4 = "step { [nibble.activations] { bits: 4 } }";
  const std::vector<Pipeline> pipelines = {ParsePipeline(a8), ParsePipeline(kCalibrated + a8), ParsePipeline(kCalibrated),
                                           ParsePipeline(kCalibrated + a4), ParsePipeline(a4)};
  std::vector<const Pipeline*> pointers;
  for (const Pipeline& pipeline : pipelines) pointers.push_back(&pipeline);
  SharedSteps shared(pointers);
  const std::vector<size_t> kept = {0, 1, 1, 0, 0};
  for (size_t i = 0; i < pipelines.size(); ++i) {
    const Built together = Build([&](Context& context, ir::Graph& graph) { return shared.Apply(i, context, graph); });
    const Built alone = Build([&](Context& context, ir::Graph& graph) { return ApplyPipeline(context, pipelines[i].step(), graph); });
    EXPECT_EQ(together.logits, alone.logits) << i;
    EXPECT_EQ(together.record.history, alone.record.history) << i;
    EXPECT_EQ(together.record.layer_errors.size(), alone.record.layer_errors.size()) << i;
    EXPECT_EQ(together.record.events.size(), alone.record.events.size()) << i;
    shared.Forget(i);
    EXPECT_EQ(shared.kept(), kept[i]) << i;
  }
}

// A calibrated beginning is made once: the text may be gone when it is taken up.
TEST(SharedSteps, TakeUpWhatIsThere) {
  const Pipeline first = ParsePipeline(kCalibrated), second = ParsePipeline(std::string(kCalibrated) + "step { [nibble.activations] {} }");
  SharedSteps shared({&first, &second});
  const Built expected = Build([&](Context& context, ir::Graph& graph) { return shared.Apply(0, context, graph); });
  ThreadPool pool(1);
  Workplace workplace = TestWorkplace();
  workplace.directory = "/nowhere";
  Context context(pool, workplace);
  ir::Graph graph = TinyGraph();
  ASSERT_OK(shared.Apply(1, context, graph));
  EXPECT_EQ(context.layer_errors().size(), expected.record.layer_errors.size());
  EXPECT_TRUE(graph.FindOp("model.layers.0.mlp.down_proj")->activation.has_value());
}

}  // namespace
}  // namespace nibble
