// One linear of a tiny Llama in each layout with the values that the library it comes
// from decodes: testdata/*.safetensors, written by compressed-tensors 0.20.0,
// bitsandbytes 0.50.2, torchao 0.18.0, AutoGPTQ 0.7.1 (QuantLinear.pack and forward;
// *_v2 with its zero points packed anew without the offset) and AutoAWQ 0.2.9
// (WQLinear_GEMM.from_linear, dequantize_gemm). "expected" is what each decodes, the
// metadata has the quantization_config.

#include <cmath>

#include "absl/strings/match.h"

#include "core/base/file.h"
#include "core/base/testing.h"
#include "core/io/damage_testing.h"
#include "core/io/quantized/codes.h"
#include "core/io/quantized/layout.h"
#include "core/io/quantized/targets.h"
#include "core/io/safetensors.h"
#include "core/quant/format.h"

namespace nibble::io {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string PathOf(const std::string& name) { return absl::StrCat("core/io/quantized/testdata/", name, ".safetensors"); }

struct Opened {
  std::shared_ptr<TensorFiles> files = std::make_shared<TensorFiles>();
  json config;
};

absl::StatusOr<Opened> OpenFile(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(path));
  Opened opened;
  for (const std::string& name : file->names()) {
    if (name != "expected") opened.files->Add(name, file);
  }
  const auto config = file->metadata().find("quantization_config");
  opened.config = config == file->metadata().end() ? json() : json::parse(config->second, nullptr, false);
  return opened;
}

absl::StatusOr<EncodedTensor> LoadFrom(const Opened& opened) {
  NIBBLE_ASSIGN_OR_RETURN(const QuantizedLayout layout, OpenQuantizedLayout(opened.config, opened.files));
  const auto weight = layout.weights.find("m");
  if (weight == layout.weights.end()) return absl::NotFoundError("no module m");
  return weight->second();
}

std::string MessageOf(const Opened& opened) { return std::string(LoadFrom(opened).status().message()); }

struct Case {
  const char* name;
  const char* weight;      // its scheme
  const char* activation;  // "" for none
  double tolerance = 0;    // relative
};

const Case kCases[] = {
    {"gptq_w4g32", "int4 per group of 32, symmetric absmax/(2^(b-1)-1), fp16 scales", ""},
    {"gptq_w4g32_asym_v2", "int4 per group of 32, asymmetric, fp16 scales", ""},
    {"gptq_w2g32", "int2 per group of 32, asymmetric, fp16 scales", ""},
    {"gptq_w3", "int3 per row, asymmetric, fp16 scales", ""},
    {"gptq_w8g32", "int8 per group of 32, asymmetric, fp16 scales", ""},
    {"gptq_act_order", "fp16", ""},
    {"awq_w4g32", "int4 per group of 32, asymmetric, fp16 scales", ""},
    {"bnb_nf4", "nf4 per group of 32, fp32 scales", ""},
    {"bnb_nf4_dq", "nf4 per group of 32, 8-bit scales in blocks of 256", ""},
    {"bnb_fp4", "fp32", ""},
    // bitsandbytes multiplies by SCB and then by 1/127.
    {"bnb_int8", "int8 per row, symmetric absmax/(2^(b-1)-1), fp32 scales",
     "int8 per token dynamic, symmetric absmax/(2^(b-1)-1), fp32 scales, columns from 6 on in bf16", 3e-7},
    {"ct_w4g32", "int4 per group of 32, symmetric absmax/(2^(b-1)-1), fp16 scales", ""},
    {"ct_w4g32_asym", "int4 per group of 32, asymmetric, bf16 scales", ""},
    {"ct_w3", "int3 per row, asymmetric, fp32 scales", ""},
    {"ct_w8", "int8 per row, symmetric absmax/(2^(b-1)-1), fp32 scales", ""},
    {"ct_w8a8", "int8 per row, symmetric absmax/(2^(b-1)-1), fp32 scales",
     "int8 per token dynamic, symmetric absmax/((2^b-1)/2), fp32 scales"},
    {"ct_w8a8_static", "int8 per tensor, asymmetric, fp32 scales", "int8 per tensor static [-4.329, 5.106], asymmetric, fp32 scales"},
    {"ct_fp8", "fp8_e4m3 per row, fp32 scales", "fp8_e4m3 per token dynamic, fp32 scales"},
    {"ao_8da4w", "int4 per group of 32, symmetric absmax/(2^(b-1)-1), fp32 scales", "int8 per token dynamic, asymmetric, fp32 scales"},
    {"ao_w4_asym", "int4 per group of 32, asymmetric, fp32 scales", ""},
    {"ao_w8a8", "int8 per row, symmetric absmax/(2^(b-1)-1), fp32 scales",
     "int8 per token dynamic, symmetric absmax/((2^b-1)/2), fp32 scales"},
};

