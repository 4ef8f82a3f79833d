// compressed-tensors, what llm-compressor writes and vLLM reads. The config has
// "config_groups", each with the modules it means and how their weights and inputs
// are quantized. A linear of K inputs and N outputs is, b = num_bits,
//
//   pack-quantized  X.weight_packed      I32 [N, ceil(K b / 32)]  code + 2^(b-1), least
//                                        significant bit first, codes may span words
//                   X.weight_shape       I64 [2]
//                   X.weight_zero_point  I32 [ceil(N b / 32), G], packed the same way down
//                                        the outputs, or I8 [N, G]; asymmetric only
//   int-quantized   X.weight             I8 [N, K], with X.weight_zero_point I8
//   float-quantized X.weight             F8_E4M3 [N, K]
//
// and X.weight_scale, [N, G] (a scale a group of inputs), [N, 1] (channel) or [1]
// (tensor) in a float type; w = scale * (code - zero). X.weight_g_idx gives columns
// their groups where they do not lie side by side. Static inputs have X.input_scale
// [1] and X.input_zero_point [1].
//
// Symmetric inputs take scale = absmax / ((2^b - 1) / 2). The library divides by the
// scale and Nibble's integer kernels multiply by its reciprocal: codes differ by a
// step at near-ties.
//
// Established from compressed-tensors 0.20.0.

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "core/base/divide.h"
#include "core/base/status.h"
#include "core/io/quantized/codes.h"
#include "core/io/quantized/layout.h"
#include "core/io/quantized/settings.h"
#include "core/io/quantized/targets.h"
#include "core/quant/format.h"
#include "core/quant/scale_type.h"

namespace nibble::io {
namespace {

using nlohmann::json;

enum class Strategy { kTensor, kChannel, kGroup };

struct WeightArgs {
  bool is_float = false;
  int bits = 8;
  bool symmetric = true;
  Strategy strategy = Strategy::kChannel;
  int64_t group = 0;
};

struct InputArgs {
  QuantScheme scheme;
  bool is_static = false;
};

struct Group {
  std::string name;
  std::vector<std::string> targets;
  WeightArgs weights;
  std::optional<InputArgs> input;
};

struct Linear {
  std::string module;
  WeightArgs args;
  int64_t rows = 0, cols = 0, group = 0;
  Shape scales;
  bool packed = false, packed_zeros = false, zeros = false;

