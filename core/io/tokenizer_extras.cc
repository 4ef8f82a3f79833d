#include "core/io/tokenizer_extras.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/io/checkpoint_names.h"
#include "core/io/gguf.h"
#include "core/io/strict_json.h"

namespace nibble::io {
namespace {

constexpr char kIdSuffix[] = "_token_id";
constexpr char kPaddingId[] = "padding_token_id";

// Those that have a place of their own.
bool IsVocabularyId(absl::string_view key) { return key == "bos_token_id" || key == "eos_token_id" || key == "unknown_token_id"; }

absl::StatusOr<TokenizerExtras> ExtrasOfGguf(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(path));
  TokenizerExtras extras;
  if (file->Has(kGgufChatTemplateKey)) {
    NIBBLE_ASSIGN_OR_RETURN(extras.chat_template, file->Text(kGgufChatTemplateKey));
  }
  for (const auto& [key, value] : file->metadata()) {
    const absl::string_view suffix = absl::StripPrefix(key, kGgufTokenizerPrefix);
    if (suffix.size() == key.size()) continue;
    if (suffix == "add_eos_token") {
      NIBBLE_ASSIGN_OR_RETURN(const int64_t flag, file->Integer(key));
      extras.add_eos = flag != 0;
    }
    if (!absl::EndsWith(suffix, kIdSuffix) || IsVocabularyId(suffix)) continue;
    NIBBLE_ASSIGN_OR_RETURN(const int64_t id, file->Integer(key));
    if (id < 0 || id > INT32_MAX) continue;  // "none"
    extras.ids[std::string(suffix)] = static_cast<int32_t>(id);
  }
  return extras;
}

// A text of an object; "" where it is absent or no text.
std::string TextOf(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

// A template by itself, or the one called "default" of several.
std::string TemplateOf(const nlohmann::json& config) {
  const auto found = config.find("chat_template");
  if (found == config.end() || !found->is_array()) return TextOf(config, "chat_template");
  for (const nlohmann::json& entry : *found) {
    if (entry.is_object() && TextOf(entry, "name") == "default") return TextOf(entry, "template");
  }
  return "";
}

absl::StatusOr<TokenizerExtras> ExtrasOfConfig(const std::string& path, const text::Tokenizer* tokenizer) {
  NIBBLE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  NIBBLE_ASSIGN_OR_RETURN(const nlohmann::json config, ParseStrictObject(text, path));
  TokenizerExtras extras;
  extras.chat_template = TemplateOf(config);
  const auto add_eos = config.find("add_eos_token");
  if (add_eos != config.end() && add_eos->is_boolean()) extras.add_eos = add_eos->get<bool>();
  const auto pad = config.find("pad_token");
  if (tokenizer == nullptr || pad == config.end()) return extras;
  const std::string content = pad->is_object() ? TextOf(*pad, "content") : TextOf(config, "pad_token");
  const std::vector<int32_t> ids = content.empty() ? std::vector<int32_t>() : tokenizer->Encode(content);
  if (ids.size() == 1) extras.ids[kPaddingId] = ids[0];
  return extras;
}

}  // namespace

absl::StatusOr<TokenizerExtras> ReadTokenizerExtras(const std::vector<std::string>& files, const text::Tokenizer* tokenizer) {
  TokenizerExtras extras;
  for (const std::string& file : files) {
    if (absl::EndsWith(file, ".gguf")) return ExtrasOfGguf(file);
    if (!absl::EndsWith(file, kTokenizerConfigFile)) continue;
    NIBBLE_ASSIGN_OR_RETURN(extras, ExtrasOfConfig(file, tokenizer));
    const std::string jinja = absl::StrCat(absl::StripSuffix(file, kTokenizerConfigFile), kChatTemplateFile);
    if (!FileExists(jinja)) continue;
    NIBBLE_ASSIGN_OR_RETURN(extras.chat_template, ReadFile(jinja));
  }
  return extras;
}

std::string TokenizerConfigJson(const text::Tokenizer& tokenizer, const TokenizerExtras& extras) {
  nlohmann::ordered_json config = nlohmann::ordered_json::parse(tokenizer.ToConfigJson());
  if (!extras.chat_template.empty()) config["chat_template"] = extras.chat_template;
  if (extras.add_eos.has_value()) config["add_eos_token"] = *extras.add_eos;
  const auto padding = extras.ids.find(kPaddingId);
  if (padding != extras.ids.end() && padding->second < tokenizer.vocabulary_size()) config["pad_token"] = tokenizer.Decode({padding->second});
  return config.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace nibble::io
