// bitsandbytes as transformers stores it. 4 bits (QLoRA: Dettmers et al., 2023): a
// linear of K inputs and N outputs is
//
//   X.weight                              U8 [ceil(N K / 2), 1]  even elements in the high nibble
//   X.weight.absmax                       F32 [blocks], or U8 with double quantization
//   X.weight.quant_map                    F32 [16]  what codes stand for
//   X.weight.nested_absmax                F32 [ceil(blocks / nested_blocksize)]
//   X.weight.nested_quant_map             F32 [256]
//   X.weight.quant_state.bitsandbytes__nf4 (or __fp4)  U8: JSON text of blocksize, shape,
//                                         dtype, nested_blocksize, nested_offset
//
// A block is `blocksize` elements of the flat weight. Where blocks do not lie inside
// rows the weight is decoded to its dtype. 8 bits (LLM.int8(): Dettmers et al.,
// 2022): X.weight I8 [N, K] and X.SCB F32 [N], w = code SCB / 127; columns of inputs with a value
// from llm_int8_threshold on leave the int8 product.
//
// Established from bitsandbytes 0.50.2 (functional.QuantState, backends/default); its
// CPU kernel takes other blocks' scales where blocks cross rows of some widths.

#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/divide.h"
#include "core/base/status.h"
#include "core/io/quantized/codes.h"
#include "core/io/quantized/layout.h"
#include "core/io/quantized/settings.h"
#include "core/io/strict_json.h"
#include "core/quant/format.h"
#include "core/quant/formats/nf4/nf4.pb.h"
#include "core/quant/scale_type.h"

namespace nibble::io {
namespace {

constexpr char kState[] = ".weight.quant_state.bitsandbytes__";
constexpr int64_t kMaxStateBytes = 1 << 16;

struct Linear {
  std::string module, format;
  int64_t rows = 0, cols = 0, block = 0, blocks = 0, nested_block = 0;  // nested_block 0: no double quantization
  float nested_offset = 0;
  DType dtype = DType::kF32;

