// A Llama-family model in a GGUF file, under Hugging Face's names and in its
// row order.
#ifndef NIBBLE_CORE_IO_GGUF_MODEL_H_
#define NIBBLE_CORE_IO_GGUF_MODEL_H_

#include <memory>
#include <string>

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

// F32, F16 and BF16 tensors keep their type and are borrowed. Block-quantized
// ones are decoded and rounded to BF16, the baseline's type.
std::shared_ptr<const WeightStore> GgufWeights(std::shared_ptr<const GgufFile> file, const LlamaConfig& config);

// From tokenizer.ggml.* metadata; null when the file has none.
absl::StatusOr<std::shared_ptr<const text::Tokenizer>> GgufTokenizer(const GgufFile& file);

// "decoded from Q4_1 (210 tensors), Q8_0 (1) to BF16"; "" when nothing was
// block-quantized.
std::string GgufNote(const GgufFile& file);

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_GGUF_MODEL_H_
