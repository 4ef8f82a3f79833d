#include <cmath>
#include <filesystem>

#include "core/quant/formats/aqlm/aqlm.pb.h"
#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

std::string StepOf(const std::string& options) {
  return absl::StrCat("step { [nibble.aqlm] { data { text: \"text.txt\" window: 32 } samples: 24 ", options, " } }");
}

double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
  return std::sqrt(sum);
}

// Logits on the text that it calibrated on.
std::vector<float> Logits(const ir::Graph& graph) { return *RunReference(graph, LetterTokenizer().Encode("the cat sat on the mat and")); }

TEST(Aqlm, ComesNearerThanItsStartAndFineTuningNearerYet) {
  const ir::Graph original = TinyGraph();
  const std::vector<float> expected = Logits(original);
  const auto distance = [&](const std::string& options) {
    ir::Graph graph = original;
    EXPECT_OK(ApplyText(StepOf(absl::StrCat("codebooks: 2 bits: 4 ", options)), graph, 2));
    EXPECT_EQ(WeightScheme(graph, "model.layers.1.mlp.down_proj").format(), "aqlm");
    return Distance(Logits(graph), expected);
  };
  const double start = distance("rounds: 0 fine_tuning { epochs: 0 }"), fitted = distance("rounds: 2 fine_tuning { epochs: 0 }");
  const double squares = distance("rounds: 2 fit: LEAST_SQUARES fine_tuning { epochs: 0 }");
  const double tuned = distance("rounds: 2 fit: LEAST_SQUARES fine_tuning { epochs: 20 learning_rate: 1e-3 }");
  EXPECT_LT(fitted, 0.95 * start);
  EXPECT_LT(squares, 0.95 * start);
  EXPECT_LT(tuned, 0.95 * squares);
}

TEST(Aqlm, OptionsDecideTheScheme) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText(StepOf("codebooks: 3 bits: 3 in_group: 4 scale_type: BF16 layers: \"mlp\" rounds: 1 sequential: false fine_tuning { epochs: 1 }"), graph));
  const QuantScheme scheme = WeightScheme(graph, "model.layers.0.mlp.up_proj");
  EXPECT_EQ(scheme.GetExtension(additive_codebooks).codebooks(), 3);
  EXPECT_EQ(scheme.GetExtension(additive_codebooks).in_group(), 4);
  EXPECT_EQ(scheme.scale_type(), QuantScheme::BF16);
  EXPECT_EQ(WeightScheme(graph, "model.layers.0.self_attn.q_proj").format(), "bf16");
}

TEST(Aqlm, TellsEachLayersErrorBesideThatOfItsStart) {
  ir::Graph graph = TinyGraph();
  ThreadPool pool(2);
  Context context(pool, TestWorkplace());
  ASSERT_OK(ApplyPipeline(context, ParsePipeline(StepOf("bits: 4 rounds: 1 fine_tuning { epochs: 2 }")).step(), graph));
  ASSERT_EQ(context.layer_errors().size(), 16u);  // seven linears and the fine-tuning of two blocks
  for (const LayerError& error : context.layer_errors()) {
    EXPECT_GT(error.error, 0);
    EXPECT_LE(error.error, error.rounding_error) << error.layer;
  }
  EXPECT_EQ(context.layer_errors()[7].method, "aqlm fine-tuning");
  EXPECT_EQ(context.layer_errors()[7].layer, "model.layers.0");
}

// A pass that finds a finished block goes on from it to the same bytes.
TEST(Aqlm, GoesOnFromFinishedBlocks) {
  const std::string cache = TestTempDir(), step = StepOf("bits: 4 rounds: 1 fine_tuning { epochs: 2 }");
  const auto run = [&](int threads) {
    ir::Graph graph = TinyGraph();
    ThreadPool pool(threads);
    Workplace workplace = TestWorkplace();
    workplace.cache = cache;
    Context context(pool, workplace);
    EXPECT_OK(ApplyPipeline(context, ParsePipeline(step).step(), graph));
    EXPECT_EQ(context.layer_errors().size(), 16u);
    return Logits(graph);
  };
  const std::vector<float> whole = run(1);
  std::string last;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(cache)) {
    if (entry.path().filename() == "block-1.safetensors") last = entry.path();
  }
  ASSERT_FALSE(last.empty());
  std::filesystem::remove(last);
  EXPECT_EQ(run(2), whole);
  EXPECT_TRUE(FileExists(last));
  ASSERT_OK(WriteFile(last, "not a file of tensors"));
  ir::Graph graph = TinyGraph();
  EXPECT_THAT(std::string(ApplyText(step, graph, 1, nullptr, cache).message()), HasSubstr("block-1.safetensors"));
}

TEST(Aqlm, MistakesAreErrors) {
  EXPECT_THAT(ErrorOf("step { [nibble.aqlm] {} }"), HasSubstr("data { text: ... } is missing"));
  EXPECT_THAT(ErrorOf(StepOf("beam: 0")), HasSubstr("beam: 0 must be 1 or more"));
  EXPECT_THAT(ErrorOf(StepOf("bits: 17")), HasSubstr("bits: 17 must be 1 to 16"));
  EXPECT_THAT(ErrorOf(StepOf("damping: 2")), HasSubstr("damping: 2 must be from 0 to 1"));
  EXPECT_THAT(ErrorOf(StepOf("fine_tuning { validation: 1 }")), HasSubstr("fine_tuning.validation: 1"));
  EXPECT_THAT(ErrorOf(StepOf("layers: \"head\"")), HasSubstr("is no linear inside the blocks"));
  EXPECT_THAT(ErrorOf("step { [nibble.rtn] { bits: 4 } } " + StepOf("")), HasSubstr("already quantized"));
}

}  // namespace
}  // namespace nibble