class LayoutTest : public ::testing::TestWithParam<Case> {};

TEST_P(LayoutTest, DecodesToWhatTheLibraryDecodes) {
  ASSERT_OK_AND_ASSIGN(const Opened opened, OpenFile(PathOf(GetParam().name)));
  ASSERT_OK_AND_ASSIGN(const QuantizedLayout layout, OpenQuantizedLayout(opened.config, opened.files));
  ASSERT_EQ(layout.weights.size(), 1);
  ASSERT_OK_AND_ASSIGN(const EncodedTensor weight, layout.weights.at("m")());
  EXPECT_EQ(SchemeToString(weight.scheme), GetParam().weight);
  EXPECT_EQ(layout.activations.empty() ? "" : SchemeToString(layout.activations.at("m")), GetParam().activation);
  EXPECT_OK(CheckEncoded(weight));

  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(PathOf(GetParam().name)));
  const Tensor expected = Aligned(file->Get("expected").value());
  ASSERT_EQ(weight.shape, expected.shape());
  // The library rounds the product to the type it decodes to.
  const std::vector<float> values = ToFloats(FloatsToDType(expected.dtype(), weight.shape, Decode(weight))), wanted = ToFloats(expected);
  for (size_t i = 0; i < values.size(); ++i) {
    if (GetParam().tolerance == 0) ASSERT_EQ(values[i], wanted[i]) << i;
    else ASSERT_NEAR(values[i], wanted[i], GetParam().tolerance * std::fabs(wanted[i])) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(All, LayoutTest, ::testing::ValuesIn(kCases), [](const auto& info) { return std::string(info.param.name); });

// Everything in a fixture but "expected", to be written again with a change.
struct Contents {
  std::vector<std::pair<std::string, Tensor>> tensors;
  std::map<std::string, std::string> metadata;
};

Contents ReadContents(const std::string& name) {
  const auto file = SafetensorsFile::Open(PathOf(name)).value();
  Contents contents{{}, file->metadata()};
  for (const std::string& tensor : file->names()) {
    if (tensor != "expected") contents.tensors.emplace_back(tensor, Aligned(file->Get(tensor).value()));
  }
  return contents;
}

Opened Reopened(const Contents& contents) {
  const std::string path = TestTempDir() + "/model.safetensors";
  EXPECT_OK(WriteSafetensors(path, contents.tensors, contents.metadata));
  return OpenFile(path).value();
}

bool MayBeAbsent(const std::string& tensor, const std::string& layout) {
  if (tensor == "m.g_idx") return layout != "gptq_act_order";
  return tensor == "m.bias" || tensor == "m.weight_format" || (tensor == "m._weight_zero_point" && layout != "ao_w4_asym");
}

TEST(LayoutDamage, EachCompanionIsNeeded) {
  for (const char* name : {"gptq_w4g32", "awq_w4g32", "bnb_nf4_dq", "bnb_int8", "ct_w4g32_asym", "ct_w8a8_static", "ao_8da4w"}) {
    const Contents whole = ReadContents(name);
    for (size_t i = 0; i < whole.tensors.size(); ++i) {
      Contents part = whole;
      part.tensors.erase(part.tensors.begin() + i);
      const auto loaded = LoadFrom(Reopened(part));
      EXPECT_EQ(loaded.ok(), MayBeAbsent(whole.tensors[i].first, name)) << name << " without " << whole.tensors[i].first;
    }
  }
}

TEST(LayoutDamage, TypesAndShapesAreChecked) {
  for (const char* name : {"gptq_w4g32", "awq_w4g32", "bnb_nf4_dq", "bnb_int8", "ct_w4g32_asym", "ct_w8a8", "ao_w4_asym"}) {
    const Contents whole = ReadContents(name);
    for (size_t i = 0; i < whole.tensors.size(); ++i) {
      const Tensor& tensor = whole.tensors[i].second;
      const auto keep = std::make_shared<Tensor>(tensor);
      Contents bytes = whole, longer = whole;
      bytes.tensors[i].second = Tensor::Borrow(DType::kBool, {tensor.byte_size()}, tensor.bytes(), keep).value();
      EXPECT_FALSE(LoadFrom(Reopened(bytes)).ok()) << name << " " << whole.tensors[i].first;
      Shape shape = tensor.shape();
      shape.insert(shape.begin(), 1);
      shape.push_back(1);
      longer.tensors[i].second = Tensor::Borrow(tensor.dtype(), shape, tensor.bytes(), keep).value();
      const bool any_shape = whole.tensors[i].first == "m.bias" || whole.tensors[i].first == "m.weight_format" ||
                             whole.tensors[i].first == "m.weight_shape" || absl::StrContains(whole.tensors[i].first, "quant_state");
      EXPECT_EQ(LoadFrom(Reopened(longer)).ok(), any_shape) << name << " " << whole.tensors[i].first;
    }
  }
}

TEST(LayoutDamage, RandomDamageNeverCrashes) {
  for (const char* name : {"bnb_nf4_dq", "ct_w4g32_asym"}) {
    const std::string path = TestTempDir() + "/model.safetensors";
    ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile(PathOf(name)));
    ForEachMutation(path, bytes, bytes.size(), [&] {
      const auto opened = OpenFile(path);
      if (opened.ok()) (void)LoadFrom(*opened);
    });
  }
}

