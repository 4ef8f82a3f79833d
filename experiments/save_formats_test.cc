// Models written for other programs are the models that were quantized.

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/io/gguf_testing.h"
#include "core/io/safetensors.h"
#include "core/io/tokenizer_extras.h"
#include "core/runtime/reference.h"
#include "core/text/testing/tiny_vocabulary.h"
#include "core/text/tiktoken.h"
#include "experiments/model.h"
#include "methods/kquants/kquants.pb.h"
#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kNovelist[] = "configs/models/novelist";
const std::vector<int32_t> kTokens = {1, 300, 17, 4000, 82, 911, 5, 63};

constexpr char kW4A16[] = R"(step { [nibble.rtn] { bits: 4 group_size: 32 } })";
constexpr char kW8A8[] = R"(step { [nibble.rtn] { bits: 8 } } step { [nibble.activations] { asymmetric: false divisor: HALF_RANGE } })";
constexpr char kW4A8[] = R"(step { [nibble.rtn] { bits: 4 group_size: 32 } } step { [nibble.activations] {} })";

OpenedModel Quantized(const std::string& source, const std::string& steps) {
  OpenedModel model = OpenModel(source).value();
  EXPECT_OK(ApplyText(steps, model.graph));
  return model;
}

std::vector<float> Logits(const ir::Graph& graph) { return RunReference(graph, kTokens).value(); }

// Saves and opens again; the logits must be the same numbers.
absl::StatusOr<OpenedModel> Again(const OpenedModel& model, const std::string& format) {
  const std::string folder = TestTempDir() + "/model";
  NIBBLE_RETURN_IF_ERROR(SaveModel(model.source, model.graph, "", folder, format));
  return OpenModel(folder);
}

std::string Refusal(const std::string& source, const std::string& steps, const std::string& format) {
  return std::string(Again(Quantized(source, steps), format).status().message());
}

TEST(SaveFormats, CompressedTensorsGivesTheSameLogits) {
  for (const char* steps :
       {kW4A16, kW8A8, kW4A8, R"(step { [nibble.rtn] { bits: 3 asymmetric: true } })", R"(step { [nibble.rtn] { bits: 8 per: PER_TENSOR } })", R"(step { [nibble.rtn] { bits: 4 group_size: 64 asymmetric: true scale_type: BF16 } })"}) {
    const OpenedModel model = Quantized(kNovelist, steps);
    ASSERT_OK_AND_ASSIGN(const OpenedModel again, Again(model, "compressed-tensors"));
    EXPECT_EQ(Logits(again.graph), Logits(model.graph)) << steps;
    EXPECT_EQ(ir::Print(again.graph).value(), ir::Print(model.graph).value());
    EXPECT_NE(again.source.tokenizer, nullptr);
  }
}

// Scales of whole tensors have one dimension there.
TEST(SaveFormats, CompressedTensorsOfOneScaleATensor) {
  const OpenedModel model = Quantized(kNovelist, "step { [nibble.rtn] { bits: 8 per: PER_TENSOR asymmetric: true } }");
  const std::string folder = TestTempDir() + "/tensor";
  ASSERT_OK(SaveModel(model.source, model.graph, "", folder, "compressed-tensors"));
  ASSERT_OK_AND_ASSIGN(const auto file, io::SafetensorsFile::Open(folder + "/model.safetensors"));
  EXPECT_EQ(file->Get("model.layers.0.mlp.up_proj.weight_scale")->shape(), Shape{1});
  EXPECT_EQ(file->Get("model.layers.0.mlp.up_proj.weight_zero_point")->shape(), Shape{1});
}

