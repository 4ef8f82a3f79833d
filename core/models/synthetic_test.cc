#include <cmath>

#include "core/base/testing.h"
#include "core/models/weights.h"

namespace nibble {
namespace {

LlamaConfig Tiny() { return ShapePreset("tiny").value(); }

std::vector<float> Values(const WeightStore& store, const std::string& name) {
  return ToFloats(store.Load(name).value().buffer("values"));
}

TEST(SyntheticTest, HasExactlyTheConfigsParameters) {
  LlamaConfig config = Tiny();
  const auto tied = SyntheticWeights(config, 0);
  for (const char* name : {"model.embed_tokens.weight", "model.norm.weight", "model.layers.0.input_layernorm.weight",
                           "model.layers.1.mlp.down_proj.weight"}) {
    EXPECT_TRUE(tied->Has(name)) << name;
  }
  for (const char* name : {"lm_head.weight", "model.layers.2.mlp.down_proj.weight", "model.layers.-1.mlp.down_proj.weight",
                           "model.layers.01.mlp.down_proj.weight", "model.layers.0", "model.layers.", "x", ""}) {
    EXPECT_FALSE(tied->Has(name)) << name;
    EXPECT_EQ(tied->Load(name).status().code(), absl::StatusCode::kNotFound) << name;
  }
  config.tie_word_embeddings = false;
  EXPECT_TRUE(SyntheticWeights(config, 0)->Has("lm_head.weight"));
}

TEST(SyntheticTest, ShapesFollowTheConfig) {
  const auto store = SyntheticWeights(Tiny(), 0);
  ASSERT_OK_AND_ASSIGN(const EncodedTensor key, store->Load("model.layers.0.self_attn.k_proj.weight"));
  EXPECT_EQ(key.shape, (Shape{24, 48}));
  EXPECT_EQ(key.scheme.format(), "bf16");
  ASSERT_OK_AND_ASSIGN(const EncodedTensor down, store->Load("model.layers.0.mlp.down_proj.weight"));
  EXPECT_EQ(down.shape, (Shape{48, 100}));
  for (const float gain : Values(*store, "model.norm.weight")) EXPECT_EQ(gain, 1);
}

TEST(SyntheticTest, ValuesDependOnNameAndSeedOnly) {
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  const auto a = Values(*SyntheticWeights(Tiny(), 7), name);
  EXPECT_EQ(a, Values(*SyntheticWeights(Tiny(), 7), name));
  EXPECT_NE(a, Values(*SyntheticWeights(Tiny(), 8), name));
  EXPECT_NE(a, Values(*SyntheticWeights(Tiny(), 7), "model.layers.1.mlp.gate_proj.weight"));
}

TEST(SyntheticTest, ValuesAreNormalAndUncorrelated) {
  LlamaConfig config = Tiny();
  config.vocab_size = 4096;
  const auto x = Values(*SyntheticWeights(config, 1), "model.embed_tokens.weight");
  double mean = 0, square = 0, fourth = 0, lag = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    mean += x[i];
    square += x[i] * x[i];
    fourth += std::pow(x[i], 4);
    if (i > 0) lag += x[i] * x[i - 1];
  }
  const double n = static_cast<double>(x.size()), variance = square / n;
  EXPECT_NEAR(mean / n, 0, 0.02 * 4 / std::sqrt(n));
  EXPECT_NEAR(std::sqrt(variance), 0.02, 0.02 * 0.005);
  EXPECT_NEAR(fourth / n / (variance * variance), 2.7, 0.02);  // four uniforms: 3 - 1.2 / 4
  EXPECT_NEAR(lag / square, 0, 4 / std::sqrt(n));
}

// Values are part of every stored result of a synthetic model.
TEST(SyntheticTest, ValuesNeverChange) {
  const auto store = SyntheticWeights(Tiny(), 0);
  ASSERT_OK_AND_ASSIGN(const EncodedTensor tensor, store->Load("model.layers.0.self_attn.q_proj.weight"));
  const auto bits = tensor.buffer("values").as<uint16_t>();
  EXPECT_EQ(std::vector<uint16_t>(bits.begin(), bits.begin() + 4), (std::vector<uint16_t>{48005, 48096, 48149, 15287}));
}

}  // namespace
}  // namespace nibble
