// Text to token ids and back.
#ifndef NIBBLE_CORE_TEXT_TOKENIZER_H_
#define NIBBLE_CORE_TEXT_TOKENIZER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace nibble::text {

// What a GGUF file says of a tokenizer, its tokenizer.ggml.* metadata.
struct GgufVocabulary {
  std::string model;                // "gpt2": byte-level BPE; "llama": SentencePiece-style
  std::string pre;                  // gpt2: the name of its pre-tokenizer
  std::vector<std::string> tokens;  // by id
  std::vector<int32_t> types;       // TokenType of each
  std::vector<float> scores;        // llama
  std::vector<std::string> merges;  // gpt2: "left right", the first goes first
  std::optional<int32_t> bos_id, eos_id, unk_id;
  bool add_bos = false;
  std::optional<bool> add_space_prefix;  // llama
};

// A tokenizer is immutable; all its functions may be called from many threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // The ids of `utf8`. No BOS or EOS is added. The text of an added (special)
  // token becomes that token wherever it occurs, the leftmost and then the
  // longest one first.
  //
  // Any bytes are accepted. A byte that is not part of well-formed UTF-8 becomes
  // the token of that byte alone, as far as the vocabulary has one (bpe.h and
  // sentencepiece.h say what happens if not), and nothing merges across it.
  virtual std::vector<int32_t> Encode(absl::string_view utf8) const = 0;

  // The bytes that `ids` stand for; special tokens give their text, an id outside
  // the vocabulary gives nothing. The result of decoding a part of a text can end
  // within a UTF-8 character.
  virtual std::string Decode(absl::Span<const int32_t> ids) const = 0;

  // Ids are 0 .. vocabulary_size() - 1. A model may have more rows than that.
  virtual int32_t vocabulary_size() const = 0;

  virtual std::optional<int32_t> bos_id() const = 0;
  virtual std::optional<int32_t> eos_id() const = 0;

  // Whether the file that the tokenizer came from asks for a BOS before a text.
  virtual bool adds_bos() const = 0;

  // The contents of a Hugging Face tokenizer.json which TokenizerFromJson (without
  // a config) reads back to an equal tokenizer.
  virtual std::string ToJson() const = 0;

  // The contents of the tokenizer_config.json beside it: BOS, EOS, add_bos_token.
  virtual std::string ToConfigJson() const = 0;

  // The same for a GGUF file. Unimplemented where GGUF has no words for it.
  virtual absl::StatusOr<GgufVocabulary> ToGguf() const { return absl::UnimplementedError("this tokenizer has no GGUF form"); }
};

}  // namespace nibble::text

#endif  // NIBBLE_CORE_TEXT_TOKENIZER_H_
