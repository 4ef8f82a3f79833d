// AutoGPTQ and GPTQModel (GPTQ: Frantar et al., 2022). A linear of K inputs and N
// outputs is
//
//   X.qweight I32 [K bits / 32, N]  codes of a column of outputs, down the inputs
//   X.qzeros  I32 [G, N bits / 32]  zero points, along the outputs
//   X.scales  F16 [G, N]
//   X.g_idx   I32 [K]               the group of each input; absent: k / group_size
//
// bits 2, 3, 4 or 8, every stream least significant bit first (3 bits: 32 codes in
// three words). w = scale * (code - zero). Version 1 ("checkpoint_format": "gptq",
// or none) stores zero - 1, modulo 2^bits; "gptq_v2" stores the zero.
//
// Read from AutoGPTQ's qlinear_cuda_old and GPTQModel's conversion of versions. A
// stored field of all ones in version 1 is zero point 0, which is what an encoder
// wrote so; AutoGPTQ's kernels disagree about it (0 or 2^bits).
//
// "desc_act": columns were quantized in order of activation, so that those of one
// group are anywhere. Where g_idx says so the weight is decoded to the scales' type.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/divide.h"
#include "core/base/status.h"
#include "core/io/quantized/codes.h"
#include "core/io/quantized/layout.h"
#include "core/io/quantized/settings.h"

namespace nibble::io {
namespace {

struct Shared {
  int bits = 4;
  int64_t group = -1;  // -1: all inputs
  int stored_offset = 1;
};

struct Linear {
  std::string module;
  int64_t inputs = 0, outputs = 0, groups = 0, group = 0;
};

absl::StatusOr<Shared> ReadSettings(const Settings& settings) {
  Shared shared;
  NIBBLE_ASSIGN_OR_RETURN(const int64_t bits, settings.Integer("bits", 0));
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8) return settings.Bad("bits", "2, 3, 4 or 8");
  shared.bits = static_cast<int>(bits);
  NIBBLE_ASSIGN_OR_RETURN(shared.group, settings.Integer("group_size", -1));
  if (shared.group == 0) return settings.Bad("group_size", "-1 or a positive number");
  NIBBLE_ASSIGN_OR_RETURN(const std::string format, settings.Text("checkpoint_format", "gptq"));
  if (format != "gptq" && format != "gptq_v2") {
    return absl::UnimplementedError(absl::StrCat("quantization_config: checkpoint_format '", format, "' is not supported; Nibble reads gptq and gptq_v2"));
  }
  shared.stored_offset = format == "gptq" ? 1 : 0;
  return shared;
}

absl::StatusOr<Linear> Check(const std::string& module, const Shared& shared, const TensorFiles& files) {
  Linear linear{module};
  NIBBLE_ASSIGN_OR_RETURN(const Tensor weight, files.Get(module + ".qweight"));
  const int64_t words = weight.shape().empty() ? 0 : weight.dim(0);
  if (weight.dtype() != DType::kI32 || weight.shape().size() != 2 || words < 1 || words % shared.bits != 0 || weight.dim(1) < 1 ||
      weight.dim(1) * shared.bits % 32 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(files.Where(module + ".qweight"), " is ", DTypeName(weight.dtype()), " ",
                                                   ShapeToString(weight.shape()), ", expected I32 [inputs * ", shared.bits,
                                                   " / 32, outputs] with multiples of 32 inputs and outputs"));
  }
  linear.inputs = words / shared.bits * 32;
  linear.outputs = weight.dim(1);
  linear.group = shared.group == -1 ? linear.inputs : std::min(shared.group, linear.inputs);
  linear.groups = CeilDiv(linear.inputs, linear.group);
  NIBBLE_RETURN_IF_ERROR(files.Get(module + ".qzeros", DType::kI32, {linear.groups, linear.outputs * shared.bits / 32}).status());
  NIBBLE_ASSIGN_OR_RETURN(const Tensor scales, files.Get(module + ".scales"));
  NIBBLE_RETURN_IF_ERROR(files.Get(module + ".scales", scales.dtype(), {linear.groups, linear.outputs}).status());
  NIBBLE_RETURN_IF_ERROR(Annotate(SchemeWithScales("int4", 1, 1, scales.dtype()).status(), files.Where(module + ".scales")));
  return linear;
}

std::vector<uint8_t> Weights(const Tensor& words, int bits, const Linear& linear) {
  std::vector<uint8_t> codes(linear.outputs * linear.inputs);
  const uint32_t* data = words.as<uint32_t>().data();
  for (int64_t block = 0; block < linear.inputs / 32; ++block) {
    for (int64_t n = 0; n < linear.outputs; ++n) {
      UnpackWords(bits, data + block * bits * linear.outputs + n, linear.outputs, 32, codes.data() + n * linear.inputs + block * 32);
    }
  }
  return codes;
}

// [outputs, groups].
std::vector<uint8_t> Zeros(const Tensor& words, const Shared& shared, const Linear& linear) {
  std::vector<uint8_t> zeros(linear.outputs * linear.groups);
  const int64_t row_words = linear.outputs * shared.bits / 32;
  for (int64_t g = 0; g < linear.groups; ++g) {
    UnpackWords(shared.bits, words.as<uint32_t>().data() + g * row_words, 1, linear.outputs, zeros.data() + g, linear.groups);
  }
  const int mask = (1 << shared.bits) - 1;
  for (uint8_t& zero : zeros) zero = static_cast<uint8_t>((zero + shared.stored_offset) & mask);
  return zeros;
}

absl::StatusOr<EncodedTensor> Load(const Linear& linear, const Shared& shared, const TensorFiles& files) {
  Codes codes{shared.bits, linear.outputs, linear.inputs, linear.group};
  NIBBLE_ASSIGN_OR_RETURN(const Tensor weight, files.Get(linear.module + ".qweight"));
  NIBBLE_ASSIGN_OR_RETURN(const Tensor zeros, files.Get(linear.module + ".qzeros"));
  NIBBLE_ASSIGN_OR_RETURN(const Tensor scales, files.Get(linear.module + ".scales"));
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<int32_t> groups, ScatteredGroups(files, linear.module + ".g_idx", linear.inputs, linear.group));
  codes.codes = Weights(weight, shared.bits, linear);
  codes.zeros = Zeros(zeros, shared, linear);
  codes.scales = Transposed(scales);
  return groups.empty() ? ToIntegers(codes) : ToFloats(codes, groups);
}

}  // namespace

absl::StatusOr<QuantizedLayout> OpenGptq(const nlohmann::json& config, std::shared_ptr<const TensorFiles> files) {
  NIBBLE_ASSIGN_OR_RETURN(const Shared shared, ReadSettings(Settings(config)));
  QuantizedLayout layout;
  int64_t decoded = 0;
  for (const std::string& module : files->NamesBefore(".qweight")) {
    NIBBLE_ASSIGN_OR_RETURN(const Linear linear, Check(module, shared, *files));
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<int32_t> groups, ScatteredGroups(*files, module + ".g_idx", linear.inputs, linear.group));
    decoded += !groups.empty();
    layout.weights[module] = [=] { return Load(linear, shared, *files); };
  }
  layout.note = "GPTQ checkpoint";
  if (decoded > 0) {
    absl::StrAppend(&layout.note, "; ", decoded, " of ", layout.weights.size(),
                    " weights decoded to floats: act-order (g_idx) scatters their groups, so sizes and speeds are not the quantized model's");
  }
  return layout;
}

}  // namespace nibble::io
