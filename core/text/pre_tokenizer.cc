#include "core/text/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string>

#include "core/base/check.h"
#include "core/base/suggest.h"
#include "core/text/utf8.h"

namespace nibble::text {
namespace {

// White space is the Unicode property: PCRE2's \s also holds U+180E, which the
// libraries that the vocabularies were made with do not count as a space.
#define NIBBLE_SPACE "\\p{White_Space}"
#define NIBBLE_NOT_SPACE "\\P{White_Space}"
#define NIBBLE_OTHER "[^" NIBBLE_SPACE "\\p{L}\\p{N}]"

constexpr char kGpt2Pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?" NIBBLE_OTHER "+|" NIBBLE_SPACE "+(?!" NIBBLE_NOT_SPACE
    ")|" NIBBLE_SPACE "+";

constexpr char kLlama3Pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?" NIBBLE_OTHER "+[\\r\\n]*|" NIBBLE_SPACE
    "*[\\r\\n]+|" NIBBLE_SPACE "+(?!" NIBBLE_NOT_SPACE ")|" NIBBLE_SPACE "+";

// GPT-2's rule between numeric characters, in one pattern: a numeric character ends
// the stretch before it, hence no space joins it and spaces before it stay together.
constexpr char kSmolLmPattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d|\\p{N}| ?\\p{L}+| ?" NIBBLE_OTHER "+|" NIBBLE_SPACE "+(?![^" NIBBLE_SPACE
    "\\p{N}])|" NIBBLE_SPACE "+";

#undef NIBBLE_SPACE
#undef NIBBLE_NOT_SPACE
#undef NIBBLE_OTHER

absl::string_view Pattern(PreTokenizer kind) {
  switch (kind) {
    case PreTokenizer::kGpt2: return kGpt2Pattern;
    case PreTokenizer::kLlama3: return kLlama3Pattern;
    case PreTokenizer::kSmolLm: return kSmolLmPattern;
  }
  return kGpt2Pattern;
}

struct MatchDataDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
using MatchData = std::unique_ptr<pcre2_match_data, MatchDataDeleter>;

}  // namespace

absl::string_view GgufNameOf(PreTokenizer kind) {
  switch (kind) {
    case PreTokenizer::kGpt2: return "gpt-2";
    case PreTokenizer::kLlama3: return "llama-bpe";
    case PreTokenizer::kSmolLm: return "smollm";
  }
  return "";
}

absl::StatusOr<PreTokenizer> PreTokenizerFromGgufName(absl::string_view name) {
  if (name.empty() || name == "default" || name == "gpt-2") return PreTokenizer::kGpt2;
  if (name == "llama-bpe" || name == "llama3" || name == "llama-v3") return PreTokenizer::kLlama3;
  if (name == "smollm") return PreTokenizer::kSmolLm;
  return absl::UnimplementedError(
      UnknownName("tokenizer.ggml.pre", name, {"default", "gpt-2", "llama-bpe", "smollm"}));
}

struct WordSplitter::Regex {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;

  // Bytes of the word that `text` has at `offset`; the rest of it when the match is
  // given up or, which no pattern does, is empty.
  size_t WordLength(absl::string_view text, size_t offset, pcre2_match_data* data) const {
    const int found = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), offset,
                                  PCRE2_NO_UTF_CHECK | PCRE2_ANCHORED, data, context);
    const size_t end = found > 0 ? pcre2_get_ovector_pointer(data)[1] : text.size();
    return end > offset ? end - offset : text.size() - offset;
  }
};

WordSplitter::WordSplitter(PreTokenizer kind, uint32_t match_limit) : regex_(std::make_unique<Regex>()) {
  const absl::string_view pattern = Pattern(kind);
  int error = 0;
  PCRE2_SIZE error_offset = 0;
  regex_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP,
                               &error, &error_offset, nullptr);
  NIBBLE_CHECK(regex_->code != nullptr);
  pcre2_jit_compile(regex_->code, PCRE2_JIT_COMPLETE);  // Matching falls back to the interpreter without it.
  regex_->context = pcre2_match_context_create(nullptr);
  NIBBLE_CHECK(regex_->context != nullptr);
  pcre2_set_match_limit(regex_->context, match_limit);
}

WordSplitter::~WordSplitter() {
  pcre2_match_context_free(regex_->context);
  pcre2_code_free(regex_->code);
}

void WordSplitter::Split(absl::string_view text, absl::FunctionRef<void(absl::string_view)> on_word) const {
  const MatchData data(pcre2_match_data_create(1, nullptr));
  NIBBLE_CHECK(data != nullptr);
  while (!text.empty()) {
    const absl::string_view valid = text.substr(0, Utf8PrefixLength(text));
    for (size_t offset = 0; offset < valid.size();) {
      const size_t length = regex_->WordLength(valid, offset, data.get());
      on_word(valid.substr(offset, length));
      offset += length;
    }
    text.remove_prefix(valid.size());
    if (text.empty()) return;
    on_word(text.substr(0, 1));
    text.remove_prefix(1);
  }
}

}  // namespace nibble::text
