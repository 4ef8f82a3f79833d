#include "core/text/sentencepiece.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "core/base/status.h"
#include "core/text/json_parts.h"
#include "core/text/merge_table.h"
#include "core/text/utf8.h"
#include "core/text/vocabulary.h"
#include "core/text/word_cache.h"

namespace nibble::text {
namespace {

using Json = nlohmann::json;

class SpmTokenizer : public Tokenizer {
 public:
  explicit SpmTokenizer(SpmVocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}

  // Checks the vocabulary and builds the tables.
  absl::Status Init();

  std::vector<int32_t> Encode(absl::string_view utf8) const override;
  std::string Decode(absl::Span<const int32_t> ids) const override;
  int32_t vocabulary_size() const override { return static_cast<int32_t>(vocabulary_.pieces.size()); }
  std::optional<int32_t> bos_id() const override { return vocabulary_.bos_id; }
  std::optional<int32_t> eos_id() const override { return vocabulary_.eos_id; }
  bool adds_bos() const override { return vocabulary_.add_bos; }
  std::string ToJson() const override;
  std::string ToConfigJson() const override { return ConfigJson(vocabulary_.pieces, bos_and_eos()); }
  absl::StatusOr<GgufVocabulary> ToGguf() const override;

 private:
  // Bounds the work of looking at all the ways to cut a piece in two.
  static constexpr size_t kLongestPiece = 1024;

  absl::Status CheckLists() const;
  absl::Status InitBytePieces();
  absl::Status InitAddedTokens();
  absl::Status InitMerges();
  void AddMergesOf(int32_t id, int32_t rank);
  TokenType Type(int32_t id) const { return static_cast<TokenType>(vocabulary_.types[id]); }
  std::optional<int32_t> FindNormal(absl::string_view piece) const;

  void AppendText(absl::string_view text, bool is_start, WordCache* cache, std::vector<int32_t>* ids) const;
  void AppendWord(absl::string_view word, bool add_space, std::vector<int32_t>* ids) const;
  void AppendCharacter(absl::string_view character, std::vector<int32_t>* symbols) const;
  bool EndsStretch(int32_t id) const;

  BosAndEos bos_and_eos() const { return {vocabulary_.bos_id, vocabulary_.eos_id, vocabulary_.add_bos}; }
  Json ModelJson() const;

