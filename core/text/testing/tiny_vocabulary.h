// Vocabularies small enough to work out by hand what they do to a text.
#ifndef NIBBLE_CORE_TEXT_TESTING_TINY_VOCABULARY_H_
#define NIBBLE_CORE_TEXT_TESTING_TINY_VOCABULARY_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "core/text/bpe.h"
#include "core/text/byte_alphabet.h"
#include "core/text/sentencepiece.h"

namespace nibble::text {

// Token b is byte b; then the results of `merges` follow in their order, then
// "<|end|>", which is BOS and EOS.
inline BpeVocabulary TinyBpe(std::vector<std::pair<std::string, std::string>> merges) {
  BpeVocabulary vocabulary;
  for (int byte = 0; byte < 256; ++byte) vocabulary.tokens.emplace_back(ByteSpelling(static_cast<uint8_t>(byte)));
  for (const auto& [left, right] : merges) vocabulary.tokens.push_back(left + right);
  vocabulary.merges = std::move(merges);
  const int32_t end = static_cast<int32_t>(vocabulary.tokens.size());
  vocabulary.tokens.push_back("<|end|>");
  vocabulary.added_tokens.push_back({end, "<|end|>", true});
  vocabulary.bos_id = vocabulary.eos_id = end;
  return vocabulary;
}

// Ids 0 to 2 are <unk>, <s>, </s>, 3 to 258 the bytes, 259 is the space; then
// `pieces` with their scores follow.
inline SpmVocabulary TinySpm(const std::vector<std::pair<std::string, float>>& pieces) {
  SpmVocabulary vocabulary;
  const auto add = [&](std::string piece, float score, TokenType type) {
    vocabulary.pieces.push_back(std::move(piece));
    vocabulary.scores.push_back(score);
    vocabulary.types.push_back(static_cast<int32_t>(type));
  };
  add("<unk>", 0, TokenType::kUnknown);
  add("<s>", 0, TokenType::kControl);
  add("</s>", 0, TokenType::kControl);
  for (int byte = 0; byte < 256; ++byte) add(BytePiece(static_cast<uint8_t>(byte)), 0, TokenType::kByte);
  add(std::string(kSpaceMark), -1000, TokenType::kNormal);
  for (const auto& [piece, score] : pieces) add(piece, score, TokenType::kNormal);
  vocabulary.unk_id = 0;
  vocabulary.bos_id = 1;
  vocabulary.eos_id = 2;
  return vocabulary;
}

// tiktoken's tokenizer.model: byte b has rank b, then `tokens` follow.
inline std::string TinyTiktoken(const std::vector<std::string>& tokens) {
  std::string model;
  int rank = 0;
  const auto add = [&](const std::string& token) { absl::StrAppend(&model, absl::Base64Escape(token), " ", rank++, "\n"); };
  for (int byte = 0; byte < 256; ++byte) add(std::string(1, static_cast<char>(byte)));
  for (const std::string& token : tokens) add(token);
  return model;
}

}  // namespace nibble::text

#endif  // NIBBLE_CORE_TEXT_TESTING_TINY_VOCABULARY_H_
