#include "core/io/torch_file.h"

#include "core/base/file.h"
#include "core/base/testing.h"
#include "core/io/damage_testing.h"

namespace nibble::io {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// A file with an I8 and an F32 tensor.
std::string WriteSample() {
  const std::string path = TestTempDir() + "/model.pth";
  Tensor codes = Tensor::Zeros(DType::kI8, {2, 3});
  for (int i = 0; i < 6; ++i) codes.mutable_as<int8_t>()[i] = static_cast<int8_t>(i - 3);
  const Tensor scales = Tensor::FromFloats({2, 1}, {0.5f, -0.25f});
  auto writer = TorchWriter::Create(path, {{"w.weight", DType::kI8, {2, 3}}, {"w.scales", DType::kF32, {2, 1}}});
  NIBBLE_CHECK_OK(writer.status());
  NIBBLE_CHECK_OK((*writer)->Write("w.weight", codes));
  NIBBLE_CHECK_OK((*writer)->Write("w.scales", scales));
  NIBBLE_CHECK_OK((*writer)->Finish());
  return path;
}

absl::StatusOr<std::map<std::string, TorchTensor>> ReadPickle(const std::string& pickle) {
  return ReadTorchPickle({reinterpret_cast<const uint8_t*>(pickle.data()), pickle.size()});
}

std::string MessageOf(const std::string& pickle) { return std::string(ReadPickle(pickle).status().message()); }

std::string Text(const std::string& text) { return "X" + Bytes<uint32_t>(static_cast<uint32_t>(text.size())) + text; }

const char kRebuild[] = "ctorch._utils\n_rebuild_tensor_v2\n";

// {"a": a float32 tensor of shape [2] in storage "0" of 2 elements}, as PyTorch
// pickles it.
std::string SamplePickle(const std::string& storage = "ctorch\nFloatStorage\n", const std::string& size = "K\x02\x85") {
  using namespace std::string_literals;
  return "\x80\x02}q\x00"s + Text("a") + "q\x01" + kRebuild + "q\x02((" + Text("storage") + "q\x03" + storage + "q\x04" + Text("0") + "q\x05" +
         Text("cpu") + "q\x06K\x02tq\x07QK\x00"s + size + "q\x08K\x01\x85q\x09\x89" + "ccollections\nOrderedDict\nq\n)Rq\x0btq\x0cRq\x0ds.";
}

TEST(TorchFileTest, RoundTrip) {
  ASSERT_OK_AND_ASSIGN(const auto file, TorchFile::Open(WriteSample()));
  EXPECT_EQ(file->names(), (std::vector<std::string>{"w.scales", "w.weight"}));
  ASSERT_OK_AND_ASSIGN(const Tensor codes, file->Get("w.weight"));
  EXPECT_EQ(codes.shape(), (Shape{2, 3}));
  EXPECT_EQ(codes.as<int8_t>()[0], -3);
  ASSERT_OK_AND_ASSIGN(const Tensor scales, file->Get("w.scales"));
  EXPECT_EQ(ToFloats(scales), (std::vector<float>{0.5f, -0.25f}));
  EXPECT_THAT(std::string(file->Get("w.weigh").status().message()), HasSubstr("did you mean 'w.weight'"));
}

TEST(TorchFileTest, WritesWhatWasAnnounced) {
  const std::string path = TestTempDir() + "/model.pth";
  ASSERT_OK_AND_ASSIGN(const auto writer, TorchWriter::Create(path, {{"w", DType::kF32, {2}}}));
  EXPECT_FALSE(writer->Finish().ok());
  EXPECT_FALSE(writer->Write("v", Tensor::FromFloats({2}, {1, 2})).ok());
  EXPECT_FALSE(writer->Write("w", Tensor::FromFloats({1, 2}, {1, 2})).ok());
  EXPECT_FALSE(FileExists(path));
  EXPECT_FALSE(TorchWriter::Create(path, {{"w", DType::kI64, {2}}}).ok());
}

// Written by PyTorch 2.15.0: torch.save({"h": half [2, 2], "c": int8 [3]}), in
// testdata/torch_2_15.pth.
TEST(TorchFileTest, ReadsWhatPyTorchWrites) {
  ASSERT_OK_AND_ASSIGN(const auto file, TorchFile::Open("core/io/testdata/torch_2_15.pth"));
  EXPECT_EQ(file->names(), (std::vector<std::string>{"bf", "c", "h", "p", "v"}));
  EXPECT_EQ(ToFloats(*file->Get("h")), (std::vector<float>{1, -2, 0.5, 65504}));
  EXPECT_EQ(ToFloats(*file->Get("bf")), (std::vector<float>{-1.5}));
  EXPECT_EQ(ToFloats(*file->Get("p")), (std::vector<float>{3, 4, 5}));
  EXPECT_EQ(ToFloats(*file->Get("v")), (std::vector<float>{2, 3}));  // a part of a storage
  const Tensor codes = *file->Get("c");
  EXPECT_EQ(codes.as<int8_t>()[2], 127);
}

TEST(TorchPickleTest, ReadsAStateDict) {
  ASSERT_OK_AND_ASSIGN(const auto tensors, ReadPickle(SamplePickle()));
  ASSERT_EQ(tensors.size(), 1);
  EXPECT_EQ(tensors.at("a").shape, Shape{2});
  EXPECT_EQ(tensors.at("a").storage, "0");
  EXPECT_EQ(tensors.at("a").dtype, DType::kF32);
}

TEST(TorchPickleTest, RefusesEveryOtherName) {
  EXPECT_THAT(MessageOf("\x80\x02" "cos\nsystem\nK\x01\x85R."), AllOf(HasSubstr("os.system"), HasSubstr("not allowed")));
  EXPECT_THAT(MessageOf("\x80\x02" "cbuiltins\neval\n."), HasSubstr("builtins.eval"));
  EXPECT_THAT(MessageOf(SamplePickle("ctorch\nEvilStorage\n")), HasSubstr("torch.EvilStorage"));
  EXPECT_THAT(MessageOf(SamplePickle("ctorch.nested\nFloatStorage\n")), HasSubstr("not allowed"));
}

TEST(TorchPickleTest, RefusesEveryOtherOpcode) {
  const std::string known = "})(t\x85\x86\x87N\x88\x89KMJ\x8aXcqrhjQRsub.\x80";
  int refused = 0;
  for (int op = 0; op < 256; ++op) {
    if (known.find(static_cast<char>(op)) != std::string::npos) continue;
    EXPECT_THAT(MessageOf(absl::StrCat("\x80\x02", std::string(1, static_cast<char>(op)), std::string(32, '\n'))), HasSubstr("is not one of a state dict"))
        << op;
    ++refused;
  }
  EXPECT_EQ(refused, 256 - 27);
}

TEST(TorchPickleTest, StacksAndCallsAreChecked) {
  using namespace std::string_literals;
  for (const std::string& pickle :
       {"\x80\x02."s, "\x80\x03}."s, "\x80\x02t."s, "\x80\x02R."s, "\x80\x02}u."s, "\x80\x02s."s, "\x80\x02h\x05."s, "\x80\x02q\x00."s, "\x80\x02Q."s,
        "\x80\x02N."s, "\x80\x02}}."s, "\x80\x02)Q."s, "\x80\x02)b."s, "\x80\x02}(Ku."s, "\x80\x02X\xff\xff\xff\xff."s, "\x80\x02\x8a\xff."s,
        "\x80\x02(((("s, "\x80\x02"s, ""s, "\x80\x02(N."s, "\x80\x02" "ccollections\nOrderedDict\nN\x85R."s, "\x80\x02" + std::string(kRebuild) + ")R."}) {
    EXPECT_FALSE(ReadPickle(pickle).ok());
  }
  EXPECT_THAT(MessageOf("\x80\x02)" + std::string(100, '\x85') + "."), HasSubstr("nested deeper"));
  EXPECT_THAT(MessageOf(SamplePickle() + std::string(5 << 20, 'N')), HasSubstr("bytes of pickle"));
  EXPECT_THAT(MessageOf("\x80\x02" + std::string(10000, '(')), HasSubstr("ends too soon"));
  // A byte of a pickle makes a dict of a hundred.
  EXPECT_THAT(MessageOf("\x80\x02" + std::string(4000000, '}')), HasSubstr("values on the stack"));
  std::string remembering = "\x80\x02}";
  for (uint32_t i = 0; i < 200000; ++i) remembering += "r" + Bytes(i);
  EXPECT_THAT(MessageOf(remembering), HasSubstr("values remembered"));
}

TEST(TorchPickleTest, TruncationsAndDamageNeverCrash) {
  const std::string pickle = SamplePickle();
  for (size_t length = 0; length < pickle.size(); ++length) EXPECT_FALSE(ReadPickle(pickle.substr(0, length)).ok()) << length;
  Rng rng(9);
  for (int i = 0; i < 20000; ++i) {
    std::string damaged = pickle;
    for (uint64_t changes = 1 + rng.Below(4); changes > 0; --changes) damaged[rng.Below(damaged.size())] = static_cast<char>(rng.Next());
    (void)ReadPickle(damaged);
  }
}

TEST(TorchFileTest, TensorsMustLieInTheirStorage) {
  const std::string path = WriteSample();
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile(path));
  // The shape of w.scales, (2, 1), as (200, 1).
  std::string longer = bytes;
  const size_t at = longer.find(std::string("(J\x02\0\0\0J\x01\0\0\0t", 12));
  ASSERT_NE(at, std::string::npos);
  longer[at + 2] = static_cast<char>(200);
  WriteQuickly(path, longer);
  EXPECT_THAT(std::string(TorchFile::Open(path).status().message()), AllOf(HasSubstr("w.scales"), HasSubstr("of a storage of 2")));
}

TEST(TorchFileTest, TruncationsAreErrors) {
  const std::string path = WriteSample();
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile(path));
  ForEachTruncation(path, bytes, [&](size_t length) { EXPECT_FALSE(TorchFile::Open(path).ok()) << length; });
}

TEST(TorchFileTest, RandomDamageNeverCrashes) {
  const std::string path = WriteSample();
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile(path));
  ForEachMutation(path, bytes, bytes.size(), [&] {
    const auto file = TorchFile::Open(path);
    if (!file.ok()) return;
    for (const std::string& name : (*file)->names()) (void)(*file)->Get(name);
  });
}

}  // namespace
}  // namespace nibble::io