  SpmVocabulary vocabulary_;
  TokenIndex index_;
  std::vector<AddedToken> added_tokens_;
  AddedTokenMatcher matcher_;
  int32_t space_id_ = 0;
  bool has_bytes_ = false;
  std::array<int32_t, 256> byte_ids_{};
  absl::flat_hash_map<int32_t, uint8_t> byte_values_;  // the inverse
  std::vector<std::pair<int32_t, int32_t>> merges_;  // the first goes first
  MergeTable merge_table_;
  // No piece has a space after another character, so that no merge crosses such a
  // place and the words between them can be encoded one by one.
  bool words_are_independent_ = true;
};

bool IsSpace(absl::string_view character) { return character == " " || character == kSpaceMark; }

// The character that `text` starts with, or one byte that starts none.
absl::string_view FirstCharacter(absl::string_view text) {
  return text.substr(0, std::max<size_t>(1, Utf8CharacterLength(text)));
}

std::string WithSpaces(absl::string_view piece) { return absl::StrReplaceAll(piece, {{kSpaceMark, " "}}); }

// Bytes of spaces that the text starts with, then of others up to the next space.
size_t SpacesAndWordLength(absl::string_view text) {
  size_t length = 0;
  bool in_word = false;
  while (length < text.size()) {
    const absl::string_view character = FirstCharacter(text.substr(length));
    if (in_word && IsSpace(character)) break;
    in_word = in_word || !IsSpace(character);
    length += character.size();
  }
  return length;
}

absl::Status SpmTokenizer::CheckLists() const {
  const size_t size = vocabulary_.pieces.size();
  if (vocabulary_.scores.size() != size || vocabulary_.types.size() != size) {
    return absl::InvalidArgumentError(absl::StrCat(size, " pieces, but ", vocabulary_.scores.size(), " scores and ",
                                                   vocabulary_.types.size(), " types"));
  }
  for (size_t i = 0; i < size; ++i) {
    if (std::isnan(vocabulary_.scores[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat("the score of piece ", i, " (", Quoted(vocabulary_.pieces[i]), ") is not a number"));
    }
    if (vocabulary_.types[i] < 1 || vocabulary_.types[i] > 6) {
      return absl::InvalidArgumentError(absl::StrCat("piece ", i, " (", Quoted(vocabulary_.pieces[i]), ") has type ",
                                                     vocabulary_.types[i], "; types are 1 to 6"));
    }
  }
  return absl::OkStatus();
}

absl::Status SpmTokenizer::Init() {
  NIBBLE_RETURN_IF_ERROR(CheckLists());
  NIBBLE_ASSIGN_OR_RETURN(index_, IndexTokens(vocabulary_.pieces));
  const size_t size = vocabulary_.pieces.size();
  NIBBLE_RETURN_IF_ERROR(CheckBosAndEos(vocabulary_.bos_id, vocabulary_.eos_id, vocabulary_.add_bos, size));
  NIBBLE_RETURN_IF_ERROR(CheckId("unknown piece", vocabulary_.unk_id, size));
  const std::optional<int32_t> space = FindNormal(kSpaceMark);
  if (!space.has_value()) {
    return absl::InvalidArgumentError("the vocabulary has no normal piece U+2581, which stands for a space");
  }
  space_id_ = *space;
  NIBBLE_RETURN_IF_ERROR(InitBytePieces());
  NIBBLE_RETURN_IF_ERROR(InitAddedTokens());
  return InitMerges();
}

absl::Status SpmTokenizer::InitBytePieces() {
  int found = 0;
  std::string missing;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string piece = BytePiece(static_cast<uint8_t>(byte));
    const auto it = index_.find(piece);
    if (it != index_.end() && Type(it->second) == TokenType::kByte) {
      byte_ids_[byte] = it->second;
      byte_values_[it->second] = static_cast<uint8_t>(byte);
      ++found;
    } else {
      missing = piece;
    }
  }
  has_bytes_ = found == 256;
  const std::vector<int32_t>& types = vocabulary_.types;
  const auto marked = std::count(types.begin(), types.end(), static_cast<int32_t>(TokenType::kByte));
  if (found != marked) {
    return absl::InvalidArgumentError(
        absl::StrCat(marked, " pieces have the type byte, but ", found, " of them are spelled as <0x00> to <0xFF>"));
  }
  if (found > 0 && !has_bytes_) {
    return absl::InvalidArgumentError(absl::StrCat("there are byte pieces, but ", missing, " is missing"));
  }
  if (!has_bytes_ && !vocabulary_.unk_id.has_value()) {
    return absl::InvalidArgumentError("there are neither byte pieces nor an unknown piece");
  }
  return absl::OkStatus();
}

absl::Status SpmTokenizer::InitAddedTokens() {
  for (int32_t id = 0; id < vocabulary_size(); ++id) {
    const TokenType type = Type(id);
    if (type != TokenType::kControl && type != TokenType::kUnknown && type != TokenType::kUserDefined) continue;
    added_tokens_.push_back({id, vocabulary_.pieces[id], type != TokenType::kUserDefined});
  }
  NIBBLE_RETURN_IF_ERROR(CheckAddedTokens(added_tokens_, vocabulary_.pieces));
  std::vector<AddedToken> in_text = added_tokens_;
  for (AddedToken& token : in_text) token.content = WithSpaces(token.content);
  matcher_ = AddedTokenMatcher(in_text);
  return absl::OkStatus();
}

std::optional<int32_t> SpmTokenizer::FindNormal(absl::string_view piece) const {
  const auto it = index_.find(piece);
  if (it == index_.end() || Type(it->second) != TokenType::kNormal) return std::nullopt;
  return it->second;
}

// Pieces of equal scores get the same rank, so that the leftmost of them goes first.
absl::Status SpmTokenizer::InitMerges() {
  std::vector<int32_t> order;
  for (int32_t id = 0; id < vocabulary_size(); ++id) {
    if (Type(id) != TokenType::kNormal) continue;
    if (vocabulary_.pieces[id].size() > kLongestPiece) {
      return absl::InvalidArgumentError(absl::StrCat("piece ", id, " has ", vocabulary_.pieces[id].size(),
                                                     " bytes; at most ", kLongestPiece, " are supported"));
    }
    order.push_back(id);
  }
  const std::vector<float>& scores = vocabulary_.scores;
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  int32_t rank = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && scores[order[i]] != scores[order[i - 1]]) ++rank;
    AddMergesOf(order[i], rank);
  }
  return absl::OkStatus();
}