  int64_t groups() const { return cols / group; }
  std::string name(const char* part) const { return module + part; }
};

absl::StatusOr<WeightArgs> ReadWeightArgs(const Settings& args) {
  WeightArgs weights;
  NIBBLE_ASSIGN_OR_RETURN(const std::string type, args.Text("type", "int"));
  if (type != "int" && type != "float") return args.Bad("type", "int or float");
  weights.is_float = type == "float";
  NIBBLE_ASSIGN_OR_RETURN(const int64_t bits, args.Integer("num_bits", 8));
  if (bits < 2 || bits > 8 || (weights.is_float && bits != 8)) return args.Bad("num_bits", weights.is_float ? "8" : "2 to 8");
  weights.bits = static_cast<int>(bits);
  NIBBLE_ASSIGN_OR_RETURN(weights.symmetric, args.Bool("symmetric", true));
  if (weights.is_float && !weights.symmetric) return args.Bad("symmetric", "true for floats");
  NIBBLE_ASSIGN_OR_RETURN(weights.group, args.Integer("group_size", -1));
  NIBBLE_ASSIGN_OR_RETURN(const std::string strategy, args.Text("strategy", weights.group > 0 ? "group" : "tensor"));
  if (strategy == "tensor") weights.strategy = Strategy::kTensor;
  else if (strategy == "channel") weights.strategy = Strategy::kChannel;
  else if (strategy == "group" && weights.group > 0) weights.strategy = Strategy::kGroup;
  else if (strategy == "group") return args.Bad("group_size", "a positive number");
  else return absl::UnimplementedError(absl::StrCat(args.where(), ": strategy '", strategy, "' is not supported; Nibble reads tensor, channel, group"));
  return weights;
}

absl::StatusOr<InputArgs> ReadInputArgs(const Settings& args) {
  InputArgs input;
  NIBBLE_ASSIGN_OR_RETURN(const std::string type, args.Text("type", "int"));
  NIBBLE_ASSIGN_OR_RETURN(const int64_t bits, args.Integer("num_bits", 8));
  const bool is_float = type == "float";
  if ((type != "int" && !is_float) || bits < 2 || bits > 8 || (is_float && bits != 8)) return args.Bad("num_bits", "2 to 8 bits of int or 8 of float");
  NIBBLE_ASSIGN_OR_RETURN(const bool symmetric, args.Bool("symmetric", true));
  const json* dynamic = args.Find("dynamic");
  if (dynamic != nullptr && !dynamic->is_boolean()) return absl::UnimplementedError(args.Bad("dynamic", "true or false").message());
  input.is_static = dynamic == nullptr || !dynamic->get<bool>();
  NIBBLE_ASSIGN_OR_RETURN(const std::string strategy, args.Text("strategy", input.is_static ? "tensor" : "token"));
  if (strategy != (input.is_static ? "tensor" : "token")) {
    return absl::UnimplementedError(absl::StrCat(args.where(), ": ", input.is_static ? "static" : "dynamic", " inputs with strategy '", strategy,
                                                 "' are not supported; Nibble reads dynamic ones by token and static ones by tensor"));
  }
  input.scheme.set_format(is_float ? "fp8_e4m3" : absl::StrCat("int", bits));
  input.scheme.set_per(input.is_static ? QuantScheme::PER_TENSOR : QuantScheme::PER_TOKEN);
  if (!input.is_static) input.scheme.set_dynamic(true);
  if (is_float) return symmetric ? absl::StatusOr<InputArgs>(input) : args.Bad("symmetric", "true for floats");
  if (!symmetric) input.scheme.set_asymmetric(true);
  else if (!input.is_static) input.scheme.set_divisor(QuantScheme::HALF_RANGE);
  // A power of two: the range of a stored scale gives that scale back.
  else input.scheme.set_divisor(QuantScheme::MIN_CODE);
  return input;
}

absl::Status CheckFormat(const Settings& settings, const std::string& otherwise) {
  NIBBLE_ASSIGN_OR_RETURN(const std::string format, settings.Text("format", otherwise));
  for (const char* known : {"pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision"}) {
    if (format == known) return absl::OkStatus();
  }
  return absl::UnimplementedError(absl::StrCat(settings.where(), ": format '", format,
                                               "' is not supported; Nibble reads pack-quantized, int-quantized, float-quantized"));
}

absl::StatusOr<Group> ReadGroup(const std::string& name, const json& object) {
  const std::string where = absl::StrCat("quantization_config.config_groups.", name);
  const Settings settings(object, where);
  Group group{name};
  NIBBLE_RETURN_IF_ERROR(CheckFormat(settings, "mixed-precision"));
  const json* targets = settings.Find("targets");
  if (targets == nullptr || !targets->is_array()) return settings.Bad("targets", "a list of modules");
  for (const json& target : *targets) {
    if (!target.is_string()) return settings.Bad("targets", "a list of modules");
    group.targets.push_back(target.get<std::string>());
  }
  const json* weights = settings.Find("weights");
  if (weights == nullptr || !weights->is_object()) return settings.Bad("weights", "how weights are quantized");
  NIBBLE_ASSIGN_OR_RETURN(group.weights, ReadWeightArgs(Settings(*weights, where + ".weights")));
  if (const json* input = settings.Find("input_activations"); input != nullptr) {
    if (!input->is_object()) return settings.Bad("input_activations", "an object");
    NIBBLE_ASSIGN_OR_RETURN(group.input, ReadInputArgs(Settings(*input, where + ".input_activations")));
  }
  if (settings.Find("output_activations") != nullptr) return absl::UnimplementedError(absl::StrCat(where, ": output_activations are not supported"));
  return group;
}

absl::StatusOr<std::vector<Group>> ReadGroups(const Settings& settings) {
  NIBBLE_RETURN_IF_ERROR(CheckFormat(settings, "mixed-precision"));
  for (const char* key : {"transform_config", "sparsity_config"}) {
    const json* value = settings.Find(key);
    // llm-compressor writes a "dense" one where it looked for sparsity and found none.
    const bool dense = value != nullptr && value->is_object() && value->value("format", json()) == "dense";
    if (value != nullptr && !value->empty() && !dense) return absl::UnimplementedError(absl::StrCat(settings.where(), ": ", key, " is not supported"));
  }
  const json* groups = settings.Find("config_groups");
  if (groups == nullptr || !groups->is_object() || groups->empty()) return settings.Bad("config_groups", "an object of groups");
  std::vector<Group> read;
  for (const auto& [name, object] : groups->items()) {
    NIBBLE_ASSIGN_OR_RETURN(Group group, ReadGroup(name, object));
    read.push_back(std::move(group));
  }
  return read;
}

// The group that fits a module best, the first of equal ones.
absl::StatusOr<const Group*> GroupOf(const std::string& module, const std::vector<Group>& groups) {
  const Group* best = nullptr;
  int best_fit = 0;
  for (const Group& group : groups) {
    for (const std::string& target : group.targets) {
      NIBBLE_ASSIGN_OR_RETURN(const int fit, TargetFit(target, module));
      if (fit <= best_fit) continue;
      best_fit = fit;
      best = &group;
    }
  }
  if (best != nullptr) return best;
  return absl::InvalidArgumentError(absl::StrCat("'", module, "' is quantized, but no config group has a target for it"));
}

absl::Status Wrong(const TensorFiles& files, const std::string& name, const Tensor& got, absl::string_view expected) {
  return absl::InvalidArgumentError(
      absl::StrCat(files.Where(name), " is ", DTypeName(got.dtype()), " ", ShapeToString(got.shape()), ", expected ", expected));
}

// Rows and columns.
absl::Status ReadShape(const TensorFiles& files, Linear* linear) {
  if (!linear->packed) {
    const std::string name = linear->name(".weight");
    NIBBLE_ASSIGN_OR_RETURN(const Tensor weight, linear->args.is_float ? files.GetBytes(name, "F8_E4M3") : files.Get(name));
    if (weight.shape().size() != 2 || weight.elements() == 0 || (!linear->args.is_float && weight.dtype() != DType::kI8)) {
      return Wrong(files, name, weight, "I8 [outputs, inputs]");
    }
    linear->rows = weight.dim(0);
    linear->cols = weight.dim(1);
    return absl::OkStatus();
  }
  NIBBLE_ASSIGN_OR_RETURN(const Tensor shape, files.Get(linear->name(".weight_shape")));
  if (shape.elements() != 2 || (shape.dtype() != DType::kI64 && shape.dtype() != DType::kI32)) {
    return Wrong(files, linear->name(".weight_shape"), shape, "I64 [2]");
  }
  for (int i = 0; i < 2; ++i) {
    const int64_t dim = shape.dtype() == DType::kI64 ? shape.as<int64_t>()[i] : shape.as<int32_t>()[i];
    if (dim < 1 || dim >= (1 << 24)) {
      return absl::InvalidArgumentError(absl::StrCat(files.Where(linear->name(".weight_shape")), " holds ", dim, ", expected 1 to 2^24 - 1"));
    }
    (i == 0 ? linear->rows : linear->cols) = dim;
  }
  const int64_t words = CeilDiv(linear->cols * linear->args.bits, 32);
  return files.Get(linear->name(".weight_packed"), DType::kI32, {linear->rows, words}).status();
}

absl::Status CheckScales(const TensorFiles& files, Linear* linear) {
  const std::string name = linear->name(".weight_scale");
  NIBBLE_ASSIGN_OR_RETURN(const Tensor scales, files.Get(name));
  NIBBLE_RETURN_IF_ERROR(Annotate(SchemeWithScales("int4", 1, 1, scales.dtype()).status(), files.Where(name)));
  linear->group = linear->args.strategy == Strategy::kGroup ? linear->args.group : linear->cols;
  if (linear->cols % linear->group != 0) {
    return absl::InvalidArgumentError(absl::StrCat(files.Where(name), ": group_size ", linear->group, " does not divide the ", linear->cols, " inputs"));
  }
  linear->scales = linear->args.strategy == Strategy::kTensor ? Shape{1, 1} : Shape{linear->rows, linear->groups()};
  const bool flat = linear->scales[1] == 1 && (scales.shape() == Shape{linear->scales[0]} || (scales.shape().empty() && linear->scales[0] == 1));
  return flat || scales.shape() == linear->scales ? absl::OkStatus() : Wrong(files, name, scales, ShapeToString(linear->scales));
}

absl::Status CheckZeros(const TensorFiles& files, Linear* linear) {
  const std::string name = linear->name(".weight_zero_point");
  linear->zeros = !linear->args.symmetric;
  if (!linear->zeros) return absl::OkStatus();
  NIBBLE_ASSIGN_OR_RETURN(const Tensor zeros, files.Get(name));
  linear->packed_zeros = zeros.dtype() == DType::kI32;
  const Shape packed = {CeilDiv(linear->rows * linear->args.bits, 32), linear->scales[1]};
  if (linear->packed_zeros && linear->args.strategy != Strategy::kTensor && zeros.shape() == packed) return absl::OkStatus();
  const bool flat = linear->scales[1] == 1 && zeros.shape() == Shape{linear->scales[0]};
  if (zeros.dtype() == DType::kI8 && (flat || zeros.shape() == linear->scales)) return absl::OkStatus();
  return Wrong(files, name, zeros, absl::StrCat("I8 ", ShapeToString(linear->scales), " or I32 ", ShapeToString(packed)));
}

absl::StatusOr<Linear> Check(const std::string& module, const WeightArgs& args, const TensorFiles& files) {
  Linear linear{module, args};
  linear.packed = files.Has(module + ".weight_packed");
  NIBBLE_RETURN_IF_ERROR(ReadShape(files, &linear));
  NIBBLE_RETURN_IF_ERROR(CheckScales(files, &linear));
  NIBBLE_RETURN_IF_ERROR(CheckZeros(files, &linear));
  return linear;
}

// The group of each column where groups do not lie side by side, else empty.
absl::StatusOr<std::vector<int32_t>> GroupsOf(const Linear& linear, const TensorFiles& files) {
  if (linear.args.strategy != Strategy::kGroup) return std::vector<int32_t>();
  return ScatteredGroups(files, linear.name(".weight_g_idx"), linear.cols, linear.group);
}

absl::StatusOr<std::vector<uint8_t>> LoadCodes(const Linear& linear, const TensorFiles& files) {
  const std::string name = linear.name(linear.packed ? ".weight_packed" : ".weight");
  NIBBLE_ASSIGN_OR_RETURN(const Tensor weight, files.Get(name));
  if (!linear.packed) return UnsignedCodes(weight, linear.args.bits, files.Where(name));
  std::vector<uint8_t> codes(linear.rows * linear.cols);
  const uint32_t* words = weight.as<uint32_t>().data();
  for (int64_t r = 0; r < linear.rows; ++r) {
    UnpackWords(linear.args.bits, words + r * weight.dim(1), 1, linear.cols, codes.data() + r * linear.cols);
  }
  return codes;
}

absl::StatusOr<std::vector<uint8_t>> LoadZeros(const Linear& linear, const TensorFiles& files) {
  if (!linear.zeros) return std::vector<uint8_t>();
  const std::string name = linear.name(".weight_zero_point");
  NIBBLE_ASSIGN_OR_RETURN(const Tensor tensor, files.Get(name));
  if (!linear.packed_zeros) return UnsignedCodes(tensor, linear.args.bits, files.Where(name));
  const int64_t groups = linear.scales[1];
  std::vector<uint8_t> zeros(linear.rows * groups);
  for (int64_t g = 0; g < groups; ++g) {
    UnpackWords(linear.args.bits, tensor.as<uint32_t>().data() + g, groups, linear.rows, zeros.data() + g, groups);
  }
  return zeros;
}

absl::StatusOr<EncodedTensor> LoadFloats(const Linear& linear, Tensor scales, const TensorFiles& files) {
  NIBBLE_ASSIGN_OR_RETURN(Tensor codes, files.GetBytes(linear.name(".weight"), "F8_E4M3"));
  NIBBLE_ASSIGN_OR_RETURN(QuantScheme scheme, SchemeWithScales("fp8_e4m3", linear.group, linear.cols, scales.dtype()));
  if (linear.args.strategy == Strategy::kTensor) scheme.set_per(QuantScheme::PER_TENSOR);
  EncodedTensor tensor{scheme, {linear.rows, linear.cols}, {{"codes", std::move(codes)}, {"scales", std::move(scales)}}};
  NIBBLE_RETURN_IF_ERROR(CheckEncoded(tensor));
  return tensor;
}

absl::StatusOr<EncodedTensor> Load(const Linear& linear, const TensorFiles& files) {
  NIBBLE_ASSIGN_OR_RETURN(const Tensor stored, files.Get(linear.name(".weight_scale")));
  NIBBLE_ASSIGN_OR_RETURN(Tensor scales, Tensor::Borrow(stored.dtype(), linear.scales, stored.bytes(), std::make_shared<Tensor>(stored)));
  if (linear.args.is_float) return LoadFloats(linear, std::move(scales), files);
  Codes codes{linear.args.bits, linear.rows, linear.cols, linear.group};
  codes.whole = linear.args.strategy == Strategy::kTensor;
  NIBBLE_ASSIGN_OR_RETURN(codes.codes, LoadCodes(linear, files));
  NIBBLE_ASSIGN_OR_RETURN(codes.zeros, LoadZeros(linear, files));
  codes.scales = std::move(scales);
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<int32_t> groups, GroupsOf(linear, files));
  return groups.empty() ? ToIntegers(codes) : ToFloats(codes, groups);
}

absl::StatusOr<float> OneFloat(const TensorFiles& files, const std::string& name) {
  NIBBLE_ASSIGN_OR_RETURN(const Tensor tensor, files.Get(name));
  if (!IsFloating(tensor.dtype()) || tensor.elements() != 1) return Wrong(files, name, tensor, "one number");
  const float value = nibble::ToFloats(tensor)[0];
  if (std::isfinite(value) && value > 0) return value;
  return absl::InvalidArgumentError(absl::StrCat(files.Where(name), " is ", value, ", expected a positive number"));
}

// The scale that a scheme with a fixed range gives; an error where the range ends beyond
// what floats hold.
absl::StatusOr<float> ScaleOf(const QuantScheme& scheme) {
  const FixedRange& range = scheme.fixed();
  if (scheme.format() == "fp8_e4m3") return std::max(-range.min(), range.max()) / 448.0f;
  const int bits = *(*FindFormat(scheme.format()))->integer_bits();
  NIBBLE_ASSIGN_OR_RETURN(const Grid grid, GridForRange(scheme, bits, range.min(), range.max()));
  return grid.scale;
}

// A fixed range whose grid has just this scale and zero: range and scale both round,
// so that its ends may have to move by a last place.
absl::StatusOr<QuantScheme> WithFixedRange(const QuantScheme& scheme, float scale, int below, int above, const std::string& where) {
  QuantScheme fixed = scheme;
  float max = scale * static_cast<float>(above);
  fixed.mutable_fixed()->set_min(-scale * static_cast<float>(below));
  for (int tries = 0; tries < 64; ++tries) {
    fixed.mutable_fixed()->set_max(max);
    if (scheme.format() == "fp8_e4m3") fixed.mutable_fixed()->set_min(-max);
    const absl::StatusOr<float> got = ScaleOf(fixed);
    if (!got.ok()) return Annotate(got.status(), where);
    if (*got == scale) return fixed;
    max = std::nextafter(max, *got < scale ? std::numeric_limits<float>::infinity() : 0.0f);
  }
  return absl::UnimplementedError(absl::StrCat(where, ": no range gives the scale ", scale));
}

absl::StatusOr<QuantScheme> StaticInput(const std::string& module, const QuantScheme& scheme, const TensorFiles& files) {
  NIBBLE_ASSIGN_OR_RETURN(const float scale, OneFloat(files, module + ".input_scale"));
  const std::string where = files.Where(module + ".input_scale");
  if (scheme.format() == "fp8_e4m3") return WithFixedRange(scheme, scale, 448, 448, where);
  const int half = 1 << (*(*FindFormat(scheme.format()))->integer_bits() - 1);
  if (!scheme.asymmetric()) return WithFixedRange(scheme, scale, half, half, where);
  const std::string name = module + ".input_zero_point";
  NIBBLE_ASSIGN_OR_RETURN(const Tensor tensor, files.Get(name));
  if (tensor.dtype() != DType::kI8 || tensor.elements() != 1) return Wrong(files, name, tensor, "one I8");
  const int zero = tensor.as<int8_t>()[0] + half;
  if (zero < 0 || zero >= 2 * half) return absl::InvalidArgumentError(absl::StrCat(files.Where(name), " is no code of the grid"));
  return WithFixedRange(scheme, scale, zero, 2 * half - 1 - zero, where);
}

std::vector<std::string> QuantizedModules(const TensorFiles& files) {
  std::vector<std::string> modules = files.NamesBefore(".weight_packed");
  for (const std::string& module : files.NamesBefore(".weight_scale")) {
    if (!files.Has(module + ".weight_packed")) modules.push_back(module);
  }
  return modules;
}

}  // namespace

