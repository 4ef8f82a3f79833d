#include "core/ir/graph.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/tensor/hadamard.h"

namespace nibble::ir {

namespace {

std::vector<float> DecodeAndRelease(const EncodedTensor& value) {
  std::vector<float> floats = Decode(value);
  DropMappedPages(value);
  return floats;
}

}  // namespace

absl::string_view OpKindName(OpKind kind) {
  static constexpr absl::string_view kNames[] = {"embed", "rms_norm", "linear", "rope", "attention", "silu", "mul", "add", "rotate", "logits"};
  return kNames[static_cast<int>(kind)];
}

absl::StatusOr<EncodedTensor> Parameter::Load() const {
  if (value_.has_value()) return *value_;
  absl::StatusOr<EncodedTensor> loaded = source_();
  if (!loaded.ok()) return Annotate(loaded.status(), name_);
  if (loaded->shape != shape_) {
    return absl::InvalidArgumentError(absl::StrCat(name_, ": has shape ", ShapeToString(loaded->shape), ", the configuration needs ",
                                                   ShapeToString(shape_)));
  }
  return loaded;
}

absl::StatusOr<std::vector<float>> Parameter::LoadFloats() const {
  NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor value, Load());
  return DecodeAndRelease(value);
}

absl::StatusOr<Parameter::Unquantized> Parameter::LoadUnquantized(absl::string_view advice) const {
  NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor value, Load());
  if (IsFloatFormat(value.scheme)) return Unquantized{value.scheme, DecodeAndRelease(value)};
  return absl::FailedPreconditionError(absl::StrCat(name_, " is already quantized (", SchemeToString(value.scheme), "); ", advice));
}

absl::Status Parameter::ReplaceEncoded(const QuantScheme& scheme, absl::Span<const float> values, ThreadPool* pool) {
  auto encoded = Encode(scheme, shape_, values, pool);
  if (!encoded.ok()) return Annotate(encoded.status(), name_);
  return Replace(*std::move(encoded));
}

absl::Status Parameter::Replace(EncodedTensor value) {
  if (value.shape != shape_) {
    return absl::InvalidArgumentError(absl::StrCat(name_, ": cannot be replaced by a tensor of shape ", ShapeToString(value.shape)));
  }
  value_ = std::move(value);
  return absl::OkStatus();
}

ValueId Graph::AddValue(std::string name, int64_t width) {
  values_.push_back({std::move(name), width});
  return static_cast<ValueId>(values_.size() - 1);
}

ParameterId Graph::AddParameter(std::string name, Shape shape, Parameter::Source source) {
  parameters_.emplace_back(std::move(name), std::move(shape), std::move(source));
  return static_cast<ParameterId>(parameters_.size() - 1);
}

Op& Graph::AddOp(Op op) {
  ops_.push_back(std::move(op));
  return ops_.back();
}

const Op* Graph::FindOp(const std::string& name) const {
  const auto it = std::find_if(ops_.begin(), ops_.end(), [&](const Op& op) { return op.name == name; });
  return it == ops_.end() ? nullptr : &*it;
}

std::optional<size_t> Graph::ProducerOf(ValueId value) const {
  const auto it = std::find_if(ops_.begin(), ops_.end(), [&](const Op& op) { return op.output == value; });
  return it == ops_.end() ? std::nullopt : std::optional<size_t>(it - ops_.begin());
}

absl::StatusOr<const Op*> Graph::SiluBefore(const Op& mul) const {
  const std::optional<size_t> silu = ProducerOf(mul.inputs[0]);
  if (silu.has_value() && ops_[*silu].kind == OpKind::kSilu) return &ops_[*silu];
  return absl::UnimplementedError(absl::StrCat(mul.name, ": a product whose first factor is no silu"));
}

int Graph::num_layers() const {
  int layers = 0;
  for (const Op& op : ops_) layers = std::max(layers, op.layer + 1);
  return layers;
}

std::vector<const Op*> Graph::Users(ParameterId id) const {
  std::vector<const Op*> users;
  for (const Op& op : ops_) {
    if (op.weight == id) users.push_back(&op);
  }
  return users;
}

namespace {

class Verifier {
 public:
  explicit Verifier(const Graph& graph) : graph_(graph), made_(graph.values().size(), false) {}

