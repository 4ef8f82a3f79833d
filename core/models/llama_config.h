// The Llama family's architecture constants, in Hugging Face's names: Llama 2
// and 3.x, SmolLM2, Mistral, TinyLlama. Read from config.json, from GGUF
// metadata or from a llama2.c header; presets name published shapes.
#ifndef NIBBLE_CORE_MODELS_LLAMA_CONFIG_H_
#define NIBBLE_CORE_MODELS_LLAMA_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

// Llama 3.1's frequency scaling (Hugging Face rope_scaling, rope_type
// "llama3"): wavelengths beyond original_context / low_freq_factor are
// stretched by `factor`, those below original_context / high_freq_factor kept,
// the band between interpolated.
struct Llama3RopeScaling {
  double factor = 8;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  double original_max_position_embeddings = 8192;
};

struct LlamaConfig {
  std::string model_type = "llama";  // "llama" or "mistral"
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-5;
  double rope_theta = 10000;
  std::optional<Llama3RopeScaling> rope_scaling;
  double rope_linear_factor = 1;  // rope_type "linear": positions are divided by it
  bool tie_word_embeddings = false;
  std::optional<int64_t> sliding_window;  // Mistral 7B v0.1
  std::optional<int32_t> bos_token_id;
  std::vector<int32_t> eos_token_ids;  // each ends an answer, the first is the tokenizer's

  // Positive sizes, heads divisible by KV heads, an even head_dim, and bounds
  // (every dimension below 2^24, at most 1024 layers, heads of at most 4096, 2^50
  // parameters) that keep a bad file from asking for impossible memory.
  absl::Status Validate() const;

  // A config.json's text. Unsupported architectures, activations, biases and
  // rope types are errors that name the field.
  static absl::StatusOr<LlamaConfig> FromJson(absl::string_view json, absl::string_view source);
  std::string ToJson() const;

  // Rotary inverse frequencies, head_dim / 2 values, scaling applied.
  std::vector<double> InverseFrequencies() const;

  // Parameters in all, tied embeddings counted once.
  int64_t ParameterCount() const;
};

// Published shapes: "llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b",
// "llama-2-7b", "llama-2-13b", "mistral-7b", "tinyllama-1.1b",
// "smollm2-135m", "smollm2-360m", "smollm2-1.7b", "tiny" (for tests).
absl::StatusOr<LlamaConfig> ShapePreset(absl::string_view name);
std::vector<std::string> ShapePresetNames();

}  // namespace nibble

#endif  // NIBBLE_CORE_MODELS_LLAMA_CONFIG_H_
