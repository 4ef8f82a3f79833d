#include "core/io/gguf.h"

#include "core/base/testing.h"
#include "core/io/gguf_testing.h"
#include "core/io/safetensors.h"
#include "core/quant/format.h"
#include "core/quant/formats/gguf/gguf.h"

namespace nibble::io {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<std::shared_ptr<const GgufFile>> OpenBytes(const std::string& bytes) {
  const std::string path = TestTempDir() + "/x.gguf";
  WriteQuickly(path, bytes);
  return GgufFile::Open(path);
}

std::string OpenMessage(const std::string& bytes) { return std::string(OpenBytes(bytes).status().message()); }

TEST(GgufBlocksTest, NamesOfNumberFormats) {
  EXPECT_EQ(FindGgufBlockType("F32")->format(), "fp32");
  EXPECT_EQ(FindGgufBlockType("Q4_K")->format(), "q4_k");
  EXPECT_EQ(FindGgufBlockType("IQ4_XS")->format(), "");
  EXPECT_EQ(GgufTypeOfFormat("bf16")->name, "BF16");
  EXPECT_EQ(GgufTypeOfFormat("int4"), nullptr);
  EXPECT_EQ(GgufTypeOfFormat(""), nullptr);
}

// The file's table and the formats agree.
TEST(GgufBlocksTest, SizesAreTheFormats) {
  int formats = 0;
  for (const std::string& name : FormatNames()) {
    if (!IsGgufFormat(name)) continue;
    const GgufBlockType* type = GgufTypeOfFormat(name);
    ASSERT_NE(type, nullptr) << name;
    EXPECT_EQ(type->elements, (*FindFormat(name))->row_multiple()) << name;
    EXPECT_EQ(type->bytes, EncodedBytes(FloatScheme(name), {1, type->elements}).value()) << name;
    ++formats;
  }
  EXPECT_EQ(formats, 11);
}

TEST(GgufBlocksTest, SizesOfAllGoldenTypes) {
  NIBBLE_REQUIRE_SHARED();
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(SharedDir() + "/golden/gguf.safetensors"));
  for (const std::string name : {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"}) {
    ASSERT_OK_AND_ASSIGN(const Tensor bytes, file->Get(name + ".bytes"));
    ASSERT_OK_AND_ASSIGN(const Tensor decoded, file->Get(name + ".decoded_f32"));
    EXPECT_EQ(FindGgufBlockType(name)->bytes, bytes.dim(1)) << name;
    EXPECT_EQ(FindGgufBlockType(name)->elements, decoded.dim(1)) << name;
  }
}

TEST(GgufTest, ReadsEveryKindOfValue) {
  GgufBuilder b;
  b.Value("u8", GgufType::kU8, Bytes<uint8_t>(200)).Value("i8", GgufType::kI8, Bytes<int8_t>(-3));
  b.Value("u16", GgufType::kU16, Bytes<uint16_t>(60000)).Value("i16", GgufType::kI16, Bytes<int16_t>(-300));
  b.Value("u32", GgufType::kU32, Bytes<uint32_t>(4000000000u)).Value("i32", GgufType::kI32, Bytes<int32_t>(-70000));
  b.Value("u64", GgufType::kU64, Bytes<uint64_t>(uint64_t{1} << 40)).Value("i64", GgufType::kI64, Bytes<int64_t>(-5));
  b.Value("huge", GgufType::kU64, Bytes<uint64_t>(~uint64_t{0})).Flag("yes", true).Real("f", 1.5f);
  b.Value("d", GgufType::kF64, Bytes(2.25)).Text("s", "text").Strings("ss", {"a", "", "ccc"});
  b.Numbers<int16_t>("ints", GgufType::kI16, {1, -2}).Numbers<double>("reals", GgufType::kF64, {0.5});
  const std::string inner = Bytes(uint32_t{0}) + Bytes(uint64_t{2}) + std::string("\x01\x02");
  b.Array("nested", GgufType::kArray, 2, inner + inner);
  for (const uint32_t version : {2u, 3u}) {
    ASSERT_OK_AND_ASSIGN(const auto file, OpenBytes(b.Build(version)));
    const std::pair<const char*, int64_t> integers[] = {{"u8", 200}, {"i8", -3}, {"u16", 60000}, {"i16", -300},
                                                        {"u32", 4000000000}, {"i32", -70000}, {"u64", int64_t{1} << 40},
                                                        {"i64", -5}, {"yes", 1}};
    for (const auto& [key, value] : integers) EXPECT_EQ(file->Integer(key).value(), value) << key;
    EXPECT_EQ(file->Number("f").value(), 1.5);
    EXPECT_EQ(file->Number("d").value(), 2.25);
    EXPECT_EQ(file->Text("s").value(), "text");
    EXPECT_EQ(*file->Strings("ss").value(), (std::vector<std::string>{"a", "", "ccc"}));
    EXPECT_EQ(*file->Integers("ints").value(), (std::vector<int64_t>{1, -2}));
    EXPECT_EQ(*file->Numbers("reals").value(), (std::vector<double>{0.5}));
    const auto& nested = std::get<std::vector<GgufValue>>(file->metadata().at("nested").value);
    EXPECT_EQ(std::get<std::vector<int64_t>>(nested[1].value), (std::vector<int64_t>{1, 2}));
    EXPECT_THAT(std::string(file->Integer("huge").status().message()), HasSubstr("huge"));
    EXPECT_THAT(std::string(file->Integer("s").status().message()), HasSubstr("not an integer"));
    EXPECT_EQ(file->Text("absent").status().code(), absl::StatusCode::kNotFound);
  }
}

TEST(GgufTest, PlacesTensors) {
  GgufBuilder b;
  b.Floats("a", {3}, {1, 2, 3}).Floats("b", {2, 1}, {4, 5});
  ASSERT_OK_AND_ASSIGN(const auto file, OpenBytes(b.Build()));
  const GgufTensor* tensor = file->FindTensor("b");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->shape, (Shape{2, 1}));
  EXPECT_EQ(file->Bytes(*tensor).size(), 8);
  float value;
  std::memcpy(&value, file->Bytes(*tensor).data() + 4, 4);
  EXPECT_EQ(value, 5);
  EXPECT_EQ(file->FindTensor("c"), nullptr);
}

