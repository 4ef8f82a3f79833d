#include "core/io/hf_folder.h"

#include "core/base/file.h"
#include "core/base/rng.h"
#include "core/base/testing.h"
#include "core/io/damage_testing.h"
#include "core/io/safetensors.h"
#include "core/io/scheme_text.h"
#include "core/text/sentencepiece_model.pb.h"
#include "core/text/testing/tiny_vocabulary.h"

namespace nibble::io {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr char kUp[] = "model.layers.0.mlp.up_proj.weight";
constexpr char kNorm[] = "model.norm.weight";

LlamaConfig Tiny() { return ShapePreset("tiny").value(); }

QuantScheme Int4() { return SchemeFromText("format: \"int4\" per: PER_GROUP group_size: 32").value(); }
QuantScheme Int8Asymmetric() { return SchemeFromText("format: \"int8\" per: PER_TOKEN asymmetric: true dynamic: true").value(); }

EncodedTensor RandomEncoded(const QuantScheme& scheme, const Shape& shape) {
  Rng rng(5);
  std::vector<float> values(CheckedElements(shape).value());
  for (float& value : values) value = rng.Normal();
  return Encode(scheme, shape, values).value();
}

// A checkpoint with a quantized matrix and a bf16 norm.
Checkpoint Sample() {
  Checkpoint checkpoint;
  checkpoint.config = Tiny();
  checkpoint.parameters = {{kUp, Int4(), {100, 48}}, {kNorm, FloatScheme("bf16"), {48}}};
  checkpoint.load = [](const std::string& name) -> absl::StatusOr<EncodedTensor> {
    if (name == kUp) return RandomEncoded(Int4(), {100, 48});
    return RandomEncoded(FloatScheme("bf16"), {48});
  };
  checkpoint.attachments.activations = {{"model.layers.0.mlp.up_proj", Int8Asymmetric()}};
  checkpoint.attachments.rotations = {{"model.layers.0.mlp.down_proj", 20}};
  checkpoint.attachments.caches = {{"model.layers.1.self_attn.attention", {Int8Asymmetric(), FloatScheme("fp16")}}};
  checkpoint.pipeline = "step { rtn }";
  checkpoint.note = "a \"test\"";
  return checkpoint;
}

std::string MessageOf(const std::string& folder) { return std::string(ReadHfFolder(folder).status().message()); }

TEST(SchemeTextTest, RoundTripsOnOneLine) {
  for (const QuantScheme& scheme : {Int4(), Int8Asymmetric(), FloatScheme("bf16")}) {
    const std::string text = SchemeToText(scheme);
    EXPECT_EQ(text.find('\n'), std::string::npos);
    ASSERT_OK_AND_ASSIGN(const QuantScheme again, SchemeFromText(text));
    EXPECT_TRUE(SameScheme(scheme, again)) << text;
  }
  EXPECT_EQ(SchemeToText(Int4()), "format: \"int4\" per: PER_GROUP group_size: 32");
}

TEST(SchemeTextTest, ErrorsSayWhere) {
  EXPECT_THAT(std::string(SchemeFromText("format: \"int4\" bits: 4").status().message()), HasSubstr("bits"));
  EXPECT_FALSE(SchemeFromText("format: \"int5000\"").ok());
  EXPECT_FALSE(SchemeFromText("").ok());
  EXPECT_FALSE(SchemeFromText("format: \"int4\" per: PER_GROUP").ok());
}

TEST(HfFolderTest, CheckpointRoundTrip) {
  const std::string folder = TestTempDir() + "/model";
  ASSERT_OK(WriteCheckpoint(folder, Sample()));
  ASSERT_OK_AND_ASSIGN(const HfModel model, ReadHfFolder(folder));
  EXPECT_EQ(model.config.ToJson(), Tiny().ToJson());
  EXPECT_EQ(model.pipeline, "step { rtn }");
  EXPECT_EQ(model.note, "a \"test\"");
  EXPECT_EQ(model.tokenizer, nullptr);
  ASSERT_EQ(model.attachments.activations.size(), 1);
  EXPECT_TRUE(SameScheme(model.attachments.activations.at("model.layers.0.mlp.up_proj"), Int8Asymmetric()));
  ASSERT_EQ(model.attachments.rotations.size(), 1);
  EXPECT_EQ(model.attachments.rotations[0].module, "model.layers.0.mlp.down_proj");
  EXPECT_EQ(model.attachments.rotations[0].block, 20);
  const ir::Attachments::CacheSchemes& cache = model.attachments.caches.at("model.layers.1.self_attn.attention");
  EXPECT_TRUE(SameScheme(*cache.keys, Int8Asymmetric()));
  EXPECT_EQ(cache.values->format(), "fp16");
  for (const CheckpointParameter& parameter : Sample().parameters) {
    EXPECT_TRUE(model.weights->Has(parameter.name));
    ASSERT_OK_AND_ASSIGN(const EncodedTensor expected, Sample().load(parameter.name));
    ASSERT_OK_AND_ASSIGN(const EncodedTensor read, model.weights->Load(parameter.name));
    EXPECT_TRUE(SameScheme(read.scheme, expected.scheme));
    EXPECT_EQ(read.shape, expected.shape);
    ASSERT_EQ(read.buffers.size(), expected.buffers.size());
    for (const auto& [name, buffer] : expected.buffers) EXPECT_EQ(read.buffer(name).bytes(), buffer.bytes()) << name;
  }
}

TEST(HfFolderTest, FloatParametersArePlainTensors) {
  const std::string folder = TestTempDir() + "/model";
  ASSERT_OK(WriteCheckpoint(folder, Sample()));
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(folder + "/model.safetensors"));
  EXPECT_EQ(file->names(), (std::vector<std::string>{std::string(kUp) + ".codes", std::string(kUp) + ".scales", kNorm}));
}

