// Checks that every kind of vocabulary needs, whatever file it came from.
#ifndef NIBBLE_CORE_TEXT_VOCABULARY_H_
#define NIBBLE_CORE_TEXT_VOCABULARY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/text/added_tokens.h"

namespace nibble::text {

using TokenIndex = absl::flat_hash_map<absl::string_view, int32_t>;

// Ids by token; the keys point into `tokens`. An error when there are no tokens,
// when one is not UTF-8 or when two are equal.
absl::StatusOr<TokenIndex> IndexTokens(const std::vector<std::string>& tokens);

// An error when `id` is there and outside [0, size). `what` names it.
absl::Status CheckId(absl::string_view what, std::optional<int32_t> id, size_t size);

// BOS and EOS within the vocabulary, and a BOS where one is to be added.
absl::Status CheckBosAndEos(std::optional<int32_t> bos, std::optional<int32_t> eos, bool add_bos, size_t size);

// Each added token is the token of its id, once, and not very long.
absl::Status CheckAddedTokens(const std::vector<AddedToken>& added, const std::vector<std::string>& tokens);

// A token for an error message: quoted, escaped where it is not printable, cut when
// it is long.
std::string Quoted(absl::string_view token);

}  // namespace nibble::text

#endif  // NIBBLE_CORE_TEXT_VOCABULARY_H_
