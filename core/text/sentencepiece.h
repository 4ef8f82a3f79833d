// SentencePiece-style byte-pair encoding: Llama 1 and 2, llama2.c. Words are not
// cut apart first; a space is the character U+2581, and a character that is no
// piece becomes the pieces of its bytes.
#ifndef NIBBLE_CORE_TEXT_SENTENCEPIECE_H_
#define NIBBLE_CORE_TEXT_SENTENCEPIECE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/text/added_tokens.h"
#include "core/text/tokenizer.h"

namespace nibble::text {

// U+2581, which stands for a space in a piece.
inline constexpr absl::string_view kSpaceMark = "\xE2\x96\x81";

// What a GGUF file with tokenizer.ggml.model "llama" holds; by id.
//
// Only normal pieces take part in merging. Control, unknown and user-defined pieces
// are found in the text as they stand, byte pieces (spelled "<0x0A>") come from the
// fallback, unused pieces are never produced.
struct SpmVocabulary {
  std::vector<std::string> pieces;
  std::vector<float> scores;  // the higher goes first
  std::vector<int32_t> types;  // TokenType
  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;
  std::optional<int32_t> unk_id;  // for characters, where there are no byte pieces
  bool add_bos = true;
  bool add_space_prefix = true;  // each stretch of text gets a space before it
  // Which of them do not, as tokenizer.json's Metaspace has it (transformers' legacy: false):
  // those after a token in the text, and those that begin with a space.
  bool prefix_start_only = false, prefix_unless_space = false;
};

// The tokenizer merges the two neighbouring pieces whose concatenation is the piece
// of the best score, the leftmost of equals, until there are none. Its Decode drops
// the one space that the prefix put before the text and after each added token, so
// that it is the inverse of Encode, but for a U+2581 in the text, which comes back
// as a space.
//
// A tokenizer.json lists merges in a strict order. ToJson orders pieces of equal
// scores by id; for such vocabularies alone the tokenizer that is read back can
// differ, where two of those pieces compete.
//
// An error when the lists differ in length, a piece is there twice, a score is not
// a number, a type is unknown, an id is outside the vocabulary, U+2581 is missing,
// only some of the byte pieces are there, or none are and no unknown piece either.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSpm(SpmVocabulary vocabulary);

// "<0x0A>" for 10.
std::string BytePiece(uint8_t byte);

}  // namespace nibble::text

#endif  // NIBBLE_CORE_TEXT_SENTENCEPIECE_H_
