// Published shapes, from the models' own config.json files.
#include <iterator>

#include "core/base/status.h"
#include "core/base/suggest.h"
#include "core/models/llama_config.h"

namespace nibble {
namespace {

struct Preset {
  absl::string_view name;
  int64_t hidden, ffn, layers, heads, kv_heads, head_dim, vocab, context;
  double theta;
  bool tied;
  double llama3_factor;  // 0: no scaling
  int64_t sliding_window;  // 0: none
  int32_t bos, eos;
};

constexpr Preset kPresets[] = {
    {"llama-3.2-1b", 2048, 8192, 16, 32, 8, 64, 128256, 131072, 500000, true, 32, 0, 128000, 128001},
    {"llama-3.2-3b", 3072, 8192, 28, 24, 8, 128, 128256, 131072, 500000, true, 32, 0, 128000, 128001},
    {"llama-3.1-8b", 4096, 14336, 32, 32, 8, 128, 128256, 131072, 500000, false, 8, 0, 128000, 128001},
    {"llama-2-7b", 4096, 11008, 32, 32, 32, 128, 32000, 4096, 10000, false, 0, 0, 1, 2},
    {"llama-2-13b", 5120, 13824, 40, 40, 40, 128, 32000, 4096, 10000, false, 0, 0, 1, 2},
    {"mistral-7b", 4096, 14336, 32, 32, 8, 128, 32000, 32768, 10000, false, 0, 4096, 1, 2},
    {"tinyllama-1.1b", 2048, 5632, 22, 32, 4, 64, 32000, 2048, 10000, false, 0, 0, 1, 2},
    {"smollm2-135m", 576, 1536, 30, 9, 3, 64, 49152, 8192, 100000, true, 0, 0, 0, 0},
    {"smollm2-360m", 960, 2560, 32, 15, 5, 64, 49152, 8192, 100000, true, 0, 0, 0, 0},
    {"smollm2-1.7b", 2048, 8192, 24, 32, 32, 64, 49152, 8192, 130000, true, 0, 0, 0, 0},
    {"tiny", 48, 100, 2, 4, 2, 12, 97, 256, 10000, true, 0, 0, 0, 1},
};

LlamaConfig ToConfig(const Preset& preset) {
  LlamaConfig config;
  config.model_type = preset.sliding_window > 0 ? "mistral" : "llama";
  config.hidden_size = preset.hidden;
  config.intermediate_size = preset.ffn;
  config.num_hidden_layers = preset.layers;
  config.num_attention_heads = preset.heads;
  config.num_key_value_heads = preset.kv_heads;
  config.head_dim = preset.head_dim;
  config.vocab_size = preset.vocab;
  config.max_position_embeddings = preset.context;
  config.rms_norm_eps = 1e-5;
  config.rope_theta = preset.theta;
  config.tie_word_embeddings = preset.tied;
  if (preset.llama3_factor > 0) config.rope_scaling = Llama3RopeScaling{.factor = preset.llama3_factor};
  if (preset.sliding_window > 0) config.sliding_window = preset.sliding_window;
  config.bos_token_id = preset.bos;
  config.eos_token_ids = {preset.eos};
  return config;
}

}  // namespace

absl::StatusOr<LlamaConfig> ShapePreset(absl::string_view name) {
  for (const Preset& preset : kPresets) {
    if (preset.name == name) return ToConfig(preset);
  }
  return absl::NotFoundError(UnknownName("shape preset", name, ShapePresetNames()));
}

std::vector<std::string> ShapePresetNames() {
  std::vector<std::string> names;
  for (const Preset& preset : kPresets) names.emplace_back(preset.name);
  return names;
}

}  // namespace nibble
