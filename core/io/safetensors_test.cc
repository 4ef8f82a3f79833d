#include "core/io/safetensors.h"

#include "core/base/testing.h"
#include "core/io/damage_testing.h"

namespace nibble::io {
namespace {

using ::testing::HasSubstr;

// A file of that header text and `data` zero bytes.
std::string WithHeader(const std::string& header, size_t data) {
  return Bytes(static_cast<uint64_t>(header.size())) + header + std::string(data, '\0');
}

std::string OpenMessage(const std::string& bytes) {
  const std::string path = TestTempDir() + "/x.safetensors";
  WriteQuickly(path, bytes);
  const auto file = SafetensorsFile::Open(path);
  if (file.ok()) return "";
  EXPECT_THAT(std::string(file.status().message()), HasSubstr(path));
  return std::string(file.status().message());
}

std::vector<std::pair<std::string, Tensor>> Sample() {
  return {{"b", FloatsToDType(DType::kBF16, {3}, {1, 2, 3})},
          {"u", Tensor::Zeros(DType::kU8, {5})},
          {"f", Tensor::FromFloats({2, 2}, {1, -2, 3, -4})},
          {"empty", Tensor::Zeros(DType::kF32, {0, 4})}};
}

void ReadAll(const std::string& path) {
  const auto file = SafetensorsFile::Open(path);
  if (!file.ok()) return;
  for (const std::string& name : (*file)->names()) {
    const auto tensor = (*file)->Get(name);
    if (tensor.ok() && IsFloating(tensor->dtype())) (void)ToFloats(*tensor);
  }
}

TEST(SafetensorsTest, RoundTrip) {
  const std::string path = TestTempDir() + "/a.safetensors";
  ASSERT_OK(WriteSafetensors(path, Sample(), {{"format", "pt"}, {"k", "\"v\"\n"}}));
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(path));
  EXPECT_EQ(file->names(), (std::vector<std::string>{"b", "empty", "f", "u"}));
  EXPECT_EQ(file->metadata().at("k"), "\"v\"\n");
  for (const auto& [name, tensor] : Sample()) {
    ASSERT_OK_AND_ASSIGN(const Tensor read, file->Get(name));
    EXPECT_EQ(read.dtype(), tensor.dtype());
    EXPECT_EQ(read.shape(), tensor.shape());
    EXPECT_EQ(read.bytes(), tensor.bytes());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(read.bytes().data()) % DTypeSize(read.dtype()), 0) << name;
  }
}

TEST(SafetensorsTest, BytesAreThoseOfAFile) {
  const std::string path = TestTempDir() + "/a.safetensors";
  ASSERT_OK(WriteSafetensors(path, Sample(), {{"k", "v"}}));
  ASSERT_OK_AND_ASSIGN(const std::string file, ReadFile(path));
  ASSERT_OK_AND_ASSIGN(const std::string bytes, SafetensorsWriter::ToBytes(Sample(), {{"k", "v"}}));
  EXPECT_TRUE(bytes == file);
  EXPECT_FALSE(SafetensorsWriter::ToBytes({{"a", Tensor::Zeros(DType::kU8, {1})}, {"a", Tensor::Zeros(DType::kU8, {1})}}, {}).ok());
}

TEST(SafetensorsTest, TensorsOutliveTheFileObject) {
  const std::string path = TestTempDir() + "/a.safetensors";
  ASSERT_OK(WriteSafetensors(path, Sample()));
  ASSERT_OK_AND_ASSIGN(const Tensor tensor, SafetensorsFile::Open(path).value()->Get("f"));
  EXPECT_EQ(ToFloats(tensor), (std::vector<float>{1, -2, 3, -4}));
}

TEST(SafetensorsTest, UnalignedDataIsReadAndCanBeAligned) {
  const std::string path = TestTempDir() + "/a.safetensors";
  const float value = 2.5f;
  WriteQuickly(path, WithHeader(R"({"f":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})", 1) + Bytes(value));
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(path));
  ASSERT_OK_AND_ASSIGN(const Tensor tensor, file->Get("f"));
  EXPECT_EQ(ToFloats(tensor)[0], value);
  const Tensor aligned = Aligned(tensor);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(aligned.bytes().data()) % 4, 0);
  EXPECT_EQ(ToFloats(aligned)[0], value);
}

TEST(SafetensorsTest, MissingTensorIsNamedWithASuggestion) {
  const std::string path = TestTempDir() + "/a.safetensors";
  ASSERT_OK(WriteSafetensors(path, {{"model.norm.weight", Tensor::Zeros(DType::kF32, {1})}}));
  const auto tensor = SafetensorsFile::Open(path).value()->Get("model.norm.wieght");
  EXPECT_EQ(tensor.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(tensor.status().message()), HasSubstr("'model.norm.weight'"));
}

TEST(SafetensorsTest, ForeignElementTypesFailOnlyWhenAskedFor) {
  const std::string path = TestTempDir() + "/a.safetensors";
  WriteQuickly(path, WithHeader(R"({"q":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}})", 4));
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(path));
  EXPECT_THAT(std::string(file->Get("q").status().message()), HasSubstr("F8_E4M3"));
}

