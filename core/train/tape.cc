#include "core/train/tape.h"

#include <algorithm>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status.h"
#include "core/train/fake_quantize.h"

namespace nibble::train {

using ir::Op;
using ir::OpKind;

template <typename T>
absl::StatusOr<std::unique_ptr<Tape<T>>> Tape<T>::Create(const ir::Graph& graph, Machine machine, ParameterArrays<T> parameters,
                                                         const TapeOptions& options) {
  NIBBLE_CHECK(parameters.values.size() == graph.parameters().size() && parameters.gradients.size() == graph.parameters().size());
  std::unique_ptr<Tape> tape(new Tape(graph, machine, std::move(parameters), options));
  NIBBLE_RETURN_IF_ERROR(tape->Build());
  return tape;
}

template <typename T>
absl::Status Tape<T>::Build() {
  NIBBLE_RETURN_IF_ERROR(ir::Verify(graph_));
  for (const ir::Value& value : graph_.values()) infos_.push_back({value.width});
  for (size_t i = 0; i + 1 < graph_.ops().size(); ++i) NIBBLE_RETURN_IF_ERROR(AddStep(i));
  ChooseKept();
  values_.resize(infos_.size());
  gradients_.resize(infos_.size());
  return absl::OkStatus();
}

template <typename T>
absl::Status Tape<T>::AddStep(size_t index) {
  const Op& op = graph_.ops()[index];
  Step step;
  step.op = &op;
  step.inputs.assign(op.inputs.begin(), op.inputs.end());
  step.output = op.output;
  switch (op.kind) {
    case OpKind::kEmbed: step.kind = Step::Kind::kEmbed; break;
    case OpKind::kRmsNorm: step.kind = Step::Kind::kRmsNorm; break;
    case OpKind::kRope: step.kind = Step::Kind::kRope; break;
    case OpKind::kAdd: step.kind = Step::Kind::kAdd; break;
    case OpKind::kRotate: {
      step.kind = Step::Kind::kRotate;
      step.cheap = IsCheap(op.inputs[0]);
      NIBBLE_ASSIGN_OR_RETURN(Hadamard hadamard, Hadamard::Create(op.block));
      hadamards_.emplace(op.block, std::move(hadamard));
      break;
    }
    case OpKind::kAttention:
      step.kind = Step::Kind::kAttention;
      if (op.keys.has_value()) step.inputs[1] = Quantized(op, step.inputs[1], *op.keys);
      if (op.values.has_value()) step.inputs[2] = Quantized(op, step.inputs[2], *op.values);
      step.log_sums = static_cast<int>(infos_.size());
      infos_.push_back({op.heads});
      break;
    case OpKind::kLinear:
      step.kind = Step::Kind::kLinear;
      if (op.activation.has_value()) step.inputs = {Quantized(op, step.inputs[0], *op.activation)};
      break;
    case OpKind::kSilu:
      return absl::OkStatus();  // computed by the product that reads it
    case OpKind::kMul: {
      NIBBLE_ASSIGN_OR_RETURN(const Op* silu, graph_.SiluBefore(op));
      step.kind = Step::Kind::kSiluMul;
      step.inputs[0] = silu->inputs[0];
      break;
    }
    case OpKind::kLogits:
      return absl::InvalidArgumentError("logits inside a graph");
  }
  step.cheap = step.cheap || step.kind == Step::Kind::kRmsNorm || step.kind == Step::Kind::kSiluMul;
  steps_.push_back(std::move(step));
  return absl::OkStatus();
}

template <typename T>
bool Tape<T>::IsCheap(int value) const {
  return std::any_of(steps_.begin(), steps_.end(), [&](const Step& step) { return step.output == value && step.cheap; });
}

// Ops that quantize one value alike share the result.
template <typename T>
int Tape<T>::Quantized(const Op& op, int value, const QuantScheme& scheme) {
  const auto key = std::make_pair(value, scheme.SerializeAsString());
  const auto found = quantized_inputs_.find(key);
  if (found != quantized_inputs_.end()) return found->second;
  Step step;
  step.kind = Step::Kind::kFakeQuantize;
  step.op = &op;
  step.scheme = &scheme;
  step.inputs = {value};
  step.output = static_cast<int>(infos_.size());
  step.cheap = true;
  infos_.push_back({infos_[value].width});
  steps_.push_back(step);
  return quantized_inputs_[key] = step.output;
}

template <typename T>
std::vector<int> Tape<T>::NeededByBackward(const Step& step) const {
  switch (step.kind) {
    case Step::Kind::kRmsNorm:
    case Step::Kind::kSiluMul:
    case Step::Kind::kFakeQuantize:
      return step.inputs;
    case Step::Kind::kLinear:
      return TrainsWeight(step) ? step.inputs : std::vector<int>();
    case Step::Kind::kAttention:
      return {step.inputs[0], step.inputs[1], step.inputs[2], step.output, step.log_sums};
    default:
      return {};
  }
}

template <typename T>
void Tape<T>::ChooseKept() {
  for (size_t i = 0; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    infos_[step.output].producer = static_cast<int>(i);
    if (step.log_sums >= 0) infos_[step.log_sums].producer = static_cast<int>(i);
    bool gradient = TrainsWeight(step);
    for (const int input : step.inputs) {
      infos_[input].last_use = static_cast<int>(i);
      gradient = gradient || infos_[input].has_gradient;
    }
    infos_[step.output].has_gradient = gradient;
  }
  const auto keep = [&](int id) {
    const Step& producer = steps_[infos_[id].producer];
    if (!producer.cheap && !options_.recompute_blocks) infos_[id].kept = true;
  };
  for (const Step& step : steps_) {
    if (infos_[step.output].has_gradient) {
      for (const int id : NeededByBackward(step)) keep(id);
    }
    // What one block hands to the next is kept in any case: everything else can
    // be made again from it.
    for (const int input : step.inputs) {
      if (steps_[infos_[input].producer].op->layer != step.op->layer) infos_[input].kept = true;
    }
  }
  infos_[graph_.head().inputs[0]].kept = true;
}

template <typename T>
T* Tape<T>::Take(int64_t width) {
  const int64_t size = width * batch_.size();
  const auto found = free_.find(size);
  if (found == free_.end()) return new T[size];
  T* buffer = found->second.release();
  free_.erase(found);
  return buffer;
}

template <typename T>
void Tape<T>::Give(Buffer& buffer, int64_t width) {
  if (buffer != nullptr) free_.emplace(width * batch_.size(), std::move(buffer));
}

template <typename T>
absl::Status Tape<T>::Forward(const TokenBatch& batch) {
  for (const int32_t token : batch.tokens) NIBBLE_RETURN_IF_ERROR(ir::CheckToken(token, graph_.vocab_size()));
  for (Buffer& buffer : values_) buffer.reset();
  for (Buffer& buffer : gradients_) buffer.reset();
  if (batch.size() != batch_.size()) free_.clear();
  batch_ = batch;
  for (size_t i = 0; i < steps_.size(); ++i) {
    NIBBLE_RETURN_IF_ERROR(Evaluate(steps_[i]));
    std::vector<int> used = steps_[i].inputs;
    used.push_back(steps_[i].output);
    if (steps_[i].log_sums >= 0) used.push_back(steps_[i].log_sums);
    for (const int id : used) {
      if (infos_[id].last_use <= static_cast<int>(i) && !infos_[id].kept) Give(values_[id], infos_[id].width);
    }
  }
  return absl::OkStatus();
}

template <typename T>
absl::Span<const T> Tape<T>::hidden() const {
  const int id = graph_.head().inputs[0];
  return {value(id), static_cast<size_t>(infos_[id].width * batch_.size())};
}

template <typename T>
absl::Status Tape<T>::Ensure(int id) {
  return values_[id] != nullptr ? absl::OkStatus() : Evaluate(steps_[infos_[id].producer]);
}

template <typename T>
RopeShape<T> Tape<T>::RopeShapeOf(const Op& op) {
  RopeAngles<T>& angles = angles_[op.inverse_frequencies];
  angles.Extend(op.inverse_frequencies, LongestSequence(batch_.starts));
  return {op.heads, op.head_dim, &angles};
}

template <typename T>
absl::Status Tape<T>::Evaluate(const Step& step) {
  for (const int input : step.inputs) NIBBLE_RETURN_IF_ERROR(Ensure(input));
  const int64_t tokens = batch_.size(), width = infos_[step.output].width;
  const T* x = step.inputs.empty() ? nullptr : value(step.inputs[0]);
  if (values_[step.output] == nullptr) values_[step.output].reset(Take(width));
  T* y = value(step.output);
  switch (step.kind) {
    case Step::Kind::kEmbed:
      Embed(machine_, absl::MakeConstSpan(batch_.tokens), width, weight(step), y);
      break;
    case Step::Kind::kRmsNorm:
      RmsNorm(machine_, tokens, width, x, weight(step), step.op->eps, y);
      break;
    case Step::Kind::kLinear:
      Multiply(machine_, {false, true, tokens, width, infos_[step.inputs[0]].width}, x, weight(step), false, y);
      break;
    case Step::Kind::kRope:
      Rope(machine_, RopeShapeOf(*step.op), batch_.starts, false, x, y);
      break;
    case Step::Kind::kAttention:
      if (values_[step.log_sums] == nullptr) values_[step.log_sums].reset(Take(step.op->heads));
      Attention(machine_, {step.op->heads, step.op->kv_heads, step.op->head_dim, step.op->sliding_window}, batch_.starts, x,
                value(step.inputs[1]), value(step.inputs[2]), y, value(step.log_sums));
      break;
    case Step::Kind::kSiluMul:
      SiluMul(machine_, tokens * width, x, value(step.inputs[1]), y);
      break;
    case Step::Kind::kAdd:
      std::copy_n(x, tokens * width, y);
      Accumulate(machine_, tokens * width, static_cast<T>(step.op->scale), value(step.inputs[1]), y);
      break;
    case Step::Kind::kRotate:
      Rotate(machine_, hadamards_.at(step.op->block), tokens * width, false, x, y);
      break;
    case Step::Kind::kFakeQuantize:
      if constexpr (std::is_same_v<T, float>) {
        if (quantize_activations_) return Annotate(FakeQuantizeActivations(machine_, *step.scheme, tokens, width, x, y), step.op->name);
      } else if (quantize_activations_) {
        return absl::UnimplementedError("activation quantization in double");
      }
      std::copy_n(x, tokens * width, y);
      break;
  }
  return absl::OkStatus();
}

// The array that gradients of a value are added to; `fresh` when it was made
// now and holds nothing (the caller writes it), zeros when `fresh` is null.
template <typename T>
T* Tape<T>::GradientOf(int id, bool* fresh) {
  if (!infos_[id].has_gradient) return nullptr;
  const bool made = gradients_[id] == nullptr;
  if (made) {
    gradients_[id].reset(Take(infos_[id].width));
    if (fresh == nullptr) std::fill_n(gradients_[id].get(), infos_[id].width * batch_.size(), T(0));
  }
  if (fresh != nullptr) *fresh = made;
  return gradients_[id].get();
}

template <typename T>
absl::Status Tape<T>::Backward(absl::Span<const T> hidden_gradient) {
  const int last = graph_.head().inputs[0];
  NIBBLE_CHECK(hidden_gradient.size() == hidden().size());
  bool fresh = false;
  T* gradient = GradientOf(last, &fresh);
  if (gradient == nullptr) return absl::OkStatus();  // nothing below the head trains
  std::copy(hidden_gradient.begin(), hidden_gradient.end(), gradient);
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
    if (gradients_[step->output] != nullptr) NIBBLE_RETURN_IF_ERROR(Differentiate(*step));
    Give(gradients_[step->output], infos_[step->output].width);
    Give(values_[step->output], infos_[step->output].width);
    if (step->log_sums >= 0) Give(values_[step->log_sums], infos_[step->log_sums].width);
  }
  return absl::OkStatus();
}