void SpmTokenizer::AddMergesOf(int32_t id, int32_t rank) {
  const absl::string_view piece = vocabulary_.pieces[id];
  bool after_space = true;
  for (size_t i = 0; i < piece.size();) {
    const absl::string_view character = FirstCharacter(piece.substr(i));
    if (IsSpace(character) && !after_space) words_are_independent_ = false;
    after_space = IsSpace(character);
    i += character.size();
    if (i == piece.size()) break;
    const std::optional<int32_t> left = FindNormal(piece.substr(0, i));
    const std::optional<int32_t> right = FindNormal(piece.substr(i));
    if (!left.has_value() || !right.has_value()) continue;
    merge_table_.Add(*left, *right, rank, id);
    merges_.emplace_back(*left, *right);
  }
}

std::vector<int32_t> SpmTokenizer::Encode(absl::string_view utf8) const {
  std::vector<int32_t> ids;
  WordCache cache(&ids);
  matcher_.Split(
      utf8, [&](absl::string_view text) { AppendText(text, text.data() == utf8.data(), &cache, &ids); },
      [&](int32_t id) { ids.push_back(id); });
  return ids;
}

// The first word is not in the cache: the space before it is not in the text.
void SpmTokenizer::AppendText(absl::string_view text, bool is_start, WordCache* cache, std::vector<int32_t>* ids) const {
  bool add_space = vocabulary_.add_space_prefix && (is_start || !vocabulary_.prefix_start_only) &&
                   !(vocabulary_.prefix_unless_space && IsSpace(FirstCharacter(text)));
  while (!text.empty()) {
    const size_t length = words_are_independent_ ? SpacesAndWordLength(text) : text.size();
    const absl::string_view word = text.substr(0, length);
    if (add_space) {
      AppendWord(word, true, ids);
    } else {
      cache->Append(word, [&](absl::string_view w) { AppendWord(w, false, ids); });
    }
    add_space = false;
    text.remove_prefix(length);
  }
}

void SpmTokenizer::AppendWord(absl::string_view word, bool add_space, std::vector<int32_t>* ids) const {
  std::vector<int32_t> symbols;
  if (add_space) symbols.push_back(space_id_);
  while (!word.empty()) {
    const absl::string_view character = FirstCharacter(word);
    AppendCharacter(character, &symbols);
    word.remove_prefix(character.size());
  }
  merge_table_.Apply(&symbols);
  ids->insert(ids->end(), symbols.begin(), symbols.end());
}

void SpmTokenizer::AppendCharacter(absl::string_view character, std::vector<int32_t>* symbols) const {
  if (IsSpace(character)) return symbols->push_back(space_id_);
  const std::optional<int32_t> id = FindNormal(character);
  if (id.has_value()) return symbols->push_back(*id);
  if (has_bytes_) {
    for (char byte : character) symbols->push_back(byte_ids_[static_cast<uint8_t>(byte)]);
  } else if (symbols->empty() || symbols->back() != *vocabulary_.unk_id) {
    symbols->push_back(*vocabulary_.unk_id);
  }
}

// Whether Encode puts a prefix before the text that follows the token. The unknown
// piece is found in a text where it cannot stand for an unknown character.
bool SpmTokenizer::EndsStretch(int32_t id) const {
  const TokenType type = Type(id);
  return type == TokenType::kControl || type == TokenType::kUserDefined ||
         (type == TokenType::kUnknown && has_bytes_);
}