TEST(SafetensorsTest, DamagedHeadersSayWhatIsWrong) {
  const std::string good = R"("dtype":"F32","shape":[1],"data_offsets":[0,4])";
  EXPECT_THAT(OpenMessage(""), HasSubstr("0 bytes"));
  for (const uint64_t length : {uint64_t{3}, uint64_t{1} << 60, uint64_t{1} << 63, ~uint64_t{0}, ~uint64_t{0} - 7}) {
    EXPECT_THAT(OpenMessage(Bytes(length) + "{}"), HasSubstr(absl::StrCat("claims a header of ", length, " bytes in a file of 10")));
  }
  EXPECT_THAT(OpenMessage(WithHeader("[1]", 0)), HasSubstr("JSON object"));
  EXPECT_THAT(OpenMessage(WithHeader("{", 0)), HasSubstr("JSON"));
  EXPECT_THAT(OpenMessage(WithHeader("{\"t\":1e999}", 0)), HasSubstr("JSON"));
  EXPECT_THAT(OpenMessage(WithHeader(std::string(1 << 20, '['), 0)), HasSubstr("nested"));
  EXPECT_THAT(OpenMessage(WithHeader("{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}", 0)), HasSubstr("nested"));
  EXPECT_THAT(OpenMessage(WithHeader(absl::StrCat("{\"a\":{", good, "},\"a\":{", good, "}}"), 4)), HasSubstr("'a' appears twice"));
  EXPECT_THAT(OpenMessage(WithHeader(absl::StrCat("{\"a\":{", good, "},\"b\":{", good, "}}"), 4)), HasSubstr("overlap"));
  EXPECT_THAT(OpenMessage(WithHeader(absl::StrCat("{\"a\":{", good, "}}"), 3)), HasSubstr("leave the 3 bytes"));
  EXPECT_THAT(OpenMessage(WithHeader(R"({"__metadata__":{"a":1}})", 0)), HasSubstr("metadata 'a'"));
  EXPECT_THAT(OpenMessage(WithHeader(R"({"__metadata__":[]})", 0)), HasSubstr("__metadata__"));
}

TEST(SafetensorsTest, DamagedEntriesNameTheTensor) {
  const char* entries[] = {R"("dtype":"F32","shape":[2],"data_offsets":[0,4])",
                           R"("dtype":"F32","shape":[1],"data_offsets":[4,0])",
                           R"("dtype":"F32","shape":[1],"data_offsets":[0])",
                           R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])",
                           R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])",
                           R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4])",
                           R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4])",
                           R"("dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,18446744073709551615])",
                           R"("dtype":7,"shape":[1],"data_offsets":[0,4])",
                           R"("shape":[1],"data_offsets":[0,4])"};
  for (const char* entry : entries) {
    EXPECT_THAT(OpenMessage(WithHeader(absl::StrCat("{\"here\":{", entry, "}}"), 4)), HasSubstr("'here'")) << entry;
  }
  EXPECT_THAT(OpenMessage(WithHeader("{\"here\":5}", 4)), HasSubstr("'here'"));
}

TEST(SafetensorsTest, EveryTruncationIsAnError) {
  const std::string path = TestTempDir() + "/a.safetensors";
  ASSERT_OK(WriteSafetensors(path, Sample()));
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile(path));
  ForEachTruncation(path, bytes, [&](size_t length) { EXPECT_FALSE(SafetensorsFile::Open(path).ok()) << length; });
}

TEST(SafetensorsTest, RandomDamageNeverCrashes) {
  const std::string path = TestTempDir() + "/a.safetensors";
  ASSERT_OK(WriteSafetensors(path, Sample(), {{"k", "v"}}));
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile(path));
  ForEachMutation(path, bytes, bytes.size(), [&] { ReadAll(path); });
}

TEST(SafetensorsWriterTest, HoldsTheCallerToWhatWasAnnounced) {
  const std::string path = TestTempDir() + "/a.safetensors";
  const Tensor one = Tensor::FromFloats({1}, {1});
  {
    ASSERT_OK_AND_ASSIGN(const auto writer, SafetensorsWriter::Create(path, {{"a", DType::kF32, {1}}, {"b", DType::kF32, {2}}}, {}));
    EXPECT_THAT(std::string(writer->Write("c", one).message()), HasSubstr("not announced"));
    EXPECT_THAT(std::string(writer->Write("b", one).message()), HasSubstr("announced F32 [2]"));
    EXPECT_OK(writer->Write("a", one));
    EXPECT_THAT(std::string(writer->Write("a", one).message()), HasSubstr("already written"));
    EXPECT_THAT(std::string(writer->Finish().message()), HasSubstr("'b'"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(TestTempDir()));
  EXPECT_FALSE(SafetensorsWriter::Create(path, {{"a", DType::kF32, {1}}, {"a", DType::kF32, {1}}}, {}).ok());
  EXPECT_FALSE(SafetensorsWriter::Create("/nonexistent/a", {}, {}).ok());
  EXPECT_FALSE(SafetensorsWriter::Create(path, {{"\xFF", DType::kF32, {1}}}, {}).ok());
}

TEST(SafetensorsTest, ReadsGoldenTensors) {
  NIBBLE_REQUIRE_SHARED();
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(SharedDir() + "/golden/stories260K.safetensors"));
  ASSERT_OK_AND_ASSIGN(const Tensor logits, file->Get("logits"));
  EXPECT_EQ(logits.shape(), (Shape{32, 512}));
  EXPECT_EQ(logits.dtype(), DType::kF64);
}

}  // namespace
}  // namespace nibble::io