  bool in_rows() const { return cols % block == 0; }
  std::string name(const char* part) const { return absl::StrCat(module, ".weight", part); }
};

absl::StatusOr<DType> TorchType(const std::string& name) {
  if (name == "float32") return DType::kF32;
  if (name == "float16") return DType::kF16;
  if (name == "bfloat16") return DType::kBF16;
  return absl::InvalidArgumentError(absl::StrCat("dtype '", name, "', expected float32, float16 or bfloat16"));
}

absl::Status ReadShape(const nlohmann::json& shape, Linear* linear) {
  if (!shape.is_array() || shape.size() != 2 || !shape[0].is_number_unsigned() || !shape[1].is_number_unsigned()) {
    return absl::InvalidArgumentError(absl::StrCat("shape ", Settings::Dump(shape), ", expected [outputs, inputs]"));
  }
  const uint64_t rows = shape[0].get<uint64_t>(), cols = shape[1].get<uint64_t>();
  if (rows < 1 || cols < 1 || rows >= (1u << 24) || cols >= (1u << 24)) {
    return absl::InvalidArgumentError(absl::StrCat("shape ", Settings::Dump(shape), ", expected 1 to 2^24 - 1 each"));
  }
  linear->rows = static_cast<int64_t>(rows);
  linear->cols = static_cast<int64_t>(cols);
  return absl::OkStatus();
}

absl::Status ReadState(const std::string& text, const std::string& where, Linear* linear) {
  NIBBLE_ASSIGN_OR_RETURN(const nlohmann::json object, ParseStrictObject(text, where));
  const Settings state(object, where);
  if (state.Find("shape") == nullptr) return state.Bad("shape", "[outputs, inputs]");
  NIBBLE_RETURN_IF_ERROR(Annotate(ReadShape(*state.Find("shape"), linear), where));
  NIBBLE_ASSIGN_OR_RETURN(const std::string type, state.Text("quant_type", linear->format));
  if (type != linear->format) return state.Bad("quant_type", linear->format);
  NIBBLE_ASSIGN_OR_RETURN(linear->block, state.Integer("blocksize", 64));
  if (linear->block < 1) return state.Bad("blocksize", "a positive number");
  linear->blocks = CeilDiv(linear->rows * linear->cols, linear->block);
  NIBBLE_ASSIGN_OR_RETURN(const std::string dtype, state.Text("dtype", "float32"));
  auto known = TorchType(dtype);
  if (!known.ok()) return Annotate(known.status(), where);
  linear->dtype = *known;
  if (state.Find("nested_blocksize") == nullptr) return absl::OkStatus();
  NIBBLE_ASSIGN_OR_RETURN(linear->nested_block, state.Integer("nested_blocksize", 256));
  if (linear->nested_block < 1) return state.Bad("nested_blocksize", "a positive number");
  NIBBLE_ASSIGN_OR_RETURN(const double offset, state.Number("nested_offset", 0));
  linear->nested_offset = static_cast<float>(offset);
  return std::isfinite(linear->nested_offset) ? absl::OkStatus() : state.Bad("nested_offset", "a number that fits fp32");
}

// The codes' values must be those of Nibble's format of that name, but for the last
// digit: kernels of bitsandbytes have tables of their own as well.
absl::Status CheckTable(const Linear& linear, const TensorFiles& files) {
  NIBBLE_ASSIGN_OR_RETURN(const Tensor stored, files.Get(linear.name(".quant_map"), DType::kF32, {16}));
  NIBBLE_ASSIGN_OR_RETURN(const Format* format, FindFormat(linear.format));
  NIBBLE_ASSIGN_OR_RETURN(const QuantScheme scheme, SchemeWithScales(linear.format, 1, 1, DType::kF32));
  NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor one, Encode(scheme, {1, 1}, {1.0f}));
  const absl::Span<const float> ours = format->Codes(one)->values;
  for (int code = 0; code < 16; ++code) {
    const float theirs = stored.as<float>()[code];
    if (std::fabs(theirs - ours[code]) <= 1e-6f) continue;
    return absl::UnimplementedError(absl::StrCat(files.Where(linear.name(".quant_map")), ": code ", code, " stands for ", theirs, ", that of ",
                                                 linear.format, " for ", ours[code]));
  }
  return absl::OkStatus();
}

absl::StatusOr<Linear> Check4Bit(const std::string& module, const std::string& format, const TensorFiles& files) {
  Linear linear{module, format};
  const std::string state = absl::StrCat(module, kState, format);
  NIBBLE_ASSIGN_OR_RETURN(const Tensor text, files.Get(state));
  if (text.dtype() != DType::kU8 || text.byte_size() > kMaxStateBytes) {
    return absl::InvalidArgumentError(absl::StrCat(files.Where(state), " is ", DTypeName(text.dtype()), " ", ShapeToString(text.shape()),
                                                   ", expected U8, a short JSON text"));
  }
  const absl::Span<const uint8_t> bytes = text.bytes();
  NIBBLE_RETURN_IF_ERROR(ReadState(std::string(bytes.begin(), bytes.end()), files.Where(state), &linear));
  NIBBLE_RETURN_IF_ERROR(files.Get(module + ".weight", DType::kU8, {CeilDiv(linear.rows * linear.cols, 2), 1}).status());
  const bool nested = linear.nested_block > 0;
  NIBBLE_RETURN_IF_ERROR(files.Get(linear.name(".absmax"), nested ? DType::kU8 : DType::kF32, {linear.blocks}).status());
  if (nested) {
    NIBBLE_RETURN_IF_ERROR(files.Get(linear.name(".nested_absmax"), DType::kF32, {CeilDiv(linear.blocks, linear.nested_block)}).status());
    NIBBLE_RETURN_IF_ERROR(files.Get(linear.name(".nested_quant_map"), DType::kF32, {256}).status());
  }
  NIBBLE_RETURN_IF_ERROR(CheckTable(linear, files));
  return linear;
}

// The scale of each block, as bitsandbytes computes it.
absl::StatusOr<std::vector<float>> Scales(const Linear& linear, const TensorFiles& files) {
  NIBBLE_ASSIGN_OR_RETURN(const Tensor absmax, files.Get(linear.name(".absmax")));
  if (linear.nested_block == 0) return nibble::ToFloats(absmax);
  NIBBLE_ASSIGN_OR_RETURN(const Tensor second, files.Get(linear.name(".nested_absmax")));
  NIBBLE_ASSIGN_OR_RETURN(const Tensor map, files.Get(linear.name(".nested_quant_map")));
  std::vector<float> scales(linear.blocks);
  for (int64_t i = 0; i < linear.blocks; ++i) {
    scales[i] = map.as<float>()[absmax.as<uint8_t>()[i]] * second.as<float>()[i / linear.nested_block] + linear.nested_offset;
  }
  return scales;
}

// Element i, in the flat weight's order.
uint8_t CodeAt(absl::Span<const uint8_t> packed, int64_t i) { return i % 2 == 0 ? packed[i / 2] >> 4 : packed[i / 2] & 15; }

// Codes and scales of rows of whole blocks.
absl::StatusOr<EncodedTensor> InRows(const Linear& linear, const Tensor& packed, const std::vector<float>& scales) {
  NIBBLE_ASSIGN_OR_RETURN(const QuantScheme scheme, SchemeWithScales(linear.format, linear.block, linear.cols, DType::kF32));
  const int64_t row_bytes = PackedRowBytes(4, linear.cols);
  Tensor codes = Tensor::Zeros(DType::kU8, {linear.rows, row_bytes});
  std::vector<uint8_t> row(linear.cols);
  for (int64_t r = 0; r < linear.rows; ++r) {
    for (int64_t c = 0; c < linear.cols; ++c) row[c] = CodeAt(packed.as<uint8_t>(), r * linear.cols + c);
    PackRow(4, row, codes.mutable_as<uint8_t>().data() + r * row_bytes);
  }
  EncodedTensor tensor{scheme, {linear.rows, linear.cols}, {{"codes", std::move(codes)}}};
  tensor.buffers.emplace("scales", Tensor::FromFloats({linear.rows, linear.cols / linear.block}, scales));
  return tensor;
}

// The same with the scales in 8 bits as they are stored.
absl::StatusOr<EncodedTensor> WithNestedScales(const Linear& linear, const EncodedTensor& plain, const TensorFiles& files) {
  EncodedTensor tensor = plain;
  tensor.scheme.MutableExtension(double_quantization)->set_block(static_cast<int32_t>(linear.nested_block));
  tensor.buffers.erase("scales");
  NIBBLE_ASSIGN_OR_RETURN(const Tensor absmax, files.Get(linear.name(".absmax")));
  NIBBLE_ASSIGN_OR_RETURN(Tensor second, files.Get(linear.name(".nested_absmax")));
  Tensor codes = Tensor::Zeros(DType::kU8, {linear.rows, linear.cols / linear.block});
  std::memcpy(codes.mutable_as<uint8_t>().data(), absmax.bytes().data(), absmax.bytes().size());
  tensor.buffers.emplace("scale_codes", std::move(codes));
  tensor.buffers.emplace("scale_scales", std::move(second));
  tensor.buffers.emplace("scale_mean", Tensor::FromFloats({1}, {linear.nested_offset}));
  NIBBLE_RETURN_IF_ERROR(CheckEncoded(tensor));
  return tensor;
}

// Whether the stored map of scales is Nibble's: the same scales to the bit.
absl::StatusOr<bool> SameScales(const Linear& linear, const TensorFiles& files, const std::vector<float>& scales) {
  EncodedTensor empty{SchemeWithScales(linear.format, linear.block, linear.cols, DType::kF32).value(), {linear.rows, linear.cols}, {}};
  empty.buffers.emplace("codes", Tensor::Zeros(DType::kU8, {linear.rows, PackedRowBytes(4, linear.cols)}));
  NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor nested, WithNestedScales(linear, empty, files));
  NIBBLE_ASSIGN_OR_RETURN(const Format* format, FindFormat(linear.format));
  return nibble::ToFloats(format->Codes(nested)->scales) == scales;
}

