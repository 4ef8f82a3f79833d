#include "core/text/tiktoken.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/base/status.h"
#include "core/text/bpe.h"
#include "core/text/byte_alphabet.h"
#include "core/text/json_parts.h"
#include "core/text/vocabulary.h"

namespace nibble::text {
namespace {

using Json = nlohmann::json;

// Llama 3's file has 2.2 MB, its longest token 128 bytes. Every cut of a token is looked
// up, which takes the square of its length.
constexpr size_t kLargestFile = size_t{16} << 20;
constexpr size_t kLongestToken = 256;
constexpr size_t kLongestLine = 512;

constexpr size_t kSpecialTokens = 256;
constexpr absl::string_view kReserved = "<|reserved_special_token_";

// In the order of their ids.
std::vector<std::string> SpecialTokens() {
  std::vector<std::string> names = {"<|begin_of_text|>",
                                    "<|end_of_text|>",
                                    "<|reserved_special_token_0|>",
                                    "<|reserved_special_token_1|>",
                                    "<|finetune_right_pad_id|>",
                                    "<|step_id|>",
                                    "<|start_header_id|>",
                                    "<|end_header_id|>",
                                    "<|eom_id|>",
                                    "<|eot_id|>",
                                    "<|python_tag|>"};
  for (int number = 2; names.size() < kSpecialTokens; ++number) names.push_back(absl::StrCat(kReserved, number, "|>"));
  return names;
}

// Puts the token of a line where its rank says.
absl::Status ReadLine(absl::string_view line, std::vector<std::string>* tokens) {
  const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(line, absl::MaxSplits(' ', 1));
  std::string token;
  // Base64Unescape takes white space and other ends as well.
  if (!absl::Base64Unescape(parts.first, &token) || token.empty() || absl::Base64Escape(token) != parts.first) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected a token in Base64, a space and its rank, as tiktoken writes, got ", Quoted(line)));
  }
  if (token.size() > kLongestToken) {
    return absl::InvalidArgumentError(absl::StrCat("the token has ", token.size(), " bytes; at most ", kLongestToken, " are supported"));
  }
  uint64_t rank = 0;
  if (!absl::c_all_of(parts.second, [](unsigned char c) { return absl::ascii_isdigit(c); }) || !absl::SimpleAtoi(parts.second, &rank)) {
    return absl::InvalidArgumentError(absl::StrCat("the rank is ", Quoted(parts.second), ", which is no number"));
  }
  if (rank >= tokens->size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the rank is ", rank, "; the file has ", tokens->size(), " lines, so ranks are 0 to ", tokens->size() - 1));
  }
  if (!(*tokens)[rank].empty()) return absl::InvalidArgumentError(absl::StrCat("the rank ", rank, " is there twice"));
  (*tokens)[rank] = std::move(token);
  return absl::OkStatus();
}

absl::Status CheckBytes(const std::vector<std::string>& tokens) {
  const absl::flat_hash_set<absl::string_view> known(tokens.begin(), tokens.end());
  for (int byte = 0; byte < 256; ++byte) {
    if (known.contains(std::string(1, static_cast<char>(byte)))) continue;
    return absl::InvalidArgumentError(absl::StrCat("the byte ", byte, " is no token; all 256 must be"));
  }
  return absl::OkStatus();
}

// The bytes of tokens, by rank.
absl::StatusOr<std::vector<std::string>> ReadTokens(absl::string_view text, absl::string_view path) {
  if (text.size() > kLargestFile) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", text.size(), " bytes; a tokenizer.model has at most ", kLargestFile));
  }
  const std::vector<absl::string_view> lines = absl::StrSplit(absl::StripSuffix(text, "\n"), '\n');
  std::vector<std::string> tokens(lines.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    NIBBLE_RETURN_IF_ERROR(Annotate(ReadLine(lines[i], &tokens), absl::StrCat(path, ":", i + 1)));
  }
  NIBBLE_RETURN_IF_ERROR(Annotate(CheckBytes(tokens), path));
  return tokens;
}

