// WeightStore: where a model's parameters come from. Loading is lazy, one
// parameter at a time, so that quantizing a model needs room for the result
// and one full-precision layer, not for the whole model.
#ifndef NIBBLE_CORE_MODELS_WEIGHTS_H_
#define NIBBLE_CORE_MODELS_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <string>

#include "core/models/llama_config.h"
#include "core/quant/encoded.h"

namespace nibble {

class WeightStore {
 public:
  virtual ~WeightStore() = default;

  // Hugging Face parameter names: "model.embed_tokens.weight",
  // "model.layers.0.self_attn.q_proj.weight", "lm_head.weight", ...
  virtual bool Has(const std::string& name) const = 0;

  // The parameter as stored: encoded in a quantized checkpoint, a float format
  // otherwise. Borrowed from the mapped file where that is possible. Errors
  // name the file and the tensor.
  virtual absl::StatusOr<EncodedTensor> Load(const std::string& name) const = 0;
};

// Seeded random weights of a shape: normal with standard deviation 0.02,
// rounded to bf16, norm gains 1. A parameter's values depend on its name and
// the seed only; nothing is kept.
std::shared_ptr<const WeightStore> SyntheticWeights(const LlamaConfig& config, uint64_t seed);

}  // namespace nibble

#endif  // NIBBLE_CORE_MODELS_WEIGHTS_H_
