#include "core/text/hf_json.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/json.h"
#include "core/base/status.h"
#include "core/text/bpe.h"
#include "core/text/json_parts.h"
#include "core/text/sentencepiece.h"
#include "core/text/utf8.h"
#include "core/text/vocabulary.h"

namespace nibble::text {
namespace {

using Json = nlohmann::json;
using Merges = std::vector<std::pair<std::string, std::string>>;

bool IsString(const Json& node, absl::string_view value) {
  return node.is_string() && node.get_ref<const std::string&>() == value;
}

bool IsType(const Json& node, absl::string_view type) { return IsString(Member(node, "type"), type); }

// Whether the flag is `wanted`; `missing` is what it is when it is not there.
bool IsFlag(const Json& node, const char* key, bool wanted, bool missing) {
  const Json& flag = Member(node, key);
  return flag.is_null() ? missing == wanted : flag.is_boolean() && flag.get<bool>() == wanted;
}

// The elements of `list`, or just `node` when it is not a Sequence.
std::vector<const Json*> Steps(const Json& node, const char* list) {
  if (node.is_null()) return {};
  if (!IsType(node, "Sequence")) return {&node};
  std::vector<const Json*> steps;
  for (const Json& step : Member(node, list)) steps.push_back(&step);
  return steps;
}

// The types of the steps, for an error message: "[Split, ByteLevel]".
std::string Describe(const std::vector<const Json*>& steps) {
  return absl::StrCat("[", absl::StrJoin(steps, ", ", [](std::string* out, const Json* step) {
                        const Json& type = Member(*step, "type");
                        const Json& regex = Member(Member(*step, "pattern"), "Regex");
                        absl::StrAppend(out, type.is_string() ? type.get_ref<const std::string&>() : "untyped");
                        if (!regex.is_string()) return;
                        absl::StrAppend(out, " by ", Quoted(regex.get_ref<const std::string&>()));
                      }),
                      "]");
}

bool IsByteLevel(const Json& step, bool use_regex) {
  return IsType(step, "ByteLevel") && IsFlag(step, "add_prefix_space", false, true) &&
         IsFlag(step, "use_regex", use_regex, true);
}

bool IsDigits(const Json& step) { return IsType(step, "Digits") && IsFlag(step, "individual_digits", true, false); }

bool IsLlama3Split(const Json& step) {
  return IsType(step, "Split") && IsString(Member(Member(step, "pattern"), "Regex"), kLlama3Regex) &&
         IsString(Member(step, "behavior"), "Isolated") && IsFlag(step, "invert", false, false);
}

absl::StatusOr<PreTokenizer> ReadPreTokenizer(const Json& node) {
  const std::vector<const Json*> steps = Steps(node, "pretokenizers");
  if (steps.size() == 1 && IsByteLevel(*steps[0], true)) return PreTokenizer::kGpt2;
  if (steps.size() == 2 && IsDigits(*steps[0]) && IsByteLevel(*steps[1], true)) return PreTokenizer::kSmolLm;
  if (steps.size() == 2 && IsLlama3Split(*steps[0]) && IsByteLevel(*steps[1], false)) return PreTokenizer::kLlama3;
  return absl::UnimplementedError(
      absl::StrCat("the pre_tokenizer ", Describe(steps),
                   " with its options is not supported; supported are ByteLevel (GPT-2), individual Digits and "
                   "ByteLevel (SmolLM), Split by Llama 3's pattern and ByteLevel, and none after a normalizer that "
                   "replaces spaces (Llama 2)"));
}

bool IsSpaceReplacement(const Json& step) {
  return IsType(step, "Replace") && IsString(Member(Member(step, "pattern"), "String"), " ") &&
         IsString(Member(step, "content"), kSpaceMark);
}

bool IsSpacePrefix(const Json& step) {
  return IsType(step, "Prepend") && IsString(Member(step, "prepend"), kSpaceMark);
}

// How a Metaspace step puts spaces before text; files of older libraries say
// add_prefix_space.
absl::StatusOr<std::string> PrependScheme(const Json& step) {
  if (!IsString(Member(step, "replacement"), kSpaceMark) || !IsFlag(step, "split", false, true)) {
    return absl::UnimplementedError("a Metaspace with another replacement than U+2581, or with split, is not supported");
  }
  const Json& scheme = Member(step, "prepend_scheme");
  if (scheme.is_null()) return std::string(IsFlag(step, "add_prefix_space", true, true) ? "always" : "never");
  for (const char* known : {"always", "first", "never"}) {
    if (IsString(scheme, known)) return std::string(known);
  }
  return absl::UnimplementedError(absl::StrCat("Metaspace's prepend_scheme ", scheme.dump(), " is not supported"));
}

// Reads one tokenizer.json that has been parsed.
class Reader {
 public:
  Reader(const Json& document, const Json& config)
      : document_(document), config_(config), model_(Member(document, "model")) {}

