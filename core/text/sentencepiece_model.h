// Tokenizers from SentencePiece's model file: the tokenizer.model of Llama 2 and
// Mistral, and what SentencePiece's trainer writes.
#ifndef NIBBLE_CORE_TEXT_SENTENCEPIECE_MODEL_H_
#define NIBBLE_CORE_TEXT_SENTENCEPIECE_MODEL_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/text/tokenizer.h"

namespace nibble::text {

// Reads the contents of tokenizer.model; those of tokenizer_config.json may be "".
// `source_path` starts every error message. Read are BPE models that change nothing
// in a text but its spaces, each to a U+2581. Everything else that would change the
// ids is an Unimplemented error that names it: other model types and normalizers,
// unused and user-defined pieces, pieces with a character that is no piece.
//
// The ids are SentencePiece's but for what tokenizer.h says: the spelling of a control
// or unknown piece in a text becomes that piece, and a byte that is not part of
// well-formed UTF-8 becomes its byte piece instead of U+FFFD's.
//
// BOS and EOS come from tokenizer_config.json (bos_token, eos_token), else from the
// model file. A BOS is added where there is one, unless add_bos_token says otherwise.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromSentencePiece(absl::string_view tokenizer_model,
                                                                      absl::string_view tokenizer_config_json_or_empty,
                                                                      absl::string_view source_path);

}  // namespace nibble::text

#endif  // NIBBLE_CORE_TEXT_SENTENCEPIECE_MODEL_H_
