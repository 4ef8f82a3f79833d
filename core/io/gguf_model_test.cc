#include "core/io/gguf_model.h"

#include <cmath>

#include "core/base/testing.h"
#include "core/io/gguf_testing.h"

namespace nibble::io {
namespace {

using ::testing::HasSubstr;

constexpr const char* kParameters[] = {
    "model.embed_tokens.weight",
    "model.norm.weight",
    "lm_head.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.0.post_attention_layernorm.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.0.self_attn.v_proj.weight",
    "model.layers.0.self_attn.o_proj.weight",
    "model.layers.0.mlp.gate_proj.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.0.mlp.down_proj.weight"};

std::shared_ptr<const GgufFile> OpenBuilt(const GgufBuilder& builder) {
  const std::string path = TestTempDir() + "/x.gguf";
  WriteQuickly(path, builder.Build());
  return GgufFile::Open(path).value();
}

std::shared_ptr<const GgufFile> TinyLlama() {
  GgufBuilder b = TinyLlamaMetadata();
  AddTinyLlamaTensors(&b);
  return OpenBuilt(b);
}

std::string ConfigMessage(const GgufBuilder& builder) {
  return std::string(GgufConfig(*OpenBuilt(builder)).status().message());
}

// Everything that a program does with a file that it was given.
void LoadEverything(const std::string& path) {
  const auto file = GgufFile::Open(path);
  if (!file.ok()) return;
  (void)GgufTokenizer(**file);
  (void)GgufQuantizedTypes(**file);
  const auto config = GgufConfig(**file);
  if (!config.ok()) return;
  const auto weights = GgufWeights(*file, *config);
  for (const char* name : kParameters) (void)weights->Load(name);
}

TEST(GgufModelTest, ReadsTheConfig) {
  ASSERT_OK_AND_ASSIGN(const LlamaConfig config, GgufConfig(*TinyLlama()));
  EXPECT_EQ(config.hidden_size, 32);
  EXPECT_EQ(config.intermediate_size, 64);
  EXPECT_EQ(config.num_hidden_layers, 1);
  EXPECT_EQ(config.num_attention_heads, 4);
  EXPECT_EQ(config.num_key_value_heads, 2);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.vocab_size, 6);
  EXPECT_EQ(config.max_position_embeddings, 128);
  EXPECT_EQ(config.rope_theta, 500000);
  EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_FALSE(config.rope_scaling.has_value());
}

TEST(GgufModelTest, TypesStay) {
  const auto file = TinyLlama();
  ASSERT_OK_AND_ASSIGN(const LlamaConfig config, GgufConfig(*file));
  const auto weights = GgufWeights(file, config);
  const std::pair<const char*, const char*> formats[] = {{"model.norm.weight", "fp32"},
                                                         {"model.embed_tokens.weight", "q8_0"},
                                                         {"model.layers.0.self_attn.v_proj.weight", "fp16"},
                                                         {"model.layers.0.mlp.down_proj.weight", "q4_1"}};
  for (const auto& [name, format] : formats) {
    ASSERT_OK_AND_ASSIGN(const EncodedTensor tensor, weights->Load(name));
    EXPECT_EQ(tensor.scheme.format(), format) << name;
  }
  EXPECT_EQ(GgufQuantizedTypes(*file), "Q4_1 (5 tensors), Q8_0 (1)");
  ASSERT_OK_AND_ASSIGN(const EncodedTensor down, weights->Load("model.layers.0.mlp.down_proj.weight"));
  EXPECT_EQ(down.buffer("blocks").bytes().data(), file->Bytes(*file->FindTensor("blk.0.ffn_down.weight")).data());
  EXPECT_FALSE(weights->Has("lm_head.weight"));
  EXPECT_THAT(std::string(weights->Load("lm_head.weight").status().message()), HasSubstr("output.weight"));
  EXPECT_THAT(std::string(weights->Load("nonsense").status().message()), HasSubstr("nonsense"));
}

TEST(GgufModelTest, QueryAndKeyRowsBecomeHalfSplit) {
  const auto file = TinyLlama();
  ASSERT_OK_AND_ASSIGN(const LlamaConfig config, GgufConfig(*file));
  const auto weights = GgufWeights(file, config);
  ASSERT_OK_AND_ASSIGN(const EncodedTensor query, weights->Load("model.layers.0.self_attn.q_proj.weight"));
  const std::vector<float> rows = ToFloats(query.buffer("values"));
  const int expected[] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10};  // source row of each row
  for (int row = 0; row < 10; ++row) EXPECT_EQ(rows[row * 32 + 5], expected[row]) << row;

