#include "core/io/gguf_model.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status.h"
#include "core/io/rope_rows.h"
#include "core/io/safetensors.h"

namespace nibble::io {
namespace {

constexpr double kRopeTolerance = 1e-4;

struct NamePair {
  absl::string_view ours, gguf;
};
constexpr NamePair kTopNames[] = {{"model.embed_tokens.weight", "token_embd.weight"},
                                  {"model.norm.weight", "output_norm.weight"},
                                  {"lm_head.weight", "output.weight"}};
constexpr NamePair kLayerNames[] = {{"input_layernorm.weight", "attn_norm.weight"},
                                    {"self_attn.q_proj.weight", "attn_q.weight"},
                                    {"self_attn.k_proj.weight", "attn_k.weight"},
                                    {"self_attn.v_proj.weight", "attn_v.weight"},
                                    {"self_attn.o_proj.weight", "attn_output.weight"},
                                    {"post_attention_layernorm.weight", "ffn_norm.weight"},
                                    {"mlp.gate_proj.weight", "ffn_gate.weight"},
                                    {"mlp.up_proj.weight", "ffn_up.weight"},
                                    {"mlp.down_proj.weight", "ffn_down.weight"}};
constexpr absl::string_view kOurLayer = "model.layers.", kGgufLayer = "blk.";

// Whether a model of that many layers has the GGUF tensor.
bool IsLlamaTensor(absl::string_view name, int64_t layers) {
  if (name == kGgufRopeFactors) return true;
  for (const NamePair& pair : kTopNames) {
    if (pair.gguf == name) return true;
  }
  if (!absl::StartsWith(name, kGgufLayer)) return false;
  name.remove_prefix(kGgufLayer.size());
  const size_t dot = name.find('.');
  int64_t layer = 0;
  if (dot == absl::string_view::npos || !absl::SimpleAtoi(name.substr(0, dot), &layer)) return false;
  if (layer < 0 || layer >= layers) return false;
  for (const NamePair& pair : kLayerNames) {
    if (pair.gguf == name.substr(dot + 1)) return true;
  }
  return false;
}

// `key` into `out`, which keeps its value when the key is absent.
absl::Status Optional(const GgufFile& file, const std::string& key, int64_t* out) {
  if (!file.Has(key)) return absl::OkStatus();
  NIBBLE_ASSIGN_OR_RETURN(*out, file.Integer(key));
  return absl::OkStatus();
}

absl::Status Optional(const GgufFile& file, const std::string& key, double* out) {
  if (!file.Has(key)) return absl::OkStatus();
  NIBBLE_ASSIGN_OR_RETURN(*out, file.Number(key));
  return absl::OkStatus();
}

absl::Status Unsupported(const GgufFile& file, absl::string_view what) {
  return absl::UnimplementedError(absl::StrCat(file.path(), ": ", what));
}

absl::Status ReadSizes(const GgufFile& file, LlamaConfig* config) {
  NIBBLE_ASSIGN_OR_RETURN(config->hidden_size, file.Integer("llama.embedding_length"));
  NIBBLE_ASSIGN_OR_RETURN(config->intermediate_size, file.Integer("llama.feed_forward_length"));
  NIBBLE_ASSIGN_OR_RETURN(config->num_hidden_layers, file.Integer("llama.block_count"));
  NIBBLE_ASSIGN_OR_RETURN(config->num_attention_heads, file.Integer("llama.attention.head_count"));
  NIBBLE_ASSIGN_OR_RETURN(config->max_position_embeddings, file.Integer("llama.context_length"));
  config->num_key_value_heads = config->num_attention_heads;
  NIBBLE_RETURN_IF_ERROR(Optional(file, "llama.attention.head_count_kv", &config->num_key_value_heads));
  if (config->num_attention_heads > 0) config->head_dim = config->hidden_size / config->num_attention_heads;
  NIBBLE_RETURN_IF_ERROR(Optional(file, "llama.attention.key_length", &config->head_dim));
  int64_t rotary = config->head_dim, value_length = config->head_dim;
  NIBBLE_RETURN_IF_ERROR(Optional(file, "llama.rope.dimension_count", &rotary));
  NIBBLE_RETURN_IF_ERROR(Optional(file, "llama.attention.value_length", &value_length));
  if (rotary == config->head_dim && value_length == config->head_dim) return absl::OkStatus();
  return Unsupported(file, absl::StrCat("rotary dimension ", rotary, " and value length ", value_length,
                                        " must both be the head size ", config->head_dim));
}

absl::Status ReadRope(const GgufFile& file, LlamaConfig* config) {
  NIBBLE_RETURN_IF_ERROR(Optional(file, "llama.rope.freq_base", &config->rope_theta));
  std::string type = "linear";  // llama.cpp's default
  if (file.Has("llama.rope.scaling.type")) {
    NIBBLE_ASSIGN_OR_RETURN(type, file.Text("llama.rope.scaling.type"));
  }
  if (type == "none") return absl::OkStatus();
  if (type == "linear") {
    const char* key = "llama.rope.scaling.factor";
    NIBBLE_RETURN_IF_ERROR(Optional(file, file.Has(key) ? key : "llama.rope.scale_linear", &config->rope_linear_factor));
    if (config->rope_linear_factor == 0) config->rope_linear_factor = 1;
    return absl::OkStatus();
  }
  return Unsupported(file, absl::StrCat("llama.rope.scaling.type '", type, "' is not supported"));
}

// From the list of tokens, else from its own key, else the embedding's rows.
absl::Status ReadVocabulary(const GgufFile& file, LlamaConfig* config) {
  if (file.Has("tokenizer.ggml.tokens")) {
    NIBBLE_ASSIGN_OR_RETURN(const auto* tokens, file.Strings("tokenizer.ggml.tokens"));
    config->vocab_size = static_cast<int64_t>(tokens->size());
  } else if (file.Has("llama.vocab_size")) {
    NIBBLE_ASSIGN_OR_RETURN(config->vocab_size, file.Integer("llama.vocab_size"));
  } else if (const GgufTensor* embedding = file.FindTensor("token_embd.weight"); embedding != nullptr) {
    config->vocab_size = embedding->shape.empty() ? 0 : embedding->shape[0];
  }
  config->tie_word_embeddings = file.FindTensor("output.weight") == nullptr;
  return absl::OkStatus();
}

absl::StatusOr<int32_t> CheckedTokenId(const GgufFile& file, const std::string& key, int64_t id) {
  if (id >= 0 && id <= std::numeric_limits<int32_t>::max()) return static_cast<int32_t>(id);
  return absl::InvalidArgumentError(absl::StrCat(file.path(), ": ", key, " is ", id, ", expected a token id"));
}

absl::Status ReadTokenId(const GgufFile& file, absl::string_view name, std::optional<int32_t>* out) {
  const std::string key = absl::StrCat(kGgufTokenizerPrefix, name, "_token_id");
  if (!file.Has(key)) return absl::OkStatus();
  NIBBLE_ASSIGN_OR_RETURN(const int64_t id, file.Integer(key));
  NIBBLE_ASSIGN_OR_RETURN(*out, CheckedTokenId(file, key, id));
  return absl::OkStatus();
}

// Each once, the tokenizer's EOS first.
absl::Status ReadEndTokens(const GgufFile& file, std::vector<int32_t>* ends) {
  std::set<int32_t> seen;
  const auto add = [&](int32_t id) {
    if (seen.insert(id).second) ends->push_back(id);
  };
  for (const char* name : {"eos", "eot", "eom"}) {
    std::optional<int32_t> id;
    NIBBLE_RETURN_IF_ERROR(ReadTokenId(file, name, &id));
    if (id.has_value()) add(*id);
  }
  const std::string key = absl::StrCat(kGgufTokenizerPrefix, kGgufEndTokens);
  if (!file.Has(key)) return absl::OkStatus();
  NIBBLE_ASSIGN_OR_RETURN(const auto* all, file.Integers(key));
  for (const int64_t id : *all) {
    NIBBLE_ASSIGN_OR_RETURN(const int32_t end, CheckedTokenId(file, key, id));
    add(end);
  }
  return absl::OkStatus();
}

absl::Status RefuseForeignTensors(const GgufFile& file, const LlamaConfig& config) {
  int64_t experts = 0;
  NIBBLE_RETURN_IF_ERROR(Optional(file, "llama.expert_count", &experts));
  if (experts != 0) return Unsupported(file, absl::StrCat("a mixture of ", experts, " experts is not supported"));
  for (const auto& [name, tensor] : file.tensors()) {
    if (IsLlamaTensor(name, config.num_hidden_layers)) continue;
    return Unsupported(file, absl::StrCat("tensor '", name, "' has no place in a Llama of ", config.num_hidden_layers, " layers"));
  }
  return absl::OkStatus();
}

// Recognizes the per-frequency divisors as Llama 3's.
absl::Status ReadRopeFactors(const GgufFile& file, LlamaConfig* config) {
  const GgufTensor* tensor = file.FindTensor(kGgufRopeFactors);
  if (tensor == nullptr) return absl::OkStatus();
  if (tensor->type->dtype != DType::kF32 || tensor->shape != Shape{config->head_dim / 2}) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": ", kGgufRopeFactors, " is ", tensor->type->name, " ",
                                                   ShapeToString(tensor->shape), ", expected F32 ",
                                                   ShapeToString({config->head_dim / 2})));
  }
  std::vector<float> factors(tensor->shape[0]);
  std::memcpy(factors.data(), file.Bytes(*tensor).data(), tensor->bytes);
  LlamaConfig scaled = *config;
  scaled.rope_scaling = Llama3RopeScaling{.factor = factors.back()};
  NIBBLE_RETURN_IF_ERROR(Annotate(scaled.Validate(), absl::StrCat(file.path(), ": ", kGgufRopeFactors)));
  const std::vector<float> expected = GgufRopeFactors(scaled);
  for (size_t i = 0; i < factors.size(); ++i) {
    if (std::fabs(factors[i] - expected[i]) <= kRopeTolerance * expected[i]) continue;
    return Unsupported(file, absl::StrCat(kGgufRopeFactors, "[", i, "] is ", factors[i], ", Llama 3's scaling by ", factors.back(),
                                          " has ", expected[i], "; other scalings are not supported"));
  }
  if (factors.back() != 1) *config = scaled;
  return absl::OkStatus();
}