  absl::StatusOr<std::unique_ptr<Tokenizer>> Read();

 private:
  absl::Status CheckModel() const;
  absl::Status ReadAddedTokens();
  absl::Status ReadTokens();
  absl::Status PlaceToken(const std::string& token, int64_t id, std::vector<bool>* is_placed);
  absl::Status ReadMerges();
  absl::Status ReadSpecialIds();
  absl::Status ReadTemplate();
  absl::StatusOr<std::unique_ptr<Tokenizer>> ReadByteLevel();
  absl::StatusOr<std::unique_ptr<Tokenizer>> ReadNormalized(bool add_space_prefix);
  absl::StatusOr<std::unique_ptr<Tokenizer>> ReadMetaspace(const Json& step);
  // `spm` says how spaces are put before text.
  absl::StatusOr<std::unique_ptr<Tokenizer>> ReadSpm(SpmVocabulary spm);
  absl::Status SetTypes(SpmVocabulary* spm) const;
  absl::Status SetScores(SpmVocabulary* spm) const;

  const Json& document_;
  const Json& config_;
  const Json& model_;
  std::vector<std::string> tokens_;
  TokenIndex index_;
  std::vector<AddedToken> added_tokens_;
  Merges merges_;
  BosAndEos ids_;
  std::optional<int32_t> unk_id_;
};

absl::Status Reader::CheckModel() const {
  const Json& type = Member(model_, "type");
  if (!model_.is_object()) return absl::InvalidArgumentError("there is no model object");
  if (!type.is_null() && !IsString(type, "BPE")) {
    const std::string name = type.is_string() ? type.get_ref<const std::string&>() : type.type_name();
    return absl::UnimplementedError(absl::StrCat("the model type ", Quoted(name), " is not supported; BPE is"));
  }
  if (!Member(model_, "vocab").is_object()) return absl::InvalidArgumentError("model.vocab is not an object");
  if (!Member(model_, "merges").is_array()) return absl::InvalidArgumentError("model.merges is not an array");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json& value = Member(model_, key);
    if (!value.is_null() && !IsString(value, "")) {
      return absl::UnimplementedError(absl::StrCat("model.", key, " is not supported"));
    }
  }
  const Json& dropout = Member(model_, "dropout");
  if (!dropout.is_null() && !(dropout.is_number() && dropout.get<double>() == 0)) {
    return absl::UnimplementedError("model.dropout is not supported");
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadAddedTokens() {
  const Json& list = Member(document_, "added_tokens");
  if (!list.is_null() && !list.is_array()) return absl::InvalidArgumentError("added_tokens is not an array");
  for (const Json& entry : list) {
    const Json& id = Member(entry, "id");
    const Json& content = Member(entry, "content");
    if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX || !content.is_string()) {
      return absl::InvalidArgumentError(
          absl::StrCat("added_tokens[", added_tokens_.size(), "] has no valid id or content"));
    }
    for (const char* flag : {"single_word", "lstrip", "rstrip"}) {
      if (IsFlag(entry, flag, false, false)) continue;
      return absl::UnimplementedError(absl::StrCat("the added token ", Quoted(content.get_ref<const std::string&>()),
                                                   " has ", flag, ", which is not supported"));
    }
    added_tokens_.push_back(
        {id.get<int32_t>(), content.get<std::string>(), IsFlag(entry, "special", true, false)});
  }
  return absl::OkStatus();
}

absl::Status Reader::PlaceToken(const std::string& token, int64_t id, std::vector<bool>* is_placed) {
  if (id < 0 || static_cast<size_t>(id) >= tokens_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("token ", Quoted(token), " has id ", id, ", but there are ",
                                                   tokens_.size(), " tokens: the ids have a gap"));
  }
  if ((*is_placed)[id]) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokens ", Quoted(tokens_[id]), " and ", Quoted(token), " both have id ", id));
  }
  (*is_placed)[id] = true;
  tokens_[id] = token;
  return absl::OkStatus();
}