absl::StatusOr<EncodedTensor> Decoded(const Linear& linear, const Tensor& packed, const std::vector<float>& scales, const Tensor& table) {
  std::vector<float> values(linear.rows * linear.cols);
  for (int64_t i = 0; i < linear.rows * linear.cols; ++i) {
    values[i] = table.as<float>()[CodeAt(packed.as<uint8_t>(), i)] * scales[i / linear.block];
  }
  return WrapFloats(FloatsToDType(linear.dtype, {linear.rows, linear.cols}, values));
}

absl::StatusOr<EncodedTensor> Load4Bit(const Linear& linear, const TensorFiles& files) {
  NIBBLE_ASSIGN_OR_RETURN(const Tensor packed, files.Get(linear.module + ".weight"));
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<float> scales, Scales(linear, files));
  if (!linear.in_rows()) {
    NIBBLE_ASSIGN_OR_RETURN(const Tensor table, files.Get(linear.name(".quant_map")));
    return Decoded(linear, packed, scales, table);
  }
  NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor plain, InRows(linear, packed, scales));
  if (linear.nested_block == 0) return plain;
  NIBBLE_ASSIGN_OR_RETURN(const bool same, SameScales(linear, files, scales));
  return same ? WithNestedScales(linear, plain, files) : plain;
}