template <typename T>
void Tape<T>::LinearBackward(const Step& step, const T* dy) {
  const int64_t tokens = batch_.size(), out = infos_[step.output].width, in = infos_[step.inputs[0]].width;
  if (T* dw = weight_gradient(step)) Multiply(machine_, {true, false, out, in, tokens}, dy, value(step.inputs[0]), true, dw);
  bool fresh = false;
  if (T* dx = GradientOf(step.inputs[0], &fresh)) {
    Multiply(machine_, {false, false, tokens, in, out}, dy, weight(step), !fresh, dx);
  }
}

template <typename T>
absl::Status Tape<T>::FakeQuantizeBackward(const Step& step, const T* dy) {
  T* dx = GradientOf(step.inputs[0], nullptr);
  if (dx == nullptr) return absl::OkStatus();
  const int64_t width = infos_[step.output].width;
  if constexpr (std::is_same_v<T, float>) {
    if (quantize_activations_) {
      return StraightThroughActivations(machine_, *step.scheme, batch_.size(), width, value(step.inputs[0]), dy, dx);
    }
  }
  Accumulate(machine_, batch_.size() * width, T(1), dy, dx);
  return absl::OkStatus();
}

template <typename T>
void Tape<T>::AddBackward(const Step& step, const T* dy) {
  const int64_t count = batch_.size() * infos_[step.output].width;
  for (size_t i = 0; i < step.inputs.size(); ++i) {
    const T scale = i == 0 ? T(1) : static_cast<T>(step.op->scale);
    bool fresh = false;
    T* dx = GradientOf(step.inputs[i], scale == T(1) ? &fresh : nullptr);
    if (dx == nullptr) continue;
    if (fresh) std::copy_n(dy, count, dx);
    else Accumulate(machine_, count, scale, dy, dx);
  }
}

