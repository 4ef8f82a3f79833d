#include "core/text/json_parts.h"

#include <utility>

#include "absl/types/span.h"

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

}  // namespace

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