class GgufStore : public WeightStore {
 public:
  GgufStore(std::shared_ptr<const GgufFile> file, const LlamaConfig& config) : file_(std::move(file)), config_(config) {}

  bool Has(const std::string& name) const override { return file_->FindTensor(GgufTensorName(name)) != nullptr; }

  absl::StatusOr<EncodedTensor> Load(const std::string& name) const override {
    const std::string gguf_name = GgufTensorName(name);
    const std::string where = absl::StrCat(file_->path(), ": tensor '", gguf_name, "' (", name, ")");
    const GgufTensor* tensor = file_->FindTensor(gguf_name);
    if (tensor == nullptr) {
      return absl::NotFoundError(absl::StrCat(file_->path(), ": no tensor '", gguf_name, "' for '", name, "'"));
    }
    NIBBLE_RETURN_IF_ERROR(Annotate(Check(*tensor), where));
    const int64_t heads = InterleavedHeads(name, config_);
    if (heads > 0 && (tensor->shape.size() != 2 || tensor->shape[0] != heads * config_.head_dim)) {
      return absl::InvalidArgumentError(absl::StrCat(where, " has shape ", ShapeToString(tensor->shape), ", expected ", heads,
                                                     " heads of ", config_.head_dim, " rows"));
    }
    const absl::Span<const uint8_t> bytes = file_->Bytes(*tensor);
    const bool floats = tensor->type->dtype.has_value();
    EncodedTensor encoded{FloatScheme(tensor->type->format()), tensor->shape, {}};
    const Shape blocks = {encoded.rows(), static_cast<int64_t>(bytes.size()) / encoded.rows()};
    NIBBLE_ASSIGN_OR_RETURN(Tensor stored, Tensor::Borrow(floats ? *tensor->type->dtype : DType::kU8, floats ? tensor->shape : blocks, bytes, file_->mapping()));
    if (heads > 0) stored = HalfSplitRows(stored, config_.head_dim);
    if (floats) return WrapFloats(Aligned(std::move(stored)));
    encoded.buffers.emplace("blocks", std::move(stored));
    NIBBLE_RETURN_IF_ERROR(Annotate(CheckEncoded(encoded), where));
    return encoded;
  }