  // A block-quantized key follows the same order.
  ASSERT_OK_AND_ASSIGN(const EncodedTensor key, weights->Load("model.layers.0.self_attn.k_proj.weight"));
  const absl::Span<const uint8_t> stored = file->Bytes(*file->FindTensor("blk.0.attn_k.weight"));
  for (int r = 0; r < 8; ++r) EXPECT_EQ(key.buffer("blocks").bytes().subspan(r * 20, 20), stored.subspan(expected[r] * 20, 20)) << r;
}

TEST(GgufModelTest, UnsupportedElementTypeIsNamedWithItsTensor) {
  GgufBuilder b = TinyLlamaMetadata();
  b.Tensor("output_norm.weight", {256}, "IQ4_XS", std::string(136, 0));
  const auto file = OpenBuilt(b);
  ASSERT_OK_AND_ASSIGN(const LlamaConfig config, GgufConfig(*file));
  const auto tensor = GgufWeights(file, config)->Load("model.norm.weight");
  EXPECT_EQ(tensor.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(tensor.status().message()), ::testing::AllOf(HasSubstr("IQ4_XS"), HasSubstr("output_norm.weight")));
}

TEST(GgufModelTest, RefusesWhatItCannotRun) {
  EXPECT_THAT(ConfigMessage(GgufBuilder().Text("general.architecture", "qwen2")), HasSubstr("qwen2"));
  EXPECT_THAT(ConfigMessage(GgufBuilder().Text("general.architecture", "llama")), HasSubstr("llama.embedding_length"));
  EXPECT_THAT(ConfigMessage(TinyLlamaMetadata().Floats("blk.0.attn_q.bias", {32}, std::vector<float>(32))), HasSubstr("attn_q.bias"));
  EXPECT_THAT(ConfigMessage(TinyLlamaMetadata().Floats("blk.1.ffn_norm.weight", {1}, {1})), HasSubstr("blk.1"));
  EXPECT_THAT(ConfigMessage(TinyLlamaMetadata().Integer("llama.expert_count", 8)), HasSubstr("experts"));
  EXPECT_THAT(ConfigMessage(TinyLlamaMetadata().Text("llama.rope.scaling.type", "yarn")), HasSubstr("yarn"));
  EXPECT_THAT(ConfigMessage(TinyLlamaMetadata().Integer("llama.attention.value_length", 4)), HasSubstr("value length 4"));
}

double LinearFactor(GgufBuilder builder) {
  AddTinyLlamaTensors(&builder);
  return GgufConfig(*OpenBuilt(builder))->rope_linear_factor;
}

// As llama.cpp: linear unless the type says otherwise, factor before scale_linear, 0 is 1.
TEST(GgufModelTest, LinearScalingIsTheDefault) {
  const auto with = [] { return TinyLlamaMetadata(); };
  EXPECT_EQ(LinearFactor(with()), 1);
  EXPECT_EQ(LinearFactor(with().Real("llama.rope.scaling.factor", 4)), 4);
  EXPECT_EQ(LinearFactor(with().Real("llama.rope.scale_linear", 2)), 2);
  EXPECT_EQ(LinearFactor(with().Real("llama.rope.scale_linear", 0)), 1);
  EXPECT_EQ(LinearFactor(with().Text("llama.rope.scaling.type", "none").Real("llama.rope.scale_linear", 4)), 1);
}

