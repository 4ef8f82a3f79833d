// A Llama-family model as a GGUF file that llama.cpp and its relatives run.
#ifndef NIBBLE_CORE_IO_GGUF_MODEL_WRITER_H_
#define NIBBLE_CORE_IO_GGUF_MODEL_WRITER_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/gguf.h"
#include "core/io/hf_folder.h"
#include "core/io/tokenizer_extras.h"
#include "core/text/tokenizer.h"

namespace nibble::io {

// What a GGUF file says of where its model is from, its general.* metadata: author, license,
// url, base models and the like.
using GgufGeneral = std::map<std::string, GgufValue>;

// Of the GGUF file among `files`, those that a model was read from; empty without one.
absl::StatusOr<GgufGeneral> ReadGgufGeneral(const std::vector<std::string>& files);

// Writes `checkpoint` to `path`, called `name` in it, one tensor at a time; the file is
// complete or absent. Of `general`, the source's, texts, lists of texts and counts stay, and
// its name and description before ours; what a file decides for itself (architecture, types,
// alignment, who quantized it) does not. End tokens get GGUF's keys by their texts, and a
// list where those do not name all. Rows of queries and keys are interleaved, norms become
// F32, a tied head is left out, Llama 3's frequency scaling goes to rope_freqs.weight. Rows of
// the embedding beyond the vocabulary get tokens "[PAD5]" of type unused. `tokenizer`
// may be null: then there is no vocabulary in the file.
//
// Errors, each naming the tensor or module and what to do: a number format that GGUF
// does not have, schemes of activations or of the KV cache, rotations, adapters.
absl::Status WriteGgufModel(const std::string& path, const std::string& name, const Checkpoint& checkpoint, const text::Tokenizer* tokenizer,
                            const TokenizerExtras& extras, const GgufGeneral& general = {});

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_GGUF_MODEL_WRITER_H_
