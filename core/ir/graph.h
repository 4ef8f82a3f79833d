// The tensor IR: a flat list of typed ops over values, built once per model
// with a free token dimension. Every value is a matrix [tokens, width].
//
// What makes it a quantization IR: each Parameter carries an EncodedTensor (a
// scheme and its buffers) and each linear may carry the scheme of its input
// activations. A method changes those and never touches a kernel; a kernel
// reads those and never knows a method.
#ifndef NIBBLE_CORE_IR_GRAPH_H_
#define NIBBLE_CORE_IR_GRAPH_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/quant/encoded.h"

namespace nibble::ir {

using ValueId = int32_t;
using ParameterId = int32_t;

// A weight. Until a method replaces it, it is loaded from its source when
// asked for, so a graph of a large model costs no memory.
class Parameter {
 public:
  using Source = std::function<absl::StatusOr<EncodedTensor>()>;

  Parameter(std::string name, Shape shape, Source source)
      : name_(std::move(name)), shape_(std::move(shape)), source_(std::move(source)) {}

  const std::string& name() const { return name_; }
  const Shape& shape() const { return shape_; }
  bool resident() const { return value_.has_value(); }

  // The encoded value; copies share bytes. Errors: what the source says, or a
  // shape that is not shape(). Every error names the parameter.
  absl::StatusOr<EncodedTensor> Load() const;

  // The value decoded to fp32. Pages of a mapped file that it was read from are
  // given back, so that passing over a model takes one parameter's memory.
  absl::StatusOr<std::vector<float>> LoadFloats() const;

  // The same of a value that was not quantized. One that was is an error, "W is
  // already quantized (int4 ...); `advice`": its first grid would be lost.
  struct Unquantized {
    QuantScheme scheme;
    std::vector<float> values;
  };
  absl::StatusOr<Unquantized> LoadUnquantized(absl::string_view advice) const;

  // Replaces the value; its shape must be shape().
  absl::Status Replace(EncodedTensor value);
  // Replaces it by the encoding of `values`. `pool` may be null.
  absl::Status ReplaceEncoded(const QuantScheme& scheme, absl::Span<const float> values, ThreadPool* pool);

  // Whether an equivalent rewrite (a rotation, a folded scale) changed the value: it keeps
  // the graph's function, and this weight is no longer one to compare with the source's.
  bool rewritten() const { return rewritten_; }
  void MarkRewritten() { rewritten_ = true; }

 private:
  std::string name_;
  Shape shape_;
  Source source_;
  std::optional<EncodedTensor> value_;
  bool rewritten_ = false;
};

enum class OpKind {
  kEmbed,      // tokens -> rows of weight [vocab, width]
  kRmsNorm,    // x / sqrt(mean(x^2) + eps) * weight
  kLinear,     // x weight^T, weight [out, in]
  kRope,       // rotary embedding, half-split layout, of `heads` heads
  kAttention,  // inputs q, k, v: causal grouped-query attention through the KV cache
  kSilu,       // x * sigmoid(x)
  kMul,        // elementwise product
  kAdd,        // x + scale * y
  kRotate,     // consecutive blocks of `block` columns times a Hadamard matrix (core/tensor/hadamard.h)
  kLogits,     // the language-model head: a linear, evaluated where asked
};
absl::string_view OpKindName(OpKind kind);

struct Op {
  OpKind kind;
  std::string name;  // Hugging Face module name: "model.layers.0.mlp.up_proj"
  std::vector<ValueId> inputs;
  ValueId output = -1;
  int layer = -1;  // decoder block, -1 outside

  std::optional<ParameterId> weight;      // embed, norm, linear, logits
  // linear, logits: scheme of the input; attention: bf16, what its products round queries
  // and softmax weights to.
  std::optional<QuantScheme> activation;

  float eps = 0;                 // norm
  float scale = 1;               // add
  int64_t block = 0;             // rotate
  int64_t heads = 0;             // rope, attention
  int64_t kv_heads = 0;          // attention
  int64_t head_dim = 0;          // rope, attention
  std::vector<double> inverse_frequencies;  // rope: head_dim / 2 values
  std::optional<int64_t> sliding_window;    // attention: keys no older than this
  // attention: how its cache stores keys (after RoPE and rotation) and values, a
  // scheme over groups of head_dim columns; none: as the session says.
  std::optional<QuantScheme> keys, values;

  // One of the three ops of a low-rank adapter, see core/ir/adapters.h.
  bool adapter = false;

  bool is_linear() const { return kind == OpKind::kLinear || kind == OpKind::kLogits; }
};

struct Value {
  std::string name;
  int64_t width = 0;
};

class Graph {
 public:
  std::string model_type = "llama";

  ValueId AddValue(std::string name, int64_t width);
  ParameterId AddParameter(std::string name, Shape shape, Parameter::Source source);
  Op& AddOp(Op op);

  const std::vector<Op>& ops() const { return ops_; }
  std::vector<Op>& mutable_ops() { return ops_; }
  const std::vector<Value>& values() const { return values_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  const Parameter& parameter(ParameterId id) const { return parameters_[id]; }
  Parameter& mutable_parameter(ParameterId id) { return parameters_[id]; }

  const Op* FindOp(const std::string& name) const;
  // The index of the op that makes a value.
  std::optional<size_t> ProducerOf(ValueId value) const;
  // The silu that makes the first factor of a product; an error when none does.
  absl::StatusOr<const Op*> SiluBefore(const Op& mul) const;
  const Op& head() const { return ops_.back(); }
  const Op& embedding() const { return ops_.front(); }
  // Embedding and head share one parameter.
  bool tied() const { return embedding().weight == head().weight; }
  int64_t vocab_size() const { return values_[head().output].width; }
  int64_t hidden_size() const { return values_[embedding().output].width; }
  int num_layers() const;

  // Ops that use a parameter.
  std::vector<const Op*> Users(ParameterId id) const;

 private:
  std::vector<Op> ops_;
  std::vector<Value> values_;
  std::vector<Parameter> parameters_;
};

// Whether an attention's cache can store keys or values so: a float format, or
// int4 or int8 with a scale for each head of each position.
absl::Status CheckCacheScheme(const QuantScheme& scheme, int64_t head_dim);

// The integer scheme that fits a cache: a scale for each head of each position.
QuantScheme IntegerCacheScheme(int bits, bool asymmetric, int64_t head_dim);

// An error for a token that a vocabulary of that size does not have.
absl::Status CheckToken(int32_t token, int64_t vocab_size);

// Rows of the embedding for tokens, [tokens, hidden]. An error for a token
// outside the vocabulary.
absl::StatusOr<std::vector<float>> EmbedTokens(const Graph& graph, absl::Span<const int32_t> tokens);

// Every value is made once and before its use, widths agree, parameter shapes
// fit their ops, schemes are valid, the first op embeds and the last gives
// logits. Errors name the op.
absl::Status Verify(const Graph& graph);

// One line an op: "%7 [576] = linear(%6) model.layers.0.self_attn.q_proj
// W[576, 576] int4 per group of 32 ..., A int8 per token ...".
absl::StatusOr<std::string> Print(const Graph& graph);

// SHA-256 of what the graph computes: its ops and the contents of their parameters.
absl::StatusOr<std::string> ContentHash(const Graph& graph);

}  // namespace nibble::ir

#endif  // NIBBLE_CORE_IR_GRAPH_H_