 private:
  static absl::Status Check(const GgufTensor& tensor) {
    if (tensor.type->format().empty()) {
      return absl::UnimplementedError(absl::StrCat("element type ", tensor.type->name, " is not supported; Nibble reads F32, F16, BF16, ",
                                                   "Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K"));
    }
    const Shape& shape = tensor.shape;
    if (shape.size() == 1 && shape[0] > 0) return absl::OkStatus();
    if (shape.size() == 2 && shape[0] > 0 && shape[1] > 0) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("has shape ", ShapeToString(shape), ", expected one or two positive dimensions"));
  }

  const std::shared_ptr<const GgufFile> file_;
  const LlamaConfig config_;
};

}  // namespace

std::string GgufTensorName(absl::string_view name) {
  for (const NamePair& pair : kTopNames) {
    if (pair.ours == name) return std::string(pair.gguf);
  }
  if (!absl::StartsWith(name, kOurLayer)) return "";
  name.remove_prefix(kOurLayer.size());
  const size_t dot = name.find('.');
  if (dot == absl::string_view::npos) return "";
  for (const NamePair& pair : kLayerNames) {
    if (pair.ours == name.substr(dot + 1)) return absl::StrCat(kGgufLayer, name.substr(0, dot), ".", pair.gguf);
  }
  return "";
}

