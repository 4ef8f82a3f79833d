#include <cmath>
#include <limits>

#include "core/base/rng.h"
#include "core/base/testing.h"
#include "core/calibration/block_walk.h"
#include "core/calibration/second_moment.h"
#include "core/ir/rotations.h"
#include "core/models/llama.h"
#include "core/runtime/reference.h"

namespace nibble::calibration {
namespace {

const std::vector<int32_t> kTokens = {1, 17, 90, 4, 4, 55, 63};

ir::Graph Model() {
  LlamaConfig config = *ShapePreset("tiny");
  auto graph = BuildLlama(config, SyntheticWeights(config, 7));
  EXPECT_OK(graph);
  EXPECT_OK(ir::AttachOnlineRotations(*graph, {{"model.layers.0.mlp.down_proj", 20}, {"model.layers.1.self_attn.attention", 4}}));
  return *std::move(graph);
}

class BlockRunnerTest : public ::testing::Test {
 protected:
  ThreadPool pool_{2};
  const train::Machine machine_{pool_, *kernels::AvailableTables().back()};
  const ir::Graph graph_ = Model();
};

// What the reference executor gives for each op, by name.
std::map<std::string, std::vector<float>> ReferenceValues(const ir::Graph& graph, absl::Span<const int32_t> tokens) {
  std::map<std::string, std::vector<float>> values;
  EXPECT_OK(RunReference(graph, tokens, [&](const ir::Op& op, absl::Span<const float> y) { values[op.name].assign(y.begin(), y.end()); }));
  return values;
}

void ExpectNear(absl::Span<const float> got, absl::Span<const float> expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1e-5) << i;
}

TEST_F(BlockRunnerTest, BlocksInTurnAreTheModel) {
  auto values = ReferenceValues(graph_, kTokens);
  ASSERT_OK_AND_ASSIGN(std::vector<float> hidden, ir::EmbedTokens(graph_, kTokens));
  for (int layer = 0; layer < graph_.num_layers(); ++layer) {
    ASSERT_OK_AND_ASSIGN(BlockRunner runner, BlockRunner::Create(graph_, layer, machine_));
    std::map<std::string, std::vector<float>> seen;
    EXPECT_OK(runner.Run({0, 7}, &hidden, [&](size_t op, absl::Span<const float> x) { seen[graph_.ops()[op].name].assign(x.begin(), x.end()); }));
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    ExpectNear(hidden, values.at(prefix + "mlp_residual"));
    EXPECT_EQ(seen.size(), 7);
    ExpectNear(seen.at(prefix + "self_attn.k_proj"), values.at(prefix + "input_layernorm"));
    ExpectNear(seen.at(prefix + "mlp.down_proj"), values.at(prefix + (layer == 0 ? "mlp.down_proj.input_rotation" : "mlp.mul")));
  }
}

// Two sequences side by side are two sequences.
TEST_F(BlockRunnerTest, SequencesDoNotMix) {
  ASSERT_OK_AND_ASSIGN(std::vector<float> together, ir::EmbedTokens(graph_, {1, 17, 90, 4, 4}));
  ASSERT_OK_AND_ASSIGN(std::vector<float> second, ir::EmbedTokens(graph_, {4, 4}));
  ASSERT_OK_AND_ASSIGN(BlockRunner runner, BlockRunner::Create(graph_, 0, machine_));
  const auto ignore = [](size_t, absl::Span<const float>) {};
  ASSERT_OK(runner.Run({0, 3, 5}, &together, ignore));
  ASSERT_OK(runner.Run({0, 2}, &second, ignore));
  ExpectNear(absl::MakeConstSpan(together).subspan(3 * graph_.hidden_size()), second);
}

TEST_F(BlockRunnerTest, StopsAtALinearAndGroupsThem) {
  ASSERT_OK_AND_ASSIGN(const std::vector<float> hidden, ir::EmbedTokens(graph_, kTokens));
  ASSERT_OK_AND_ASSIGN(BlockRunner runner, BlockRunner::Create(graph_, 1, machine_));
  const auto groups = runner.LinearsByInput();
  ASSERT_EQ(groups.size(), 4);
  EXPECT_EQ(groups[0].size(), 3);
  EXPECT_EQ(groups[2].size(), 2);
  std::vector<size_t> seen;
  std::vector<float> read, through = hidden;
  runner.Run({0, 7}, &through, [&](size_t op, absl::Span<const float> x) {
    seen.push_back(op);
    if (op == groups[2][1]) read.assign(x.begin(), x.end());
  });
  EXPECT_EQ(seen, (std::vector<size_t>{groups[0][0], groups[0][1], groups[0][2], groups[1][0], groups[2][0], groups[2][1], groups[3][0]}));
  BlockRunner::State state = runner.Begin(hidden);
  EXPECT_EQ(runner.Advance(groups[2][1], {0, 7}, &state), read);
  EXPECT_EQ(runner.Finish({0, 7}, std::move(state)), through);
}

// Weights tried from where they are read give what a run from the block's start gives.
TEST_F(BlockRunnerTest, OutputsFromAStateAreThoseFromTheStart) {
  ASSERT_OK_AND_ASSIGN(const std::vector<float> hidden, ir::EmbedTokens(graph_, kTokens));
  const std::vector<int64_t> starts = {0, 3, 7};
  for (int layer = 0; layer < graph_.num_layers(); ++layer) {
    ASSERT_OK_AND_ASSIGN(BlockRunner runner, BlockRunner::Create(graph_, layer, machine_));
    const auto groups = runner.LinearsByInput();
    for (size_t g = 0; g < groups.size(); ++g) {
      const size_t first = groups[g][0], last = g + 1 < groups.size() ? groups[g + 1][0] : first;
      const BlockRunner::State state = runner.Before(first, last, starts, hidden);
      EXPECT_EQ(state.values.size(), g == 1 ? 2u : 1u) << "what o_proj and the residual after it read; else what one group reads";
      std::vector<std::vector<float>> outputs;
      for (const float weight : {0.01f, -0.02f}) {
        runner.SetWeight(first, std::vector<float>(*CheckedElements(graph_.parameter(*graph_.ops()[first].weight).shape()), weight));
        outputs.push_back(runner.OutputOf(last, starts, state));
        EXPECT_EQ(outputs.back(), runner.OutputOf(last, starts, runner.Begin(hidden))) << graph_.ops()[first].name;
      }
      EXPECT_NE(outputs[0], outputs[1]) << graph_.ops()[first].name;
      ASSERT_OK(runner.Reload(first));
    }
  }
}

// Whatever is kept, a linear reads what a run from the block's start with the weights of
// the moment would show it.
TEST_F(BlockRunnerTest, AWalkSeesTheWeightsOfTheMoment) {
  std::vector<Batch> batches(3);
  for (size_t b = 0; b < batches.size(); ++b) {
    batches[b].starts = {0, 2, 4};
    ASSERT_OK_AND_ASSIGN(batches[b].hidden, ir::EmbedTokens(graph_, absl::MakeConstSpan(kTokens).subspan(b, 4)));
  }
  for (const int64_t kept : {int64_t{0}, int64_t{5000}, BlockWalk::kMostKept}) {
    ASSERT_OK_AND_ASSIGN(BlockRunner runner, BlockRunner::Create(graph_, 0, machine_));
    std::vector<Batch> walked = batches;
    BlockWalk walk(runner, walked, kept);
    for (const std::vector<size_t>& group : runner.LinearsByInput()) {
      for (size_t b = 0; b < batches.size(); ++b) {
        BlockRunner::State state = runner.Begin(batches[b].hidden);
        const auto fresh = runner.Advance(group[0], batches[b].starts, &state);
        EXPECT_EQ(walk.InputOf(group[0], b), fresh) << kept << " " << graph_.ops()[group[0]].name;
      }
      for (const size_t op : group) runner.SetWeight(op, std::vector<float>(*CheckedElements(graph_.parameter(*graph_.ops()[op].weight).shape()), 0.01f));
    }
    walk.Finish();
    for (size_t b = 0; b < batches.size(); ++b) {
      std::vector<float> hidden = batches[b].hidden;
      ASSERT_OK(runner.Run(batches[b].starts, &hidden, [](size_t, absl::Span<const float>) {}));
      EXPECT_EQ(walked[b].hidden, hidden) << kept;
    }
  }
}

TEST_F(BlockRunnerTest, ValuesThatAreNotFiniteAreErrors) {
  ir::Graph broken = Model();
  ir::Parameter& weight = broken.mutable_parameter(*broken.FindOp("model.layers.0.self_attn.q_proj")->weight);
  std::vector<float> values = *weight.LoadFloats();
  values[3] = std::numeric_limits<float>::quiet_NaN();
  ASSERT_OK(weight.Replace(*WrapFloats(Tensor::FromFloats(weight.shape(), values))));
  ASSERT_OK_AND_ASSIGN(BlockRunner runner, BlockRunner::Create(broken, 0, machine_));
  ASSERT_OK_AND_ASSIGN(std::vector<float> hidden, ir::EmbedTokens(broken, kTokens));
  const absl::Status status = runner.Run({0, 7}, &hidden, [](size_t, absl::Span<const float> x) {
    for (const float v : x) ASSERT_TRUE(std::isfinite(v));
  });
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("o_proj: what it reads on the calibration text is not finite"));
}

