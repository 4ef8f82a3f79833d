// Names and rows of Meta's layout, for its reader and its writer.
#ifndef NIBBLE_CORE_IO_META_NAMES_H_
#define NIBBLE_CORE_IO_META_NAMES_H_

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "core/models/llama_config.h"

namespace nibble::io {

inline constexpr char kParamsFile[] = "/params.json";
inline constexpr char kPthFile[] = "/consolidated.00.pth";
inline constexpr char kMetaScheme[] = "int4_weight_int8_dynamic_activation";

inline constexpr std::pair<absl::string_view, absl::string_view> kMetaTop[] = {
    {"model.embed_tokens", "tok_embeddings"}, {"model.norm", "norm"}, {"lm_head", "output"}};
inline constexpr std::pair<absl::string_view, absl::string_view> kMetaLayer[] = {
    {"input_layernorm", "attention_norm"}, {"post_attention_layernorm", "ffn_norm"}, {"self_attn.q_proj", "attention.wq"},
    {"self_attn.k_proj", "attention.wk"},  {"self_attn.v_proj", "attention.wv"},      {"self_attn.o_proj", "attention.wo"},
    {"mlp.gate_proj", "feed_forward.w1"},  {"mlp.down_proj", "feed_forward.w2"},      {"mlp.up_proj", "feed_forward.w3"}};

// "model.layers.3.mlp.up_proj" -> "layers.3.feed_forward.w3"; "" for a module that no
// Llama has.
inline std::string MetaModule(absl::string_view module) {
  for (const auto& [ours, meta] : kMetaTop) {
    if (module == ours) return std::string(meta);
  }
  constexpr absl::string_view kLayers = "model.layers.";
  if (!absl::StartsWith(module, kLayers)) return "";
  module.remove_prefix(kLayers.size());
  const size_t dot = module.find('.');
  if (dot == absl::string_view::npos) return "";
  for (const auto& [ours, meta] : kMetaLayer) {
    if (module.substr(dot + 1) == ours) return absl::StrCat("layers.", module.substr(0, dot), ".", meta);
  }
  return "";
}

// A parameter's module and what it is of it: ".weight", ".lora_A.weight" (Meta's
// ".adaptor.A.weight") or ".lora_B.weight".
struct MetaName {
  std::string module, part;  // Meta's; module "" for a name that no Llama has
  int64_t interleaved = 0;   // heads whose rows are interleaved, else 0
};

inline MetaName ToMeta(absl::string_view name, const LlamaConfig& config) {
  constexpr std::pair<absl::string_view, absl::string_view> kParts[] = {
      {".lora_A.weight", ".adaptor.A.weight"}, {".lora_B.weight", ".adaptor.B.weight"}, {".weight", ".weight"}};
  for (const auto& [ours, meta] : kParts) {
    if (!absl::EndsWith(name, ours)) continue;
    const absl::string_view module = name.substr(0, name.size() - ours.size());
    MetaName result{MetaModule(module), std::string(meta)};
    if (ours == ".lora_A.weight") return result;
    if (absl::EndsWith(module, ".q_proj")) result.interleaved = config.num_attention_heads;
    if (absl::EndsWith(module, ".k_proj")) result.interleaved = config.num_key_value_heads;
    return result;
  }
  return {};
}

// What Meta's runtimes do with the inputs of quantized linears.
inline QuantScheme MetaInput() { return TokenScheme(8, true); }

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_META_NAMES_H_