int64_t InterleavedHeads(absl::string_view name, const LlamaConfig& config) {
  if (absl::EndsWith(name, ".q_proj.weight")) return config.num_attention_heads;
  if (absl::EndsWith(name, ".k_proj.weight")) return config.num_key_value_heads;
  return 0;
}

std::vector<float> GgufRopeFactors(const LlamaConfig& config) {
  std::vector<float> factors;
  if (!config.rope_scaling.has_value()) return factors;
  LlamaConfig plain = config;
  plain.rope_scaling.reset();
  const std::vector<double> before = plain.InverseFrequencies(), after = config.InverseFrequencies();
  for (size_t i = 0; i < before.size(); ++i) factors.push_back(static_cast<float>(before[i] / after[i]));
  return factors;
}

absl::StatusOr<LlamaConfig> GgufConfig(const GgufFile& file) {
  NIBBLE_ASSIGN_OR_RETURN(const std::string architecture, file.Text("general.architecture"));
  if (architecture != "llama") {
    return Unsupported(file, absl::StrCat("architecture '", architecture, "' is not supported; Nibble runs 'llama'"));
  }
  int64_t parts = 1;
  NIBBLE_RETURN_IF_ERROR(Optional(file, "split.count", &parts));
  if (parts > 1) return Unsupported(file, absl::StrCat("this is one of ", parts, " parts; join them with llama-gguf-split --merge"));
  LlamaConfig config;
  NIBBLE_RETURN_IF_ERROR(ReadSizes(file, &config));
  NIBBLE_RETURN_IF_ERROR(ReadRope(file, &config));
  NIBBLE_RETURN_IF_ERROR(ReadVocabulary(file, &config));
  NIBBLE_RETURN_IF_ERROR(Optional(file, "llama.attention.layer_norm_rms_epsilon", &config.rms_norm_eps));
  NIBBLE_RETURN_IF_ERROR(ReadTokenId(file, "bos", &config.bos_token_id));
  NIBBLE_RETURN_IF_ERROR(ReadEndTokens(file, &config.eos_token_ids));
  if (file.Has("llama.attention.sliding_window")) {
    NIBBLE_ASSIGN_OR_RETURN(config.sliding_window, file.Integer("llama.attention.sliding_window"));
  }
  NIBBLE_RETURN_IF_ERROR(Annotate(config.Validate(), file.path()));
  NIBBLE_RETURN_IF_ERROR(RefuseForeignTensors(file, config));
  NIBBLE_RETURN_IF_ERROR(ReadRopeFactors(file, &config));
  return config;
}

std::shared_ptr<const WeightStore> GgufWeights(std::shared_ptr<const GgufFile> file, const LlamaConfig& config) {
  return std::make_shared<GgufStore>(std::move(file), config);
}

std::string GgufQuantizedTypes(const GgufFile& file) {
  std::map<uint32_t, int> counts;
  for (const auto& [name, tensor] : file.tensors()) {
    if (!tensor.type->dtype.has_value()) ++counts[tensor.type->id];
  }
  std::vector<std::string> parts;
  for (const auto& [id, count] : counts) {
    parts.push_back(absl::StrCat(FindGgufBlockType(id)->name, " (", count, parts.empty() ? " tensors)" : ")"));
  }
  return absl::StrJoin(parts, ", ");
}

}  // namespace nibble::io
