#include <algorithm>
#include <cmath>
#include <limits>

#include "core/ir/rotations.h"
#include "core/train/rotation_learner.h"
#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

// The tiny preset's weights in fp32: storing rotated ones in 16 bits is rounding
// of its own.
ir::Graph FloatGraph() {
  ir::Graph graph = TinyGraph();
  EXPECT_OK(ApplyText("step { [nibble.baseline] { dtype: FP32 } }", graph));
  return graph;
}

TEST(Spinquant, KeepsTheFunction) {
  for (const char* options : {"start: HADAMARD r4_block: 20", "start: RANDOM r4_block: 4 r3: true", "r1: false r4: false", "r2: false r4: false"}) {
    ir::Graph graph = FloatGraph();
    const std::vector<float> before = TinyLogits(graph);
    ASSERT_OK(ApplyText(absl::StrCat("step { [nibble.spinquant] { ", options, " } }"), graph));
    EXPECT_LT(RelativeChange(before, TinyLogits(graph)), 1e-5) << options;
  }
}

TEST(Spinquant, StoresWeightsAsTheyWere) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.spinquant] { r4_block: 20 } }", graph));
  for (const char* op : {"model.embed_tokens", "model.layers.0.self_attn.q_proj", "lm_head", "model.norm"}) {
    EXPECT_EQ(WeightScheme(graph, op).format(), "bf16") << op;
  }
  EXPECT_FALSE(graph.tied());
}

TEST(Spinquant, SeedsDecideAndRepeat) {
  const auto weights = [](int seed) {
    ir::Graph graph = FloatGraph();
    EXPECT_OK(ApplyText(absl::StrCat("step { [nibble.spinquant] { r4: false seed: ", seed, " } }"), graph));
    return *graph.parameter(*graph.FindOp("model.layers.1.mlp.up_proj")->weight).LoadFloats();
  };
  EXPECT_EQ(weights(1), weights(1));
  EXPECT_NE(weights(1), weights(2));
}

TEST(Spinquant, ComposesWithRoundingAndLastsInThePlan) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.spinquant] { r3: true r4_block: 20 } } step { [nibble.llama32_ptq] {} }", graph));
  EXPECT_EQ(WeightScheme(graph, "model.layers.0.mlp.down_proj").format(), "int4");
  EXPECT_EQ(ir::OnlineRotationsOf(graph).size(), 4);
}

std::string Learning(const std::string& options) {
  return absl::StrCat("step { [nibble.spinquant] { r4_block: 20 learn { data { text: \"text.txt\" window: 32 } quantize { [nibble.activations] "
                      "{ bits: 4 } } steps: 6 batch: 2 ", options, " } } }");
}

TEST(Spinquant, LearnsAndKeepsTheFunction) {
  ir::Graph graph = FloatGraph();
  const std::vector<float> before = TinyLogits(graph);
  std::vector<LossCurve> curves;
  const std::string cache = TestTempDir();
  ASSERT_OK(ApplyText(Learning(""), graph, 1, &curves, cache));
  EXPECT_LT(RelativeChange(before, TinyLogits(graph)), 1e-4);
  ASSERT_EQ(curves.size(), 1);
  EXPECT_EQ(curves[0].label, "spinquant");
  EXPECT_EQ(curves[0].loss.size(), 6);
  EXPECT_FALSE(curves[0].reused);
  // Learned before: taken from the cache, with the same weights.
  ir::Graph again = FloatGraph();
  ASSERT_OK(ApplyText(Learning("checkpoint_seconds: 7"), again, 2, &curves, cache));
  EXPECT_TRUE(curves[0].reused);
  EXPECT_EQ(TinyLogits(again), TinyLogits(graph));
  const std::string folder = curves[0].log.substr(0, curves[0].log.rfind('/'));
  ASSERT_OK_AND_ASSIGN(const std::string log, ReadFile(folder + "/rotations.csv"));
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 7) << log;
  // The file of matrices serves another variant.
  ASSERT_OK_AND_ASSIGN(const std::string matrices, ReadFile(folder + "/rotations.safetensors"));
  ASSERT_OK(WriteFile(TestWorkplace().directory + "/learned.safetensors", matrices));
  ir::Graph reused = FloatGraph();
  ASSERT_OK(ApplyText("step { [nibble.spinquant] { r4_block: 20 rotations: \"learned.safetensors\" } }", reused));
  EXPECT_EQ(TinyLogits(reused), TinyLogits(graph));
  // Of it only what is on: another model.
  ir::Graph half = FloatGraph();
  ASSERT_OK(ApplyText("step { [nibble.spinquant] { r4_block: 20 r2: false rotations: \"learned.safetensors\" } }", half));
  EXPECT_NE(*half.parameter(*half.FindOp("model.layers.0.self_attn.v_proj")->weight).LoadFloats(),
            *graph.parameter(*graph.FindOp("model.layers.0.self_attn.v_proj")->weight).LoadFloats());
}

