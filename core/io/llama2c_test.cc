#include "core/io/llama2c.h"

#include <array>

#include "core/base/file.h"
#include "core/base/testing.h"
#include "core/io/damage_testing.h"

namespace nibble::io {
namespace {

using ::testing::HasSubstr;

using Header = std::array<int32_t, 7>;
constexpr Header kTiny = {8, 12, 2, 2, 1, 5, 4};  // head size 4

int64_t Floats(const Header& h) {
  const int64_t dim = h[0], ffn = h[1], layers = h[2], kv = h[0] / h[3] * h[4], vocab = std::abs(h[5]);
  const int64_t layer = 2 * dim + 2 * dim * dim + 2 * kv * dim + 3 * dim * ffn;
  return (h[5] < 0 ? 2 : 1) * vocab * dim + layers * layer + dim + h[6] * (dim / h[3]);
}

// Values count up from 0, so that each says where it was in the file.
std::string Build(const Header& header) {
  std::string bytes(reinterpret_cast<const char*>(header.data()), 28);
  for (int64_t i = 0; i < Floats(header); ++i) bytes += Bytes(static_cast<float>(i));
  return bytes;
}

absl::StatusOr<Llama2cModel> ReadBytes(const std::string& bytes) {
  const std::string path = TestTempDir() + "/model.bin";
  WriteQuickly(path, bytes);
  return ReadLlama2c(path);
}

std::vector<float> Values(const Llama2cModel& model, const std::string& name) {
  return ToFloats(model.weights->Load(name).value().buffer("values"));
}

TEST(Llama2cTest, ReadsTheHeader) {
  ASSERT_OK_AND_ASSIGN(const Llama2cModel model, ReadBytes(Build(kTiny)));
  EXPECT_EQ(model.config.hidden_size, 8);
  EXPECT_EQ(model.config.intermediate_size, 12);
  EXPECT_EQ(model.config.num_hidden_layers, 2);
  EXPECT_EQ(model.config.head_dim, 4);
  EXPECT_EQ(model.config.num_key_value_heads, 1);
  EXPECT_EQ(model.config.vocab_size, 5);
  EXPECT_EQ(model.config.max_position_embeddings, 4);
  EXPECT_TRUE(model.config.tie_word_embeddings);
  EXPECT_EQ(model.config.rms_norm_eps, 1e-5);
  EXPECT_EQ(model.config.rope_theta, 10000);
  EXPECT_EQ(model.tokenizer, nullptr);
  EXPECT_FALSE(model.weights->Has("lm_head.weight"));
  EXPECT_EQ(model.weights->Load("x").status().code(), absl::StatusCode::kNotFound);
}

TEST(Llama2cTest, EverythingIsWhereTheLayoutSays) {
  Header untied = kTiny;
  untied[5] = -5;
  ASSERT_OK_AND_ASSIGN(const Llama2cModel model, ReadBytes(Build(untied)));
  // embedding 40, attention norms 16, wq 2 * 64, wk 2 * 32, wv 2 * 32, wo 2 *
  // 64, FFN norms 16, w1 2 * 96, w2 2 * 96, w3 2 * 96, norm 8, rotary 2 * 8.
  const std::pair<const char*, float> starts[] = {{"model.embed_tokens.weight", 0},
                                                  {"model.layers.0.input_layernorm.weight", 40},
                                                  {"model.layers.1.input_layernorm.weight", 48},
                                                  {"model.layers.0.self_attn.q_proj.weight", 56},
                                                  {"model.layers.1.self_attn.q_proj.weight", 120},
                                                  {"model.layers.0.self_attn.k_proj.weight", 184},
                                                  {"model.layers.0.self_attn.v_proj.weight", 248},
                                                  {"model.layers.0.self_attn.o_proj.weight", 312},
                                                  {"model.layers.0.post_attention_layernorm.weight", 440},
                                                  {"model.layers.0.mlp.gate_proj.weight", 456},
                                                  {"model.layers.0.mlp.down_proj.weight", 648},
                                                  {"model.layers.1.mlp.up_proj.weight", 936},
                                                  {"model.norm.weight", 1032},
                                                  {"lm_head.weight", 1056}};
  for (const auto& [name, start] : starts) EXPECT_EQ(Values(model, name)[0], start) << name;
  EXPECT_EQ(model.weights->Load("model.layers.0.mlp.down_proj.weight")->shape, (Shape{8, 12}));
}

TEST(Llama2cTest, QueryRowsBecomeHalfSplit) {
  ASSERT_OK_AND_ASSIGN(const Llama2cModel model, ReadBytes(Build(kTiny)));
  const auto query = Values(model, "model.layers.0.self_attn.q_proj.weight");
  const int source[] = {0, 2, 1, 3, 4, 6, 5, 7};
  for (int row = 0; row < 8; ++row) EXPECT_EQ(query[row * 8], 56 + source[row] * 8) << row;
}

TEST(Llama2cTest, TheSizeMustBeExact) {
  const std::string bytes = Build({4, 2, 1, 1, 1, 2, 1});
  EXPECT_OK(ReadBytes(bytes));
  EXPECT_THAT(std::string(ReadBytes(bytes + "x").status().message()), HasSubstr("its header implies"));
  const std::string path = TestTempDir() + "/model.bin";
  ForEachTruncation(path, bytes, [&](size_t length) { EXPECT_FALSE(ReadLlama2c(path).ok()) << length; });
}

TEST(Llama2cTest, HeadersAreNotBelieved) {
  const Header bad[] = {{0, 12, 2, 2, 1, 5, 4},          {8, -12, 2, 2, 1, 5, 4},
                        {8, 12, 2, 3, 1, 5, 4},          {8, 12, 2, 2, 0, 5, 4},
                        {8, 12, 2, 0, 0, 5, 4},          {8, 12, 2, 2, 1, 0, 4},
                        {8, 12, 2, 2, 1, INT32_MIN, 4},  {8, 12, INT32_MAX, 2, 1, 5, 4},
                        {9, 12, 2, 3, 3, 5, 4},          {16777214, 16777214, 16777214, 1, 1, 16777214, 16777214}};
  for (const Header& header : bad) {
    const std::string bytes = std::string(reinterpret_cast<const char*>(header.data()), 28) + std::string(5000, '\0');
    EXPECT_FALSE(ReadBytes(bytes).ok()) << header[0] << " " << header[3];
  }
  EXPECT_THAT(std::string(ReadBytes("24ka" + std::string(300, '\0')).status().message()), HasSubstr("version 1 or 2"));
}

TEST(Llama2cTest, RandomDamageNeverCrashes) {
  const std::string path = TestTempDir() + "/model.bin";
  ForEachMutation(path, Build(kTiny), 28, [&] {
    const auto model = ReadLlama2c(path);
    if (model.ok()) (void)model->weights->Load("model.layers.0.self_attn.q_proj.weight");
  });
}

TEST(Llama2cTest, ReadsStories260K) {
  NIBBLE_REQUIRE_SHARED();
  ASSERT_OK_AND_ASSIGN(const Llama2cModel model, ReadLlama2c(SharedDir() + "/models/stories260K/stories260K.bin"));
  EXPECT_EQ(model.config.hidden_size, 64);
  EXPECT_EQ(model.config.num_hidden_layers, 5);
  EXPECT_EQ(model.config.num_key_value_heads, 4);
  ASSERT_NE(model.tokenizer, nullptr);
  EXPECT_EQ(model.tokenizer->vocabulary_size(), 512);
  const auto names = SyntheticWeights(model.config, 0);
  for (const char* name : {"model.embed_tokens.weight", "model.layers.4.self_attn.k_proj.weight", "model.layers.4.mlp.up_proj.weight"}) {
    ASSERT_OK_AND_ASSIGN(const EncodedTensor tensor, model.weights->Load(name));
    EXPECT_EQ(tensor.shape, names->Load(name)->shape);
  }
}

}  // namespace
}  // namespace nibble::io