absl::StatusOr<QuantizedLayout> OpenCompressedTensors(const json& config, std::shared_ptr<const TensorFiles> files) {
  const Settings settings(config);
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Group> groups, ReadGroups(settings));
  QuantizedLayout layout;
  int64_t decoded = 0;
  for (const std::string& module : QuantizedModules(*files)) {
    NIBBLE_ASSIGN_OR_RETURN(const Group* group, GroupOf(module, groups));
    NIBBLE_ASSIGN_OR_RETURN(const Linear linear, Check(module, group->weights, *files));
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<int32_t> scattered, GroupsOf(linear, *files));
    decoded += !scattered.empty();
    layout.weights[module] = [=] { return Load(linear, *files); };
    if (!group->input.has_value()) continue;
    QuantScheme input = group->input->scheme;
    if (group->input->is_static) {
      NIBBLE_ASSIGN_OR_RETURN(input, StaticInput(module, input, *files));
    }
    layout.activations[module] = std::move(input);
  }
  layout.note = "compressed-tensors checkpoint";
  if (decoded > 0) {
    absl::StrAppend(&layout.note, "; ", decoded, " of ", layout.weights.size(),
                    " weights decoded to floats: act-order (weight_g_idx) scatters their groups");
  }
  if (settings.Find("kv_cache_scheme") != nullptr) absl::StrAppend(&layout.note, "; its kv_cache_scheme is not applied");
  return layout;
}

}  // namespace nibble::io