TEST(GgufTest, RefusesOtherFiles) {
  EXPECT_THAT(OpenMessage("PK\x03\x04 and so on, long enough"), HasSubstr("not a GGUF file"));
  EXPECT_THAT(OpenMessage(GgufBuilder().Build(1)), HasSubstr("version 1"));
  EXPECT_THAT(OpenMessage(GgufBuilder().Build(0x03000000)), HasSubstr("version"));
  EXPECT_THAT(OpenMessage(GgufBuilder().Integer("k", 1).Integer("k", 2).Build()), HasSubstr("'k' appears twice"));
  EXPECT_THAT(OpenMessage(GgufBuilder().Floats("t", {1}, {1}).Floats("t", {1}, {1}).Build()), HasSubstr("'t' appears twice"));
  EXPECT_THAT(OpenMessage(GgufBuilder().Value("k", static_cast<GgufType>(13), "").Build()), HasSubstr("unknown value type 13"));
  EXPECT_THAT(OpenMessage(GgufBuilder().Integer("general.alignment", 48).Build()), HasSubstr("alignment"));
  EXPECT_THAT(OpenMessage(GgufBuilder().Integer("general.alignment", 0).Build()), HasSubstr("alignment"));
}

TEST(GgufTest, CountsAreNotBelieved) {
  const std::string start = "GGUF" + Bytes(uint32_t{3});
  const uint64_t huge = uint64_t{1} << 61;
  EXPECT_THAT(OpenMessage(start + Bytes(huge) + Bytes(uint64_t{0})), HasSubstr("tensor list"));
  EXPECT_THAT(OpenMessage(start + Bytes(uint64_t{0}) + Bytes(huge)), HasSubstr("metadata list"));
  EXPECT_THAT(OpenMessage(GgufBuilder().Array("k", GgufType::kU8, huge, "abc").Build()), HasSubstr("'k'"));
  EXPECT_THAT(OpenMessage(GgufBuilder().Array("k", GgufType::kString, 1000, "abc").Build()), HasSubstr("claims 1000"));
  EXPECT_THAT(OpenMessage(GgufBuilder().Value("k", GgufType::kString, Bytes(huge)).Build()), HasSubstr("string"));
  std::string nested;
  for (int i = 0; i < 9; ++i) nested += Bytes(uint32_t{9}) + Bytes(uint64_t{1});
  EXPECT_THAT(OpenMessage(GgufBuilder().Value("k", GgufType::kArray, nested + std::string(64, '\0')).Build()), HasSubstr("nested"));
}

TEST(GgufTest, TensorsMustFitTheFile) {
  EXPECT_THAT(OpenMessage(GgufBuilder().Floats("t", {100}, {1}).Build()), HasSubstr("'t'"));
  EXPECT_THAT(OpenMessage(GgufBuilder().Floats("t", {int64_t{1} << 40, int64_t{1} << 40}, {1}).Build()), HasSubstr("shape"));
  EXPECT_THAT(OpenMessage(GgufBuilder().Floats("t", {int64_t{1} << 58}, {1}).Build()), HasSubstr("'t'"));
  EXPECT_THAT(OpenMessage(GgufBuilder().Floats("t", {-1}, {1}).Build()), HasSubstr("shape"));
  EXPECT_THAT(OpenMessage(GgufBuilder().Floats("t", {1, 1, 1, 1, 1}, {1}).Build()), HasSubstr("5 dimensions"));
  EXPECT_THAT(OpenMessage(GgufBuilder().Tensor("t", {33}, "Q4_0", std::string(64, 0)).Build()), HasSubstr("33"));
}

TEST(GgufTest, TensorsMustNotOverlap) {
  std::string bytes = GgufBuilder().Floats("a", {8}, std::vector<float>(8, 1)).Floats("b", {8}, std::vector<float>(8, 2)).Build();
  const uint64_t second = 32;  // the offset of b, the last field before the padding
  const size_t at = bytes.rfind(std::string(reinterpret_cast<const char*>(&second), sizeof(second)));
  ASSERT_NE(at, std::string::npos);
  bytes[at] = 0;
  EXPECT_THAT(OpenMessage(bytes), HasSubstr("overlap"));
}

TEST(GgufTest, EveryTruncationOfTheHeaderIsAnError) {
  GgufBuilder b = TinyLlamaMetadata();
  AddTinyLlamaTensors(&b);
  const std::string path = TestTempDir() + "/x.gguf";
  ForEachTruncation(path, b.Build().substr(0, b.Header().size() + 100),
                    [&](size_t length) { EXPECT_FALSE(GgufFile::Open(path).ok()) << length; });
}

}  // namespace
}  // namespace nibble::io