absl::Status Open4Bit(std::shared_ptr<const TensorFiles> files, QuantizedLayout* layout) {
  int64_t decoded = 0, wide_scales = 0;
  for (const char* format : {"nf4", "fp4"}) {
    for (const std::string& module : files->NamesBefore(absl::StrCat(kState, format))) {
      NIBBLE_ASSIGN_OR_RETURN(const Linear linear, Check4Bit(module, format, *files));
      decoded += !linear.in_rows();
      if (linear.in_rows() && linear.nested_block > 0) {
        NIBBLE_ASSIGN_OR_RETURN(const std::vector<float> scales, Scales(linear, *files));
        NIBBLE_ASSIGN_OR_RETURN(const bool same, SameScales(linear, *files, scales));
        wide_scales += !same;
      }
      layout->weights[module] = [=] { return Load4Bit(linear, *files); };
    }
  }
  if (decoded > 0) absl::StrAppend(&layout->note, "; ", decoded, " weights decoded to floats: their blocks do not lie inside rows");
  if (wide_scales > 0) absl::StrAppend(&layout->note, "; scales of ", wide_scales, " weights decoded to fp32: their 8-bit map is another");
  return absl::OkStatus();
}

absl::StatusOr<EncodedTensor> Load8Bit(const std::string& module, const Shape& shape, const TensorFiles& files) {
  NIBBLE_ASSIGN_OR_RETURN(const Tensor weight, files.Get(module + ".weight", DType::kI8, shape));
  NIBBLE_ASSIGN_OR_RETURN(const Tensor absmax, files.Get(module + ".SCB"));
  Codes codes{8, shape[0], shape[1], shape[1]};
  for (const int8_t code : weight.as<int8_t>()) codes.codes.push_back(static_cast<uint8_t>(code + 128));
  std::vector<float> scales = nibble::ToFloats(absmax);
  for (float& scale : scales) scale /= 127.0f;
  codes.scales = Tensor::FromFloats({shape[0], 1}, scales);
  return ToIntegers(codes);
}

absl::Status Open8Bit(const Settings& settings, std::shared_ptr<const TensorFiles> files, QuantizedLayout* layout) {
  NIBBLE_ASSIGN_OR_RETURN(const double threshold, settings.Number("llm_int8_threshold", 6.0));
  if (!(threshold >= 0) || threshold > std::numeric_limits<float>::max()) return settings.Bad("llm_int8_threshold", "0 or more");
  const QuantScheme activation = OutlierScheme(static_cast<float>(threshold), true);
  for (const std::string& module : files->NamesBefore(".SCB")) {
    NIBBLE_ASSIGN_OR_RETURN(const Tensor weight, files->Get(module + ".weight"));
    if (weight.dtype() != DType::kI8 || weight.shape().size() != 2 || weight.elements() == 0) {
      return absl::InvalidArgumentError(absl::StrCat(files->Where(module + ".weight"), " is ", DTypeName(weight.dtype()), " ",
                                                     ShapeToString(weight.shape()), ", expected I8 [outputs, inputs]"));
    }
    NIBBLE_RETURN_IF_ERROR(files->Get(module + ".SCB", DType::kF32, {weight.dim(0)}).status());
    if (files->Has(module + ".weight_format")) {
      NIBBLE_ASSIGN_OR_RETURN(const Tensor format, files->Get(module + ".weight_format"));
      if (format.dtype() != DType::kU8 || format.elements() != 1 || format.bytes()[0] != 0) {
        return absl::UnimplementedError(absl::StrCat(files->Where(module + ".weight_format"), " is not 0, rows in order"));
      }
    }
    layout->weights[module] = [=, shape = weight.shape()] { return Load8Bit(module, shape, *files); };
    layout->activations[module] = activation;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<QuantizedLayout> OpenBitsAndBytes(const nlohmann::json& config, std::shared_ptr<const TensorFiles> files) {
  const Settings settings(config);
  NIBBLE_ASSIGN_OR_RETURN(const bool eight, settings.Bool("load_in_8bit", false));
  QuantizedLayout layout;
  layout.note = eight ? "bitsandbytes LLM.int8() checkpoint" : "bitsandbytes 4-bit checkpoint";
  NIBBLE_RETURN_IF_ERROR(eight ? Open8Bit(settings, std::move(files), &layout) : Open4Bit(std::move(files), &layout));
  return layout;
}

}  // namespace nibble::io
