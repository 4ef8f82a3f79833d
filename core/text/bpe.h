// Byte-level byte-pair encoding: GPT-2, Llama 3, SmolLM.
#ifndef NIBBLE_CORE_TEXT_BPE_H_
#define NIBBLE_CORE_TEXT_BPE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/text/added_tokens.h"
#include "core/text/pre_tokenizer.h"
#include "core/text/tokenizer.h"

namespace nibble::text {

// What a GGUF file or a tokenizer.json holds. Tokens are spelled in the byte-level
// alphabet (byte_alphabet.h), added tokens as their text.
struct BpeVocabulary {
  std::vector<std::string> tokens;                          // by id
  std::vector<std::pair<std::string, std::string>> merges;  // the first goes first
  PreTokenizer pre_tokenizer = PreTokenizer::kGpt2;
  bool ignore_merges = false;  // a word that is a token takes it without merging
  std::vector<AddedToken> added_tokens;
  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;
  std::optional<int32_t> unk_id;  // for a byte that has no token
  bool add_bos = false;
  std::vector<int32_t> types;  // GGUF's, by id; empty: what added_tokens say
};

// "a b", as GGUF and older tokenizer.json files write a merge, to its two sides.
absl::StatusOr<std::pair<std::string, std::string>> ParseMerge(absl::string_view merge);

// An error when a token is there twice, a merge's side or result is not a token, a
// merge is there twice, an id is outside the vocabulary, or a printable ASCII
// character, the space or the newline has no token (then the vocabulary is not
// byte-level). Other bytes may lack one, as SmolLM2's do: Encode replaces them by
// unk_id, or drops them when there is none.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeBpe(BpeVocabulary vocabulary);

}  // namespace nibble::text

#endif  // NIBBLE_CORE_TEXT_BPE_H_