// The pairs of tokens that merge, the first goes first. A token merges wherever its bytes
// are cut, not only as it was learned. The order is that of tokenizer.json files which
// transformers converts: the rank of the result, then of the left side.
std::vector<std::pair<int32_t, int32_t>> MergesOf(const std::vector<std::string>& tokens) {
  absl::flat_hash_map<absl::string_view, int32_t> ranks;
  ranks.reserve(tokens.size());
  for (size_t rank = 0; rank < tokens.size(); ++rank) ranks.emplace(tokens[rank], static_cast<int32_t>(rank));
  std::vector<std::pair<int32_t, int32_t>> merges;
  for (const absl::string_view token : tokens) {
    const size_t before = merges.size();
    for (size_t cut = 1; cut < token.size(); ++cut) {
      const auto left = ranks.find(token.substr(0, cut));
      if (left == ranks.end()) continue;
      const auto right = ranks.find(token.substr(cut));
      if (right != ranks.end()) merges.emplace_back(left->second, right->second);
    }
    std::sort(merges.begin() + before, merges.end());
  }
  return merges;
}

// Hugging Face's config of Llama 3.2 names some of the tokens that are not in use otherwise.
absl::Status NameSpecialTokens(const Json& config, size_t first, std::vector<std::string>* tokens) {
  for (const auto& [key, entry] : Member(config, "added_tokens_decoder").items()) {
    const Json& content = Member(entry, "content");
    uint64_t id = 0;
    if (!content.is_string() || !absl::SimpleAtoi(key, &id) || id < first || id >= tokens->size()) {
      return absl::UnimplementedError(absl::StrCat("tokenizer_config.json: the entry ", Quoted(key),
                                                   " of added_tokens_decoder names none of the special tokens ", first, " to ", tokens->size() - 1));
    }
    (*tokens)[id] = content.get<std::string>();
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Make(const std::vector<std::string>& tokens, absl::string_view config_json_or_empty) {
  NIBBLE_ASSIGN_OR_RETURN(const Json config, ParseConfig(config_json_or_empty));
  BpeVocabulary bpe;
  bpe.pre_tokenizer = PreTokenizer::kLlama3;
  bpe.ignore_merges = true;
  for (const std::string& token : tokens) bpe.tokens.push_back(SpellBytes(token));
  for (const auto& [left, right] : MergesOf(tokens)) bpe.merges.emplace_back(bpe.tokens[left], bpe.tokens[right]);
  for (std::string& name : SpecialTokens()) bpe.tokens.push_back(std::move(name));
  NIBBLE_RETURN_IF_ERROR(NameSpecialTokens(config, tokens.size(), &bpe.tokens));
  for (size_t id = tokens.size(); id < bpe.tokens.size(); ++id) bpe.added_tokens.push_back({static_cast<int32_t>(id), bpe.tokens[id], true});
  NIBBLE_ASSIGN_OR_RETURN(const TokenIndex index, IndexTokens(bpe.tokens));
  const auto bos = static_cast<int32_t>(tokens.size());
  BosAndEos ids{bos, bos + 1, true};
  NIBBLE_RETURN_IF_ERROR(ReadConfig(config, index, &ids));
  bpe.bos_id = ids.bos;
  bpe.eos_id = ids.eos;
  bpe.add_bos = ids.add_bos;
  return MakeBpe(std::move(bpe));
}

template <typename... Parts>
absl::Status Cannot(const Parts&... parts) {
  return absl::UnimplementedError(absl::StrCat("tiktoken's tokenizer.model of Llama 3 cannot hold the tokenizer: ", parts...));
}

absl::Status CheckKind(const GgufVocabulary& vocabulary) {
  if (vocabulary.model != "gpt2") return Cannot("it is no byte-level BPE");
  if (vocabulary.pre != GgufNameOf(PreTokenizer::kLlama3)) return Cannot("it cuts words as '", vocabulary.pre, "' does, not as Llama 3");
  return absl::OkStatus();
}

absl::Status CheckSpecialTokens(const GgufVocabulary& vocabulary) {
  if (vocabulary.tokens.size() <= kSpecialTokens) {
    return Cannot("it has ", vocabulary.tokens.size(), " tokens, and Meta's have ", kSpecialTokens, " special ones alone");
  }
  const size_t first = vocabulary.tokens.size() - kSpecialTokens;
  const std::vector<std::string> names = SpecialTokens();
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string& token = vocabulary.tokens[id];
    const auto type = static_cast<TokenType>(vocabulary.types[id]);
    const bool added = type == TokenType::kControl || type == TokenType::kUserDefined;
    if (id < first && added) return Cannot("token ", id, ", ", Quoted(token), ", is special, and Meta's are the last ", kSpecialTokens);
    if (id < first || (type == TokenType::kControl && (token == names[id - first] || absl::StartsWith(token, kReserved)))) continue;
    return Cannot("token ", id, " is ", Quoted(token), ", which in Meta's is ", names[id - first]);
  }
  return absl::OkStatus();
}

// The bytes of the tokens before the special ones.
absl::StatusOr<std::vector<std::string>> OrdinaryTokens(const GgufVocabulary& vocabulary) {
  std::vector<std::string> tokens(vocabulary.tokens.size() - kSpecialTokens);
  for (size_t id = 0; id < tokens.size(); ++id) {
    const std::string& spelling = vocabulary.tokens[id];
    AppendSpelledBytes(spelling, &tokens[id]);
    if (tokens[id].empty() || tokens[id].size() > kLongestToken || SpellBytes(tokens[id]) != spelling) {
      return Cannot("token ", id, ", ", Quoted(spelling), ", does not spell 1 to ", kLongestToken, " bytes");
    }
  }
  if (const absl::Status bytes = CheckBytes(tokens); !bytes.ok()) return Cannot(bytes.message());
  return tokens;
}

absl::Status CheckMerges(const GgufVocabulary& vocabulary, const std::vector<std::string>& tokens) {
  const std::vector<std::pair<int32_t, int32_t>> merges = MergesOf(tokens);
  const size_t count = std::min(merges.size(), vocabulary.merges.size());
  for (size_t i = 0; i < count; ++i) {
    const std::string expected = absl::StrCat(vocabulary.tokens[merges[i].first], " ", vocabulary.tokens[merges[i].second]);
    if (vocabulary.merges[i] == expected) continue;
    return Cannot("merge ", i, " is ", Quoted(vocabulary.merges[i]), ", by the ranks of tokens it is ", Quoted(expected));
  }
  if (merges.size() == vocabulary.merges.size()) return absl::OkStatus();
  return Cannot("it has ", vocabulary.merges.size(), " merges, by the ranks of tokens there are ", merges.size());
}

}  // namespace

