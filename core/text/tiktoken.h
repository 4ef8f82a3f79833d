// Tokenizers from tiktoken's vocabulary file: the tokenizer.model of Llama 3, a line for
// each token, its bytes in Base64, a space and its rank.
#ifndef NIBBLE_CORE_TEXT_TIKTOKEN_H_
#define NIBBLE_CORE_TEXT_TIKTOKEN_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/text/tokenizer.h"

namespace nibble::text {

// Whether the contents of a tokenizer.model are text, as tiktoken's, and not a
// SentencePiece model, whose first byte is a newline.
bool IsTiktoken(absl::string_view tokenizer_model);

// Reads the contents of tokenizer.model; those of tokenizer_config.json may be "".
// `source_path` starts every error message, with the line where there is one. Ids are
// ranks; of the neighbours in a word those merge first whose bytes together have the
// lowest rank, and a word that is a token is not cut.
//
// The file holds neither the pattern that cuts words nor special tokens. Both are those of
// Meta's reference tokenizer for Llama 3.x: 256 special tokens after the last rank, BOS
// <|begin_of_text|>, EOS <|end_of_text|>, a BOS before a text. The config's bos_token,
// eos_token, add_bos_token and, for the names of special tokens, added_tokens_decoder go
// before that.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromTiktoken(absl::string_view tokenizer_model,
                                                                 absl::string_view tokenizer_config_json_or_empty,
                                                                 absl::string_view source_path);

// The tokenizer as such a file, with which Meta's reference tokenizer gives the same ids. An
// error that says why where it would not: another kind of tokenizer or pattern, merges that
// are not those of the ranks, other special tokens. Only the names of reserved tokens, which
// no text holds, may differ, as Hugging Face's do from Meta's.
absl::StatusOr<std::string> ToTiktoken(const Tokenizer& tokenizer);

}  // namespace nibble::text

#endif  // NIBBLE_CORE_TEXT_TIKTOKEN_H_
