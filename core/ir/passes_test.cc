// Scaling the channels between two linears, which AWQ folds its scales by. Folded norms
// and rotations: core/runtime/rotation_test.cc.
#include "core/ir/passes.h"

#include <cmath>

#include "core/models/testing.h"
#include "core/runtime/reference.h"

namespace nibble::ir {
namespace {

using ::testing::HasSubstr;

constexpr char kValues[] = "model.layers.1.self_attn.v_proj", kOutput[] = "model.layers.1.self_attn.o_proj";
constexpr char kUp[] = "model.layers.0.mlp.up_proj", kDown[] = "model.layers.0.mlp.down_proj";

size_t IndexOf(const Graph& graph, const std::string& op) { return static_cast<size_t>(graph.FindOp(op) - graph.ops().data()); }

std::vector<float> WeightOf(const Graph& graph, const std::string& op) { return *graph.parameter(*graph.FindOp(op)->weight).LoadFloats(); }

std::vector<float> Logits(const Graph& graph) { return *RunReference(graph, {1, 17, 90, 4, 4, 55, 63, 8, 96}); }

// From 0.1 to 2.3.
std::vector<double> Factors(const Graph& graph, const std::string& writer) {
  std::vector<double> factors(graph.parameter(*graph.FindOp(writer)->weight).shape()[0]);
  for (size_t i = 0; i < factors.size(); ++i) factors[i] = 0.1 * static_cast<double>(1 + i * 7 % 23);
  return factors;
}

// Every head has values of its own, so that they reach o_proj channel by channel.
TEST(ScaleChannels, KeepsTheFunctionAndMovesTheScales) {
  for (const auto& [writer, reader] : {std::pair<std::string, std::string>(kValues, kOutput), {kUp, kDown}}) {
    const Graph original = AttentiveGraph(3, 3, false);
    Graph graph = original;
    const std::vector<double> factors = Factors(graph, writer);
    ASSERT_OK(ScaleChannels(graph, IndexOf(graph, writer), {IndexOf(graph, reader)}, factors));
    const std::vector<float> rows = WeightOf(original, writer), columns = WeightOf(original, reader);
    const std::vector<float> scaled_rows = WeightOf(graph, writer), scaled_columns = WeightOf(graph, reader);
    const size_t width = rows.size() / factors.size();
    for (size_t i = 0; i < rows.size(); ++i) ASSERT_FLOAT_EQ(scaled_rows[i], static_cast<float>(rows[i] * factors[i / width])) << writer << " " << i;
    for (size_t i = 0; i < columns.size(); ++i) {
      ASSERT_FLOAT_EQ(scaled_columns[i], static_cast<float>(columns[i] / factors[i % factors.size()])) << reader << " " << i;
    }
    const std::vector<float> before = Logits(original), after = Logits(graph);
    double change = 0, size = 0;
    for (size_t i = 0; i < before.size(); ++i) change += std::pow(after[i] - before[i], 2), size += std::pow(before[i], 2);
    EXPECT_LT(std::sqrt(change / size), 1e-5) << writer;
  }
}

TEST(Rewritten, MarksWhatAFoldChanged) {
  Graph graph = AttentiveGraph(3, 3, false);
  const auto rewritten = [&](const std::string& op) { return graph.parameter(*graph.FindOp(op)->weight).rewritten(); };
  std::vector<double> factors(Factors(graph, kUp).size(), 1.0);
  ASSERT_OK(ScaleChannels(graph, IndexOf(graph, kUp), {IndexOf(graph, kDown)}, factors));
  EXPECT_FALSE(rewritten(kUp) || rewritten(kDown));
  factors[0] = 2;
  ASSERT_OK(ScaleChannels(graph, IndexOf(graph, kUp), {IndexOf(graph, kDown)}, factors));
  EXPECT_TRUE(rewritten(kUp) && rewritten(kDown));
  EXPECT_FALSE(rewritten(kValues));
}

TEST(ScaleChannels, SharedAndQuantizedWeightsAreErrors) {
  Graph graph = AttentiveGraph(3, 3, true);
  const std::vector<double> factors(24, 2.0);
  const size_t writer = IndexOf(graph, kValues);
  EXPECT_THAT(std::string(ScaleChannels(graph, writer, {IndexOf(graph, "lm_head")}, factors).message()), HasSubstr("shared by several ops"));
  const std::vector<float> values = WeightOf(graph, kValues);
  ASSERT_OK(graph.mutable_parameter(*graph.FindOp(kValues)->weight).ReplaceEncoded(IntegerScheme(8, 0, false), values, nullptr));
  EXPECT_THAT(std::string(ScaleChannels(graph, writer, {IndexOf(graph, kOutput)}, factors).message()), HasSubstr("already quantized"));
}

}  // namespace
}  // namespace nibble::ir
