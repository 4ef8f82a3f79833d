// AutoAWQ's GEMM version (AWQ: Lin et al., 2023). A linear of K inputs and N
// outputs is
//
//   X.qweight I32 [K, N / 8]  nibble i of a word is output 8 j + {0,2,4,6,1,3,5,7}[i]
//   X.qzeros  I32 [G, N / 8]  in the same order
//   X.scales  F16 [G, N]
//
// w = scale * (code - zero), 4 bits, groups of consecutive inputs. Read from
// AutoAWQ's WQLinear_GEMM and its packing utilities.

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/io/quantized/codes.h"
#include "core/io/quantized/layout.h"
#include "core/io/quantized/settings.h"

namespace nibble::io {
namespace {

constexpr int kOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};

struct Linear {
  std::string module;
  int64_t inputs = 0, outputs = 0, groups = 0, group = 0;
};

absl::StatusOr<int64_t> ReadGroup(const Settings& settings) {
  NIBBLE_ASSIGN_OR_RETURN(const int64_t bits, settings.Integer("bits", 4));
  if (bits != 4) return settings.Bad("bits", "4");
  NIBBLE_ASSIGN_OR_RETURN(const std::string version, settings.Text("version", "gemm"));
  if (absl::AsciiStrToLower(version) != "gemm") {
    return absl::UnimplementedError(absl::StrCat("quantization_config: version '", version, "' of AWQ is not supported; Nibble reads gemm"));
  }
  NIBBLE_ASSIGN_OR_RETURN(const int64_t group, settings.Integer("group_size", 128));
  if (group == 0) return settings.Bad("group_size", "-1 or a positive number");
  return group;
}

absl::StatusOr<Linear> Check(const std::string& module, int64_t group, const TensorFiles& files) {
  NIBBLE_ASSIGN_OR_RETURN(const Tensor weight, files.Get(module + ".qweight"));
  if (weight.dtype() != DType::kI32 || weight.shape().size() != 2 || weight.dim(0) < 1 || weight.dim(1) < 1) {
    return absl::InvalidArgumentError(absl::StrCat(files.Where(module + ".qweight"), " is ", DTypeName(weight.dtype()), " ",
                                                   ShapeToString(weight.shape()), ", expected I32 [inputs, outputs / 8]"));
  }
  Linear linear{module, weight.dim(0), weight.dim(1) * 8};
  linear.group = group == -1 ? linear.inputs : group;
  if (linear.inputs % linear.group != 0) {
    return absl::InvalidArgumentError(absl::StrCat(files.Where(module + ".qweight"), " has ", linear.inputs, " inputs, no multiple of group_size ",
                                                   linear.group));
  }
  linear.groups = linear.inputs / linear.group;
  NIBBLE_RETURN_IF_ERROR(files.Get(module + ".qzeros", DType::kI32, {linear.groups, linear.outputs / 8}).status());
  NIBBLE_ASSIGN_OR_RETURN(const Tensor scales, files.Get(module + ".scales"));
  NIBBLE_RETURN_IF_ERROR(files.Get(module + ".scales", scales.dtype(), {linear.groups, linear.outputs}).status());
  NIBBLE_RETURN_IF_ERROR(Annotate(SchemeWithScales("int4", 1, 1, scales.dtype()).status(), files.Where(module + ".scales")));
  return linear;
}

// [rows, columns / 8] words as the transpose of the codes, [columns, rows].
std::vector<uint8_t> Unpack(const Tensor& words, int64_t rows, int64_t columns) {
  std::vector<uint8_t> codes(rows * columns);
  const absl::Span<const uint32_t> data = words.as<uint32_t>();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t w = 0; w < columns / 8; ++w) {
      const uint32_t word = data[r * (columns / 8) + w];
      for (int i = 0; i < 8; ++i) codes[(w * 8 + kOrder[i]) * rows + r] = static_cast<uint8_t>(word >> (4 * i) & 15);
    }
  }
  return codes;
}

absl::StatusOr<EncodedTensor> Load(const Linear& linear, const TensorFiles& files) {
  Codes codes{4, linear.outputs, linear.inputs, linear.group};
  NIBBLE_ASSIGN_OR_RETURN(const Tensor weight, files.Get(linear.module + ".qweight"));
  NIBBLE_ASSIGN_OR_RETURN(const Tensor zeros, files.Get(linear.module + ".qzeros"));
  NIBBLE_ASSIGN_OR_RETURN(const Tensor scales, files.Get(linear.module + ".scales"));
  codes.codes = Unpack(weight, linear.inputs, linear.outputs);
  codes.zeros = Unpack(zeros, linear.groups, linear.outputs);
  codes.scales = Transposed(scales);
  return ToIntegers(codes);
}

}  // namespace

absl::StatusOr<QuantizedLayout> OpenAwq(const nlohmann::json& config, std::shared_ptr<const TensorFiles> files) {
  NIBBLE_ASSIGN_OR_RETURN(const int64_t group, ReadGroup(Settings(config)));
  QuantizedLayout layout;
  for (const std::string& module : files->NamesBefore(".qweight")) {
    NIBBLE_ASSIGN_OR_RETURN(const Linear linear, Check(module, group, *files));
    layout.weights[module] = [=] { return Load(linear, *files); };
  }
  layout.note = "AWQ checkpoint";
  return layout;
}

}  // namespace nibble::io
