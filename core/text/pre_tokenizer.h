// Cuts a text into the words within which byte-level BPE merges.
#ifndef NIBBLE_CORE_TEXT_PRE_TOKENIZER_H_
#define NIBBLE_CORE_TEXT_PRE_TOKENIZER_H_

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble::text {

enum class PreTokenizer {
  kGpt2,    // contractions, letters, digits, others, each with a space before it
  kLlama3,  // contractions in any case, up to three digits, newlines apart
  kSmolLm,  // every numeric character (Nd, Nl, No) alone, GPT-2's rule between them
};

// The rule that GGUF's tokenizer.ggml.pre names. "" (the key is absent) and
// "default" are GPT-2's.
absl::StatusOr<PreTokenizer> PreTokenizerFromGgufName(absl::string_view name);

// The name that GGUF has for it.
absl::string_view GgufNameOf(PreTokenizer kind);

// Whether a word that is a token as a whole takes that token without merging. GGUF
// does not say so itself; it is part of the rule.
inline bool IgnoresMergesInGguf(PreTokenizer kind) { return kind == PreTokenizer::kLlama3; }

// The compiled rule. Immutable and safe to share between threads.
class WordSplitter {
 public:
  // As many steps as one match may take before it is given up.
  static constexpr uint32_t kMatchLimit = 1u << 30;

  explicit WordSplitter(PreTokenizer kind, uint32_t match_limit = kMatchLimit);
  ~WordSplitter();
  WordSplitter(const WordSplitter&) = delete;
  WordSplitter& operator=(const WordSplitter&) = delete;

  // Calls `on_word` for the words of `text`, which together are the text. A byte
  // that is not part of well-formed UTF-8 is a word; the rule sees the text's end
  // before it. Where a match is given up, the rest of the text up to the next such
  // byte is one word.
  void Split(absl::string_view text, absl::FunctionRef<void(absl::string_view)> on_word) const;

 private:
  struct Regex;
  std::unique_ptr<Regex> regex_;
};

}  // namespace nibble::text

#endif  // NIBBLE_CORE_TEXT_PRE_TOKENIZER_H_
