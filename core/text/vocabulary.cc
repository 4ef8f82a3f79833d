#include "core/text/vocabulary.h"

#include <limits>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/text/utf8.h"

namespace nibble::text {
namespace {

constexpr size_t kLongestAdded = 1024;

}  // namespace

std::string Quoted(absl::string_view token) {
  constexpr size_t kLongest = 60;
  if (token.size() <= kLongest) return absl::StrCat("'", absl::Utf8SafeCEscape(token), "'");
  return absl::StrCat("'", absl::Utf8SafeCEscape(token.substr(0, kLongest)), "...'");
}

absl::StatusOr<TokenIndex> IndexTokens(const std::vector<std::string>& tokens) {
  if (tokens.empty()) return absl::InvalidArgumentError("the vocabulary has no tokens");
  if (tokens.size() > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat("the vocabulary has ", tokens.size(), " tokens"));
  }
  TokenIndex index;
  index.reserve(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!IsUtf8(tokens[i])) {
      return absl::InvalidArgumentError(absl::StrCat("token ", i, " is not UTF-8: ", Quoted(tokens[i])));
    }
    const auto [it, is_new] = index.try_emplace(tokens[i], static_cast<int32_t>(i));
    if (!is_new) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokens ", it->second, " and ", i, " are both ", Quoted(tokens[i])));
    }
  }
  return index;
}

absl::Status CheckId(absl::string_view what, std::optional<int32_t> id, size_t size) {
  if (!id.has_value() || (*id >= 0 && static_cast<size_t>(*id) < size)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the ", what, " id ", *id, " is outside the vocabulary of ", size, " tokens"));
}

absl::Status CheckBosAndEos(std::optional<int32_t> bos, std::optional<int32_t> eos, bool add_bos, size_t size) {
  NIBBLE_RETURN_IF_ERROR(CheckId("BOS", bos, size));
  NIBBLE_RETURN_IF_ERROR(CheckId("EOS", eos, size));
  if (add_bos && !bos.has_value()) {
    return absl::InvalidArgumentError("a BOS is to be added to texts, but there is no BOS id");
  }
  return absl::OkStatus();
}

absl::Status CheckAddedTokens(const std::vector<AddedToken>& added, const std::vector<std::string>& tokens) {
  absl::flat_hash_set<int32_t> ids;
  for (const AddedToken& token : added) {
    NIBBLE_RETURN_IF_ERROR(CheckId(absl::StrCat("added token ", Quoted(token.content)), token.id, tokens.size()));
    if (token.content.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("the added token with id ", token.id, " is empty"));
    }
    // Looking for one takes its length at each byte of a text.
    if (token.content.size() > kLongestAdded) {
      return absl::InvalidArgumentError(absl::StrCat("the added token ", Quoted(token.content), " has ", token.content.size(),
                                                     " bytes; at most ", kLongestAdded, " are supported"));
    }
    if (token.content != tokens[token.id]) {
      return absl::InvalidArgumentError(absl::StrCat("the added token ", Quoted(token.content), " has id ", token.id,
                                                     ", but that token is ", Quoted(tokens[token.id])));
    }
    if (!ids.insert(token.id).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("the added token ", Quoted(token.content), " with id ", token.id, " is there twice"));
    }
  }
  return absl::OkStatus();
}

}  // namespace nibble::text
