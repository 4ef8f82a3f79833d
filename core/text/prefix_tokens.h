// What stands before a text.
#ifndef NIBBLE_CORE_TEXT_PREFIX_TOKENS_H_
#define NIBBLE_CORE_TEXT_PREFIX_TOKENS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "core/text/tokenizer.h"

namespace nibble::text {

// Tokens before any text: the BOS where one is added, or what stands for an empty
// context. Errors: the tokenizer asks for a BOS but names none; an empty context
// where it has neither BOS nor EOS.
absl::StatusOr<std::vector<int32_t>> PrefixTokens(const Tokenizer& tokenizer, bool empty_context);

}  // namespace nibble::text

#endif  // NIBBLE_CORE_TEXT_PREFIX_TOKENS_H_
