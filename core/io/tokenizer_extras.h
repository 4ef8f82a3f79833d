// What a model's files say of its tokenizer beside the vocabulary. Scores need none of it;
// programs that chat with a written model do.
#ifndef NIBBLE_CORE_IO_TOKENIZER_EXTRAS_H_
#define NIBBLE_CORE_IO_TOKENIZER_EXTRAS_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/text/tokenizer.h"

namespace nibble::io {

struct TokenizerExtras {
  std::string chat_template;             // Jinja; "" for none
  std::map<std::string, int32_t> ids;    // by GGUF's keys: "padding_token_id", "eot_token_id" ...
  std::optional<bool> add_eos;
};

// From `files`, those that a model was read from: a GGUF file's metadata, or a folder's
// tokenizer_config.json and chat_template.jinja. Nothing where they say nothing.
absl::StatusOr<TokenizerExtras> ReadTokenizerExtras(const std::vector<std::string>& files, const text::Tokenizer* tokenizer);

// The tokenizer's tokenizer_config.json with them.
std::string TokenizerConfigJson(const text::Tokenizer& tokenizer, const TokenizerExtras& extras);

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_TOKENIZER_EXTRAS_H_