TEST(GgufModelTest, PartsAndEndTokens) {
  EXPECT_THAT(ConfigMessage(TinyLlamaMetadata().Integer("split.count", 3)), HasSubstr("one of 3 parts"));
  GgufBuilder builder = TinyLlamaMetadata().Integer("tokenizer.ggml.eot_token_id", 4);
  AddTinyLlamaTensors(&builder);
  EXPECT_THAT(GgufConfig(*OpenBuilt(builder))->eos_token_ids, ::testing::Contains(4));
  const auto listed = [](const std::vector<int32_t>& ids) {
    GgufBuilder b = TinyLlamaMetadata().Integer("tokenizer.ggml.eom_token_id", 5);
    b.Numbers<int32_t>("tokenizer.ggml.eos_token_ids", GgufType::kI32, ids);
    AddTinyLlamaTensors(&b);
    return b;
  };
  EXPECT_EQ(GgufConfig(*OpenBuilt(listed({3, 2, 5, 3})))->eos_token_ids, (std::vector<int32_t>{2, 5, 3}));
  EXPECT_THAT(ConfigMessage(listed({3, -1})), ::testing::AllOf(HasSubstr("eos_token_ids is -1"), HasSubstr("x.gguf")));
}

TEST(GgufModelTest, KeyWithOtherRowsIsAnError) {
  GgufBuilder b = TinyLlamaMetadata();
  b.Floats("blk.0.attn_k.weight", {8, 4}, std::vector<float>(32)).Floats("token_embd.weight", {int64_t{1} << 40, 0}, {});
  const auto file = OpenBuilt(b);
  ASSERT_OK_AND_ASSIGN(const LlamaConfig config, GgufConfig(*file));
  const auto weights = GgufWeights(file, config);
  EXPECT_THAT(std::string(weights->Load("model.layers.0.self_attn.k_proj.weight").status().message()), HasSubstr("2 heads of 8"));
  EXPECT_THAT(std::string(weights->Load("model.embed_tokens.weight").status().message()), HasSubstr("positive"));
}

// The divisors that a converter writes for Llama 3.2 1B's head size and theta.
std::vector<float> Llama3Factors(double factor) {
  LlamaConfig plain = ShapePreset("llama-3.2-1b").value(), scaled = plain;
  plain.rope_scaling.reset();
  scaled.rope_scaling->factor = factor;
  const auto before = plain.InverseFrequencies(), after = scaled.InverseFrequencies();
  std::vector<float> factors;
  for (size_t i = 0; i < before.size(); ++i) factors.push_back(static_cast<float>(before[i] / after[i]));
  return factors;
}

GgufBuilder WithFactors(const std::vector<float>& factors) {
  GgufBuilder b;
  b.Text("general.architecture", "llama").Integer("llama.embedding_length", 64).Integer("llama.feed_forward_length", 64);
  b.Integer("llama.block_count", 1).Integer("llama.attention.head_count", 1).Integer("llama.context_length", 128);
  b.Real("llama.rope.freq_base", 500000).Integer("llama.vocab_size", 10);
  return b.Floats("rope_freqs.weight", {static_cast<int64_t>(factors.size())}, factors);
}

TEST(GgufModelTest, RecognizesLlama3Scaling) {
  for (const double factor : {8.0, 32.0}) {
    ASSERT_OK_AND_ASSIGN(const LlamaConfig config, GgufConfig(*OpenBuilt(WithFactors(Llama3Factors(factor)))));
    ASSERT_TRUE(config.rope_scaling.has_value());
    EXPECT_EQ(config.rope_scaling->factor, factor);
    EXPECT_EQ(config.rope_scaling->original_max_position_embeddings, 8192);
  }
  ASSERT_OK_AND_ASSIGN(const LlamaConfig none, GgufConfig(*OpenBuilt(WithFactors(std::vector<float>(32, 1)))));
  EXPECT_FALSE(none.rope_scaling.has_value());
}