TEST_F(BlockRunnerTest, Errors) {
  EXPECT_FALSE(BlockRunner::Create(graph_, 2, machine_).ok());
  EXPECT_FALSE(ir::EmbedTokens(graph_, {1, 97}).ok());
}

TEST_F(BlockRunnerTest, SecondMomentByHand) {
  SecondMoment moment(2);
  moment.Add(machine_, {1, 2}, {1, 2});
  moment.Add(machine_, {3, 0, 1, 1}, {3, 0, 1, 1});
  const std::vector<double> h = moment.TakeMean();  // 2/3 of [[1+9+1, 2+0+1], [3, 4+0+1]]
  EXPECT_NEAR(h[0], 2.0 / 3 * 11, 1e-12);
  EXPECT_NEAR(h[1], 2, 1e-12);
  EXPECT_NEAR(h[2], 2, 1e-12);
  EXPECT_NEAR(h[3], 2.0 / 3 * 5, 1e-12);
}

// Wider than a strip, of a product with itself and with another.
TEST_F(BlockRunnerTest, SecondMomentAgainstDirectSums) {
  const int64_t width = 201, tokens = 7;
  Rng rng(3);
  std::vector<float> x(2 * tokens * width), a(x.size());
  for (float& v : x) v = static_cast<float>(rng.Normal());
  for (float& v : a) v = static_cast<float>(rng.Normal());
  for (const bool same : {true, false}) {
    const std::vector<float>& left = same ? x : a;
    SecondMoment moment(width);
    for (int64_t half = 0; half < 2; ++half) {
      const auto part = [&](const std::vector<float>& all) { return absl::MakeConstSpan(all).subspan(half * tokens * width, tokens * width); };
      if (same) moment.Add(machine_, part(x));
      else moment.Add(machine_, part(left), part(x));
    }
    const std::vector<double> h = moment.TakeMean();
    for (int64_t i = 0; i < width; i += 20) {
      for (int64_t j = 0; j < width; ++j) {
        double expected = 0;
        for (int64_t t = 0; t < 2 * tokens; ++t) expected += static_cast<double>(left[t * width + i]) * static_cast<double>(x[t * width + j]) / tokens;
        ASSERT_NEAR(h[i * width + j], expected, 1e-5) << same << " " << i << " " << j;
      }
    }
  }
}

}  // namespace
}  // namespace nibble::calibration