TEST(HfFolderTest, WriterRefusesTensorsOtherThanAnnounced) {
  const std::string folder = TestTempDir() + "/model";
  Checkpoint checkpoint = Sample();
  checkpoint.load = [](const std::string&) -> absl::StatusOr<EncodedTensor> { return RandomEncoded(Int4(), {10, 48}); };
  EXPECT_THAT(std::string(WriteCheckpoint(folder, checkpoint).message()), AllOf(HasSubstr(kUp), HasSubstr("[100, 48]")));
  checkpoint.load = [](const std::string&) -> absl::StatusOr<EncodedTensor> { return absl::InternalError("lost"); };
  EXPECT_THAT(std::string(WriteCheckpoint(folder, checkpoint).message()), HasSubstr("lost"));
  EXPECT_THAT(MessageOf(folder), HasSubstr("no config.json"));
}

TEST(HfFolderTest, FailedRewriteLeavesNothingThatLoads) {
  const std::string folder = TestTempDir() + "/model";
  ASSERT_OK(WriteCheckpoint(folder, Sample()));
  Checkpoint broken = Sample();
  broken.load = [](const std::string&) -> absl::StatusOr<EncodedTensor> { return absl::InternalError("lost"); };
  EXPECT_FALSE(WriteCheckpoint(folder, broken).ok());
  EXPECT_FALSE(ReadHfFolder(folder).ok());
  ASSERT_OK(WriteCheckpoint(folder, Sample()));
  EXPECT_OK(ReadHfFolder(folder));
}

