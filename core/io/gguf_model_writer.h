// A Llama-family model as a GGUF file that llama.cpp and its relatives run.
#ifndef NIBBLE_CORE_IO_GGUF_MODEL_WRITER_H_
#define NIBBLE_CORE_IO_GGUF_MODEL_WRITER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/hf_folder.h"
#include "core/text/tokenizer.h"

namespace nibble::io {

// What the files of a model say of its tokenizer beside the vocabulary.
struct TokenizerExtras {
  std::string chat_template;             // Jinja; "" for none
  std::map<std::string, int32_t> ids;    // by GGUF's keys: "padding_token_id", "eot_token_id" ...
  std::optional<bool> add_eos;
};

// From `files`, those that a model was read from: a GGUF file's metadata, or a folder's
// tokenizer_config.json and chat_template.jinja. Nothing where they say nothing.
absl::StatusOr<TokenizerExtras> ReadTokenizerExtras(const std::vector<std::string>& files, const text::Tokenizer* tokenizer);

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