bool IsTiktoken(absl::string_view tokenizer_model) {
  const absl::string_view line = tokenizer_model.substr(0, std::min(tokenizer_model.find('\n'), kLongestLine));
  return !line.empty() && absl::c_all_of(line, [](unsigned char c) { return absl::ascii_isprint(c) || c == '\r'; });
}

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromTiktoken(absl::string_view tokenizer_model, absl::string_view tokenizer_config_json_or_empty,
                                                                 absl::string_view source_path) {
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<std::string> tokens, ReadTokens(tokenizer_model, source_path));
  auto tokenizer = Make(tokens, tokenizer_config_json_or_empty);
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), source_path);
  return tokenizer;
}

absl::StatusOr<std::string> ToTiktoken(const Tokenizer& tokenizer) {
  const auto vocabulary = tokenizer.ToGguf();
  if (!vocabulary.ok()) return Cannot(vocabulary.status().message());
  NIBBLE_RETURN_IF_ERROR(CheckKind(*vocabulary));
  NIBBLE_RETURN_IF_ERROR(CheckSpecialTokens(*vocabulary));
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<std::string> tokens, OrdinaryTokens(*vocabulary));
  NIBBLE_RETURN_IF_ERROR(CheckMerges(*vocabulary, tokens));
  std::string text;
  for (size_t rank = 0; rank < tokens.size(); ++rank) absl::StrAppend(&text, absl::Base64Escape(tokens[rank]), " ", rank, "\n");
  return text;
}

}  // namespace nibble::text
