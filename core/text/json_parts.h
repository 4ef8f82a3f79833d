// The parts of tokenizer.json and tokenizer_config.json that every kind of
// tokenizer reads or writes in the same way.
#ifndef NIBBLE_CORE_TEXT_JSON_PARTS_H_
#define NIBBLE_CORE_TEXT_JSON_PARTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/text/added_tokens.h"
#include "core/text/vocabulary.h"
#include "nlohmann/json.hpp"

namespace nibble::text {

// The names under which the template post-processor's table of special tokens lists
// BOS and EOS. The table may list tokens that the template does not use, so that it
// can hold them where no tokenizer_config.json does.
inline constexpr absl::string_view kBosName = "bos";
inline constexpr absl::string_view kEosName = "eos";

// The pattern by which a tokenizer.json with Llama 3's pre-tokenizer is known.
inline constexpr absl::string_view kLlama3Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct BosAndEos {
  std::optional<int32_t> bos;
  std::optional<int32_t> eos;
  bool add_bos = false;
};

// The member, or null where it or the object is not there.
const nlohmann::json& Member(const nlohmann::json& object, const char* key);

// The id of a token that is given as a string or as an object with its content; none
// for null. `what` names it in an error.
absl::StatusOr<std::optional<int32_t>> FindToken(const nlohmann::json& token, const TokenIndex& index,
                                                 absl::string_view what);

// The contents of tokenizer_config.json; null for "".
absl::StatusOr<nlohmann::json> ParseConfig(absl::string_view json_or_empty);

// Sets what the config says: bos_token, eos_token, add_bos_token.
absl::Status ReadConfig(const nlohmann::json& config, const TokenIndex& index, BosAndEos* ids);

nlohmann::json AddedTokensJson(const std::vector<AddedToken>& tokens);
nlohmann::json VocabularyJson(const std::vector<std::string>& tokens);
nlohmann::json PostProcessorJson(const std::vector<std::string>& tokens, const BosAndEos& ids);

// The whole tokenizer_config.json.
std::string ConfigJson(const std::vector<std::string>& tokens, const BosAndEos& ids);

// The whole tokenizer.json.
std::string TokenizerJson(nlohmann::json added_tokens, nlohmann::json normalizer, nlohmann::json pre_tokenizer,
                          nlohmann::json post_processor, nlohmann::json decoder, nlohmann::json model);

}  // namespace nibble::text

#endif  // NIBBLE_CORE_TEXT_JSON_PARTS_H_
