#include "core/io/gguf_writer.h"

#include <filesystem>
#include <map>
#include <memory>

#include "core/base/file.h"
#include "core/base/testing.h"
#include "core/io/gguf_model.h"
#include "core/io/gguf_model_writer.h"
#include "core/io/gguf_testing.h"
#include "core/io/model_loader.h"
#include "core/text/testing/tiny_vocabulary.h"

namespace nibble::io {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(GgufWriterTest, WritesWhatIsRead) {
  const std::string path = TestTempDir() + "/x.gguf";
  GgufMetadata metadata;
  metadata.AddText("general.architecture", "llama");
  metadata.AddInteger("n", 4000000000);
  metadata.AddReal("r", 0.5);
  metadata.AddFlag("f", true);
  metadata.AddTexts("ss", {"a", "", "\u00e9"});
  metadata.AddIntegers("is", {3, -1});
  metadata.AddReals("rs", {1.5f});
  const GgufBlockType* f32 = FindGgufBlockType("F32");
  ASSERT_OK_AND_ASSIGN(const auto writer, GgufWriter::Create(path, metadata, {{"a", {3}, f32}, {"b", {2, 32}, FindGgufBlockType("Q8_0")}}));
  const std::string blocks = RandomBlocks("Q8_0", 64, 1);
  ASSERT_OK(writer->Write("b", {reinterpret_cast<const uint8_t*>(blocks.data()), blocks.size()}));
  ASSERT_OK(writer->Write("a", Tensor::FromFloats({3}, {1, 2, 3}).bytes()));
  EXPECT_FALSE(FileExists(path));
  ASSERT_OK(writer->Finish());
  ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(path));
  EXPECT_EQ(file->Integer("n").value(), 4000000000);
  EXPECT_EQ(file->Integer("general.alignment").value(), 32);
  EXPECT_EQ(file->Number("r").value(), 0.5);
  EXPECT_EQ(file->Integer("f").value(), 1);
  EXPECT_EQ(*file->Strings("ss").value(), (std::vector<std::string>{"a", "", "\u00e9"}));
  EXPECT_EQ(*file->Integers("is").value(), (std::vector<int64_t>{3, -1}));
  EXPECT_EQ(*file->Numbers("rs").value(), (std::vector<double>{1.5}));
  EXPECT_EQ(file->FindTensor("b")->shape, (Shape{2, 32}));
  EXPECT_EQ(file->Bytes(*file->FindTensor("b")), absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(blocks.data()), blocks.size()));
  EXPECT_EQ(std::filesystem::file_size(path) % 32, 0);
}

