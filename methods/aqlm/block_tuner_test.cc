#include "methods/aqlm/block_tuner.h"

#include <cmath>

#include "core/base/rng.h"
#include "core/calibration/block_runner.h"
#include "methods/testing.h"

namespace nibble {
namespace {

using additive::AdditiveTensor;

// Sequences of random inputs to a block of the tiny model, what it gives, and
// tensors for two of its linears.
struct Setting {
  ir::Graph graph = TinyGraph();
  ThreadPool pool;
  train::Machine machine{pool, **kernels::ChooseTable()};
  BlockExamples examples;
  QuantScheme scheme = additive::SchemeOf(2, 3, 8);
  std::map<ir::ParameterId, AdditiveTensor> tensors;

  explicit Setting(int threads = 2) : pool(threads) {
    Rng rng(4);
    examples.starts = {0, 5, 9, 16, 20};
    while (examples.size() < 48) examples.starts.push_back(examples.starts.back() + 8);
    examples.inputs.resize(examples.starts.back() * 48);
    for (float& v : examples.inputs) v = rng.Normal();
    examples.targets = examples.inputs;
    auto runner = calibration::BlockRunner::Create(graph, 1, machine);
    NIBBLE_CHECK(runner.ok());
    runner->Run(examples.starts, &examples.targets, [](size_t, absl::Span<const float>) {});
    for (const char* name : {"model.layers.1.self_attn.v_proj", "model.layers.1.mlp.down_proj"}) {
      const ir::ParameterId id = *graph.FindOp(name)->weight;
      const Shape shape = graph.parameter(id).shape();
      tensors[id] = *additive::ResidualKMeans(scheme, shape[0], shape[1], *graph.parameter(id).LoadFloats(), 10, 0, &pool);
    }
  }