TEST(LayoutDamage, GroupsOfColumnsMustExist) {
  Contents contents = ReadContents("gptq_act_order");
  for (auto& [name, tensor] : contents.tensors) {
    if (name != "m.g_idx") continue;
    Tensor changed = Tensor::Zeros(DType::kI32, tensor.shape());
    changed.mutable_as<int32_t>()[5] = 2;
    tensor = changed;
  }
  EXPECT_THAT(MessageOf(Reopened(contents)), AllOf(HasSubstr("m.g_idx"), HasSubstr("group 2 of 2")));
}

TEST(Layout, ABiasThatIsNotZeroIsRefused) {
  Contents contents = ReadContents("gptq_w4g32");
  for (auto& [name, tensor] : contents.tensors) {
    if (name == "m.bias") tensor = FloatsToDType(DType::kF16, {32}, std::vector<float>(32, 0.5f));
  }
  EXPECT_THAT(MessageOf(Reopened(contents)), AllOf(HasSubstr("m.bias"), HasSubstr("linears carry none")));
}

// The message for a fixture's config with one setting changed.
std::string MessageWith(const std::string& name, const char* pointer, const json& value) {
  Opened opened = OpenFile(PathOf(name)).value();
  opened.config[json::json_pointer(pointer)] = value;
  return MessageOf(opened);
}

