#include "core/text/json_parts.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "core/base/json.h"
#include "core/base/status.h"

namespace nibble::text {
namespace {

using Json = nlohmann::json;

Json SpecialTokenRow(absl::string_view name, int32_t id, const std::vector<std::string>& tokens) {
  return {{"id", std::string(name)}, {"ids", Json::array({id})}, {"tokens", Json::array({tokens[id]})}};
}

// A template that puts BOS before each of the sequences, if it is to be added.
Json Template(absl::Span<const char* const> sequences, bool add_bos) {
  Json result = Json::array();
  int type = 0;
  for (const char* sequence : sequences) {
    if (add_bos) result.push_back({{"SpecialToken", {{"id", std::string(kBosName)}, {"type_id", type}}}});
    result.push_back({{"Sequence", {{"id", sequence}, {"type_id", type}}}});
    ++type;
  }
  return result;
}

absl::Status ReadIds(const Json& config, const TokenIndex& index, BosAndEos* ids) {
  NIBBLE_ASSIGN_OR_RETURN(const auto bos, FindToken(Member(config, "bos_token"), index, "bos_token"));
  NIBBLE_ASSIGN_OR_RETURN(const auto eos, FindToken(Member(config, "eos_token"), index, "eos_token"));
  if (bos.has_value()) ids->bos = bos;
  if (eos.has_value()) ids->eos = eos;
  const Json& add_bos = Member(config, "add_bos_token");
  if (add_bos.is_boolean()) ids->add_bos = add_bos.get<bool>();
  return absl::OkStatus();
}

}  // namespace

const Json& Member(const Json& object, const char* key) {
  static const Json& null = *new Json();
  if (!object.is_object()) return null;
  const auto it = object.find(key);
  return it == object.end() ? null : *it;
}

absl::StatusOr<std::optional<int32_t>> FindToken(const Json& token, const TokenIndex& index, absl::string_view what) {
  if (token.is_null()) return std::optional<int32_t>();
  const Json& content = token.is_object() ? Member(token, "content") : token;
  if (!content.is_string()) return absl::InvalidArgumentError(absl::StrCat(what, " is not a token"));
  const std::string& text = content.get_ref<const std::string&>();
  const auto it = index.find(text);
  if (it == index.end()) {
    return absl::InvalidArgumentError(absl::StrCat(what, " is ", Quoted(text), ", which is not in the vocabulary"));
  }
  return std::optional<int32_t>(it->second);
}

absl::StatusOr<Json> ParseConfig(absl::string_view json_or_empty) {
  if (json_or_empty.empty()) return Json();
  return ParseJson(json_or_empty, "tokenizer_config.json");
}

absl::Status ReadConfig(const Json& config, const TokenIndex& index, BosAndEos* ids) {
  return Annotate(ReadIds(config, index, ids), "tokenizer_config.json");
}

Json AddedTokensJson(const std::vector<AddedToken>& tokens) {
  Json result = Json::array();
  for (const AddedToken& token : tokens) {
    result.push_back({{"id", token.id},
                      {"content", token.content},
                      {"single_word", false},
                      {"lstrip", false},
                      {"rstrip", false},
                      {"normalized", false},
                      {"special", token.special}});
  }
  return result;
}

Json VocabularyJson(const std::vector<std::string>& tokens) {
  Json result = Json::object();
  for (size_t i = 0; i < tokens.size(); ++i) result[tokens[i]] = i;
  return result;
}

Json PostProcessorJson(const std::vector<std::string>& tokens, const BosAndEos& ids) {
  Json table = Json::object();
  if (ids.bos.has_value()) table[std::string(kBosName)] = SpecialTokenRow(kBosName, *ids.bos, tokens);
  if (ids.eos.has_value()) table[std::string(kEosName)] = SpecialTokenRow(kEosName, *ids.eos, tokens);
  return {{"type", "TemplateProcessing"},
          {"single", Template({"A"}, ids.add_bos)},
          {"pair", Template({"A", "B"}, ids.add_bos)},
          {"special_tokens", std::move(table)}};
}

std::string ConfigJson(const std::vector<std::string>& tokens, const BosAndEos& ids) {
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"add_bos_token", ids.add_bos},
                 {"clean_up_tokenization_spaces", false}};
  if (ids.bos.has_value()) config["bos_token"] = tokens[*ids.bos];
  if (ids.eos.has_value()) config["eos_token"] = tokens[*ids.eos];
  return config.dump(2) + "\n";
}

std::string TokenizerJson(Json added_tokens, Json normalizer, Json pre_tokenizer, Json post_processor, Json decoder,
                          Json model) {
  const Json document = {{"version", "1.0"},
                         {"truncation", nullptr},
                         {"padding", nullptr},
                         {"added_tokens", std::move(added_tokens)},
                         {"normalizer", std::move(normalizer)},
                         {"pre_tokenizer", std::move(pre_tokenizer)},
                         {"post_processor", std::move(post_processor)},
                         {"decoder", std::move(decoder)},
                         {"model", std::move(model)}};
  return document.dump();
}

}  // namespace nibble::text
