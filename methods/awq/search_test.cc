#include "methods/awq/search.h"

#include <cmath>

#include "core/models/testing.h"

namespace nibble {
namespace {

using calibration::Batch;
using calibration::BlockRunner;

std::vector<Batch> Batches(const ir::Graph& graph) {
  std::vector<Batch> batches(3);
  for (int32_t b = 0; b < 3; ++b) {
    batches[b].starts = {0, 2, 5};
    batches[b].hidden = *ir::EmbedTokens(graph, {b, 17, 4, 60 + b, 9});
  }
  return batches;
}

std::vector<float> WeightOf(const ir::Graph& graph, size_t op) { return *graph.parameter(*graph.ops()[op].weight).LoadFloats(); }

// Each run from the block's start.
double ChangeFromTheStart(const QuantScheme& scheme, const Trial& trial, const std::vector<double>& scales, const std::vector<Batch>& batches,
                          BlockRunner original, BlockRunner rounded) {
  for (const auto& [op, weight] : trial.weights) rounded.SetWeight(op, *RoundScaled(scheme, weight, scales));
  double change = 0;
  for (const Batch& batch : batches) {
    const std::vector<float> expected = original.OutputOf(trial.inspected, batch.starts, original.Begin(batch.hidden));
    const std::vector<float> output = rounded.OutputOf(trial.inspected, batch.starts, rounded.Begin(batch.hidden));
    for (size_t i = 0; i < output.size(); ++i) change += std::pow(static_cast<double>(output[i]) - expected[i], 2);
  }
  return change;
}

// To the bit, however many batches are kept, and one search after the other on one runner.
TEST(ChangesUnder, AreThoseOfRunsFromTheStart) {
  const ir::Graph graph = AttentiveGraph(3, 3, true);
  const std::vector<Batch> batches = Batches(graph);
  const QuantScheme scheme = IntegerScheme(3, 8, true);
  ThreadPool pool(2);
  const train::Machine machine{pool, *kernels::AvailableTables().back()};
  ASSERT_OK_AND_ASSIGN(BlockRunner runner, BlockRunner::Create(graph, 1, machine));
  const BlockRunner untouched = runner;
  const auto groups = runner.LinearsByInput();
  ASSERT_EQ(groups.size(), 4u);
  for (size_t g = 0; g < groups.size(); ++g) {
    Trial trial;
    trial.inspected = g % 2 == 0 ? groups[g + 1][0] : groups[g][0];
    for (const size_t op : groups[g]) trial.weights[op] = WeightOf(graph, op);
    std::vector<double> mean(graph.values()[graph.ops()[groups[g][0]].inputs[0]].width);
    for (size_t c = 0; c < mean.size(); ++c) mean[c] = 0.1 + static_cast<double>(c % 5);
    const std::vector<std::vector<double>> scales = {AwqScales(mean, 0), AwqScales(mean, 0.5), AwqScales(mean, 0.95)};
    std::vector<double> expected;
    for (const std::vector<double>& s : scales) expected.push_back(ChangeFromTheStart(scheme, trial, s, batches, untouched, untouched));
    EXPECT_NE(expected[0], expected[1]);
    for (const int64_t most_kept : {0, 1500, 1 << 20}) {
      ASSERT_OK_AND_ASSIGN(const std::vector<double> changes, ChangesUnder(scheme, trial, scales, batches, most_kept, runner, pool));
      EXPECT_EQ(changes, expected) << graph.ops()[groups[g][0]].name << " " << most_kept;
    }
  }
}

}  // namespace
}  // namespace nibble
