// Tape: reverse-mode differentiation of a graph, from tokens to what the head
// reads. The head itself belongs to the loss (core/train/head.h), which sees
// logits a chunk at a time and never holds a whole vocabulary of them.
//
// What backward needs of forward is kept or made again: outputs of products and
// of attention are kept, those of norms, SwiGLU and activation quantizers are
// made again when asked for; with `recompute_blocks` only what crosses from one
// decoder block to the next is kept (Chen et al., "Training Deep Nets with
// Sublinear Memory Cost", 2016), for one forward pass more.
#ifndef NIBBLE_CORE_TRAIN_TAPE_H_
#define NIBBLE_CORE_TRAIN_TAPE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/ir/graph.h"
#include "core/train/ops.h"

namespace nibble::train {

// Sequences one after another, each from position 0.
struct TokenBatch {
  std::vector<int32_t> tokens;
  std::vector<int64_t> starts = {0};  // first token of each sequence, then tokens.size()

  void Append(absl::Span<const int32_t> sequence) {
    tokens.insert(tokens.end(), sequence.begin(), sequence.end());
    starts.push_back(static_cast<int64_t>(tokens.size()));
  }
  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
};

// A graph's parameters by ParameterId, as the ops multiply by them (already
// fake-quantized where they are), and where gradients are added; a null
// gradient freezes a parameter. Arrays outlive the tape.
template <typename T>
struct ParameterArrays {
  std::vector<const T*> values;
  std::vector<T*> gradients;
};

struct TapeOptions {
  bool recompute_blocks = false;
  // Inputs of linears that carry an activation scheme, and keys and values whose
  // cache has one, pass through it, with a straight-through gradient: 1 where the code is inside its range, 0 where
  // it was cut off. Only the float tape can.
  bool quantize_activations = true;
};

template <typename T>
class Tape {
 public:
  // The graph is verified and outlives the tape. Errors: an op without a
  // gradient.
  static absl::StatusOr<std::unique_ptr<Tape>> Create(const ir::Graph& graph, Machine machine, ParameterArrays<T> parameters,
                                                      const TapeOptions& options);

  // Errors: a token outside the vocabulary, an activation that is not finite,
  // quantized activations on a double tape.
  absl::Status Forward(const TokenBatch& batch);

  // What the head reads, [tokens, hidden], until the next call of Backward.
  absl::Span<const T> hidden() const;

  // Adds to the gradients of all parameters that are not frozen, given that of
  // hidden(). One call after each Forward.
  absl::Status Backward(absl::Span<const T> hidden_gradient);

  // Turns activation quantizers on or off from the next Forward.
  void set_quantize_activations(bool on) { quantize_activations_ = on; }

 private:
  // An op, a fused pair of them, or the quantizer of a linear's input.
  struct Step {
    enum class Kind { kEmbed, kRmsNorm, kLinear, kRope, kAttention, kSiluMul, kAdd, kRotate, kFakeQuantize };
    Kind kind;
    const ir::Op* op = nullptr;
    const QuantScheme* scheme = nullptr;  // fake quantization
    std::vector<int> inputs;
    int output = -1;
    int log_sums = -1;  // attention's second value
    bool cheap = false;  // its output is made again, not kept
  };
  struct ValueInfo {
    int64_t width = 0;      // per token
    int producer = -1;      // step
    int last_use = -1;      // step that reads it last
    bool kept = false;      // from forward to backward
    bool has_gradient = false;
  };
  using Buffer = std::unique_ptr<T[]>;

  Tape(const ir::Graph& graph, Machine machine, ParameterArrays<T> parameters, const TapeOptions& options)
      : graph_(graph), machine_(machine), parameters_(std::move(parameters)), options_(options), quantize_activations_(options.quantize_activations) {}

  absl::Status Build();
  absl::Status AddStep(size_t index);
  bool IsCheap(int value) const;
  int Quantized(const ir::Op& op, int value, const QuantScheme& scheme);
  void ChooseKept();
  std::vector<int> NeededByBackward(const Step& step) const;
  bool TrainsWeight(const Step& step) const { return step.op->weight.has_value() && parameters_.gradients[*step.op->weight] != nullptr; }

  T* Take(int64_t width);
  void Give(Buffer& buffer, int64_t width);
  absl::Status Evaluate(const Step& step);
  absl::Status Ensure(int value);
  T* GradientOf(int value, bool* fresh);
  absl::Status Differentiate(const Step& step);
  void LinearBackward(const Step& step, const T* dy);
  void AddBackward(const Step& step, const T* dy);
  void RotateBackward(const Step& step, const T* dy);
  void AttentionBackwardInto(const Step& step, const T* dy);
  absl::Status FakeQuantizeBackward(const Step& step, const T* dy);

  RopeShape<T> RopeShapeOf(const ir::Op& op);

  T* value(int id) const { return values_[id].get(); }
  const T* weight(const Step& step) const { return parameters_.values[*step.op->weight]; }
  T* weight_gradient(const Step& step) const { return parameters_.gradients[*step.op->weight]; }

  const ir::Graph& graph_;
  const Machine machine_;
  const ParameterArrays<T> parameters_;
  const TapeOptions options_;
  bool quantize_activations_;
  std::vector<Step> steps_;
  std::vector<ValueInfo> infos_;
  std::map<std::pair<int, std::string>, int> quantized_inputs_;

  // By frequencies: the same for all layers, and from one batch to the next.
  std::map<std::vector<double>, RopeAngles<T>> angles_;
  std::map<int64_t, Hadamard> hadamards_;  // by block

  TokenBatch batch_;
  std::vector<Buffer> values_, gradients_;
  std::multimap<int64_t, Buffer> free_;  // by elements
};

extern template class Tape<float>;
extern template class Tape<double>;

}  // namespace nibble::train

#endif  // NIBBLE_CORE_TRAIN_TAPE_H_
