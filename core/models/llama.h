// Builds the IR of a Llama-family model: for each block
//   h = h + o(attention(rope(q(n)), rope(k(n)), v(n))),  n = rms_norm(h)
//   h = h + down(silu(gate(m)) * up(m)),                 m = rms_norm(h)
// with Hugging Face module names.
#ifndef NIBBLE_CORE_MODELS_LLAMA_H_
#define NIBBLE_CORE_MODELS_LLAMA_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/ir/adapters.h"
#include "core/ir/graph.h"
#include "core/models/llama_config.h"
#include "core/models/weights.h"

namespace nibble {

// Parameters load lazily from `weights`. `activations` (module name to scheme)
// and `adapters` are those of a checkpoint, the adapters' weights in the store.
// A head that the configuration ties is untied when the store holds a
// "lm_head.weight" of its own. Errors: a missing parameter, an activation or an
// adapter for an unknown module, an invalid configuration.
absl::StatusOr<ir::Graph> BuildLlama(const LlamaConfig& config, std::shared_ptr<const WeightStore> weights,
                                     const std::map<std::string, QuantScheme>& activations = {},
                                     const std::vector<ir::Adapter>& adapters = {});

}  // namespace nibble

#endif  // NIBBLE_CORE_MODELS_LLAMA_H_