// Two shards of float tensors and their index.
std::string WriteSharded(const std::string& weight_map) {
  const std::string folder = TestTempDir();
  WriteQuickly(folder + "/config.json", Tiny().ToJson());
  NIBBLE_CHECK_OK(WriteSafetensors(folder + "/model-00001-of-00002.safetensors", {{"a", Tensor::FromFloats({2}, {1, 2})}}));
  NIBBLE_CHECK_OK(WriteSafetensors(folder + "/model-00002-of-00002.safetensors",
                                   {{"b", FloatsToDType(DType::kF16, {1, 2}, {3, 4})}, {"i", Tensor::Zeros(DType::kI32, {2})},
                                    {"deep", Tensor::Zeros(DType::kF32, {1, 1, 1})}}));
  WriteQuickly(folder + "/model.safetensors.index.json", absl::StrCat(R"({"metadata": {}, "weight_map": )", weight_map, "}"));
  return folder;
}

TEST(HfFolderTest, ReadsShards) {
  const std::string folder = WriteSharded(R"({"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors",
      "i": "model-00002-of-00002.safetensors", "deep": "model-00002-of-00002.safetensors",
      "ghost": "model-00001-of-00002.safetensors"})");
  ASSERT_OK_AND_ASSIGN(const HfModel model, ReadHfFolder(folder));
  EXPECT_EQ(model.files.size(), 4);
  ASSERT_OK_AND_ASSIGN(const EncodedTensor b, model.weights->Load("b"));
  EXPECT_EQ(b.scheme.format(), "fp16");
  EXPECT_EQ(ToFloats(b.buffer("values")), (std::vector<float>{3, 4}));
  EXPECT_OK(model.weights->Load("a"));
  EXPECT_THAT(std::string(model.weights->Load("ghost").status().message()),
              AllOf(HasSubstr("'ghost'"), HasSubstr("model-00001-of-00002.safetensors")));
  EXPECT_THAT(std::string(model.weights->Load("gone").status().message()), AllOf(HasSubstr("'gone'"), HasSubstr("and 1 more")));
  EXPECT_THAT(std::string(model.weights->Load("i").status().message()), AllOf(HasSubstr("'i'"), HasSubstr("I32")));
  EXPECT_THAT(std::string(model.weights->Load("deep").status().message()), HasSubstr("[1, 1, 1]"));
}

TEST(HfFolderTest, BadIndexesAreErrors) {
  EXPECT_THAT(MessageOf(WriteSharded(R"({"a": "../x.safetensors"})")), HasSubstr("same folder"));
  EXPECT_THAT(MessageOf(WriteSharded(R"({"a": 3})")), HasSubstr("same folder"));
  EXPECT_THAT(MessageOf(WriteSharded(R"({"a": "absent.safetensors"})")), HasSubstr("absent.safetensors"));
  EXPECT_THAT(MessageOf(WriteSharded("[]")), HasSubstr("weight_map"));
}

TEST(HfFolderTest, MissingFilesAreNamed) {
  const std::string folder = TestTempDir();
  EXPECT_THAT(MessageOf(folder), HasSubstr("config.json"));
  WriteQuickly(folder + "/config.json", Tiny().ToJson());
  EXPECT_THAT(MessageOf(folder), HasSubstr("model.safetensors"));
}

TEST(HfFolderTest, TensorsThatNoLlamaHasAreErrors) {
  const auto message = [](const std::string& name, const std::vector<float>& values) {
    const std::string folder = TestTempDir();
    WriteQuickly(folder + "/config.json", Tiny().ToJson());
    NIBBLE_CHECK_OK(WriteSafetensors(folder + "/model.safetensors", {{name, Tensor::FromFloats({2}, values)}}, {}));
    return MessageOf(folder);
  };
  EXPECT_THAT(message("model.layers.0.self_attn.q_norm.weight", {1, 1}), HasSubstr("q_norm.weight' has no place"));
  EXPECT_THAT(message("model.layers.2.input_layernorm.weight", {1, 1}), HasSubstr("has no place in a Llama of 2 layers"));
  EXPECT_THAT(message("model.layers.0.self_attn.q_proj.bias", {0, 1}), HasSubstr("linears carry none"));
  EXPECT_EQ(message("model.layers.0.self_attn.q_proj.bias", {0, 0}), "");
  EXPECT_EQ(message("model.layers.0.self_attn.rotary_emb.inv_freq", {1, 1}), "");
}

