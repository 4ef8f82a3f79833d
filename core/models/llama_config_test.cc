#include "core/models/llama_config.h"

#include <cmath>

#include "core/base/testing.h"
#include "core/io/safetensors.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

// A config.json with the fields that must be there, and `extra` fields.
std::string Json(const std::string& extra = "", const std::string& architecture = "LlamaForCausalLM") {
  return absl::StrCat(R"({"architectures": [")", architecture,
                      R"("], "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5,
                      "num_attention_heads": 8, "vocab_size": 512)",
                      extra.empty() ? "" : ", ", extra, "}");
}

std::string MessageOf(const std::string& json) {
  return std::string(LlamaConfig::FromJson(json, "config.json").status().message());
}

void ExpectSame(const LlamaConfig& a, const LlamaConfig& b) {
  EXPECT_EQ(a.ToJson(), b.ToJson());
  EXPECT_EQ(a.InverseFrequencies(), b.InverseFrequencies());
  EXPECT_EQ(a.rms_norm_eps, b.rms_norm_eps);
  EXPECT_EQ(a.sliding_window, b.sliding_window);
  EXPECT_EQ(a.bos_token_id, b.bos_token_id);
  EXPECT_EQ(a.eos_token_ids, b.eos_token_ids);
  EXPECT_EQ(a.ParameterCount(), b.ParameterCount());
}

TEST(LlamaConfigTest, ParameterCountsArePublished) {
  const std::pair<const char*, int64_t> published[] = {
      {"llama-3.2-1b", 1235814400}, {"llama-3.2-3b", 3212749824},   {"llama-3.1-8b", 8030261248},
      {"llama-2-7b", 6738415616},   {"llama-2-13b", 13015864320},   {"mistral-7b", 7241732096},
      {"smollm2-135m", 134515008},  {"tinyllama-1.1b", 1100048384}, {"smollm2-360m", 361821120},
      {"smollm2-1.7b", 1711376384}};
  for (const auto& [name, count] : published) {
    ASSERT_OK_AND_ASSIGN(const LlamaConfig config, ShapePreset(name));
    EXPECT_EQ(config.ParameterCount(), count) << name;
  }
}

TEST(LlamaConfigTest, PresetsAreValidAndSurviveJson) {
  for (const std::string& name : ShapePresetNames()) {
    ASSERT_OK_AND_ASSIGN(const LlamaConfig config, ShapePreset(name));
    EXPECT_OK(config.Validate());
    ASSERT_OK_AND_ASSIGN(const LlamaConfig again, LlamaConfig::FromJson(config.ToJson(), name));
    ExpectSame(config, again);
  }
}

TEST(LlamaConfigTest, UnknownPresetSuggestsAName) {
  const auto config = ShapePreset("llama-3.2-1B");
  EXPECT_EQ(config.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("llama-3.2-1b"));
}

TEST(LlamaConfigTest, AbsentFieldsTakeTheLibrarysDefaults) {
  ASSERT_OK_AND_ASSIGN(const LlamaConfig config, LlamaConfig::FromJson(Json(), "config.json"));
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.num_key_value_heads, 8);
  EXPECT_EQ(config.rope_theta, 10000);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_FALSE(config.rope_scaling.has_value());
}

TEST(LlamaConfigTest, ReadsOptionalFields) {
  ASSERT_OK_AND_ASSIGN(const LlamaConfig config,
                       LlamaConfig::FromJson(Json(R"("num_key_value_heads": 4, "head_dim": 16, "rope_scaling": null,
                           "eos_token_id": [7, 9], "bos_token_id": 5, "tie_word_embeddings": true)"), "config.json"));
  EXPECT_EQ(config.num_key_value_heads, 4);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.eos_token_ids, (std::vector<int32_t>{7, 9}));
  ASSERT_OK_AND_ASSIGN(const LlamaConfig again, LlamaConfig::FromJson(config.ToJson(), "config.json"));
  ExpectSame(config, again);
  EXPECT_EQ(config.bos_token_id, 5);
  EXPECT_TRUE(config.tie_word_embeddings);
}

TEST(LlamaConfigTest, ReadsEverySpellingOfRopeScaling) {
  const char* llama3 = R"({"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                           "original_max_position_embeddings": 8192, "rope_theta": 500000.0})";
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    ASSERT_OK_AND_ASSIGN(const LlamaConfig config,
                         LlamaConfig::FromJson(Json(absl::StrCat("\"", key, "\": ", llama3)), "config.json"));
    ASSERT_TRUE(config.rope_scaling.has_value());
    EXPECT_EQ(config.rope_scaling->factor, 32);
    EXPECT_EQ(config.rope_theta, 500000);
  }
  ASSERT_OK_AND_ASSIGN(const LlamaConfig linear,
                       LlamaConfig::FromJson(Json(R"("rope_scaling": {"type": "linear", "factor": 2.5})"), "config.json"));
  EXPECT_EQ(linear.rope_linear_factor, 2.5);
  EXPECT_EQ(linear.InverseFrequencies()[0], 1 / 2.5);
  ASSERT_OK_AND_ASSIGN(const LlamaConfig again, LlamaConfig::FromJson(linear.ToJson(), "again"));
  ExpectSame(linear, again);
}

