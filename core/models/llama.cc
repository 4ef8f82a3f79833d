#include "core/models/llama.h"

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/base/suggest.h"

namespace nibble {
namespace {

using ir::Op;
using ir::OpKind;
using ir::ValueId;

class Builder {
 public:
  Builder(const LlamaConfig& config, std::shared_ptr<const WeightStore> weights)
      : config_(config), weights_(std::move(weights)), frequencies_(config.InverseFrequencies()) {}

  absl::StatusOr<ir::Graph> Build() {
    graph_.model_type = config_.model_type;
    ValueId hidden = Embed();
    for (int layer = 0; layer < config_.num_hidden_layers; ++layer) {
      NIBBLE_RETURN_IF_ERROR(missing_);  // a configuration alone builds no layers
      hidden = Block(layer, hidden);
    }
    layer_ = -1;
    const ValueId normed = Norm("model.norm", hidden);
    Head(normed);
    NIBBLE_RETURN_IF_ERROR(missing_);
    NIBBLE_RETURN_IF_ERROR(ir::Verify(graph_));
    return std::move(graph_);
  }

 private:
  ir::ParameterId Weight(const std::string& module, Shape shape) {
    const std::string name = module + ".weight";
    if (!weights_->Has(name) && missing_.ok()) missing_ = absl::NotFoundError(absl::StrCat("the model has no tensor ", name));
    return graph_.AddParameter(name, std::move(shape), [store = weights_, name] { return store->Load(name); });
  }

  ValueId Emit(Op op, int64_t width) {
    op.layer = layer_;
    op.output = graph_.AddValue(op.name, width);
    return graph_.AddOp(std::move(op)).output;
  }

  ValueId Embed() {
    Op op{OpKind::kEmbed, "model.embed_tokens"};
    op.weight = Weight(op.name, {config_.vocab_size, config_.hidden_size});
    return Emit(std::move(op), config_.hidden_size);
  }

  ValueId Norm(const std::string& name, ValueId x) {
    Op op{OpKind::kRmsNorm, name, {x}};
    op.weight = Weight(name, {config_.hidden_size});
    op.eps = static_cast<float>(config_.rms_norm_eps);
    return Emit(std::move(op), config_.hidden_size);
  }

  ValueId Linear(const std::string& name, ValueId x, int64_t out) {
    Op op{OpKind::kLinear, name, {x}};
    op.weight = Weight(name, {out, graph_.values()[x].width});
    return Emit(std::move(op), out);
  }

  ValueId Rope(const std::string& name, ValueId x, int64_t heads) {
    Op op{OpKind::kRope, name, {x}};
    op.heads = heads;
    op.head_dim = config_.head_dim;
    op.inverse_frequencies = frequencies_;
    return Emit(std::move(op), heads * config_.head_dim);
  }

  ValueId Attention(const std::string& prefix, ValueId x) {
    const int64_t width = config_.num_attention_heads * config_.head_dim;
    const int64_t kv_width = config_.num_key_value_heads * config_.head_dim;
    const ValueId q = Linear(prefix + "q_proj", x, width);
    const ValueId k = Linear(prefix + "k_proj", x, kv_width);
    const ValueId v = Linear(prefix + "v_proj", x, kv_width);
    const ValueId rotated_q = Rope(prefix + "q_rope", q, config_.num_attention_heads);
    const ValueId rotated_k = Rope(prefix + "k_rope", k, config_.num_key_value_heads);
    Op op{OpKind::kAttention, prefix + "attention", {rotated_q, rotated_k, v}};
    op.heads = config_.num_attention_heads;
    op.kv_heads = config_.num_key_value_heads;
    op.head_dim = config_.head_dim;
    op.sliding_window = config_.sliding_window;
    return Linear(prefix + "o_proj", Emit(std::move(op), width), config_.hidden_size);
  }

  ValueId Mlp(const std::string& prefix, ValueId x) {
    const ValueId gate = Linear(prefix + "gate_proj", x, config_.intermediate_size);
    const ValueId up = Linear(prefix + "up_proj", x, config_.intermediate_size);
    const ValueId silu = Emit(Op{OpKind::kSilu, prefix + "act_fn", {gate}}, config_.intermediate_size);
    const ValueId product = Emit(Op{OpKind::kMul, prefix + "mul", {silu, up}}, config_.intermediate_size);
    return Linear(prefix + "down_proj", product, config_.hidden_size);
  }

  ValueId Block(int layer, ValueId hidden) {
    layer_ = layer;
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    const ValueId attention = Attention(prefix + "self_attn.", Norm(prefix + "input_layernorm", hidden));
    hidden = Emit(Op{OpKind::kAdd, prefix + "attention_residual", {hidden, attention}}, config_.hidden_size);
    const ValueId mlp = Mlp(prefix + "mlp.", Norm(prefix + "post_attention_layernorm", hidden));
    return Emit(Op{OpKind::kAdd, prefix + "mlp_residual", {hidden, mlp}}, config_.hidden_size);
  }

  void Head(ValueId x) {
    Op op{OpKind::kLogits, "lm_head", {x}};
    const bool tied = config_.tie_word_embeddings && !weights_->Has("lm_head.weight");
    op.weight = tied ? *graph_.embedding().weight : Weight("lm_head", {config_.vocab_size, config_.hidden_size});
    Emit(std::move(op), config_.vocab_size);
  }

  const LlamaConfig& config_;
  const std::shared_ptr<const WeightStore> weights_;
  const std::vector<double> frequencies_;
  ir::Graph graph_;
  absl::Status missing_;
  int layer_ = -1;
};

}  // namespace

absl::StatusOr<ir::Graph> BuildLlama(const LlamaConfig& config, std::shared_ptr<const WeightStore> weights,
                                     const ir::Attachments& attachments) {
  NIBBLE_RETURN_IF_ERROR(config.Validate());
  NIBBLE_ASSIGN_OR_RETURN(ir::Graph graph, Builder(config, weights).Build());
  for (const ir::Adapter& adapter : attachments.adapters) {
    for (const char* part : {".lora_A.weight", ".lora_B.weight"}) {
      if (!weights->Has(adapter.module + part)) return absl::NotFoundError(absl::StrCat("the model has no tensor ", adapter.module, part));
    }
  }
  NIBBLE_RETURN_IF_ERROR(ir::Attach(graph, attachments, [&](const std::string& name, const Shape&) {
    return [weights, name] { return weights->Load(name); };
  }));
  return graph;
}

}  // namespace nibble