TEST(HfFolderTest, FilesOfTheModelBeforeGo) {
  const std::string folder = TestTempDir();
  for (const char* name : {"quantize_config.json", "tokenizer.model", "chat_template.jinja"}) WriteQuickly(absl::StrCat(folder, "/", name), "{}");
  ASSERT_OK(WriteCheckpoint(folder, Sample()));
  ASSERT_OK_AND_ASSIGN(const HfModel model, ReadHfFolder(folder));
  EXPECT_EQ(model.tokenizer, nullptr);
  EXPECT_FALSE(FileExists(folder + "/chat_template.jinja"));
  EXPECT_THAT(*ReadFile(folder + "/config.json"), HasSubstr("\"torch_dtype\": \"bfloat16\""));
}

// The sample checkpoint with other metadata or another nibble.json.
std::string WithSchemes(const std::string& schemes) {
  const std::string folder = TestTempDir();
  WriteQuickly(folder + "/config.json", Tiny().ToJson());
  const EncodedTensor tensor = RandomEncoded(Int4(), {100, 48});
  NIBBLE_CHECK_OK(WriteSafetensors(folder + "/model.safetensors",
                                   {{"w.codes", tensor.buffer("codes")}, {"w.scales", tensor.buffer("scales")}},
                                   {{"nibble.schemes", schemes}}));
  return folder;
}

std::string SchemeEntry(const std::string& scheme, const std::string& shape) {
  return absl::StrCat(R"({"w": {"scheme": ")", scheme, R"(", "shape": )", shape, "}}");
}

TEST(HfFolderTest, SchemesAreChecked) {
  EXPECT_OK(ReadHfFolder(WithSchemes(SchemeEntry(R"(format: \"int4\" per: PER_GROUP group_size: 32)", "[100, 48]"))));
  const std::pair<std::string, std::string> bad[] = {
      {"nonsense", "[100, 48]"},
      {R"(format: \"int4\" per: PER_GROUP group_size: 32)", "[100, -48]"},
      {R"(format: \"int4\" per: PER_GROUP group_size: 32)", "[]"},
      {R"(format: \"int4\" per: PER_GROUP group_size: 32)", "[0, 48]"},
      {R"(format: \"int4\" per: PER_GROUP group_size: 32)", "[4611686018427387904, 4611686018427387904]"},
      {R"(format: \"int4\" per: PER_GROUP group_size: 32)", "7"},
      {R"(format: \"aqlm\" [nibble.additive_codebooks] { codebooks: 16 bits: 16 in_group: 1 })", "[1, 576460752303423487]"},
      {R"(format: \"int4\" range { mse { grid: 2000000000 } })", "[100, 48]"},
      {R"(format: \"int4\" range { mse { norm: nan } })", "[100, 48]"},
      {R"(format: \"int4\" range { percentile { share: nan } })", "[100, 48]"},
      {R"(format: \"int4\" scale_floor: nan)", "[100, 48]"},
      {R"(format: \"int4\" per: PER_GROUP group_size: -2147483648)", "[100, 48]"}};
  for (const auto& [scheme, shape] : bad) {
    EXPECT_THAT(MessageOf(WithSchemes(SchemeEntry(scheme, shape))), HasSubstr("'w'")) << scheme << shape;
  }
  EXPECT_THAT(MessageOf(WithSchemes("[")), HasSubstr("nibble.schemes"));
  EXPECT_THAT(MessageOf(WithSchemes(R"({"w": 3})")), HasSubstr("'w'"));
}