TEST(LlamaConfigTest, RefusesWhatItCannotRun) {
  EXPECT_THAT(MessageOf(Json("", "Qwen2ForCausalLM")), HasSubstr("Qwen2ForCausalLM"));
  for (const char* extra : {R"("hidden_act": "gelu")", R"("attention_bias": true)", R"("mlp_bias": true)",
                            R"("rope_scaling": {"rope_type": "yarn", "factor": 4})"}) {
    const auto config = LlamaConfig::FromJson(Json(extra), "config.json");
    EXPECT_EQ(config.status().code(), absl::StatusCode::kUnimplemented) << extra;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr("config.json")) << extra;
  }
}

TEST(LlamaConfigTest, WrongValuesNameTheField) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("head_dim": 7)", "head_dim"},
      {R"("head_dim": 99999999999)", "head_dim"},
      {R"("num_key_value_heads": 3)", "num_key_value_heads"},
      {R"("num_key_value_heads": 0)", "num_key_value_heads"},
      {R"("num_key_value_heads": "8")", "num_key_value_heads"},
      {R"("num_key_value_heads": 18446744073709551615)", "num_key_value_heads"},
      {R"("rms_norm_eps": -1)", "rms_norm_eps"},
      {R"("rope_theta": "big")", "rope_theta"},
      {R"("rope_theta": 1e999)", "config.json"},
      {R"("rope_scaling": 3)", "rope_scaling"},
      {R"("rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 9, "high_freq_factor": 4, "original_max_position_embeddings": 8192})", "low_freq_factor"},
      {R"("rope_scaling": {"type": "linear"})", "rope_scaling.factor"},
      {R"("rope_scaling": {"rope_type": "llama3", "factor": 8})", "rope_scaling.low_freq_factor"},
      {R"("eos_token_id": -4)", "eos_token_id"},
      {R"("tie_word_embeddings": 1)", "tie_word_embeddings"},
      {R"("max_position_embeddings": 1.5)", "max_position_embeddings"}};
  for (const auto& [extra, field] : cases) EXPECT_THAT(MessageOf(Json(extra)), HasSubstr(field)) << extra;
  EXPECT_THAT(MessageOf(Json(R"("sliding_window": 5000000000)", "MistralForCausalLM")), HasSubstr("sliding_window"));
  EXPECT_THAT(MessageOf("{}"), HasSubstr("architectures"));
  EXPECT_THAT(MessageOf("[1]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(MessageOf(R"({"architectures": ["LlamaForCausalLM"]})"), HasSubstr("hidden_size"));
}

std::string Replaced(std::string text, const std::string& from, const std::string& to) { return text.replace(text.find(from), from.size(), to); }

TEST(LlamaConfigTest, SizesThatNoModelHasAreRefused) {
  EXPECT_THAT(MessageOf(Replaced(Json(), "\"num_hidden_layers\": 5", "\"num_hidden_layers\": 16777215")), HasSubstr("num_hidden_layers is 16777215"));
  EXPECT_THAT(MessageOf(Json("\"head_dim\": 1000000")), HasSubstr("head_dim is 1000000"));
  LlamaConfig config = *ShapePreset("llama-3.1-8b");
  config.hidden_size = config.intermediate_size = config.vocab_size = (1 << 24) - 1;
  config.num_hidden_layers = 1024;
  EXPECT_THAT(std::string(config.Validate().message()), HasSubstr("the number of parameters"));
}

TEST(LlamaConfigTest, DeepValuesAreErrors) {
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  EXPECT_THAT(MessageOf(Json("\"head_dim\": " + deep)), HasSubstr("config.json: nested deeper"));
}

TEST(LlamaConfigTest, MistralKeepsItsWindow) {
  ASSERT_OK_AND_ASSIGN(const LlamaConfig config,
                       LlamaConfig::FromJson(Json(R"("sliding_window": 4096)", "MistralForCausalLM"), "config.json"));
  EXPECT_EQ(config.model_type, "mistral");
  EXPECT_EQ(config.sliding_window, 4096);
  ASSERT_OK_AND_ASSIGN(const LlamaConfig none,
                       LlamaConfig::FromJson(Json(R"("sliding_window": null)", "MistralForCausalLM"), "config.json"));
  EXPECT_FALSE(none.sliding_window.has_value());
}

void ExpectFrequencies(const io::SafetensorsFile& file, const std::string& tensor, const LlamaConfig& config) {
  ASSERT_OK_AND_ASSIGN(const Tensor expected, file.Get(tensor));
  const std::vector<double> got = config.InverseFrequencies();
  ASSERT_EQ(got.size(), expected.elements());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i] / expected.as<double>()[i], 1, 1e-12) << tensor << " " << i;
  }
}

TEST(LlamaConfigTest, InverseFrequenciesMatchGoldenTensors) {
  NIBBLE_REQUIRE_SHARED();
  ASSERT_OK_AND_ASSIGN(const auto file, io::SafetensorsFile::Open(SharedDir() + "/golden/numerics.safetensors"));
  ASSERT_OK_AND_ASSIGN(LlamaConfig config, ShapePreset("llama-3.2-1b"));
  ExpectFrequencies(*file, "ops.rope.llama32_headdim64.inv_freq", config);
  config.head_dim = 16;
  ExpectFrequencies(*file, "ops.rope.llama32_theta5e5_factor32.inv_freq", config);
  config.rope_scaling.reset();
  config.rope_theta = 10000;
  ExpectFrequencies(*file, "ops.rope.theta1e4.inv_freq", config);
}

}  // namespace
}  // namespace nibble