// The vocabulary and those added tokens that it lacks, by id.
absl::Status Reader::ReadTokens() {
  const Json& vocabulary = Member(model_, "vocab");
  std::vector<const AddedToken*> extra;
  for (const AddedToken& token : added_tokens_) {
    if (!vocabulary.contains(token.content)) extra.push_back(&token);
  }
  tokens_.resize(vocabulary.size() + extra.size());
  std::vector<bool> is_placed(tokens_.size(), false);
  for (const auto& [token, id] : vocabulary.items()) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX) {
      return absl::InvalidArgumentError(absl::StrCat("the id of token ", Quoted(token), " is not a valid number"));
    }
    NIBBLE_RETURN_IF_ERROR(PlaceToken(token, id.get<int64_t>(), &is_placed));
  }
  for (const AddedToken* token : extra) NIBBLE_RETURN_IF_ERROR(PlaceToken(token->content, token->id, &is_placed));
  NIBBLE_ASSIGN_OR_RETURN(index_, IndexTokens(tokens_));
  return absl::OkStatus();
}

absl::Status Reader::ReadMerges() {
  const Json& list = Member(model_, "merges");
  merges_.reserve(list.size());
  for (const Json& merge : list) {
    if (merge.is_string()) {
      NIBBLE_ASSIGN_OR_RETURN(auto pair, ParseMerge(merge.get_ref<const std::string&>()));
      merges_.push_back(std::move(pair));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      merges_.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("model.merges[", merges_.size(), "] is neither a string nor a pair of strings"));
    }
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadTemplate() {
  const Json* found = nullptr;
  for (const Json* step : Steps(Member(document_, "post_processor"), "processors")) {
    if (IsType(*step, "TemplateProcessing")) found = step;
  }
  if (found == nullptr) return absl::OkStatus();
  const Json& table = Member(*found, "special_tokens");
  const auto find = [&](const std::string& name) -> absl::StatusOr<std::optional<int32_t>> {
    const Json& tokens = Member(Member(table, name.c_str()), "tokens");
    if (!tokens.is_array() || tokens.size() != 1) return std::optional<int32_t>();
    return FindToken(tokens[0], index_, absl::StrCat("the post_processor's token ", Quoted(name)));
  };
  NIBBLE_ASSIGN_OR_RETURN(ids_.bos, find(std::string(kBosName)));
  NIBBLE_ASSIGN_OR_RETURN(ids_.eos, find(std::string(kEosName)));
  const Json& single = Member(*found, "single");
  const Json& first = single.is_array() && !single.empty() ? single[0] : Json();
  const Json& name = Member(Member(first, "SpecialToken"), "id");
  if (!name.is_string()) return absl::OkStatus();
  NIBBLE_ASSIGN_OR_RETURN(ids_.bos, find(name.get<std::string>()));
  ids_.add_bos = ids_.bos.has_value();
  return absl::OkStatus();
}

absl::Status Reader::ReadSpecialIds() {
  NIBBLE_ASSIGN_OR_RETURN(unk_id_, FindToken(Member(model_, "unk_token"), index_, "model.unk_token"));
  NIBBLE_RETURN_IF_ERROR(ReadTemplate());
  return ReadConfig(config_, index_, &ids_);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Reader::ReadByteLevel() {
  if (!IsFlag(model_, "byte_fallback", false, false) || !IsFlag(model_, "fuse_unk", false, false)) {
    return absl::UnimplementedError("a byte-level model with byte_fallback or fuse_unk is not supported");
  }
  BpeVocabulary bpe;
  NIBBLE_ASSIGN_OR_RETURN(bpe.pre_tokenizer, ReadPreTokenizer(Member(document_, "pre_tokenizer")));
  index_.clear();  // It points into tokens_.
  bpe.tokens = std::move(tokens_);
  bpe.merges = std::move(merges_);
  bpe.ignore_merges = IsFlag(model_, "ignore_merges", true, false);
  bpe.added_tokens = std::move(added_tokens_);
  bpe.bos_id = ids_.bos;
  bpe.eos_id = ids_.eos;
  bpe.unk_id = unk_id_;
  bpe.add_bos = ids_.add_bos;
  return MakeBpe(std::move(bpe));
}

absl::Status Reader::SetTypes(SpmVocabulary* spm) const {
  spm->types.assign(tokens_.size(), static_cast<int32_t>(TokenType::kNormal));
  const auto set = [&](int32_t id, TokenType type) { spm->types[id] = static_cast<int32_t>(type); };
  if (IsFlag(model_, "byte_fallback", true, false)) {
    for (int byte = 0; byte < 256; ++byte) {
      const auto it = index_.find(BytePiece(static_cast<uint8_t>(byte)));
      if (it != index_.end()) set(it->second, TokenType::kByte);
    }
  }
  NIBBLE_RETURN_IF_ERROR(CheckAddedTokens(added_tokens_, tokens_));
  for (const AddedToken& token : added_tokens_) {
    const TokenType special = unk_id_ == token.id ? TokenType::kUnknown : TokenType::kControl;
    set(token.id, token.special ? special : TokenType::kUserDefined);
  }
  return absl::OkStatus();
}

absl::Status Reader::SetScores(SpmVocabulary* spm) const {
  const auto count = static_cast<int64_t>(merges_.size());
  spm->scores.assign(tokens_.size(), 0);
  std::vector<bool> is_given(tokens_.size(), false);
  for (int64_t rank = 0; rank < count; ++rank) {
    const auto& [left, right] = merges_[rank];
    const auto it = index_.find(absl::StrCat(left, right));
    if (it == index_.end() || !index_.contains(left) || !index_.contains(right)) {
      return absl::InvalidArgumentError(absl::StrCat("merge ", rank, " (", Quoted(left), " ", Quoted(right),
                                                     "): a side or the result is not in the vocabulary"));
    }
    if (is_given[it->second]) continue;
    is_given[it->second] = true;
    spm->scores[it->second] = static_cast<float>(-rank);
  }
  for (size_t id = 0; id < tokens_.size(); ++id) {
    const bool is_normal = spm->types[id] == static_cast<int32_t>(TokenType::kNormal);
    if (is_normal && !is_given[id] && Utf8CharacterLength(tokens_[id]) != tokens_[id].size()) {
      spm->types[id] = static_cast<int32_t>(TokenType::kUnused);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Reader::ReadNormalized(bool add_space_prefix) {
  const std::vector<const Json*> steps = Steps(Member(document_, "pre_tokenizer"), "pretokenizers");
  if (!steps.empty()) {
    return absl::UnimplementedError(
        absl::StrCat("the pre_tokenizer ", Describe(steps), " after a normalizer of spaces is not supported"));
  }
  SpmVocabulary spm;
  spm.add_space_prefix = add_space_prefix;
  return ReadSpm(std::move(spm));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Reader::ReadMetaspace(const Json& step) {
  NIBBLE_ASSIGN_OR_RETURN(const std::string scheme, PrependScheme(step));
  SpmVocabulary spm;
  spm.add_space_prefix = scheme != "never";
  spm.prefix_start_only = scheme == "first";
  spm.prefix_unless_space = spm.add_space_prefix;
  return ReadSpm(std::move(spm));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Reader::ReadSpm(SpmVocabulary spm) {
  if (!IsFlag(model_, "ignore_merges", false, false)) {
    return absl::UnimplementedError("ignore_merges after a normalizer of spaces is not supported");
  }
  NIBBLE_RETURN_IF_ERROR(SetTypes(&spm));
  NIBBLE_RETURN_IF_ERROR(SetScores(&spm));
  index_.clear();  // It points into tokens_.
  spm.pieces = std::move(tokens_);
  spm.bos_id = ids_.bos;
  spm.eos_id = ids_.eos;
  spm.unk_id = unk_id_;
  spm.add_bos = ids_.add_bos;
  return MakeSpm(std::move(spm));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Reader::Read() {
  NIBBLE_RETURN_IF_ERROR(CheckModel());
  NIBBLE_RETURN_IF_ERROR(ReadAddedTokens());
  NIBBLE_RETURN_IF_ERROR(ReadTokens());
  NIBBLE_RETURN_IF_ERROR(ReadMerges());
  NIBBLE_RETURN_IF_ERROR(ReadSpecialIds());
  const std::vector<const Json*> steps = Steps(Member(document_, "normalizer"), "normalizers");
  const Json& pre_tokenizer = Member(document_, "pre_tokenizer");
  if (steps.empty()) return IsType(pre_tokenizer, "Metaspace") ? ReadMetaspace(pre_tokenizer) : ReadByteLevel();
  if (steps.size() == 1 && IsSpaceReplacement(*steps[0])) return ReadNormalized(false);
  if (steps.size() == 2 && IsSpacePrefix(*steps[0]) && IsSpaceReplacement(*steps[1])) return ReadNormalized(true);
  return absl::UnimplementedError(absl::StrCat(
      "the normalizer ", Describe(steps),
      " with its options is not supported; supported are none and Llama 2's, which replaces spaces by U+2581 (or a Metaspace pre_tokenizer that does)"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromJson(absl::string_view tokenizer_json,
                                                             absl::string_view tokenizer_config_json_or_empty,
                                                             absl::string_view source_path) {
  NIBBLE_ASSIGN_OR_RETURN(const Json document, ParseJson(tokenizer_json, source_path));
  const auto config = ParseConfig(tokenizer_config_json_or_empty);
  if (!config.ok()) return Annotate(config.status(), source_path);
  auto tokenizer = Reader(document, *config).Read();
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), source_path);
  return tokenizer;
}

}  // namespace nibble::text
