#include "core/io/compressed_tensors_writer.h"

#include <optional>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/base/divide.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/io/checkpoint_files.h"
#include "core/io/checkpoint_names.h"
#include "core/io/quantized/codes.h"
#include "core/io/safetensors.h"
#include "core/quant/format.h"
#include "nlohmann/json.hpp"

namespace nibble::io {
namespace {

using nlohmann::ordered_json;

template <typename... Parts>
absl::Status Cannot(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("compressed-tensors cannot hold this model: ", parts...));
}

struct Plan {
  std::optional<QuantScheme> weight, input;
  int bits = 0;
  bool packed = true;
  std::vector<std::string> quantized, ignored;  // modules
};

std::string ModuleOf(const std::string& name) { return std::string(absl::StripSuffix(name, ".weight")); }

absl::Status CheckAttachments(const ir::Attachments& attachments) {
  if (!attachments.adapters.empty()) return Cannot("adapters; merge them first");
  if (!attachments.rotations.empty()) return Cannot("a transform at run time of the input of ", attachments.rotations[0].module);
  if (!attachments.caches.empty()) return Cannot("a quantized KV cache");
  return absl::OkStatus();
}

absl::Status AddQuantized(const CheckpointParameter& parameter, Plan* plan) {
  const QuantScheme& scheme = parameter.scheme;
  const std::string what = absl::StrCat(parameter.name, " is ", SchemeToString(scheme));
  NIBBLE_ASSIGN_OR_RETURN(const Format* format, FindFormat(scheme.format()));
  if (!format->integer_bits().has_value()) return Cannot(what, ", expected int2 to int8");
  if (!absl::EndsWith(parameter.name, "_proj.weight") && parameter.name != "lm_head.weight") return Cannot(what, "; only linears may be quantized");
  if (scheme.per() == QuantScheme::PER_GROUP && parameter.shape.back() % scheme.group_size() != 0) {
    return Cannot(what, ", which does not divide its ", parameter.shape.back(), " columns");
  }
  if (plan->weight.has_value() && !SameScheme(*plan->weight, scheme)) return Cannot(what, ", others are ", SchemeToString(*plan->weight));
  plan->weight = scheme;
  plan->bits = *format->integer_bits();
  plan->quantized.push_back(ModuleOf(parameter.name));
  return absl::OkStatus();
}

absl::Status CheckInput(const std::string& module, const QuantScheme& scheme) {
  const std::string what = absl::StrCat("the input of ", module, " is ", SchemeToString(scheme));
  if (scheme.format() != "int8" || scheme.per() != QuantScheme::PER_TOKEN || !scheme.dynamic()) return Cannot(what, ", expected int8 per token dynamic");
  if (scheme.outlier_threshold() > 0) return Cannot(what, "; the format has no values beside the int8 product");
  if (!scheme.asymmetric() && scheme.divisor() != QuantScheme::HALF_RANGE) {
    return Cannot(what, ", its runtimes divide by 127.5; set divisor: HALF_RANGE in [nibble.activations]");
  }
  return absl::OkStatus();
}

absl::Status AddInputs(const Checkpoint& checkpoint, Plan* plan) {
  const auto& inputs = checkpoint.attachments.activations;
  const std::set<std::string> quantized(plan->quantized.begin(), plan->quantized.end());
  for (const auto& [module, scheme] : inputs) {
    if (quantized.count(module) == 0) return Cannot("the input of ", module, " is quantized, its weight is not");
    NIBBLE_RETURN_IF_ERROR(CheckInput(module, scheme));
    if (plan->input.has_value() && !SameScheme(*plan->input, scheme)) return Cannot("the input of ", module, " is ", SchemeToString(scheme), ", others are another");
    plan->input = scheme;
  }
  if (!inputs.empty() && inputs.size() != quantized.size()) return Cannot("the inputs of ", inputs.size(), " of ", quantized.size(), " quantized linears are quantized");
  plan->packed = inputs.empty() || plan->bits != 8;
  return absl::OkStatus();
}

absl::StatusOr<Plan> MakePlan(const Checkpoint& checkpoint) {
  Plan plan;
  NIBBLE_RETURN_IF_ERROR(CheckAttachments(checkpoint.attachments));
  for (const CheckpointParameter& parameter : checkpoint.parameters) {
    NIBBLE_RETURN_IF_ERROR(Annotate(ValidateScheme(parameter.scheme), parameter.name));
    if (!IsFloatFormat(parameter.scheme)) NIBBLE_RETURN_IF_ERROR(AddQuantized(parameter, &plan));
    else if (absl::EndsWith(parameter.name, "_proj.weight") || parameter.name == "lm_head.weight") plan.ignored.push_back(ModuleOf(parameter.name));
  }
  if (!plan.weight.has_value()) return Cannot("nothing in it is quantized; write a plain folder");
  if (checkpoint.config.tie_word_embeddings) plan.ignored.push_back("lm_head");
  NIBBLE_RETURN_IF_ERROR(AddInputs(checkpoint, &plan));
  return plan;
}

ordered_json Args(int bits, const QuantScheme& scheme, const char* strategy) {
  ordered_json args = {{"num_bits", bits}, {"type", "int"}, {"symmetric", !scheme.asymmetric()}, {"strategy", strategy}};
  args["group_size"] = scheme.per() == QuantScheme::PER_GROUP ? ordered_json(scheme.group_size()) : ordered_json();
  args["dynamic"] = scheme.dynamic();
  return args;
}

ordered_json QuantizationConfig(const Plan& plan) {
  const char* strategy = plan.weight->per() == QuantScheme::PER_GROUP ? "group" : plan.weight->per() == QuantScheme::PER_TENSOR ? "tensor" : "channel";
  ordered_json group = {{"targets", {"Linear"}}, {"weights", Args(plan.bits, *plan.weight, strategy)}};
  group["input_activations"] = plan.input.has_value() ? Args(8, *plan.input, "token") : ordered_json();
  group["output_activations"] = nullptr;
  const char* format = plan.packed ? "pack-quantized" : "int-quantized";
  group["format"] = format;
  return {{"quant_method", "compressed-tensors"},
          {"format", format},
          {"quantization_status", "compressed"},
          {"config_groups", {{"group_0", group}}},
          {"ignore", plan.ignored},
          {"kv_cache_scheme", nullptr},
          {"global_compression_ratio", nullptr}};
}

// The tensors of one parameter by name.
using Tensors = std::vector<std::pair<std::string, Tensor>>;

Tensor PackCodes(const CodeView& view) {
  const int64_t words = CeilDiv(view.cols * view.bits, 32);
  Tensor packed = Tensor::Zeros(DType::kI32, {view.rows, words});
  std::vector<uint8_t> row(view.cols);
  for (int64_t r = 0; r < view.rows; ++r) {
    view.UnpackCodes(r, absl::MakeSpan(row));
    PackWords(view.bits, row, packed.mutable_as<uint32_t>().data() + r * words, 1);
  }
  return packed;
}

// Down the rows where they are packed, else signed.
Tensor ZeroPoints(const CodeView& view, bool packed) {
  const Tensor& zeros = *view.zeros;
  const int64_t rows = zeros.dim(0), groups = zeros.dim(1);
  if (!packed || rows != view.rows) {
    Tensor out = Tensor::Zeros(DType::kI8, zeros.shape());
    for (int64_t i = 0; i < zeros.elements(); ++i) out.mutable_as<int8_t>()[i] = static_cast<int8_t>(zeros.as<uint8_t>()[i] - (1 << (view.bits - 1)));
    return out;
  }
  Tensor out = Tensor::Zeros(DType::kI32, {CeilDiv(rows * view.bits, 32), groups});
  std::vector<uint8_t> column(rows);
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t r = 0; r < rows; ++r) column[r] = zeros.as<uint8_t>()[r * groups + g];
    PackWords(view.bits, column, out.mutable_as<uint32_t>().data() + g, groups);
  }
  return out;
}