TEST(GgufModelTest, OtherRopeFactorsAreErrors) {
  std::vector<float> factors = Llama3Factors(32);
  factors[14] *= 1.001f;
  EXPECT_THAT(ConfigMessage(WithFactors(factors)), HasSubstr("rope_freqs.weight[14]"));
  factors = Llama3Factors(32);
  factors.back() = std::nanf("");
  EXPECT_THAT(ConfigMessage(WithFactors(factors)), HasSubstr("rope_freqs.weight"));
  EXPECT_THAT(ConfigMessage(WithFactors({1, 2})), HasSubstr("rope_freqs.weight is F32 [2]"));
}

TEST(GgufModelTest, ReadsTheTokenizer) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, GgufTokenizer(*TinyLlama()));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->Encode("a a"), (std::vector<int32_t>{5, 5}));
  EXPECT_TRUE(tokenizer->adds_bos());
  ASSERT_OK_AND_ASSIGN(const auto none, GgufTokenizer(*OpenBuilt(GgufBuilder())));
  EXPECT_EQ(none, nullptr);
  const auto other = GgufTokenizer(*OpenBuilt(GgufBuilder().Text("tokenizer.ggml.model", "bert")));
  EXPECT_THAT(std::string(other.status().message()), HasSubstr("bert"));
}

TEST(GgufModelTest, ReadsRealVocabularies) {
  NIBBLE_REQUIRE_SHARED();
  for (const std::string name : {"ggml-vocab-gpt-2.gguf", "ggml-vocab-llama-spm.gguf"}) {
    ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(SharedDir() + "/tokenizers/" + name));
    ASSERT_OK_AND_ASSIGN(const auto tokenizer, GgufTokenizer(*file));
    const std::string text = "Hello, world! 123";
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)), text) << name;
  }
}

TEST(GgufModelTest, RandomDamageNeverCrashes) {
  GgufBuilder b = TinyLlamaMetadata();
  AddTinyLlamaTensors(&b);
  const std::string path = TestTempDir() + "/x.gguf", bytes = b.Build();
  ForEachMutation(path, bytes, b.Header().size(), [&] { LoadEverything(path); });
}

TEST(GgufModelTest, ReadsSmolLm2) {
  const char* path = std::getenv("NIBBLE_SMOLLM2_GGUF");
  if (path == nullptr || *path == '\0') GTEST_SKIP() << "set NIBBLE_SMOLLM2_GGUF to the path of SmolLM2-135M-Instruct.Q4_1.gguf";
  ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(path));
  ASSERT_OK_AND_ASSIGN(const LlamaConfig config, GgufConfig(*file));
  EXPECT_EQ(config.ParameterCount(), ShapePreset("smollm2-135m").value().ParameterCount());
  EXPECT_EQ(config.rope_theta, 100000);
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_EQ(config.eos_token_ids, (std::vector<int32_t>{2}));
  EXPECT_EQ(GgufQuantizedTypes(*file), "Q4_1 (210 tensors), Q8_0 (1)");
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, GgufTokenizer(*file));
  EXPECT_EQ(tokenizer->Encode("The capital of France is"), (std::vector<int32_t>{504, 3575, 282, 4649, 314}));
  EXPECT_FALSE(tokenizer->adds_bos());
  const auto weights = GgufWeights(file, config);
  const auto shapes = SyntheticWeights(config, 0);
  for (const char* name : kParameters) {
    ASSERT_EQ(weights->Has(name), shapes->Has(name)) << name;
    if (!weights->Has(name)) continue;
    ASSERT_OK_AND_ASSIGN(const EncodedTensor tensor, weights->Load(name));
    EXPECT_EQ(tensor.shape, shapes->Load(name)->shape) << name;
  }
}

}  // namespace
}  // namespace nibble::io
