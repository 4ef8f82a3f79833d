#include <map>
#include <set>

#include "core/runtime/plan.h"
#include "core/runtime/session.h"
#include "methods/kquants/mixes.h"
#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

// Hidden 256, ffn 512, head size 32, 4 layers, 4 heads that share 2 KV heads: rows that
// blocks of 256 divide, but for down_proj's of 544 where `ragged`.
ir::Graph BlockGraph(bool tied = true, bool ragged = false) {
  LlamaConfig config = *ShapePreset("tiny");
  config.hidden_size = 256;
  config.intermediate_size = ragged ? 544 : 512;
  config.num_hidden_layers = 4;
  config.head_dim = 64;
  config.tie_word_embeddings = tied;
  auto graph = BuildLlama(config, SyntheticWeights(config, 7));
  EXPECT_OK(graph);
  return *std::move(graph);
}

std::string FormatOf(const ir::Graph& graph, const std::string& op) { return WeightScheme(graph, op).format(); }

// Bytes that llama.cpp's tensors of a shape take under a mix: norms in F32.
int64_t BytesInMix(const std::string& preset, const std::string& mix) {
  const LlamaConfig config = *ShapePreset(preset);
  const ir::Graph graph = *BuildLlama(config, SyntheticWeights(config, 0));
  int64_t bytes = 0;
  std::set<ir::ParameterId> done;
  for (const ir::Op& op : graph.ops()) {
    if (!op.weight.has_value() || !done.insert(*op.weight).second) continue;
    const Shape& shape = graph.parameter(*op.weight).shape();
    std::string format = "fp32";
    if (shape.size() == 2) format = TypeInMix(mix, PlaceOf(graph, op).value())->format;
    bytes += EncodedBytes(FloatScheme(format), shape).value();
  }
  return bytes;
}

// Megabytes of Llama-3.2-1B and 3B files without their metadata; section 3.10 of the
// quantization reference derives them from published files.
TEST(Mixes, SizesAreLlamaCpps) {
  const std::map<std::string, std::pair<double, double>> expected = {{"Q8_0", {1313.3, 3414.1}},   {"Q6_K", {1014.0, 2636.0}}, {"Q5_K_M", {903.7, 2314.3}},
                                                                     {"Q4_K_M", {799.9, 2011.5}}, {"Q4_K_S", {767.8, 1920.4}}, {"Q4_0", {763.1, 1909.4}}};
  for (const auto& [mix, megabytes] : expected) {
    EXPECT_NEAR(static_cast<double>(BytesInMix("llama-3.2-1b", mix)) / 1e6, megabytes.first, 0.06) << mix;
    EXPECT_NEAR(static_cast<double>(BytesInMix("llama-3.2-3b", mix)) / 1e6, megabytes.second, 0.06) << mix;
  }
}

TEST(Mixes, MoreBitsForTheEndsAndEveryThirdBetween) {
  TensorInModel down{TensorPlace::kDown, 0, 16, 4, 8192};
  std::vector<int> more;
  for (down.layer = 0; down.layer < 16; ++down.layer) {
    if (TypeInMix("Q4_K_M", down)->format == "q6_k") more.push_back(down.layer);
  }
  EXPECT_EQ(more, (std::vector<int>{0, 1, 4, 7, 10, 13, 14, 15}));
}

TEST(Mixes, PlacesAndSharedKeysDecide) {
  const auto type = [](const std::string& mix, TensorPlace place, int layer, int64_t shared, int layers = 16) {
    return TypeInMix(mix, {place, layer, layers, shared, 2048})->format;
  };
  EXPECT_EQ(type("Q2_K", TensorPlace::kValue, 5, 4), "q4_k");
  EXPECT_EQ(type("Q2_K", TensorPlace::kValue, 5, 1), "q3_k");
  EXPECT_EQ(type("Q2_K", TensorPlace::kDown, 5, 4), "q3_k");
  EXPECT_EQ(type("Q2_K", TensorPlace::kGate, 5, 4), "q2_k");
  EXPECT_EQ(type("Q3_K_M", TensorPlace::kValue, 1, 1), "q5_k");
  EXPECT_EQ(type("Q3_K_M", TensorPlace::kValue, 2, 1), "q4_k");
  EXPECT_EQ(type("Q3_K_M", TensorPlace::kDown, 0, 1), "q5_k");
  EXPECT_EQ(type("Q3_K_M", TensorPlace::kAttentionOutput, 9, 1), "q4_k");
  EXPECT_EQ(type("Q4_K_S", TensorPlace::kValue, 3, 1), "q5_k");
  EXPECT_EQ(type("Q4_K_S", TensorPlace::kDown, 2, 1), "q4_k");
  // The 70B shape: what the mix gives, but no less than q5_k.
  EXPECT_EQ(type("Q4_K_M", TensorPlace::kValue, 40, 8, 80), "q5_k");
  EXPECT_EQ(type("Q4_K_M", TensorPlace::kValue, 0, 8, 80), "q6_k");
  EXPECT_EQ(type("Q2_K", TensorPlace::kValue, 40, 8, 80), "q5_k");
  EXPECT_EQ(type("Q4_K_M", TensorPlace::kValue, 40, 1, 80), "q4_k");
  EXPECT_EQ(type("Q4_0", TensorPlace::kOutput, 0, 1), "q6_k");
  EXPECT_EQ(type("Q8_0", TensorPlace::kOutput, 0, 1), "q8_0");
  EXPECT_EQ(type("Q4_K_M", TensorPlace::kEmbedding, 0, 1), "q4_k");
  EXPECT_THAT(std::string(TypeInMix("Q4_K_X", {}).status().message()), HasSubstr("Q4_K_M"));
}

