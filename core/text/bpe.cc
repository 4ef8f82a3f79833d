#include "core/text/bpe.h"

#include <array>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/text/byte_alphabet.h"
#include "core/text/json_parts.h"
#include "core/text/merge_table.h"
#include "core/text/vocabulary.h"
#include "core/text/word_cache.h"

namespace nibble::text {
namespace {

using Json = nlohmann::json;

class BpeTokenizer : public Tokenizer {
 public:
  explicit BpeTokenizer(BpeVocabulary vocabulary)
      : vocabulary_(std::move(vocabulary)), splitter_(vocabulary_.pre_tokenizer) {}

  // Checks the vocabulary and builds the tables.
  absl::Status Init();

  std::vector<int32_t> Encode(absl::string_view utf8) const override;
  std::string Decode(absl::Span<const int32_t> ids) const override;
  int32_t vocabulary_size() const override { return static_cast<int32_t>(vocabulary_.tokens.size()); }
  std::optional<int32_t> bos_id() const override { return vocabulary_.bos_id; }
  std::optional<int32_t> eos_id() const override { return vocabulary_.eos_id; }
  bool adds_bos() const override { return vocabulary_.add_bos; }
  std::string ToJson() const override;
  std::string ToConfigJson() const override { return ConfigJson(vocabulary_.tokens, bos_and_eos()); }
  absl::StatusOr<GgufVocabulary> ToGguf() const override;

 private:
  static constexpr int32_t kNoToken = -1;

  absl::Status InitAddedTokens();
  absl::Status InitByteTokens();
  absl::Status InitMerges();
  void AppendWord(absl::string_view word, std::vector<int32_t>* symbols, std::vector<int32_t>* ids) const;
  BosAndEos bos_and_eos() const { return {vocabulary_.bos_id, vocabulary_.eos_id, vocabulary_.add_bos}; }
  Json ModelJson() const;

  BpeVocabulary vocabulary_;  // `merges` is emptied once `merges_` holds them
  const WordSplitter splitter_;
  TokenIndex index_;
  AddedTokenMatcher matcher_;
  std::vector<bool> is_added_;
  std::array<int32_t, 256> byte_tokens_;
  std::vector<std::pair<int32_t, int32_t>> merges_;
  MergeTable merge_table_;
};

absl::Status BpeTokenizer::Init() {
  NIBBLE_ASSIGN_OR_RETURN(index_, IndexTokens(vocabulary_.tokens));
  const size_t size = vocabulary_.tokens.size();
  NIBBLE_RETURN_IF_ERROR(CheckBosAndEos(vocabulary_.bos_id, vocabulary_.eos_id, vocabulary_.add_bos, size));
  NIBBLE_RETURN_IF_ERROR(CheckId("unknown token", vocabulary_.unk_id, size));
  NIBBLE_RETURN_IF_ERROR(InitAddedTokens());
  NIBBLE_RETURN_IF_ERROR(InitByteTokens());
  return InitMerges();
}

absl::Status BpeTokenizer::InitAddedTokens() {
  NIBBLE_RETURN_IF_ERROR(CheckAddedTokens(vocabulary_.added_tokens, vocabulary_.tokens));
  matcher_ = AddedTokenMatcher(vocabulary_.added_tokens);
  is_added_.assign(vocabulary_.tokens.size(), false);
  for (const AddedToken& token : vocabulary_.added_tokens) is_added_[token.id] = true;
  return absl::OkStatus();
}

absl::Status BpeTokenizer::InitByteTokens() {
  for (int byte = 0; byte < 256; ++byte) {
    const auto it = index_.find(ByteSpelling(static_cast<uint8_t>(byte)));
    if (it != index_.end()) {
      byte_tokens_[byte] = it->second;
      continue;
    }
    if ((byte >= 0x20 && byte < 0x7F) || byte == '\n') {
      return absl::InvalidArgumentError(
          absl::StrCat("the vocabulary is not byte-level: it has no token ",
                       Quoted(ByteSpelling(static_cast<uint8_t>(byte))), " for byte ", byte));
    }
    byte_tokens_[byte] = vocabulary_.unk_id.value_or(kNoToken);
  }
  return absl::OkStatus();
}

absl::Status BpeTokenizer::InitMerges() {
  merges_.reserve(vocabulary_.merges.size());
  merge_table_.Reserve(vocabulary_.merges.size());
  for (const auto& [left, right] : vocabulary_.merges) {
    const int32_t rank = static_cast<int32_t>(merges_.size());
    const auto l = index_.find(left), r = index_.find(right), result = index_.find(absl::StrCat(left, right));
    const auto error = [rank, &left = left, &right = right](absl::string_view problem) {
      return absl::InvalidArgumentError(
          absl::StrCat("merge ", rank, " (", Quoted(left), " ", Quoted(right), "): ", problem));
    };
    if (left.empty() || right.empty()) return error("a side is empty");
    if (absl::StrContains(left, ' ') || absl::StrContains(right, ' ')) return error("a side holds a space");
    if (l == index_.end()) return error("the left side is not in the vocabulary");
    if (r == index_.end()) return error("the right side is not in the vocabulary");
    if (result == index_.end()) return error("the result is not in the vocabulary");
    if (!merge_table_.Add(l->second, r->second, rank, result->second)) return error("it is there twice");
    merges_.emplace_back(l->second, r->second);
  }
  vocabulary_.merges = {};
  return absl::OkStatus();
}

void BpeTokenizer::AppendWord(absl::string_view word, std::vector<int32_t>* symbols, std::vector<int32_t>* ids) const {
  if (vocabulary_.ignore_merges) {
    const auto it = index_.find(SpellBytes(word));
    if (it != index_.end()) return ids->push_back(it->second);
  }
  symbols->clear();
  for (char byte : word) {
    const int32_t id = byte_tokens_[static_cast<uint8_t>(byte)];
    if (id != kNoToken) symbols->push_back(id);
  }
  merge_table_.Apply(symbols);
  ids->insert(ids->end(), symbols->begin(), symbols->end());
}

std::vector<int32_t> BpeTokenizer::Encode(absl::string_view utf8) const {
  std::vector<int32_t> ids;
  std::vector<int32_t> symbols;
  WordCache cache(&ids);
  const auto append_word = [&](absl::string_view word) { AppendWord(word, &symbols, &ids); };
  matcher_.Split(
      utf8,
      [&](absl::string_view text) {
        splitter_.Split(text, [&](absl::string_view word) { cache.Append(word, append_word); });
      },
      [&](int32_t id) { ids.push_back(id); });
  return ids;
}

std::string BpeTokenizer::Decode(absl::Span<const int32_t> ids) const {
  std::string bytes;
  for (int32_t id : ids) {
    if (id < 0 || id >= vocabulary_size()) continue;
    if (is_added_[id]) {
      bytes += vocabulary_.tokens[id];
    } else {
      AppendSpelledBytes(vocabulary_.tokens[id], &bytes);
    }
  }
  return bytes;
}

Json ByteLevelJson(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

Json SequenceJson(Json first, Json second) {
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({std::move(first), std::move(second)})}};
}

Json PreTokenizerJson(PreTokenizer kind) {
  switch (kind) {
    case PreTokenizer::kGpt2: return ByteLevelJson(true);
    case PreTokenizer::kSmolLm:
      return SequenceJson({{"type", "Digits"}, {"individual_digits", true}}, ByteLevelJson(true));
    case PreTokenizer::kLlama3:
      return SequenceJson({{"type", "Split"},
                           {"pattern", {{"Regex", std::string(kLlama3Regex)}}},
                           {"behavior", "Isolated"},
                           {"invert", false}},
                          ByteLevelJson(false));
  }
  return nullptr;
}

Json BpeTokenizer::ModelJson() const {
  Json merges = Json::array();
  for (const auto& [left, right] : merges_) {
    merges.push_back(absl::StrCat(vocabulary_.tokens[left], " ", vocabulary_.tokens[right]));
  }
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", vocabulary_.unk_id.has_value() ? Json(vocabulary_.tokens[*vocabulary_.unk_id]) : Json()},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", vocabulary_.ignore_merges},
          {"vocab", VocabularyJson(vocabulary_.tokens)},
          {"merges", std::move(merges)}};
}

