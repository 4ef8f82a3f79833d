// A Llama-family model in a GGUF file, under Hugging Face's names and in its
// row order.
#ifndef NIBBLE_CORE_IO_GGUF_MODEL_H_
#define NIBBLE_CORE_IO_GGUF_MODEL_H_

#include <memory>
#include <string>
#include <vector>

#include "core/io/gguf.h"
#include "core/models/llama_config.h"
#include "core/models/weights.h"
#include "core/text/tokenizer.h"

namespace nibble::io {

// From llama.* metadata. Architectures other than "llama", experts, biases,
// partial rotary embedding and every tensor that has no place in the
// architecture are Unimplemented errors. rope_freqs.weight must be Llama 3's
// scaling: its last entry is the factor, and all entries must agree with the
// standard bounds (low 1, high 4, original context 8192) within 1e-4.
absl::StatusOr<LlamaConfig> GgufConfig(const GgufFile& file);

// Tensors as they are stored, in the number formats of their types; borrowed, but for
// query and key projections, whose rows are put in order. A type that Nibble has no
// format for is an error that names it and the tensor.
std::shared_ptr<const WeightStore> GgufWeights(std::shared_ptr<const GgufFile> file, const LlamaConfig& config);

// From tokenizer.ggml.* metadata; null when the file has none.
absl::StatusOr<std::shared_ptr<const text::Tokenizer>> GgufTokenizer(const GgufFile& file);

// What a user should know of it; "" for nothing.
std::string GgufTokenizerNote(const GgufFile& file);

// "Q4_1 (210 tensors), Q8_0 (1)"; "" when nothing is block-quantized.
std::string GgufQuantizedTypes(const GgufFile& file);

// What writing needs of the above.

// All tokens that end an answer, a list of ids, after eos_token_id, eot_token_id and
// eom_token_id under kGgufTokenizerPrefix: Ollama's key, for more of them than those name.
inline constexpr char kGgufEndTokens[] = "eos_token_ids";

// "model.layers.3.mlp.up_proj.weight" -> "blk.3.ffn_up.weight"; "" for a name
// that no Llama has.
std::string GgufTensorName(absl::string_view name);

// Heads of a projection whose rows GGUF interleaves, else 0.
int64_t InterleavedHeads(absl::string_view name, const LlamaConfig& config);

// rope_freqs.weight: what Llama 3's scaling divides each frequency by. Empty without
// scaling.
inline constexpr char kGgufRopeFactors[] = "rope_freqs.weight";
std::vector<float> GgufRopeFactors(const LlamaConfig& config);

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_GGUF_MODEL_H_
