#include "core/io/model_loader.h"

#include <cstdlib>

#include "core/base/file.h"
#include "core/base/testing.h"
#include "core/io/gguf_testing.h"
#include "core/io/hf_folder.h"

namespace nibble::io {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string MessageOf(const std::string& spec) { return std::string(LoadModel(spec).status().message()); }

std::string TinyGguf() {
  GgufBuilder b = TinyLlamaMetadata();
  AddTinyLlamaTensors(&b);
  return b.Build();
}

// The tiny preset's weights as a checkpoint folder.
void WriteTinyFolder(const std::string& folder) {
  Checkpoint checkpoint;
  checkpoint.config = ShapePreset("tiny").value();
  const auto weights = SyntheticWeights(checkpoint.config, 3);
  for (const char* name : {"model.embed_tokens.weight", "model.norm.weight"}) {
    const EncodedTensor tensor = weights->Load(name).value();
    checkpoint.parameters.push_back({name, tensor.scheme, tensor.shape});
  }
  checkpoint.load = [weights](const std::string& name) { return weights->Load(name); };
  NIBBLE_CHECK_OK(WriteCheckpoint(folder, checkpoint));
}

TEST(ModelLoaderTest, Synthetic) {
  ASSERT_OK_AND_ASSIGN(const LoadedModel model, LoadModel("synthetic:tiny"));
  EXPECT_EQ(model.config.hidden_size, 48);
  EXPECT_EQ(model.tokenizer, nullptr);
  EXPECT_EQ(model.source, "synthetic:tiny:0");
  EXPECT_EQ(model.Hash().value(), "synthetic:tiny:0");
  ASSERT_OK_AND_ASSIGN(const LoadedModel other, LoadModel("synthetic:tiny:18446744073709551615"));
  const char* name = "model.layers.0.mlp.up_proj.weight";
  EXPECT_NE(model.weights->Load(name)->buffer("values").bytes(), other.weights->Load(name)->buffer("values").bytes());
}

TEST(ModelLoaderTest, BadSyntheticSpecs) {
  EXPECT_THAT(MessageOf("synthetic:llama-3.2-1"), HasSubstr("did you mean 'llama-3.2-1b'"));
  for (const char* spec : {"synthetic:tiny:x", "synthetic:tiny:-1", "synthetic:tiny:1:2", "synthetic:tiny:"}) {
    EXPECT_THAT(MessageOf(spec), HasSubstr("synthetic:<preset>[:<seed>]")) << spec;
  }
}

TEST(ModelLoaderTest, UnknownSpecsSayWhatIsAccepted) {
  EXPECT_THAT(MessageOf("smollm2-135"), AllOf(HasSubstr("did you mean 'smollm2-135m'"), HasSubstr(".gguf")));
  EXPECT_THAT(MessageOf("llama-3.2-1b"), HasSubstr("synthetic:llama-3.2-1b"));
  EXPECT_THAT(MessageOf("/no/such/place"), AllOf(HasSubstr("/no/such/place"), HasSubstr("folder")));
  EXPECT_THAT(MessageOf("/no/such/place.gguf"), HasSubstr("cannot open /no/such/place.gguf"));
  EXPECT_THAT(MessageOf(""), HasSubstr("A model is"));
  const std::string path = TestTempDir() + "/model.pt";
  WriteQuickly(path, "x");
  EXPECT_THAT(MessageOf(path), HasSubstr("neither .gguf nor .bin"));
}

TEST(ModelLoaderTest, FetchedModels) {
  const std::string cache = TestTempDir();
  ::setenv("XDG_CACHE_HOME", cache.c_str(), 1);
  EXPECT_EQ(LoadModel("smollm2-135m").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(MessageOf("smollm2-135m"), HasSubstr("run ./nibble fetch smollm2-135m"));
  ASSERT_OK(MakeDirectories(cache + "/nibble/models"));
  WriteQuickly(cache + "/nibble/models/smollm2-135m.gguf", TinyGguf());
  ASSERT_OK_AND_ASSIGN(const LoadedModel model, LoadModel("smollm2-135m"));
  EXPECT_EQ(model.source, "smollm2-135m");
  EXPECT_THAT(model.note, HasSubstr("decoded from Q4_1"));
  EXPECT_EQ(model.weights->Load("model.layers.0.mlp.down_proj.weight")->scheme.format(), "bf16");
  EXPECT_EQ(model.Hash().value(), Sha256(TinyGguf()));
  ::unsetenv("XDG_CACHE_HOME");
}

TEST(ModelLoaderTest, GgufFile) {
  const std::string path = TestTempDir() + "/m.gguf";
  WriteQuickly(path, TinyGguf());
  ASSERT_OK_AND_ASSIGN(const LoadedModel model, LoadModel(path));
  EXPECT_NE(model.tokenizer, nullptr);
  EXPECT_THAT(model.note, HasSubstr("stored as Q4_1"));
  EXPECT_EQ(model.weights->Load("model.layers.0.mlp.down_proj.weight")->scheme.format(), "q4_1");
}

TEST(ModelLoaderTest, DecodedIsAnotherModelOfTheSameFile) {
  const std::string path = TestTempDir() + "/m.gguf", name = "model.layers.0.mlp.down_proj.weight";
  WriteQuickly(path, TinyGguf());
  ASSERT_OK_AND_ASSIGN(const LoadedModel stored, LoadModel(path));
  ASSERT_OK_AND_ASSIGN(const LoadedModel decoded, LoadModel("decoded:" + path));
  EXPECT_EQ(decoded.source, "decoded:" + path);
  EXPECT_THAT(decoded.note, HasSubstr("decoded from Q4_1"));
  EXPECT_NE(decoded.Hash().value(), stored.Hash().value());
  const std::vector<float> floats = Decode(*decoded.weights->Load(name)), blocks = Decode(*stored.weights->Load(name));
  for (size_t i = 0; i < floats.size(); ++i) ASSERT_EQ(floats[i], Bf16ToFloat(FloatToBf16(blocks[i])));
  EXPECT_EQ(decoded.weights->Load("model.norm.weight")->scheme.format(), "fp32");
  EXPECT_EQ(LoadModel("decoded:synthetic:tiny")->Hash().value(), LoadModel("synthetic:tiny")->Hash().value());
  EXPECT_THAT(MessageOf("decoded:/no/such/place.gguf"), HasSubstr("cannot open /no/such/place.gguf"));
}

TEST(ModelLoaderTest, DecodedFolder) {
  const std::string folder = TestTempDir() + "/q";
  Checkpoint checkpoint;
  checkpoint.config = ShapePreset("tiny").value();
  const EncodedTensor weight = Encode(IntegerScheme(4, 32, false), {2, 48}, std::vector<float>(96, 0.3f)).value();
  checkpoint.parameters = {{"model.embed_tokens.weight", weight.scheme, weight.shape}};
  checkpoint.load = [&](const std::string&) { return weight; };
  ASSERT_OK(WriteCheckpoint(folder, checkpoint));
  EXPECT_EQ(LoadModel(folder)->weights->Load("model.embed_tokens.weight")->scheme.format(), "int4");
  ASSERT_OK_AND_ASSIGN(const LoadedModel decoded, LoadModel("decoded:" + folder));
  EXPECT_EQ(decoded.weights->Load("model.embed_tokens.weight")->scheme.format(), "bf16");
  EXPECT_NE(decoded.Hash().value(), LoadModel(folder)->Hash().value());
}

TEST(ModelLoaderTest, FolderHashFollowsContentsNotNames) {
  const std::string a = TestTempDir() + "/a", b = TestTempDir() + "/b";
  WriteTinyFolder(b);
  ASSERT_OK_AND_ASSIGN(const std::string hash_b, LoadModel(b)->Hash());
  WriteTinyFolder(a);
  ASSERT_OK_AND_ASSIGN(const LoadedModel model, LoadModel(a + "/"));
  EXPECT_EQ(model.Hash().value(), hash_b);
  EXPECT_EQ(hash_b.size(), 64);
  WriteQuickly(a + "/config.json", model.config.ToJson() + " ");
  EXPECT_NE(LoadModel(a)->Hash().value(), hash_b);
}

TEST(ModelLoaderTest, Stories260K) {
  NIBBLE_REQUIRE_SHARED();
  ASSERT_OK_AND_ASSIGN(const LoadedModel model, LoadModel(SharedDir() + "/models/stories260K/stories260K.bin"));
  EXPECT_NE(model.tokenizer, nullptr);
  EXPECT_EQ(model.files.size(), 2);
  EXPECT_OK(model.Hash());
}

}  // namespace
}  // namespace nibble::io