TEST(SaveFormats, ChatTemplatesEndTokensAndPipelinesStay) {
  OpenedModel model = OpenModel(kNovelist).value();
  model.source.config.eos_token_ids = {2, 7};
  const std::string first = TestTempDir() + "/first", second = first + "_second";
  ASSERT_OK(SaveModel(model.source, model.graph, "one", first, "folder"));
  ASSERT_OK_AND_ASSIGN(std::string config, ReadFile(first + "/tokenizer_config.json"));
  config.insert(config.find('{') + 1, R"("chat_template": "{{ messages }}", "pad_token": "<unk>", "add_eos_token": false,)");
  ASSERT_OK(WriteFile(first + "/tokenizer_config.json", config));
  for (const std::string format : {"folder", "compressed-tensors", "gguf"}) {
    ASSERT_OK_AND_ASSIGN(OpenedModel again, OpenModel(first));
    if (format == "compressed-tensors") ASSERT_OK(ApplyText(kW4A16, again.graph));
    const std::string path = absl::StrCat(second, format == "gguf" ? "/model.gguf" : "");
    ASSERT_OK(SaveModel(again.source, again.graph, "two", path, format));
    ASSERT_OK_AND_ASSIGN(const OpenedModel back, OpenModel(path));
    ASSERT_OK_AND_ASSIGN(const io::TokenizerExtras extras, io::ReadTokenizerExtras(back.source.files, back.source.tokenizer.get()));
    EXPECT_EQ(extras.chat_template, "{{ messages }}") << format;
    EXPECT_EQ(extras.ids.count("padding_token_id"), 1u) << format;
    EXPECT_EQ(extras.add_eos, false) << format;
    EXPECT_EQ(back.source.config.eos_token_ids, (std::vector<int32_t>{2, 7})) << format;
    if (format == "folder") EXPECT_THAT(back.source.pipeline, ::testing::EndsWith("one -> two"));
  }
}

// Rows of 256 and 512 columns, which blocks of 256 divide: every tensor has the type of its mix.
OpenedModel BlockModel() {
  OpenedModel model;
  model.source.source = "blocks";
  model.source.config = *ShapePreset("tiny");
  model.source.config.hidden_size = 256;
  model.source.config.intermediate_size = 512;
  model.source.config.num_hidden_layers = 4;
  model.source.config.head_dim = 64;
  model.source.weights = SyntheticWeights(model.source.config, 7);
  model.graph = BuildLlama(model.source.config, model.source.weights).value();
  return model;
}

TEST(SaveFormats, GgufOfEveryMixGivesTheSameLogits) {
  const OpenedModel original = BlockModel();
  const std::string path = TestTempDir() + "/model.gguf";
  const auto& mixes = *KquantsOptions::Mix_descriptor();
  // llama.cpp's llama_ftype.
  const std::map<std::string, int64_t> file_types = {{"Q4_0", 2},    {"Q4_1", 3},    {"Q8_0", 7},    {"Q5_0", 8},    {"Q5_1", 9},
                                                     {"Q2_K", 10},   {"Q3_K_S", 11}, {"Q3_K_M", 12}, {"Q3_K_L", 13}, {"Q4_K_S", 14},
                                                     {"Q4_K_M", 15}, {"Q5_K_S", 16}, {"Q5_K_M", 17}, {"Q6_K", 18}};
  ASSERT_EQ(mixes.value_count(), static_cast<int>(file_types.size()));
  for (int i = 0; i < mixes.value_count(); ++i) {
    const std::string mix = mixes.value(i)->name();
    OpenedModel model = original;
    ThreadPool pool(2);
    Context context(pool, TestWorkplace());
    ASSERT_OK(ApplyPipeline(context, ParsePipeline(absl::StrCat("step { [nibble.kquants] { mix: ", mix, " } }")).step(), model.graph));
    EXPECT_TRUE(context.events().empty()) << mix << ": " << context.events().begin()->first;
    ASSERT_OK(SaveModel(model.source, model.graph, mix, path, "gguf"));
    ASSERT_OK_AND_ASSIGN(const auto file, io::GgufFile::Open(path));
    EXPECT_EQ(file->Integer("general.file_type").value(), file_types.at(mix)) << mix;
    ASSERT_OK_AND_ASSIGN(const OpenedModel again, OpenModel(path));
    const std::vector<float> logits = TinyLogits(model.graph);
    EXPECT_EQ(TinyLogits(again.graph), logits) << mix;
    EXPECT_NE(logits, TinyLogits(original.graph)) << mix;
    for (const ir::Op& op : model.graph.ops()) {
      if (!op.weight.has_value() || op.kind == ir::OpKind::kRmsNorm) continue;
      EXPECT_EQ(WeightScheme(again.graph, op.name).format(), WeightScheme(model.graph, op.name).format()) << mix << " " << op.name;
    }
  }
}