TEST(Spinquant, AFileMustHoldTheRotationsThatAreOn) {
  const std::string path = TestWorkplace().directory + "/given.safetensors";
  const auto error = [&](const train::LearnedRotations& rotations, const std::string& options) {
    EXPECT_OK(train::WriteRotations(path, rotations));
    ir::Graph graph = FloatGraph();
    return std::string(ApplyText(absl::StrCat("step { [nibble.spinquant] { r4: false rotations: \"given.safetensors\" ", options, " } }"), graph).message());
  };
  train::LearnedRotations rotations;
  rotations.r1 = ir::RandomOrthogonal(FloatGraph().hidden_size(), 1);
  EXPECT_THAT(error(rotations, ""), HasSubstr("set r2: false"));
  EXPECT_EQ(error(rotations, "r2: false"), "");
  EXPECT_THAT(error({}, "r2: false"), HasSubstr("set r1: false"));
  rotations.r1->values[0] += 0.5;
  EXPECT_THAT(error(rotations, "r2: false"), HasSubstr("R1 is no rotation"));
  rotations.r1->values[0] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(error(rotations, "r2: false"), HasSubstr("R1 is no rotation"));
}

TEST(Spinquant, LearningMistakesAreNamed) {
  EXPECT_THAT(ErrorOf("step { [nibble.spinquant] { learn {} } }"), HasSubstr("learn.data"));
  EXPECT_THAT(ErrorOf("step { [nibble.spinquant] { learn { data { text: \"text.txt\" } } } }"), HasSubstr("quantize is empty"));
  EXPECT_THAT(ErrorOf(Learning("learning_rate: 0")), HasSubstr("learning_rate"));
  EXPECT_THAT(ErrorOf(Learning("momentum: 1")), HasSubstr("momentum"));
  EXPECT_THAT(ErrorOf("step { [nibble.spinquant] { rotations: \"nothing.safetensors\" } }"), HasSubstr("nothing.safetensors"));
}

// The tiny model's 100 columns have no Hadamard matrix.
TEST(Spinquant, SaysThatR4MixesBlocks) {
  ir::Graph graph = TinyGraph();
  ThreadPool pool(1);
  Context context(pool, TestWorkplace());
  ASSERT_OK(ApplyPipeline(context, ParsePipeline("step { [nibble.spinquant] {} }").step(), graph));
  EXPECT_EQ(ir::OnlineRotationsOf(graph)[0].block, 20);
  ASSERT_EQ(context.events().count("spinquant.r4_in_blocks"), 1);
  EXPECT_EQ(context.events().at("spinquant.r4_in_blocks").count, 2);
}

TEST(Spinquant, RefusesWhatItCannotKeep) {
  EXPECT_THAT(ErrorOf("step { [nibble.rtn] {} } step { [nibble.spinquant] { r4: false } }"), HasSubstr("already quantized"));
  EXPECT_THAT(ErrorOf("step { [nibble.spinquant] { r4_block: 100 } }"), HasSubstr("largest block that divides it is 20"));
  EXPECT_THAT(ErrorOf("step { [nibble.spinquant] { r4: false } } step { [nibble.spinquant] { r3: true r4: false } } "
                      "step { [nibble.spinquant] { r3: true r4: false } }"),
              HasSubstr("rotated already"));
  EXPECT_THAT(ErrorOf("step { [nibble.spinquant] { r1: false r2: false r4: false } }"), HasSubstr("every rotation is off"));
  EXPECT_THAT(ErrorOf("step { [nibble.spinquant] { rotations: \"r.safetensors\" r1: false r2: false } }"), HasSubstr("both are off"));
  EXPECT_THAT(ErrorOf("step { [nibble.spinquant] { rotations: \"r.safetensors\" seed: 7 } }"), HasSubstr("seed: of no use beside rotations"));
  EXPECT_THAT(ErrorOf("step { [nibble.lora] { layers: \"*.q_proj\" } } step { [nibble.spinquant] {} }"), HasSubstr("rotate before adapters are attached"));
  EXPECT_THAT(ErrorOf("step { [nibble.rtn] { layers: \"embedding\" layers: \"head\" } } " + Learning("")), HasSubstr("model.embed_tokens.weight is already quantized"));
  EXPECT_THAT(ErrorOf("step { [nibble.spinquant] { r4: false r4_block: 4 } }"), HasSubstr("r4_block needs r4"));
}

}  // namespace
}  // namespace nibble
