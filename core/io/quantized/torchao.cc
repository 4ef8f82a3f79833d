// torchao's safetensors (torchao.prototype.safetensors, what transformers saves). The
// metadata of a file has for each of its weights X.weight
//
//   "X.weight": {"_type": class, "_data": attributes, "_tensor_data_names": [...]}
//
// and the tensors are "X._weight_qdata", "X._weight_scale", "X._weight_zero_point".
// Two classes are read, of those that torchao stores so:
//
//   IntxUnpackedToInt8Tensor  qdata I8 [N, K] with values of target_dtype (int2 to
//                             int8), scale and zero_point [N, K / block_size[1]];
//                             activation_quantization "int8_asym_per_token" or null
//   Int8Tensor                qdata I8 [N, K], scale and zero_point [N, 1];
//                             act_quant_kwargs: dynamic int8 inputs or null
//
// w = scale * (q - zero). Established from torchao 0.18.0: its source and what it
// writes. Int4Tensor, Int4TilePackedTo4dTensor, Float8Tensor and the MX types are
// not read.

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/io/quantized/codes.h"
#include "core/io/quantized/layout.h"
#include "core/io/quantized/settings.h"
#include "core/io/strict_json.h"

namespace nibble::io {
namespace {

using nlohmann::json;

constexpr char kCodes[] = "._weight_qdata";

struct Linear {
  std::string module;
  int bits = 8;
  int64_t rows = 0, cols = 0, group = 0;