template <typename T>
void Tape<T>::RotateBackward(const Step& step, const T* dy) {
  const int64_t count = batch_.size() * infos_[step.output].width;
  bool fresh = false;
  T* dx = GradientOf(step.inputs[0], &fresh);
  if (dx == nullptr) return;
  std::vector<T> added(fresh ? 0 : count);
  Rotate(machine_, hadamards_.at(step.op->block), count, true, dy, fresh ? dx : added.data());
  if (!fresh) Accumulate(machine_, count, T(1), added.data(), dx);
}

template <typename T>
void Tape<T>::AttentionBackwardInto(const Step& step, const T* dy) {
  std::vector<T> unused[3];  // of inputs below which nothing trains
  T* d[3];
  for (int i = 0; i < 3; ++i) {
    bool fresh = true;
    d[i] = GradientOf(step.inputs[i], &fresh);
    NIBBLE_CHECK(fresh);  // nothing else reads what attention reads
    if (d[i] != nullptr) continue;
    unused[i].resize(infos_[step.inputs[i]].width * batch_.size());
    d[i] = unused[i].data();
  }
  AttentionBackward(machine_, {step.op->heads, step.op->kv_heads, step.op->head_dim, step.op->sliding_window}, batch_.starts,
                    value(step.inputs[0]), value(step.inputs[1]), value(step.inputs[2]), value(step.output), value(step.log_sums), dy, d[0],
                    d[1], d[2]);
}