  std::unique_ptr<BlockTuner> Tuner(const TuningOptions& options = {}) {
    auto tuner = BlockTuner::Create(graph, 1, machine, scheme, tensors, examples, options);
    EXPECT_OK(tuner);
    return *std::move(tuner);
  }
};

TEST(BlockTuner, LossIsTheDifferenceOfTheBlocksOutputs) {
  Setting setting;
  for (const auto& [id, tensor] : setting.tensors) {
    ASSERT_OK(setting.graph.mutable_parameter(id).ReplaceEncoded(FloatScheme("fp32"), tensor.Decode(), nullptr));
  }
  std::vector<float> outputs = setting.examples.inputs;
  ASSERT_OK_AND_ASSIGN(auto runner, calibration::BlockRunner::Create(setting.graph, 1, setting.machine));
  EXPECT_OK(runner.Run(setting.examples.starts, &outputs, [](size_t, absl::Span<const float>) {}));
  double squares = 0;
  for (size_t i = 5 * 48; i < 16 * 48; ++i) squares += std::pow(static_cast<double>(outputs[i]) - setting.examples.targets[i], 2);
  ASSERT_OK_AND_ASSIGN(const double loss, setting.Tuner()->Loss({1, 2}));
  EXPECT_GT(loss, 0);
  EXPECT_NEAR(loss, squares / (11 * 48), 1e-4 * loss);
}

TEST(BlockTuner, GradientsAgreeWithDifferences) {
  Setting setting;
  const auto tuner = setting.Tuner();
  const std::vector<int64_t> sequences = {0, 1, 2, 3};
  ASSERT_OK_AND_ASSIGN(const auto gradients, tuner->Gradients(sequences));
  const std::vector<std::vector<float>*> parameters = tuner->Parameters();
  ASSERT_EQ(parameters.size(), gradients.size());
  ASSERT_EQ(parameters.size(), 6u);  // two tensors of words and scales, two norms
  for (size_t p = 0; p < parameters.size(); ++p) {
    // Along the gradient, where a difference stands out from rounding.
    double squares = 0;
    for (const float g : gradients[p]) squares += static_cast<double>(g) * g;
    ASSERT_GT(squares, 0) << p;
    const std::vector<float> at = *parameters[p];
    double losses[2];
    const double step = 0.01 / std::sqrt(squares);
    for (int side = 0; side < 2; ++side) {
      for (size_t i = 0; i < at.size(); ++i) (*parameters[p])[i] = at[i] + static_cast<float>((side == 0 ? step : -step) * gradients[p][i]);
      ASSERT_OK_AND_ASSIGN(losses[side], tuner->Loss(sequences));
    }
    *parameters[p] = at;
    EXPECT_NEAR((losses[0] - losses[1]) / (2 * step * squares), 1, 2e-2) << p;
  }
}

TEST(BlockTuner, ComesNearerAndTheSameForAnyThreadCount) {
  TuningOptions options;
  options.epochs = 10;
  options.learning_rate = 1e-3;
  options.batch = 4;
  options.validation = 0.125;
  std::vector<std::vector<float>> once;
  for (const int threads : {1, 3}) {
    Setting setting(threads);
    const auto tuner = setting.Tuner(options);
    int epochs = 0;
    ASSERT_OK_AND_ASSIGN(const BlockTuner::Result result, tuner->Run([&] { ++epochs; }));
    EXPECT_EQ(epochs, 10);
    EXPECT_LT(result.after, result.before);
    ASSERT_OK_AND_ASSIGN(const double kept, tuner->Loss({42, 43, 44, 45, 46, 47}));
    EXPECT_EQ(kept, result.after);
    std::vector<std::vector<float>> values;
    for (const std::vector<float>* parameter : tuner->Parameters()) values.push_back(*parameter);
    if (threads == 1) once = values;
    EXPECT_EQ(values, once);
  }
}

// What a run leaves is what a file would hold, so the error that it tells is the file's.
TEST(BlockTuner, LeavesNumbersAsTheyAreStored) {
  Setting setting;
  for (const ir::Op& op : setting.graph.ops()) {
    if (op.kind != ir::OpKind::kRmsNorm) continue;
    ir::Parameter& gain = setting.graph.mutable_parameter(*op.weight);
    ASSERT_OK_AND_ASSIGN(const auto values, gain.LoadFloats());
    ASSERT_OK(gain.ReplaceEncoded(FloatScheme("bf16"), values, nullptr));
  }
  TuningOptions options;
  options.learning_rate = 2e-3;
  options.epochs = 10;
  options.batch = 4;
  const auto tuner = setting.Tuner(options);
  const std::vector<float> gain = tuner->gains().begin()->second;
  ASSERT_OK_AND_ASSIGN(const BlockTuner::Result result, tuner->Run([] {}));
  EXPECT_LT(result.after, result.before);
  for (const auto& [id, tensor] : tuner->tensors()) {
    AdditiveTensor stored = tensor;
    ASSERT_OK(additive::RoundToStored(setting.scheme, &stored));
    EXPECT_EQ(stored.words, tensor.words);
    EXPECT_EQ(stored.scales, tensor.scales);
    EXPECT_NE(stored.words, setting.tensors.at(id).words);
  }
  EXPECT_NE(tuner->gains().begin()->second, gain);
  for (const auto& [id, values] : tuner->gains()) {
    const Tensor rounded = FloatsToDType(DType::kBF16, {static_cast<int64_t>(values.size())}, values);
    EXPECT_EQ(ToFloats(rounded), values);
  }
}

// Epochs of changes that are each too small for a half add up.
TEST(BlockTuner, LearnsBelowTheStoredPrecision) {
  Setting setting;
  TuningOptions options;
  options.learning_rate = 3e-6;
  options.epochs = 30;
  options.batch = 42;  // one update an epoch
  const auto tuner = setting.Tuner(options);
  ASSERT_OK_AND_ASSIGN(const BlockTuner::Result result, tuner->Run([] {}));
  EXPECT_LT(result.after, result.before);
  int moved = 0;
  for (const auto& [id, tensor] : tuner->tensors()) {
    const std::vector<float>& before = setting.tensors.at(id).words;
    // A half of 0.0625 to 0.125 has a step of 6.1e-5.
    for (size_t i = 0; i < before.size(); ++i) moved += std::fabs(before[i]) > 0.0625f && tensor.words[i] != before[i];
  }
  EXPECT_GT(moved, 0);
}

// A rate that only harms leaves the block as it was.
TEST(BlockTuner, KeepsWhatItHadWhenNothingIsBetter) {
  Setting setting;
  TuningOptions options;
  options.learning_rate = 5;
  const auto tuner = setting.Tuner(options);
  const std::vector<float> before = tuner->tensors().begin()->second.words;
  ASSERT_OK_AND_ASSIGN(const BlockTuner::Result result, tuner->Run([] {}));
  EXPECT_EQ(result.before, result.after);
  EXPECT_EQ(tuner->tensors().begin()->second.words, before);
}

}  // namespace
}  // namespace nibble