TEST(HfFolderTest, BuffersAreCheckedAgainstTheScheme) {
  ASSERT_OK_AND_ASSIGN(const HfModel other, ReadHfFolder(WithSchemes(SchemeEntry(
                                                R"(format: \"int4\" per: PER_GROUP group_size: 16)", "[100, 48]"))));
  EXPECT_THAT(std::string(other.weights->Load("w").status().message()), AllOf(HasSubstr("'w'"), HasSubstr("scales")));
  ASSERT_OK_AND_ASSIGN(const HfModel zeros, ReadHfFolder(WithSchemes(SchemeEntry(
                                                R"(format: \"int4\" per: PER_GROUP group_size: 32 asymmetric: true)", "[100, 48]"))));
  EXPECT_THAT(std::string(zeros.weights->Load("w").status().message()), HasSubstr("w.zeros"));
  ASSERT_OK_AND_ASSIGN(const HfModel big, ReadHfFolder(WithSchemes(SchemeEntry(
                                              R"(format: \"int4\" per: PER_GROUP group_size: 32)", "[16777216, 16777216]"))));
  EXPECT_THAT(std::string(big.weights->Load("w").status().message()), HasSubstr("codes"));
}

TEST(HfFolderTest, NibbleFileIsChecked) {
  const std::string folder = TestTempDir() + "/model";
  ASSERT_OK(WriteCheckpoint(folder, Sample()));
  const std::pair<const char*, const char*> bad[] = {{R"({"format_version": 2})", "format_version is 2"},
                                                     {"{}", "format_version is missing"},
                                                     {R"({"format_version": 1, "note": 3})", "note"},
                                                     {R"({"format_version": 1, "activations": []})", "activations"},
                                                     {R"({"format_version": 1, "activations": {"m": "x"}})", "'m'"},
                                                     {R"({"format_version": 1, "activations": {"m": 1}})", "'m'"},
                                                     {R"({"format_version": 1, "rotations": {"m": -4}})", "'m'"},
                                                     {R"({"format_version": 1, "caches": {"m": {"key": "x"}}})", "'m'"}};
  for (const auto& [text, expected] : bad) {
    WriteQuickly(folder + "/nibble.json", text);
    EXPECT_THAT(MessageOf(folder), AllOf(HasSubstr("nibble.json"), HasSubstr(expected))) << text;
  }
}

TEST(HfFolderTest, RandomDamageNeverCrashes) {
  const std::string folder = TestTempDir() + "/model";
  ASSERT_OK(WriteCheckpoint(folder, Sample()));
  const std::string path = folder + "/model.safetensors";
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile(path));
  ForEachMutation(path, bytes, std::min<size_t>(bytes.size(), 900), [&] {
    const auto model = ReadHfFolder(folder);
    if (!model.ok()) return;
    for (const char* name : {kUp, kNorm}) (void)model->weights->Load(name);
  });
}

TEST(HfFolderTest, KeepsTheTokenizer) {
  NIBBLE_REQUIRE_SHARED();
  const std::string source = SharedDir() + "/tokenizers/llama-3.2", folder = TestTempDir() + "/model";
  Checkpoint checkpoint = Sample();
  ASSERT_OK_AND_ASSIGN(checkpoint.tokenizer_json, ReadFile(source + "/tokenizer.json"));
  ASSERT_OK_AND_ASSIGN(checkpoint.tokenizer_config_json, ReadFile(source + "/tokenizer_config.json"));
  ASSERT_OK(WriteCheckpoint(folder, checkpoint));
  ASSERT_OK_AND_ASSIGN(const HfModel model, ReadHfFolder(folder));
  ASSERT_NE(model.tokenizer, nullptr);
  EXPECT_EQ(model.tokenizer->Decode(model.tokenizer->Encode("Hello world")), "Hello world");
  EXPECT_EQ(model.files.size(), 5);
}