template <typename T>
absl::Status Tape<T>::Differentiate(const Step& step) {
  for (const int id : NeededByBackward(step)) NIBBLE_RETURN_IF_ERROR(Ensure(id));
  const int64_t tokens = batch_.size(), width = infos_[step.output].width;
  const T* dy = gradients_[step.output].get();
  switch (step.kind) {
    case Step::Kind::kEmbed:
      EmbedBackward(machine_, absl::MakeConstSpan(batch_.tokens), width, dy, weight_gradient(step));
      break;
    case Step::Kind::kRmsNorm:
      RmsNormBackward(machine_, tokens, width, value(step.inputs[0]), weight(step), step.op->eps, dy, GradientOf(step.inputs[0], nullptr),
                      weight_gradient(step));
      break;
    case Step::Kind::kLinear:
      LinearBackward(step, dy);
      break;
    case Step::Kind::kRope: {
      bool fresh = false;
      T* dx = GradientOf(step.inputs[0], &fresh);
      NIBBLE_CHECK(fresh);  // nothing else reads what is rotated
      Rope(machine_, RopeShapeOf(*step.op), batch_.starts, true, dy, dx);
      break;
    }
    case Step::Kind::kAttention:
      AttentionBackwardInto(step, dy);
      break;
    case Step::Kind::kSiluMul:
      SiluMulBackward(machine_, tokens * width, value(step.inputs[0]), value(step.inputs[1]), dy, GradientOf(step.inputs[0], nullptr),
                      GradientOf(step.inputs[1], nullptr));
      break;
    case Step::Kind::kAdd:
      AddBackward(step, dy);
      break;
    case Step::Kind::kRotate:
      RotateBackward(step, dy);
      break;
    case Step::Kind::kFakeQuantize:
      return FakeQuantizeBackward(step, dy);
  }
  return absl::OkStatus();
}

template class Tape<float>;
template class Tape<double>;

}  // namespace nibble::train