absl::StatusOr<GgufVocabulary> BpeTokenizer::ToGguf() const {
  GgufVocabulary gguf;
  gguf.model = "gpt2";
  gguf.pre = std::string(GgufNameOf(vocabulary_.pre_tokenizer));
  if (vocabulary_.ignore_merges != IgnoresMergesInGguf(vocabulary_.pre_tokenizer)) {
    return absl::UnimplementedError(absl::StrCat("the tokenizer's ignore_merges is ", vocabulary_.ignore_merges ? "true" : "false",
                                                 ", and GGUF's pre-tokenizer '", gguf.pre, "' implies the other"));
  }
  gguf.tokens = vocabulary_.tokens;
  gguf.types = vocabulary_.types;
  gguf.types.resize(gguf.tokens.size(), static_cast<int32_t>(TokenType::kNormal));
  for (const AddedToken& token : vocabulary_.added_tokens) {
    gguf.types[token.id] = static_cast<int32_t>(token.special ? TokenType::kControl : TokenType::kUserDefined);
  }
  for (const auto& [left, right] : merges_) gguf.merges.push_back(absl::StrCat(gguf.tokens[left], " ", gguf.tokens[right]));
  gguf.bos_id = vocabulary_.bos_id;
  gguf.eos_id = vocabulary_.eos_id;
  gguf.unk_id = vocabulary_.unk_id;
  gguf.add_bos = vocabulary_.add_bos;
  return gguf;
}

std::string BpeTokenizer::ToJson() const {
  return TokenizerJson(AddedTokensJson(vocabulary_.added_tokens), nullptr, PreTokenizerJson(vocabulary_.pre_tokenizer),
                       PostProcessorJson(vocabulary_.tokens, bos_and_eos()), ByteLevelJson(true), ModelJson());
}

}  // namespace

absl::StatusOr<std::pair<std::string, std::string>> ParseMerge(absl::string_view merge) {
  const size_t space = merge.find(' ');
  if (space == absl::string_view::npos || space == 0 || space + 1 == merge.size() ||
      merge.find(' ', space + 1) != absl::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("the merge ", Quoted(merge), " is not two tokens with one space between them"));
  }
  return std::make_pair(std::string(merge.substr(0, space)), std::string(merge.substr(space + 1)));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeBpe(BpeVocabulary vocabulary) {
  auto tokenizer = std::make_unique<BpeTokenizer>(std::move(vocabulary));
  NIBBLE_RETURN_IF_ERROR(tokenizer->Init());
  return tokenizer;
}

}  // namespace nibble::text