std::string SpmTokenizer::Decode(absl::Span<const int32_t> ids) const {
  std::string bytes;
  bool drop_space = vocabulary_.add_space_prefix;
  for (int32_t id : ids) {
    if (id < 0 || id >= vocabulary_size()) continue;
    const std::string& piece = vocabulary_.pieces[id];
    const bool ends_stretch = EndsStretch(id);
    if (Type(id) == TokenType::kByte) {
      bytes.push_back(static_cast<char>(byte_values_.at(id)));
    } else if (Type(id) == TokenType::kControl || Type(id) == TokenType::kUnknown) {
      bytes += piece;
    } else {
      const std::string text = WithSpaces(piece);
      const bool drop = drop_space && !ends_stretch && text[0] == ' ';
      bytes.append(text, drop ? 1 : 0, std::string::npos);
    }
    drop_space = ends_stretch && vocabulary_.add_space_prefix && !vocabulary_.prefix_start_only;
  }
  return bytes;
}

Json ReplaceJson(absl::string_view from, absl::string_view to) {
  return {{"type", "Replace"}, {"pattern", {{"String", std::string(from)}}}, {"content", std::string(to)}};
}

Json MetaspaceJson(bool start_only) {
  return {{"type", "Metaspace"}, {"replacement", std::string(kSpaceMark)}, {"prepend_scheme", start_only ? "first" : "always"}, {"split", false}};
}

Json NormalizerJson(bool add_space_prefix) {
  Json steps = Json::array();
  if (add_space_prefix) steps.push_back({{"type", "Prepend"}, {"prepend", std::string(kSpaceMark)}});
  steps.push_back(ReplaceJson(" ", kSpaceMark));
  return {{"type", "Sequence"}, {"normalizers", std::move(steps)}};
}

Json DecoderJson(bool has_bytes, bool add_space_prefix) {
  Json steps = Json::array({ReplaceJson(kSpaceMark, " ")});
  if (has_bytes) steps.push_back({{"type", "ByteFallback"}});
  steps.push_back({{"type", "Fuse"}});
  if (add_space_prefix) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", std::move(steps)}};
}

Json SpmTokenizer::ModelJson() const {
  Json merges = Json::array();
  for (const auto& [left, right] : merges_) {
    merges.push_back(absl::StrCat(vocabulary_.pieces[left], " ", vocabulary_.pieces[right]));
  }
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", vocabulary_.unk_id.has_value() ? Json(vocabulary_.pieces[*vocabulary_.unk_id]) : Json()},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", true},
          {"byte_fallback", has_bytes_},
          {"ignore_merges", false},
          {"vocab", VocabularyJson(vocabulary_.pieces)},
          {"merges", std::move(merges)}};
}

absl::StatusOr<GgufVocabulary> SpmTokenizer::ToGguf() const {
  GgufVocabulary gguf;
  gguf.model = "llama";
  gguf.tokens = vocabulary_.pieces;
  gguf.types = vocabulary_.types;
  gguf.scores = vocabulary_.scores;
  gguf.bos_id = vocabulary_.bos_id;
  gguf.eos_id = vocabulary_.eos_id;
  gguf.unk_id = vocabulary_.unk_id;
  gguf.add_bos = vocabulary_.add_bos;
  gguf.add_space_prefix = vocabulary_.add_space_prefix;
  return gguf;
}

std::string SpmTokenizer::ToJson() const {
  const bool metaspace = vocabulary_.add_space_prefix && (vocabulary_.prefix_start_only || vocabulary_.prefix_unless_space);
  return TokenizerJson(AddedTokensJson(added_tokens_), metaspace ? Json() : NormalizerJson(vocabulary_.add_space_prefix),
                       metaspace ? MetaspaceJson(vocabulary_.prefix_start_only) : Json(),
                       PostProcessorJson(vocabulary_.pieces, bos_and_eos()),
                       DecoderJson(has_bytes_, vocabulary_.add_space_prefix), ModelJson());
}

}  // namespace

std::string BytePiece(uint8_t byte) { return absl::StrFormat("<0x%02X>", byte); }

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSpm(SpmVocabulary vocabulary) {
  auto tokenizer = std::make_unique<SpmTokenizer>(std::move(vocabulary));
  NIBBLE_RETURN_IF_ERROR(tokenizer->Init());
  return tokenizer;
}

}  // namespace nibble::text