TEST(SaveFormats, GgufKeepsWhatItsSourceSaysOfItself) {
  const std::string folder = TestTempDir(), source = folder + "/source.gguf", path = folder + "/written.gguf";
  io::GgufBuilder builder = io::TinyLlamaMetadata().Text("general.name", "Tiny").Text("general.license", "mit");
  io::AddTinyLlamaTensors(&builder);
  ASSERT_OK(WriteFile(source, builder.Build()));
  ASSERT_OK_AND_ASSIGN(const OpenedModel model, OpenModel("decoded:" + source));
  ASSERT_OK(SaveModel(model.source, model.graph, "p", path, "gguf"));
  ASSERT_OK_AND_ASSIGN(const auto file, io::GgufFile::Open(path));
  EXPECT_EQ(file->Text("general.name").value(), "Tiny");
  EXPECT_EQ(file->Text("general.license").value(), "mit");
  EXPECT_EQ(file->Text("general.description").value(), "Quantized by Nibble: p");
}

TEST(SaveFormats, MetaGivesTheSameLogits) {
  for (const std::string& steps : {std::string("step { [nibble.llama32_ptq] {} }"), std::string(),
                                   std::string(R"(step { [nibble.spinquant] { r1: false r2: false } } step { [nibble.llama32_ptq] {} })")}) {
    const OpenedModel model = Quantized(kNovelist, steps);
    ASSERT_OK_AND_ASSIGN(const OpenedModel again, Again(model, "meta"));
    EXPECT_EQ(Logits(again.graph), Logits(model.graph)) << steps;
  }
}

TEST(SaveFormats, RefusalsNameWhatCannotBeHeld) {
  EXPECT_THAT(Refusal("synthetic:tiny", "step { [nibble.rtn] {} }", "gguff"), HasSubstr("unknown format 'gguff'"));
  EXPECT_THAT(Refusal("synthetic:tiny", "step { [nibble.baseline] {} }", "compressed-tensors"), HasSubstr("nothing in it is quantized"));
  EXPECT_THAT(Refusal("synthetic:tiny", "step { [nibble.nf4] {} }", "compressed-tensors"), HasSubstr("expected int2 to int8"));
  EXPECT_THAT(Refusal("synthetic:tiny", "step { [nibble.llama32_ptq] {} }", "compressed-tensors"), HasSubstr("model.embed_tokens.weight"));
  EXPECT_THAT(Refusal("synthetic:tiny", "step { [nibble.rtn] {} } step { [nibble.activations] { asymmetric: false } }", "compressed-tensors"),
              HasSubstr("HALF_RANGE"));
  EXPECT_THAT(Refusal("synthetic:tiny", "step { [nibble.rtn] { bits: 4 group_size: 32 } }", "compressed-tensors"), HasSubstr("does not divide"));
  EXPECT_THAT(Refusal("synthetic:tiny", "step { [nibble.rtn] { bits: 4 group_size: 4 } }", "meta"), HasSubstr("tables are quantized"));
  EXPECT_THAT(Refusal("synthetic:tiny", "step { [nibble.rtn] {} }", "meta"), HasSubstr("expected symmetric int4 in groups"));
}