  absl::Status Run() {
    if (graph_.ops().empty() || graph_.embedding().kind != OpKind::kEmbed || graph_.head().kind != OpKind::kLogits) {
      return absl::InvalidArgumentError("a graph starts with embed and ends with logits");
    }
    for (const Op& op : graph_.ops()) {
      NIBBLE_RETURN_IF_ERROR(Annotate(CheckOp(op), absl::StrCat("op ", op.name, " (", OpKindName(op.kind), ")")));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status CheckOp(const Op& op) {
    for (const ValueId id : op.inputs) {
      if (id < 0 || id >= static_cast<ValueId>(made_.size()) || !made_[id]) {
        return absl::InvalidArgumentError(absl::StrCat("uses value %", id, " before it is made"));
      }
    }
    if (op.output < 0 || op.output >= static_cast<ValueId>(made_.size()) || made_[op.output]) {
      return absl::InvalidArgumentError(absl::StrCat("makes value %", op.output, ", which is unknown or already made"));
    }
    made_[op.output] = true;
    NIBBLE_RETURN_IF_ERROR(CheckArity(op));
    NIBBLE_RETURN_IF_ERROR(CheckWidths(op));
    NIBBLE_RETURN_IF_ERROR(CheckWeight(op));
    for (const auto& scheme : {op.keys, op.values}) {
      if (!scheme.has_value()) continue;
      if (op.kind != OpKind::kAttention) return absl::InvalidArgumentError("only attention has a cache");
      NIBBLE_RETURN_IF_ERROR(CheckCacheScheme(*scheme, op.head_dim));
    }
    if (op.activation.has_value()) {
      const bool attends = op.kind == OpKind::kAttention && op.activation->format() == "bf16";
      if (!op.is_linear() && !attends) return absl::InvalidArgumentError("only linears carry an activation scheme, and attention bf16");
      NIBBLE_RETURN_IF_ERROR(ValidateScheme(*op.activation));
    }
    return absl::OkStatus();
  }

  static absl::Status CheckArity(const Op& op) {
    size_t arity = 1;
    if (op.kind == OpKind::kEmbed) arity = 0;
    if (op.kind == OpKind::kMul || op.kind == OpKind::kAdd) arity = 2;
    if (op.kind == OpKind::kAttention) arity = 3;
    if (op.inputs.size() == arity) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("needs ", arity, " inputs, has ", op.inputs.size()));
  }

  int64_t Width(ValueId id) const { return graph_.values()[id].width; }

  absl::Status CheckWidths(const Op& op) const {
    const int64_t out = Width(op.output);
    bool fits = true;
    switch (op.kind) {
      case OpKind::kRmsNorm:
      case OpKind::kSilu:
        fits = Width(op.inputs[0]) == out;
        break;
      case OpKind::kAdd:
        if (!std::isfinite(op.scale)) return absl::InvalidArgumentError("scale is not finite");
        [[fallthrough]];
      case OpKind::kMul:
        fits = Width(op.inputs[0]) == out && Width(op.inputs[1]) == out;
        break;
      case OpKind::kRope:
        fits = op.head_dim % 2 == 0 && op.heads * op.head_dim == out && Width(op.inputs[0]) == out &&
               static_cast<int64_t>(op.inverse_frequencies.size()) == op.head_dim / 2;
        break;
      case OpKind::kRotate:
        fits = Width(op.inputs[0]) == out && op.block > 0 && out % op.block == 0;
        if (fits) NIBBLE_RETURN_IF_ERROR(Hadamard::Create(op.block).status());
        break;
      case OpKind::kAttention:
        fits = op.kv_heads > 0 && op.heads % op.kv_heads == 0 && op.heads * op.head_dim == out && Width(op.inputs[0]) == out &&
               Width(op.inputs[1]) == op.kv_heads * op.head_dim && Width(op.inputs[2]) == op.kv_heads * op.head_dim;
        break;
      default:
        break;
    }
    return fits ? absl::OkStatus() : absl::InvalidArgumentError("input and output widths or head sizes disagree");
  }

  absl::Status CheckWeight(const Op& op) const {
    const bool needs = op.is_linear() || op.kind == OpKind::kEmbed || op.kind == OpKind::kRmsNorm;
    if (needs != op.weight.has_value()) return absl::InvalidArgumentError(needs ? "has no weight" : "must have no weight");
    if (!needs) return absl::OkStatus();
    if (*op.weight < 0 || *op.weight >= static_cast<ParameterId>(graph_.parameters().size())) {
      return absl::InvalidArgumentError("names an unknown parameter");
    }
    const Parameter& parameter = graph_.parameter(*op.weight);
    Shape expected = {Width(op.output)};
    if (op.is_linear()) expected = {Width(op.output), Width(op.inputs[0])};
    if (op.kind == OpKind::kEmbed) expected = {parameter.shape().empty() ? 0 : parameter.shape()[0], Width(op.output)};
    if (parameter.shape() == expected) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("weight ", parameter.name(), " has shape ", ShapeToString(parameter.shape()),
                                                   ", expected ", ShapeToString(expected)));
  }

