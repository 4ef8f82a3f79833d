// A Llama-family model as a GGUF file that llama.cpp and its relatives run.
#ifndef NIBBLE_CORE_IO_GGUF_MODEL_WRITER_H_
#define NIBBLE_CORE_IO_GGUF_MODEL_WRITER_H_

#include <string>

#include "absl/status/status.h"
#include "core/io/hf_folder.h"
#include "core/io/tokenizer_extras.h"
#include "core/text/tokenizer.h"

namespace nibble::io {

// Writes `checkpoint` to `path`, called `name` in it, one tensor at a time; the file is
// complete or absent. Rows of queries and keys are interleaved, norms become F32, a
// tied head is left out, Llama 3's frequency scaling goes to rope_freqs.weight. Rows of
// the embedding beyond the vocabulary get tokens "[PAD5]" of type unused. `tokenizer`
// may be null: then there is no vocabulary in the file.
//
// Errors, each naming the tensor or module and what to do: a number format that GGUF
// does not have, schemes of activations or of the KV cache, rotations, adapters.
absl::Status WriteGgufModel(const std::string& path, const std::string& name, const Checkpoint& checkpoint, const text::Tokenizer* tokenizer,
                            const TokenizerExtras& extras);

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_GGUF_MODEL_WRITER_H_
