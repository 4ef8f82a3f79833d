#include <set>

#include "core/ir/passes.h"
#include "methods/testing.h"

namespace nibble {
namespace {

TEST(Activations, AttachToTheBlocksByDefault) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.activations] {} }", graph));
  const auto& scheme = graph.FindOp("model.layers.0.mlp.down_proj")->activation;
  ASSERT_TRUE(scheme.has_value());
  EXPECT_EQ(scheme->format(), "int8");
  EXPECT_EQ(scheme->per(), QuantScheme::PER_TOKEN);
  EXPECT_TRUE(scheme->asymmetric());
  EXPECT_TRUE(scheme->dynamic());
  EXPECT_FALSE(graph.head().activation.has_value());
}

// Trainings are named by it: two models that multiply differently are not one.
TEST(Activations, ContentHashTellsEachOptionApart) {
  std::set<std::string> hashes;
  const std::vector<std::string> options = {"", "scale_floor: 1e-3", "scale_floor: 2e-3", "bits: 7", "asymmetric: false", "asymmetric: false divisor: HALF_RANGE"};
  for (const std::string& option : options) {
    ir::Graph graph = TinyGraph();
    ASSERT_OK(ApplyText(absl::StrCat("step { [nibble.activations] { ", option, " } }"), graph));
    ASSERT_OK_AND_ASSIGN(const std::string hash, ir::ContentHash(graph));
    hashes.insert(hash);
  }
  EXPECT_EQ(hashes.size(), options.size());
}

// Neither LLM.int8()'s outliers nor calibrated ranges may go unnoticed.
TEST(Activations, AnEarlierSchemeIsNotReplaced) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK_AND_ASSIGN(const auto blocks, ir::SelectOps(graph, {"blocks"}));
  ASSERT_OK(ir::AttachActivation(graph, blocks, FloatScheme("bf16")));
  EXPECT_OK(ApplyText("step { [nibble.activations] {} } step { [nibble.activations] {} }", graph));
  EXPECT_THAT(std::string(ApplyText("step { [nibble.activations] { bits: 4 } }", graph).message()), ::testing::HasSubstr("an earlier step quantized what it reads"));
  graph = TinyGraph();
  QuantScheme outliers = TokenScheme(8, false);
  outliers.set_outlier_threshold(6);
  ASSERT_OK(ir::AttachActivation(graph, blocks, outliers));
  EXPECT_FALSE(ApplyText("step { [nibble.activations] { asymmetric: false } }", graph).ok());
}

TEST(Activations, EmbeddingHasNone) {
  ir::Graph graph = TinyGraph();
  EXPECT_FALSE(ApplyText("step { [nibble.activations] { layers: \"embedding\" } }", graph).ok());
}

TEST(Activations, ADivisorIsOfSymmetricSchemes) {
  EXPECT_THAT(ErrorOf("step { [nibble.activations] { divisor: HALF_RANGE } }"), ::testing::HasSubstr("asymmetric: false"));
  EXPECT_EQ(ErrorOf("step { [nibble.activations] { divisor: HALF_RANGE asymmetric: false } }"), "");
}

TEST(Activations, FewerBitsCostMore) {
  const std::vector<float> exact = TinyLogits(TinyGraph());
  double before = 0;
  for (int bits : {8, 6, 4, 2}) {
    ir::Graph graph = TinyGraph();
    ASSERT_OK(ApplyText(absl::StrCat("step { [nibble.activations] { bits: ", bits, " } }"), graph));
    const std::vector<float> logits = TinyLogits(graph);
    double error = 0;
    for (size_t i = 0; i < logits.size(); ++i) error += (logits[i] - exact[i]) * (logits[i] - exact[i]);
    EXPECT_GT(error, before);
    before = error;
  }
}

}  // namespace
}  // namespace nibble