  std::string name(const char* part) const { return absl::StrCat(module, "._weight_", part); }
};

// The text of {"_type": "torch.dtype", "_data": "int4"} and of enumerators.
std::string Enumerator(const json* value) {
  if (value == nullptr || !value->is_object()) return "";
  const auto data = value->find("_data");
  return data != value->end() && data->is_string() ? data->get<std::string>() : "";
}

absl::StatusOr<int> BitsOf(const Settings& data) {
  const std::string type = Enumerator(data.Find("target_dtype"));
  for (int bits = 2; bits <= 8; ++bits) {
    if (type == absl::StrCat("int", bits)) return bits;
  }
  return absl::UnimplementedError(absl::StrCat(data.where(), ": target_dtype '", type, "' is not supported; Nibble reads int2 to int8"));
}

absl::Status CheckTensors(const Settings& data, const TensorFiles& files, Linear* linear) {
  NIBBLE_ASSIGN_OR_RETURN(const Tensor codes, files.Get(linear->name("qdata")));
  if (codes.dtype() != DType::kI8 || codes.shape().size() != 2 || codes.elements() == 0) {
    return absl::InvalidArgumentError(absl::StrCat(files.Where(linear->name("qdata")), " is ", DTypeName(codes.dtype()), " ",
                                                   ShapeToString(codes.shape()), ", expected I8 [outputs, inputs]"));
  }
  linear->rows = codes.dim(0);
  linear->cols = codes.dim(1);
  const json* block = data.Find("block_size");
  if (block == nullptr || !block->is_array() || block->size() != 2 || (*block)[0] != 1 || !(*block)[1].is_number_unsigned()) {
    return data.Bad("block_size", "[1, inputs that share a scale]");
  }
  const uint64_t group = (*block)[1].get<uint64_t>();
  if (group < 1 || group > static_cast<uint64_t>(linear->cols) || linear->cols % group != 0) return data.Bad("block_size", "a divisor of the inputs");
  linear->group = static_cast<int64_t>(group);
  const Shape shape = {linear->rows, linear->cols / linear->group};
  NIBBLE_ASSIGN_OR_RETURN(const Tensor scales, files.Get(linear->name("scale")));
  NIBBLE_RETURN_IF_ERROR(files.Get(linear->name("scale"), scales.dtype(), shape).status());
  NIBBLE_RETURN_IF_ERROR(Annotate(SchemeWithScales("int4", 1, 1, scales.dtype()).status(), files.Where(linear->name("scale"))));
  if (!files.Has(linear->name("zero_point"))) return absl::OkStatus();
  NIBBLE_ASSIGN_OR_RETURN(const Tensor zeros, files.Get(linear->name("zero_point")));
  return files.Get(linear->name("zero_point"), zeros.dtype(), shape).status();
}

absl::StatusOr<EncodedTensor> Load(const Linear& linear, const TensorFiles& files) {
  Codes codes{linear.bits, linear.rows, linear.cols, linear.group};
  NIBBLE_ASSIGN_OR_RETURN(const Tensor data, files.Get(linear.name("qdata")));
  NIBBLE_ASSIGN_OR_RETURN(codes.codes, UnsignedCodes(data, linear.bits, files.Where(linear.name("qdata"))));
  NIBBLE_ASSIGN_OR_RETURN(codes.scales, files.Get(linear.name("scale")));
  if (files.Has(linear.name("zero_point"))) {
    NIBBLE_ASSIGN_OR_RETURN(const Tensor zeros, files.Get(linear.name("zero_point")));
    NIBBLE_ASSIGN_OR_RETURN(codes.zeros, UnsignedCodes(zeros, linear.bits, files.Where(linear.name("zero_point"))));
  }
  return ToIntegers(codes);
}

QuantScheme DynamicInput(bool asymmetric) {
  QuantScheme scheme = TokenScheme(8, asymmetric);
  if (!asymmetric) scheme.set_divisor(QuantScheme::HALF_RANGE);
  scheme.set_scale_floor(std::numeric_limits<float>::epsilon());
  return scheme;
}

absl::Status ReadIntx(const Settings& data, const std::string& module, Linear* linear, QuantizedLayout* layout) {
  NIBBLE_ASSIGN_OR_RETURN(linear->bits, BitsOf(data));
  NIBBLE_ASSIGN_OR_RETURN(const std::string activation, data.Text("activation_quantization", ""));
  if (activation.empty()) return absl::OkStatus();
  if (activation != "int8_asym_per_token") {
    return absl::UnimplementedError(absl::StrCat(data.where(), ": activation_quantization '", activation, "' is not supported"));
  }
  layout->activations[module] = DynamicInput(true);
  return absl::OkStatus();
}

absl::Status ReadInt8(const Settings& data, const std::string& module, const TensorFiles& files, QuantizedLayout* layout) {
  for (const char* part : {"act_quant_scale", "act_quant_zero_point", "act_pre_scale"}) {
    const std::string name = absl::StrCat(module, "._weight_", part);
    if (files.Has(name)) return absl::UnimplementedError(absl::StrCat(files.Where(name), ": static or scaled inputs are not supported"));
  }
  const json* kwargs = data.Find("act_quant_kwargs");
  if (kwargs == nullptr) return absl::OkStatus();
  const json inner = kwargs->is_object() ? kwargs->value("_data", json()) : json();
  const Settings settings(inner, data.where() + ".act_quant_kwargs");
  NIBBLE_ASSIGN_OR_RETURN(const bool reduced, settings.Bool("reduce_range", false));
  const json* granularity = settings.Find("granularity");
  const std::string mapping = Enumerator(settings.Find("mapping_type"));
  const bool per_row = granularity != nullptr && granularity->is_object() && granularity->value("_type", json()) == json("PerRow");
  if (reduced || !per_row || (mapping != "SYMMETRIC" && mapping != "ASYMMETRIC")) {
    return absl::UnimplementedError(absl::StrCat(data.where(), ": act_quant_kwargs ", Settings::Dump(*kwargs),
                                                 " is not supported; Nibble reads PerRow in the whole range"));
  }
  layout->activations[module] = DynamicInput(mapping == "ASYMMETRIC");
  return absl::OkStatus();
}

absl::Status OpenModule(const std::string& module, std::shared_ptr<const TensorFiles> files, QuantizedLayout* layout) {
  const std::string name = module + ".weight";
  const std::string* text = files->Metadata(name);
  if (text == nullptr) return absl::InvalidArgumentError(absl::StrCat(files->Where(module + kCodes), ": the metadata has no entry '", name, "'"));
  NIBBLE_ASSIGN_OR_RETURN(const json object, ParseStrictObject(*text, absl::StrCat("metadata '", name, "'")));
  const Settings entry(object, absl::StrCat("metadata '", name, "'"));
  NIBBLE_ASSIGN_OR_RETURN(const std::string type, entry.Text("_type", ""));
  const json* data = entry.Find("_data");
  if (data == nullptr || !data->is_object()) return entry.Bad("_data", "an object");
  const Settings settings(*data, entry.where());
  Linear linear{module};
  if (type == "IntxUnpackedToInt8Tensor") {
    NIBBLE_RETURN_IF_ERROR(ReadIntx(settings, module, &linear, layout));
  } else if (type == "Int8Tensor") {
    NIBBLE_RETURN_IF_ERROR(ReadInt8(settings, module, *files, layout));
  } else {
    return absl::UnimplementedError(absl::StrCat(entry.where(), ": torchao's ", type, " is not supported; Nibble reads IntxUnpackedToInt8Tensor and Int8Tensor"));
  }
  NIBBLE_RETURN_IF_ERROR(CheckTensors(settings, *files, &linear));
  layout->weights[module] = [=] { return Load(linear, *files); };
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<QuantizedLayout> OpenTorchAo(const json&, std::shared_ptr<const TensorFiles> files) {
  QuantizedLayout layout;
  for (const std::string& module : files->NamesBefore(kCodes)) NIBBLE_RETURN_IF_ERROR(OpenModule(module, files, &layout));
  layout.note = "torchao checkpoint";
  return layout;
}

}  // namespace nibble::io
