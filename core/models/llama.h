// Builds the IR of a Llama-family model: for each block
//   h = h + o(attention(rope(q(n)), rope(k(n)), v(n))),  n = rms_norm(h)
//   h = h + down(silu(gate(m)) * up(m)),                 m = rms_norm(h)
// with Hugging Face module names.
#ifndef NIBBLE_CORE_MODELS_LLAMA_H_
#define NIBBLE_CORE_MODELS_LLAMA_H_

#include <memory>

#include "core/ir/attachments.h"
#include "core/ir/graph.h"
#include "core/models/llama_config.h"
#include "core/models/weights.h"

namespace nibble {

// Parameters load lazily from `weights`. `attachments` are those of a
// checkpoint, adapters' weights in the store. A head that the configuration ties
// is untied when the store holds a "lm_head.weight" of its own. Errors: a missing
// parameter, an attachment to an unknown module, an invalid configuration.
absl::StatusOr<ir::Graph> BuildLlama(const LlamaConfig& config, std::shared_ptr<const WeightStore> weights,
                                     const ir::Attachments& attachments = {});

}  // namespace nibble

#endif  // NIBBLE_CORE_MODELS_LLAMA_H_