TEST(Mixes, RowsThatDoNotFitFallBack) {
  const auto in_place = [](const std::string& format, int64_t cols) { return FittingType(format, cols).format; };
  EXPECT_EQ(in_place("q4_k", 576), "q5_0");
  EXPECT_EQ(in_place("q5_k", 576), "q5_1");
  EXPECT_EQ(in_place("q6_k", 576), "q8_0");
  EXPECT_EQ(in_place("q2_k", 576), "iq4_nl");
  EXPECT_EQ(in_place("q3_k", 576), "iq4_nl");
  EXPECT_EQ(in_place("q4_k", 100), "fp16");
  EXPECT_EQ(in_place("q4_0", 100), "fp16");
  EXPECT_EQ(FittingType("q4_k", 512).instead, "");
  EXPECT_EQ(FittingType("q4_k", 576).instead, "q4_k");
}

TEST(Kquants, EncodesByTheMix) {
  ir::Graph graph = BlockGraph();
  ASSERT_OK(ApplyText("step { [nibble.kquants] {} }", graph));
  EXPECT_EQ(FormatOf(graph, "lm_head"), "q6_k");
  EXPECT_TRUE(graph.tied());
  EXPECT_EQ(FormatOf(graph, "model.layers.0.self_attn.q_proj"), "q4_k");
  EXPECT_EQ(FormatOf(graph, "model.layers.3.self_attn.v_proj"), "q6_k");
  EXPECT_EQ(FormatOf(graph, "model.layers.0.input_layernorm"), "bf16");
  ir::Graph untied = BlockGraph(false);
  ASSERT_OK(ApplyText("step { [nibble.kquants] { mix: Q5_K_M } }", untied));
  EXPECT_EQ(FormatOf(untied, "model.embed_tokens"), "q5_k");
  EXPECT_EQ(FormatOf(untied, "lm_head"), "q6_k");
}

TEST(Kquants, FallbacksAreCounted) {
  ir::Graph graph = BlockGraph(true, true);
  ThreadPool pool(1);
  Context context(pool, TestWorkplace());
  ASSERT_OK(ApplyPipeline(context, ParsePipeline("step { [nibble.kquants] { pure: \"q4_k\" } }").step(), graph));
  EXPECT_EQ(FormatOf(graph, "model.layers.1.mlp.down_proj"), "q5_0");
  EXPECT_EQ(context.events().at("kquants.q4_k_became_q5_0").count, 4);
  EXPECT_THAT(context.events().at("kquants.q4_k_became_q5_0").detail, HasSubstr("rows of 544"));
}

TEST(Kquants, ImportanceBringsOutputsNearer) {
  ir::Graph plain = BlockGraph(), weighted = BlockGraph(), original = BlockGraph();
  const std::string layers = "mix: Q2_K layers: \"*.down_proj\" ";
  ASSERT_OK(ApplyText("step { [nibble.kquants] { " + layers + "} }", plain));
  ASSERT_OK(ApplyText("step { [nibble.kquants] { " + layers + "data { text: \"text.txt\" window: 64 } samples: 8 } }", weighted));
  const std::string op = "model.layers.1.mlp.down_proj";
  EXPECT_NE(plain.parameter(*plain.FindOp(op)->weight).Load()->buffer("blocks").bytes(),
            weighted.parameter(*weighted.FindOp(op)->weight).Load()->buffer("blocks").bytes());
  const std::vector<float> expected = TinyLogits(original);
  EXPECT_LT(RelativeChange(expected, TinyLogits(weighted)), RelativeChange(expected, TinyLogits(plain)));
}

TEST(Kquants, PlanAgreesWithTheReference) {
  for (const char* step : {"mix: Q4_K_M", "mix: Q4_0", "mix: Q8_0", "pure: \"iq4_nl\"", "mix: Q2_K", "pure: \"q5_0\""}) {
    ir::Graph graph = BlockGraph();
    ASSERT_OK(ApplyText(absl::StrCat("step { [nibble.kquants] { ", step, " } }"), graph));
    for (const kernels::KernelTable* table : kernels::AvailableTables()) {
      ThreadPool pool(2);
      ASSERT_OK_AND_ASSIGN(const auto plan, Plan::Create(graph, *table));
      ASSERT_OK_AND_ASSIGN(const auto session, Session::Create(*plan, pool, {1, 6}));
      const std::vector<int32_t> tokens = {5, 17, 3, 96, 0, 42};
      std::vector<float> hidden, logits(tokens.size() * plan->vocab_size());
      ASSERT_OK(session->Forward({{0, tokens}}, &hidden));
      ASSERT_OK(session->Logits(hidden.data(), static_cast<int64_t>(tokens.size()), logits.data()));
      EXPECT_LT(RelativeChange(TinyLogits(graph), logits), 1e-3) << step << " " << table->name;
    }
  }
}

TEST(Kquants, Mistakes) {
  EXPECT_THAT(ErrorOf("step { [nibble.kquants] { mix: Q4_0 pure: \"q4_0\" } }"), HasSubstr("exclude each other"));
  EXPECT_THAT(ErrorOf("step { [nibble.kquants] { pure: \"int4\" } }"), HasSubstr("'int4' is no GGUF block format"));
  EXPECT_THAT(ErrorOf("step { [nibble.kquants] { data { text: \"text.txt\" } samples: 0 } }"), HasSubstr("samples"));
  EXPECT_THAT(ErrorOf("step { [nibble.rtn] { bits: 4 } } step { [nibble.kquants] {} }"), HasSubstr("already quantized"));
}

}  // namespace
}  // namespace nibble