// <unk> <s> </s> ▁ a ▁a, without byte pieces.
std::string TinySentencePieceModel() {
  text::SentencePieceModel model;
  for (const char* text : {"<unk>", "<s>", "</s>", "▁", "a", "▁a"}) {
    const int id = model.pieces_size();
    auto* piece = model.add_pieces();
    piece->set_piece(text);
    piece->set_score(static_cast<float>(id));
    piece->set_type(id == 0 ? 2 : id < 3 ? 3 : 1);
  }
  model.mutable_trainer_spec()->set_model_type(text::SentencePieceModel::TrainerSpec::BPE);
  model.mutable_normalizer_spec()->set_remove_extra_whitespaces(false);
  return model.SerializeAsString();
}

TEST(HfFolderTest, ReadsTokenizerModelWhereThereIsNoTokenizerJson) {
  const std::string folder = TestTempDir() + "/model";
  ASSERT_OK(WriteCheckpoint(folder, Sample()));
  WriteQuickly(folder + "/tokenizer.model", TinySentencePieceModel());
  ASSERT_OK_AND_ASSIGN(HfModel model, ReadHfFolder(folder));
  ASSERT_NE(model.tokenizer, nullptr);
  EXPECT_EQ(model.tokenizer->Encode("a  a"), (std::vector<int32_t>{5, 3, 5}));
  EXPECT_TRUE(model.tokenizer->adds_bos());
  EXPECT_THAT(model.files, Contains(folder + "/tokenizer.model"));
  const std::string json = model.tokenizer->ToJson();

  WriteQuickly(folder + "/tokenizer_config.json", R"({"add_bos_token": false})");
  ASSERT_OK_AND_ASSIGN(model, ReadHfFolder(folder));
  EXPECT_FALSE(model.tokenizer->adds_bos());
  EXPECT_THAT(model.files, Contains(folder + "/tokenizer_config.json"));

  WriteQuickly(folder + "/tokenizer.model", "\nnot a model");
  EXPECT_THAT(MessageOf(folder), HasSubstr(folder + "/tokenizer.model: "));
  WriteQuickly(folder + "/tokenizer.json", json);
  ASSERT_OK_AND_ASSIGN(model, ReadHfFolder(folder));
  EXPECT_EQ(model.tokenizer->Encode("a  a"), (std::vector<int32_t>{5, 3, 5}));
}

TEST(HfFolderTest, ReadsTiktokensTokenizerModel) {
  const std::string folder = TestTempDir() + "/model";
  Checkpoint checkpoint = Sample();
  checkpoint.tokenizer_model = text::TinyTiktoken({"ab"});
  ASSERT_OK(WriteCheckpoint(folder, checkpoint));
  ASSERT_OK_AND_ASSIGN(HfModel model, ReadHfFolder(folder));
  ASSERT_NE(model.tokenizer, nullptr);
  EXPECT_EQ(model.tokenizer->Encode("xab<|begin_of_text|>"), (std::vector<int32_t>{'x', 256, 257}));
  EXPECT_EQ(model.tokenizer->bos_id(), 257);
  EXPECT_EQ(model.tokenizer->eos_id(), 258);
  EXPECT_TRUE(model.tokenizer->adds_bos());
  EXPECT_THAT(model.files, Contains(folder + "/tokenizer.model"));
  ASSERT_OK_AND_ASSIGN(const auto alone, ReadTokenizerFile(folder + "/tokenizer.model"));
  EXPECT_EQ(alone->ToJson(), model.tokenizer->ToJson());

  WriteQuickly(folder + "/tokenizer_config.json", R"({"eos_token": "<|eot_id|>"})");
  ASSERT_OK_AND_ASSIGN(model, ReadHfFolder(folder));
  EXPECT_EQ(model.tokenizer->eos_id(), 257 + 9);

  WriteQuickly(folder + "/tokenizer.model", "IQ== 0\nIg== x\n");
  EXPECT_THAT(MessageOf(folder), HasSubstr(folder + "/tokenizer.model:2: the rank is 'x'"));
}

}  // namespace
}  // namespace nibble::io