  const Graph& graph_;
  std::vector<bool> made_;
};

}  // namespace

absl::Status CheckCacheScheme(const QuantScheme& scheme, int64_t head_dim) {
  NIBBLE_RETURN_IF_ERROR(ValidateScheme(scheme));
  if (IsFloatFormat(scheme)) return absl::OkStatus();
  const bool per_head = scheme.per() == QuantScheme::PER_GROUP && scheme.group_size() == head_dim;
  const bool plain = !scheme.range().has_mse() && !scheme.range().has_percentile() && scheme.scale_type() == QuantScheme::FP32;
  if (per_head && plain && (scheme.format() == "int4" || scheme.format() == "int8")) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a cache stores fp32, fp16, bf16, or int4 or int8 per group of ", head_dim,
                                                 " (its heads) with fp32 scales from the largest magnitude, not ", SchemeToString(scheme)));
}

QuantScheme IntegerCacheScheme(int bits, bool asymmetric, int64_t head_dim) {
  QuantScheme scheme = IntegerScheme(bits, static_cast<int>(head_dim), asymmetric);
  scheme.set_dynamic(true);
  return scheme;
}

absl::Status CheckToken(int32_t token, int64_t vocab_size) {
  if (token >= 0 && token < vocab_size) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("token ", token, " is outside the vocabulary of ", vocab_size, ": the tokenizer is another model's"));
}

absl::StatusOr<std::vector<float>> EmbedTokens(const Graph& graph, absl::Span<const int32_t> tokens) {
  NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor table, graph.parameter(*graph.embedding().weight).Load());
  std::vector<float> hidden(tokens.size() * table.cols());
  for (size_t t = 0; t < tokens.size(); ++t) {
    NIBBLE_RETURN_IF_ERROR(CheckToken(tokens[t], table.rows()));
    DecodeRows(table, tokens[t], tokens[t] + 1, hidden.data() + t * table.cols());
  }
  DropMappedPages(table);  // a row's page brings its neighbours with it
  return hidden;
}

absl::Status Verify(const Graph& graph) { return Verifier(graph).Run(); }

absl::StatusOr<std::string> Print(const Graph& graph) {
  std::string text;
  for (const Op& op : graph.ops()) {
    std::vector<std::string> inputs;
    for (const ValueId id : op.inputs) inputs.push_back(absl::StrCat("%", id));
    absl::StrAppend(&text, "%", op.output, " [", graph.values()[op.output].width, "] = ", OpKindName(op.kind), "(",
                    absl::StrJoin(inputs, ", "), ") ", op.name);
    if (op.weight.has_value()) {
      const Parameter& parameter = graph.parameter(*op.weight);
      NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor value, parameter.Load());
      absl::StrAppend(&text, " W", ShapeToString(parameter.shape()), " ", SchemeToString(value.scheme));
    }
    if (op.activation.has_value()) absl::StrAppend(&text, "; A ", SchemeToString(*op.activation));
    if (op.kind == OpKind::kAdd && op.scale != 1) absl::StrAppend(&text, " scale ", op.scale);
    if (op.keys.has_value()) absl::StrAppend(&text, "; K ", SchemeToString(*op.keys));
    if (op.values.has_value()) absl::StrAppend(&text, "; V ", SchemeToString(*op.values));
    if (op.kind == OpKind::kRotate) absl::StrAppend(&text, " blocks of ", op.block);
    absl::StrAppend(&text, "\n");
  }
  return text;
}

absl::StatusOr<std::string> ContentHash(const Graph& graph) {
  NIBBLE_ASSIGN_OR_RETURN(std::string parts, Print(graph));
  std::set<ParameterId> hashed;
  for (const Op& op : graph.ops()) {
    // Print rounds the numbers of a scheme and leaves some out.
    for (const auto& scheme : {op.activation, op.keys, op.values}) absl::StrAppend(&parts, "\n", scheme.has_value() ? scheme->SerializeAsString() : "");
    absl::StrAppend(&parts, "\n", op.eps, " ", op.scale, " ", op.sliding_window.value_or(0), " ", absl::StrJoin(op.inverse_frequencies, " "));
    if (!op.weight.has_value() || !hashed.insert(*op.weight).second) continue;
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor value, graph.parameter(*op.weight).Load());
    absl::StrAppend(&parts, " ", value.scheme.SerializeAsString());
    for (const auto& [name, buffer] : value.buffers) {
      absl::StrAppend(&parts, " ", name, " ", Sha256(BytesOf(buffer.bytes())));
    }
    DropMappedPages(value);
  }
  return Sha256(parts);
}

}  // namespace nibble::ir
