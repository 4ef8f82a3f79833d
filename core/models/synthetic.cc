#include <map>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/base/rng.h"
#include "core/base/status.h"
#include "core/models/weights.h"

namespace nibble {
namespace {

constexpr float kStandardDeviation = 0.02f;

// A sum of four uniforms in 0 .. 65535 has mean 131070 and standard deviation
// sqrt((2^32 - 1) / 3).
constexpr int32_t kSumMean = 131070;
constexpr float kSumDeviation = 37837.227f;

uint64_t SplitMix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// FNV-1a of the name, mixed with the seed.
uint64_t TensorKey(absl::string_view name, uint64_t seed) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3ull;
  return SplitMix(hash + SplitMix(seed + 0x9E3779B97F4A7C15ull));
}

// Value i depends on the key and i alone: four 16-bit fields of one SplitMix64
// word are summed. Integers and one multiplication, so that every machine
// makes the same values.
Tensor NormalValues(const Shape& shape, uint64_t key) {
  Tensor tensor = Tensor::ZerosForStreaming(DType::kBF16, shape);
  const auto out = tensor.mutable_as<uint16_t>();
  constexpr float kStep = kStandardDeviation / kSumDeviation;
  for (size_t i = 0; i < out.size(); ++i) {
    const uint64_t word = SplitMix(key + (i + 1) * 0x9E3779B97F4A7C15ull);
    const uint64_t pairs = (word & 0x0000FFFF0000FFFFull) + ((word >> 16) & 0x0000FFFF0000FFFFull);
    const int32_t sum = static_cast<int32_t>((pairs & 0xFFFFFFFFull) + (pairs >> 32));
    out[i] = FloatToBf16(static_cast<float>(sum - kSumMean) * kStep);
  }
  return tensor;
}

Tensor Ones(const Shape& shape) {
  Tensor tensor = Tensor::ZerosForStreaming(DType::kBF16, shape);
  for (uint16_t& value : tensor.mutable_as<uint16_t>()) value = FloatToBf16(1);
  return tensor;
}

class SyntheticStore : public WeightStore {
 public:
  SyntheticStore(const LlamaConfig& config, uint64_t seed) : config_(config), seed_(seed) {
    const int64_t query = config.num_attention_heads * config.head_dim;
    const int64_t key = config.num_key_value_heads * config.head_dim;
    const int64_t hidden = config.hidden_size, ffn = config.intermediate_size;
    layer_ = {{"input_layernorm.weight", {hidden}},
              {"post_attention_layernorm.weight", {hidden}},
              {"self_attn.q_proj.weight", {query, hidden}},
              {"self_attn.k_proj.weight", {key, hidden}},
              {"self_attn.v_proj.weight", {key, hidden}},
              {"self_attn.o_proj.weight", {hidden, query}},
              {"mlp.gate_proj.weight", {ffn, hidden}},
              {"mlp.up_proj.weight", {ffn, hidden}},
              {"mlp.down_proj.weight", {hidden, ffn}}};
    top_ = {{"model.embed_tokens.weight", {config.vocab_size, hidden}}, {"model.norm.weight", {hidden}}};
    if (!config.tie_word_embeddings) top_["lm_head.weight"] = {config.vocab_size, hidden};
  }

  bool Has(const std::string& name) const override { return FindShape(name) != nullptr; }

  absl::StatusOr<EncodedTensor> Load(const std::string& name) const override {
    const Shape* shape = FindShape(name);
    if (shape == nullptr) return absl::NotFoundError(absl::StrCat("synthetic model: no tensor '", name, "'"));
    return WrapFloats(shape->size() == 1 ? Ones(*shape) : NormalValues(*shape, TensorKey(name, seed_)));
  }

 private:
  const Shape* FindShape(absl::string_view name) const {
    const auto top = top_.find(std::string(name));
    if (top != top_.end()) return &top->second;
    constexpr absl::string_view kPrefix = "model.layers.";
    if (!absl::StartsWith(name, kPrefix)) return nullptr;
    name.remove_prefix(kPrefix.size());
    const size_t dot = name.find('.');
    int64_t layer = 0;
    if (dot == absl::string_view::npos || !absl::SimpleAtoi(name.substr(0, dot), &layer)) return nullptr;
    if (layer < 0 || layer >= config_.num_hidden_layers || absl::StrCat(layer) != name.substr(0, dot)) return nullptr;
    const auto it = layer_.find(std::string(name.substr(dot + 1)));
    return it == layer_.end() ? nullptr : &it->second;
  }

  const LlamaConfig config_;
  const uint64_t seed_;
  std::map<std::string, Shape> layer_, top_;
};

}  // namespace

std::shared_ptr<const WeightStore> SyntheticWeights(const LlamaConfig& config, uint64_t seed) {
  return std::make_shared<SyntheticStore>(config, seed);
}

}  // namespace nibble