// Damage to what Meta's layout says.
std::string MessageWithParams(const std::string& from, const std::string& to) {
  const std::string folder = TestTempDir() + "/model";
  const OpenedModel model = Quantized(kNovelist, "step { [nibble.llama32_ptq] {} }");
  EXPECT_OK(SaveModel(model.source, model.graph, "", folder, "meta"));
  std::string text = ReadFile(folder + "/params.json").value();
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos);
  text.replace(at, from.size(), to);
  EXPECT_OK(WriteFile(folder + "/params.json", text));
  const auto again = OpenModel(folder);
  return std::string(again.ok() ? again->graph.parameter(*again->graph.ops()[2].weight).Load().status().message() : again.status().message());
}

TEST(SaveFormats, ParamsOfMetaAreChecked) {
  EXPECT_THAT(MessageWithParams("int4_weight_int8_dynamic_activation", "fp8"), HasSubstr("'fp8'"));
  EXPECT_THAT(MessageWithParams("\"group_size\": 32", "\"group_size\": 0"), HasSubstr("group_size is 0"));
  EXPECT_THAT(MessageWithParams("\"group_size\": 32", "\"group_size\": 64"), AllOf(HasSubstr("scales"), HasSubstr("wq")));
  EXPECT_THAT(MessageWithParams("\"group_size\": 32", "\"group_size\": 36"), HasSubstr("does not divide"));
  EXPECT_THAT(MessageWithParams("\"n_heads\": 6", "\"n_heads\": 0"), HasSubstr("n_heads is 0"));
}

TEST(SaveFormats, MetaHasTiktokensTokenizerModelToo) {
  const std::string folder = TestTempDir() + "/model", file = text::TinyTiktoken({"th", "the"});
  OpenedModel model = OpenModel(kNovelist).value();
  ASSERT_OK_AND_ASSIGN(model.source.tokenizer, text::TokenizerFromTiktoken(file, "", "tokenizer.model"));
  ASSERT_OK(SaveModel(model.source, model.graph, "", folder, "meta"));
  ASSERT_OK_AND_ASSIGN(const std::string written, ReadFile(folder + "/tokenizer.model"));
  EXPECT_EQ(written, file);
  for (const char* name : {"/tokenizer.json", "/tokenizer_config.json"}) EXPECT_EQ(std::remove((folder + name).c_str()), 0) << name;
  ASSERT_OK_AND_ASSIGN(const OpenedModel again, OpenModel(folder));
  ASSERT_NE(again.source.tokenizer, nullptr);
  EXPECT_EQ(again.source.tokenizer->Encode("then<|eot_id|>"), (std::vector<int32_t>{257, 'n', 258 + 9}));
  EXPECT_TRUE(again.source.tokenizer->adds_bos());

  ASSERT_OK(WriteFile(folder + "/tokenizer.model", "IQ== 0\nIg== 2\n"));
  EXPECT_THAT(std::string(OpenModel(folder).status().message()), HasSubstr(folder + "/tokenizer.model:2: the rank is 2"));
}

// The novelist's is SentencePiece-style.
TEST(SaveFormats, MetaHasNoTokenizerModelOfAnotherTokenizer) {
  const std::string folder = TestTempDir() + "/model";
  const OpenedModel model = OpenModel(kNovelist).value();
  ASSERT_OK(MakeDirectories(folder));
  ASSERT_OK(WriteFile(folder + "/tokenizer.model", text::TinyTiktoken({})));
  ::testing::internal::CaptureStderr();
  ASSERT_OK(SaveModel(model.source, model.graph, "", folder, "meta"));
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), AllOf(HasSubstr(folder), HasSubstr("no tokenizer.model"), HasSubstr("no byte-level BPE")));
  EXPECT_FALSE(FileExists(folder + "/tokenizer.model"));
  ASSERT_OK_AND_ASSIGN(const OpenedModel again, OpenModel(folder));
  EXPECT_EQ(again.source.tokenizer->Encode("then"), model.source.tokenizer->Encode("then"));
}

}  // namespace
}  // namespace nibble