TEST(Layout, SettingsThatAreNotSupportedAreNamed) {
  EXPECT_THAT(MessageWith("gptq_w4g32", "/quant_method", "hqq"), AllOf(HasSubstr("'hqq'"), HasSubstr("gptq, awq, bitsandbytes")));
  EXPECT_THAT(MessageWith("gptq_w4g32", "/quant_method", 3), HasSubstr("quant_method"));
  EXPECT_THAT(MessageWith("gptq_w4g32", "/bits", 5), HasSubstr("bits is 5"));
  EXPECT_THAT(MessageWith("gptq_w4g32", "/bits", 8), HasSubstr("qzeros"));
  EXPECT_THAT(MessageWith("gptq_w4g32", "/group_size", 0), HasSubstr("group_size is 0"));
  EXPECT_THAT(MessageWith("gptq_w4g32", "/group_size", ~uint64_t{0}), HasSubstr("group_size is 18446744073709551615"));
  EXPECT_THAT(MessageWith("gptq_w4g32", "/group_size", 24), HasSubstr("qzeros"));
  EXPECT_THAT(MessageWith("gptq_w4g32", "/checkpoint_format", "marlin"), HasSubstr("marlin"));
  EXPECT_THAT(MessageWith("awq_w4g32", "/version", "gemv"), HasSubstr("gemv"));
  EXPECT_THAT(MessageWith("awq_w4g32", "/group_size", 24), HasSubstr("no multiple of group_size 24"));
  EXPECT_THAT(MessageWith("ct_w4g32", "/format", "nvfp4-pack-quantized"), HasSubstr("nvfp4-pack-quantized"));
  EXPECT_THAT(MessageWith("ct_w4g32", "/config_groups/group_0/weights/group_size", 24), HasSubstr("does not divide the 64 inputs"));
  EXPECT_THAT(MessageWith("ct_w4g32", "/config_groups/group_0/weights/strategy", "block"), HasSubstr("block"));
  EXPECT_THAT(MessageWith("ct_w4g32", "/config_groups/group_0/weights/num_bits", 16), HasSubstr("num_bits is 16"));
  EXPECT_THAT(MessageWith("ct_w4g32", "/config_groups/group_0/targets", json::array({"re:.*q_proj"})), HasSubstr("no config group"));
  EXPECT_THAT(MessageWith("ct_w4g32", "/transform_config", json{{"a", 1}}), HasSubstr("transform_config"));
  EXPECT_THAT(MessageWith("ct_w8a8", "/config_groups/group_0/input_activations/strategy", "group"), HasSubstr("'group'"));
  EXPECT_THAT(MessageWith("bnb_int8", "/llm_int8_threshold", -1), HasSubstr("llm_int8_threshold is -1, expected 0 or more"));
  EXPECT_THAT(MessageWith("ct_fp8", "/config_groups/group_0/weights/type", "int"), HasSubstr("F8_E4M3"));
}

TEST(Layout, NotesSayWhatWasDecodedOrLeftOut) {
  const auto note = [](const char* name) {
    const Opened opened = OpenFile(PathOf(name)).value();
    return OpenQuantizedLayout(opened.config, opened.files)->note;
  };
  EXPECT_EQ(note("gptq_w4g32"), "GPTQ checkpoint");
  EXPECT_THAT(note("gptq_act_order"), HasSubstr("1 of 1 weights decoded to floats: act-order"));
  EXPECT_THAT(note("bnb_fp4"), HasSubstr("1 weights decoded to floats"));
}

TEST(Layout, ClassesOfTorchAoThatAreNotReadAreNamed) {
  Contents contents = ReadContents("ao_w8a8");
  contents.metadata["m.weight"] = R"({"_type": "Int4Tensor", "_data": {"block_size": [1, 32]}})";
  EXPECT_THAT(MessageOf(Reopened(contents)), HasSubstr("Int4Tensor is not supported"));
}

TEST(Targets, FitByNamePatternAndClass) {
  EXPECT_EQ(TargetFit("lm_head", "lm_head").value(), 3);
  EXPECT_EQ(TargetFit("re:.*down_proj", "model.layers.0.mlp.down_proj").value(), 2);
  EXPECT_EQ(TargetFit("re:down_proj", "model.layers.0.mlp.down_proj").value(), 0);
  EXPECT_EQ(TargetFit("Linear", "x").value(), 1);
  EXPECT_EQ(TargetFit("Embedding", "x").value(), 0);
  EXPECT_FALSE(TargetFit("re:(", "x").ok());
  EXPECT_FALSE(TargetFit("re:(a+)+$", std::string(60, 'a') + "b").ok());
  // Many groups make each step of a match large.
  std::string groups = "re:(a+";
  for (int i = 0; i < 200; ++i) groups += "()";
  EXPECT_FALSE(TargetFit(groups + ")+$", std::string(5000, 'a') + "b").ok());
}

TEST(Words, PackAndUnpackAreInverse) {
  Rng rng(4);
  for (int bits = 1; bits <= 8; ++bits) {
    std::vector<uint8_t> codes(32), again(32);
    for (uint8_t& code : codes) code = static_cast<uint8_t>(rng.Below(1 << bits));
    std::vector<uint32_t> words(bits * 3);
    PackWords(bits, codes, words.data(), 3);
    UnpackWords(bits, words.data(), 3, static_cast<int64_t>(again.size()), again.data());
    EXPECT_EQ(codes, again) << bits;
  }
}

}  // namespace
}  // namespace nibble::io