// The library's shape of scales and zero points: [1] of a whole tensor.
Shape ShapeByScheme(const QuantScheme& scheme, const Shape& shape) { return scheme.per() == QuantScheme::PER_TENSOR ? Shape{1} : shape; }

Tensor ByScheme(const QuantScheme& scheme, const Tensor& tensor) {
  return *Tensor::Borrow(tensor.dtype(), ShapeByScheme(scheme, tensor.shape()), tensor.bytes(), std::make_shared<Tensor>(tensor));
}

absl::StatusOr<Tensors> TensorsOf(const CheckpointParameter& parameter, const EncodedTensor& tensor, const Plan& plan) {
  if (IsFloatFormat(tensor.scheme)) return Tensors{{parameter.name, tensor.buffer("values")}};
  NIBBLE_ASSIGN_OR_RETURN(const CodeView view, AsIntegers(tensor));
  const std::string& name = parameter.name;
  Tensors tensors;
  tensors.emplace_back(name + "_scale", ByScheme(parameter.scheme, view.scales));
  if (view.zeros.has_value()) tensors.emplace_back(name + "_zero_point", ByScheme(parameter.scheme, ZeroPoints(view, plan.packed)));
  if (!plan.packed) {
    tensors.emplace_back(name, SignedCodes(view));
    return tensors;
  }
  tensors.emplace_back(name + "_packed", PackCodes(view));
  Tensor shape = Tensor::Zeros(DType::kI64, {2});
  shape.mutable_as<int64_t>()[0] = view.rows;
  shape.mutable_as<int64_t>()[1] = view.cols;
  tensors.emplace_back(name + "_shape", std::move(shape));
  return tensors;
}

