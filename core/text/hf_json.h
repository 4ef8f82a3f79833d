// Tokenizers from Hugging Face's files.
#ifndef NIBBLE_CORE_TEXT_HF_JSON_H_
#define NIBBLE_CORE_TEXT_HF_JSON_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/text/tokenizer.h"

namespace nibble::text {

// Reads the contents of tokenizer.json; those of tokenizer_config.json may be "".
// `source_path` starts every error message. Read are BPE models that are
//  - byte-level, with the pre-tokenizer of GPT-2 (ByteLevel), Llama 3 (Split by its
//    pattern, ByteLevel) or SmolLM (Digits one by one, ByteLevel);
//  - SentencePiece-style, with the normalizer that puts U+2581 for a space (and, with
//    Prepend, before the text) and no pre-tokenizer, as Llama 2's. A piece's score is
//    the rank of the first merge that gives it, negated; a piece of several characters
//    that no merge gives is never produced.
// Everything else that would change the ids is an Unimplemented error that names it.
//
// BOS, EOS and whether a BOS is added come from tokenizer_config.json (bos_token,
// eos_token, add_bos_token), else from the template post-processor. Added tokens are
// matched in the text as it is, whether or not they are marked as normalized.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromJson(absl::string_view tokenizer_json,
                                                             absl::string_view tokenizer_config_json_or_empty,
                                                             absl::string_view source_path);

}  // namespace nibble::text

#endif  // NIBBLE_CORE_TEXT_HF_JSON_H_