TEST(GgufWriterTest, MistakesLeaveNoFile) {
  const std::string folder = TestTempDir() + "/none", path = folder + "/x.gguf";
  ASSERT_OK(MakeDirectories(folder));
  const GgufBlockType* f32 = FindGgufBlockType("F32");
  EXPECT_THAT(std::string(GgufWriter::Create(path, {}, {{"a", {1}, f32}, {"a", {1}, f32}}).status().message()), HasSubstr("two tensors named 'a'"));
  EXPECT_THAT(std::string(GgufWriter::Create(path, {}, {{"a", {2, 33}, FindGgufBlockType("Q8_0")}}).status().message()), HasSubstr("blocks of 32"));
  {
    ASSERT_OK_AND_ASSIGN(const auto writer, GgufWriter::Create(path, {}, {{"a", {2}, f32}}));
    EXPECT_THAT(std::string(writer->Write("b", {}).message()), HasSubstr("not announced"));
    EXPECT_THAT(std::string(writer->Write("a", Tensor::FromFloats({1}, {1}).bytes()).message()), HasSubstr("4 bytes, announced 8"));
    EXPECT_THAT(std::string(writer->Finish().message()), HasSubstr("never written"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

// All parameters of a model as a Checkpoint, each through `change`.
using Change = std::function<EncodedTensor(const std::string& name, EncodedTensor tensor)>;
Checkpoint CheckpointOf(const LlamaConfig& config, const std::shared_ptr<const WeightStore>& weights, const Change& change) {
  Checkpoint checkpoint;
  checkpoint.config = config;
  std::vector<std::string> names = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"};
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    for (const char* name : {"input_layernorm", "post_attention_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                             "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
      names.push_back(absl::StrCat("model.layers.", layer, ".", name, ".weight"));
    }
  }
  auto tensors = std::make_shared<std::map<std::string, EncodedTensor>>();
  for (const std::string& name : names) {
    if (!weights->Has(name)) continue;
    const EncodedTensor tensor = change(name, weights->Load(name).value());
    tensors->emplace(name, tensor);
    checkpoint.parameters.push_back({name, tensor.scheme, tensor.shape});
  }
  checkpoint.load = [tensors](const std::string& name) { return tensors->at(name); };
  return checkpoint;
}

EncodedTensor AsIs(const std::string&, EncodedTensor tensor) { return tensor; }

// Hidden 64, so that blocks of 32 divide every row.
LlamaConfig SmallConfig() {
  LlamaConfig config = *ShapePreset("tiny");
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.head_dim = 16;
  config.max_position_embeddings = 131072;
  config.rope_theta = 500000;
  config.rope_scaling = Llama3RopeScaling{.factor = 32};
  return config;
}

TEST(GgufModelWriterTest, AModelComesBack) {
  const LlamaConfig config = SmallConfig();
  const auto weights = SyntheticWeights(config, 5);
  const std::map<std::string, std::string> formats = {{"model.layers.0.self_attn.q_proj.weight", "q4_0"}, {"model.layers.1.self_attn.k_proj.weight", "q8_0"},
                                                      {"model.embed_tokens.weight", "fp16"}, {"model.layers.1.mlp.down_proj.weight", "q5_1"}};
  const Checkpoint checkpoint = CheckpointOf(config, weights, [&](const std::string& name, EncodedTensor tensor) {
    const auto format = formats.find(name);
    return format == formats.end() ? tensor : Encode(FloatScheme(format->second), tensor.shape, Decode(tensor)).value();
  });
  const std::string path = TestTempDir() + "/m.gguf";
  ASSERT_OK(WriteGgufModel(path, "small", checkpoint, nullptr, {}));
  ASSERT_OK_AND_ASSIGN(const LoadedModel model, LoadModel(path));
  EXPECT_TRUE(model.config.tie_word_embeddings);
  EXPECT_EQ(model.config.hidden_size, 64);
  EXPECT_EQ(model.config.head_dim, 16);
  EXPECT_EQ(model.config.vocab_size, config.vocab_size);
  EXPECT_EQ(model.config.rope_scaling->factor, 32);
  EXPECT_EQ(model.config.rope_theta, 500000);
  for (const CheckpointParameter& parameter : checkpoint.parameters) {
    ASSERT_OK_AND_ASSIGN(const EncodedTensor read, model.weights->Load(parameter.name));
    ASSERT_OK_AND_ASSIGN(const EncodedTensor written, checkpoint.load(parameter.name));
    EXPECT_EQ(read.scheme.format(), parameter.shape.size() == 1 ? "fp32" : written.scheme.format()) << parameter.name;
    EXPECT_EQ(Decode(read), Decode(written)) << parameter.name;
  }
  ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(path));
  EXPECT_EQ(file->FindTensor("output.weight"), nullptr);
  EXPECT_EQ(file->Text("general.name").value(), "small");
  EXPECT_EQ(file->Integer("general.quantization_version").value(), 2);
}

// What a llama.cpp-like program reads of the tokenizer is what it was.
TEST(GgufModelWriterTest, ATokenizerComesBack) {
  NIBBLE_REQUIRE_SHARED();
  for (const std::string name : {"ggml-vocab-gpt-2.gguf", "ggml-vocab-llama-spm.gguf"}) {
    ASSERT_OK_AND_ASSIGN(const auto source, GgufFile::Open(SharedDir() + "/tokenizers/" + name));
    ASSERT_OK_AND_ASSIGN(const auto tokenizer, GgufTokenizer(*source));
    LlamaConfig config = SmallConfig();
    config.vocab_size = tokenizer->vocabulary_size() + 2;
    config.eos_token_ids = {*tokenizer->eos_id()};
    const std::string path = TestTempDir() + "/t.gguf";
    TokenizerExtras extras{"{{ messages }}", {{"padding_token_id", 1}}, false};
    ASSERT_OK(WriteGgufModel(path, "t", CheckpointOf(config, SyntheticWeights(config, 1), AsIs), tokenizer.get(), extras));
    ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(path));
    std::vector<std::string> tokens = *source->Strings("tokenizer.ggml.tokens").value();
    tokens.push_back(absl::StrCat("[PAD", tokens.size(), "]"));
    tokens.push_back(absl::StrCat("[PAD", tokens.size(), "]"));
    EXPECT_EQ(*file->Strings("tokenizer.ggml.tokens").value(), tokens) << name;
    std::vector<int64_t> types = *source->Integers("tokenizer.ggml.token_type").value();
    types.insert(types.end(), 2, 5);
    EXPECT_EQ(*file->Integers("tokenizer.ggml.token_type").value(), types) << name;
    if (source->Has("tokenizer.ggml.merges")) {
      EXPECT_EQ(*file->Strings("tokenizer.ggml.merges").value(), *source->Strings("tokenizer.ggml.merges").value());
    }
    ASSERT_OK_AND_ASSIGN(const auto back, GgufTokenizer(*file));
    const std::string text = "Hello, world! 123 \u00e9\n\n  x";
    EXPECT_EQ(back->Encode(text), tokenizer->Encode(text)) << name;
    EXPECT_EQ(back->adds_bos(), tokenizer->adds_bos());
    EXPECT_EQ(file->Text("tokenizer.chat_template").value(), "{{ messages }}");
    ASSERT_OK_AND_ASSIGN(const TokenizerExtras read, ReadTokenizerExtras({path}, nullptr));
    EXPECT_EQ(read.chat_template, extras.chat_template);
    EXPECT_EQ(read.ids, extras.ids);
    EXPECT_EQ(read.add_eos, extras.add_eos);
  }
}

constexpr int32_t kText = 257, kMessage = 258, kTurn = 259, kStop = 260;

// Bytes, then Llama 3's end tokens and one of no known text.
std::unique_ptr<text::Tokenizer> EndingTokenizer(int32_t eos) {
  text::BpeVocabulary vocabulary = text::TinyBpe({});
  EXPECT_EQ(static_cast<int32_t>(vocabulary.tokens.size()), kText);
  for (const char* text : {"<|end_of_text|>", "<|eom_id|>", "<|eot_id|>", "<|stop|>"}) {
    vocabulary.added_tokens.push_back({static_cast<int32_t>(vocabulary.tokens.size()), text});
    vocabulary.tokens.push_back(text);
  }
  vocabulary.eos_id = eos;
  return text::MakeBpe(std::move(vocabulary)).value();
}

TEST(GgufModelWriterTest, EndTokensAreNamedByTheirTexts) {
  constexpr int32_t kNone = -1;
  struct Case {
    int32_t eos;
    std::vector<int32_t> ends;
    int32_t eot, eom;
    bool listed;
  };
  const Case cases[] = {{kText, {kText, kMessage, kTurn}, kTurn, kMessage, false},  // Llama 3.x Instruct's config.json
                        {kTurn, {kText, kMessage, kTurn}, kNone, kMessage, true},   // and as its tokenizer says
                        {kText, {kStop, kText, kTurn, kMessage}, kTurn, kMessage, true},
                        {kText, {kText, kStop}, kStop, kNone, false},
                        {kTurn, {kTurn}, kNone, kNone, false}};
  const std::string path = TestTempDir() + "/e.gguf";
  for (const Case& c : cases) {
    const auto tokenizer = EndingTokenizer(c.eos);
    LlamaConfig config = SmallConfig();
    config.vocab_size = tokenizer->vocabulary_size();
    config.eos_token_ids = c.ends;
    ASSERT_OK(WriteGgufModel(path, "e", CheckpointOf(config, SyntheticWeights(config, 1), AsIs), tokenizer.get(), {}));
    ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(path));
    const auto id = [&](const std::string& name) { return file->Has(name) ? file->Integer(name).value() : kNone; };
    EXPECT_EQ(id("tokenizer.ggml.eos_token_id"), c.eos);
    EXPECT_EQ(id("tokenizer.ggml.eot_token_id"), c.eot);
    EXPECT_EQ(id("tokenizer.ggml.eom_token_id"), c.eom);
    EXPECT_EQ(file->Has("tokenizer.ggml.eos_token_ids"), c.listed);
    ASSERT_OK_AND_ASSIGN(const LoadedModel back, LoadModel(path));
    EXPECT_THAT(back.config.eos_token_ids, ::testing::UnorderedElementsAreArray(c.ends));
    EXPECT_EQ(back.config.eos_token_ids.front(), c.eos);
    EXPECT_EQ(back.tokenizer->eos_id(), c.eos);
  }
}

// What the source says of itself stays, but for what the new file decides.
TEST(GgufModelWriterTest, GeneralMetadataStays) {
  const std::string folder = TestTempDir(), source = folder + "/source.gguf", path = folder + "/g.gguf";
  GgufBuilder builder;
  builder.Text("general.architecture", "llama").Text("general.type", "adapter").Text("general.name", "Source").Text("general.author", "A. Uthor");
  builder.Text("general.license", "mit").Text("general.description", "small").Strings("general.tags", {"a", "b"}).Strings("general.languages", {});
  builder.Integer("general.base_model.count", 1).Text("general.base_model.0.name", "Base").Text("general.size_label", "1B");
  builder.Integer("general.file_type", 1).Integer("general.quantization_version", 1).Integer("general.alignment", 64);
  builder.Text("general.quantized_by", "somebody").Real("general.real", 1).Numbers<int32_t>("general.numbers", GgufType::kI32, {1});
  builder.Integer("llama.context_length", 7);
  WriteQuickly(source, builder.Build());
  ASSERT_OK_AND_ASSIGN(const GgufGeneral general, ReadGgufGeneral({source}));
  EXPECT_EQ(general.count("llama.context_length"), 0u);
  const LlamaConfig config = SmallConfig();
  Checkpoint checkpoint = CheckpointOf(config, SyntheticWeights(config, 1), AsIs);
  checkpoint.pipeline = "p";
  ASSERT_OK(WriteGgufModel(path, "other", checkpoint, nullptr, {}, general));
  ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(path));
  const std::map<std::string, std::string> texts = {
      {"general.name", "Source"}, {"general.author", "A. Uthor"}, {"general.license", "mit"}, {"general.base_model.0.name", "Base"},
      {"general.size_label", "1B"}, {"general.type", "model"}, {"general.description", "small; Quantized by Nibble: p"}};
  for (const auto& [key, text] : texts) EXPECT_EQ(file->Text(key).value(), text) << key;
  EXPECT_EQ(*file->Strings("general.tags").value(), (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(file->Strings("general.languages").value()->empty());
  EXPECT_EQ(file->Integer("general.base_model.count").value(), 1);
  EXPECT_EQ(file->Integer("general.file_type").value(), 32);
  EXPECT_EQ(file->Integer("general.quantization_version").value(), 2);
  EXPECT_EQ(file->Integer("general.alignment").value(), 32);
  for (const char* key : {"general.quantized_by", "general.real", "general.numbers"}) EXPECT_FALSE(file->Has(key)) << key;
  ASSERT_OK(WriteGgufModel(path, "other", checkpoint, nullptr, {}, ReadGgufGeneral({folder + "/config.json"}).value()));
  EXPECT_EQ(GgufFile::Open(path).value()->Text("general.name").value(), "other");
}

TEST(GgufModelWriterTest, ExtrasOfAFolder) {
  const std::string folder = TestTempDir() + "/hf", config = folder + "/tokenizer_config.json";
  ASSERT_OK(MakeDirectories(folder));
  WriteQuickly(config, "{\"chat_template\": [{\"name\": \"tool\", \"template\": \"x\"}, {\"name\": \"default\", \"template\": \"y\"}], \"add_eos_token\": true}");
  ASSERT_OK_AND_ASSIGN(TokenizerExtras extras, ReadTokenizerExtras({folder + "/config.json", config}, nullptr));
  EXPECT_EQ(extras.chat_template, "y");
  EXPECT_EQ(extras.add_eos, true);
  for (const char* odd : {"{\"chat_template\": [{\"name\": 3}, 4]}", "{\"chat_template\": [{\"name\": \"default\", \"template\": []}]}", "{\"chat_template\": 5}",
                          "{\"pad_token\": {\"content\": 7}}"}) {
    WriteQuickly(config, odd);
    EXPECT_EQ(ReadTokenizerExtras({config}, nullptr)->chat_template, "") << odd;
  }
  WriteQuickly(folder + "/chat_template.jinja", "z");
  EXPECT_EQ(ReadTokenizerExtras({config}, nullptr)->chat_template, "z");
  EXPECT_EQ(ReadTokenizerExtras({folder + "/config.json"}, nullptr)->chat_template, "");
}

TEST(GgufModelWriterTest, WhatGgufCannotHoldIsNamed) {
  const LlamaConfig config = SmallConfig();
  const auto weights = SyntheticWeights(config, 5);
  const std::string path = TestTempDir() + "/never.gguf", up = "model.layers.1.mlp.up_proj";
  const auto message = [&](const Checkpoint& checkpoint) { return std::string(WriteGgufModel(path, "x", checkpoint, nullptr, {}).message()); };
  const Checkpoint grouped = CheckpointOf(config, weights, [&](const std::string& name, EncodedTensor tensor) {
    return name == up + ".weight" ? Encode(IntegerScheme(4, 32, false), tensor.shape, Decode(tensor)).value() : tensor;
  });
  EXPECT_THAT(message(grouped), AllOf(HasSubstr(up), HasSubstr("int4 per group of 32"), HasSubstr("kquants")));
  Checkpoint plain = CheckpointOf(config, weights, AsIs);
  plain.attachments.activations[up] = IntegerScheme(8, 0, false);
  EXPECT_THAT(message(plain), AllOf(HasSubstr(up), HasSubstr("activation")));
  plain.attachments = {};
  plain.attachments.rotations.push_back({up, 32});
  EXPECT_THAT(message(plain), AllOf(HasSubstr(up), HasSubstr("rotation")));
  plain.attachments = {};
  plain.attachments.adapters.push_back({up, 4, 1.0f});
  EXPECT_THAT(message(plain), AllOf(HasSubstr(up), HasSubstr("merge")));
  plain.attachments = {};
  plain.attachments.caches["model.layers.0.self_attn.attention"] = {};
  EXPECT_THAT(message(plain), AllOf(HasSubstr("layers.0"), HasSubstr("KV cache")));
  EXPECT_FALSE(FileExists(path));
}

}  // namespace
}  // namespace nibble::io