// What TensorsOf will give.
std::vector<TensorSpec> Specs(const Checkpoint& checkpoint, const Plan& plan) {
  std::vector<TensorSpec> specs;
  for (const CheckpointParameter& parameter : checkpoint.parameters) {
    const std::string& name = parameter.name;
    const std::vector<BufferSpec> layout = (*FindFormat(parameter.scheme.format()))->Layout(parameter.scheme, parameter.shape);
    if (IsFloatFormat(parameter.scheme)) {
      specs.push_back({name, layout[0].dtype, parameter.shape});
      continue;
    }
    const int64_t rows = parameter.shape[0], cols = parameter.shape[1];
    const Shape scales = layout[1].shape;
    specs.push_back({name + "_scale", layout[1].dtype, ShapeByScheme(parameter.scheme, scales)});
    const bool packed_zeros = plan.packed && scales[0] == rows;
    const Shape zeros = packed_zeros ? Shape{CeilDiv(rows * plan.bits, 32), scales[1]} : scales;
    if (parameter.scheme.asymmetric()) specs.push_back({name + "_zero_point", packed_zeros ? DType::kI32 : DType::kI8, ShapeByScheme(parameter.scheme, zeros)});
    if (!plan.packed) {
      specs.push_back({name, DType::kI8, parameter.shape});
      continue;
    }
    specs.push_back({name + "_packed", DType::kI32, {rows, CeilDiv(cols * plan.bits, 32)}});
    specs.push_back({name + "_shape", DType::kI64, {2}});
  }
  return specs;
}

absl::Status WriteWeights(const std::string& path, const Checkpoint& checkpoint, const Plan& plan) {
  NIBBLE_ASSIGN_OR_RETURN(const auto writer, SafetensorsWriter::Create(path, Specs(checkpoint, plan), {{"format", "pt"}}));
  for (const CheckpointParameter& parameter : checkpoint.parameters) {
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor tensor, checkpoint.load(parameter.name));
    NIBBLE_RETURN_IF_ERROR(CheckAnnounced(parameter, tensor));
    NIBBLE_ASSIGN_OR_RETURN(const Tensors tensors, TensorsOf(parameter, tensor, plan));
    for (const auto& [name, stored] : tensors) NIBBLE_RETURN_IF_ERROR(writer->Write(name, stored));
  }
  return writer->Finish();
}

// The type in which other programs load the model: rounding scales would change it.
const char* FloatType(const QuantScheme& weight) {
  switch (weight.scale_type()) {
    case QuantScheme::FP16: return "float16";
    case QuantScheme::BF16: return "bfloat16";
    default: return "float32";
  }
}

}  // namespace

absl::Status WriteCompressedTensors(const std::string& folder, const Checkpoint& checkpoint) {
  NIBBLE_RETURN_IF_ERROR(checkpoint.config.Validate());
  NIBBLE_ASSIGN_OR_RETURN(const Plan plan, MakePlan(checkpoint));
  NIBBLE_RETURN_IF_ERROR(MakeDirectories(folder));
  NIBBLE_RETURN_IF_ERROR(WriteOrRemoveFile(folder + kConfigFile, ""));
  NIBBLE_RETURN_IF_ERROR(WriteOrRemoveFile(folder + kNibbleFile, ""));
  NIBBLE_RETURN_IF_ERROR(WriteWeights(folder + kWeightsFile, checkpoint, plan));
  NIBBLE_RETURN_IF_ERROR(WriteTokenizerFiles(folder, checkpoint));
  ordered_json config = ordered_json::parse(checkpoint.config.ToJson());
  config["torch_dtype"] = FloatType(*plan.weight);
  config["quantization_config"] = QuantizationConfig(plan);
  return WriteFile(folder + kConfigFile, config.dump(2) + "\n");
}

}  // namespace nibble::io
