#include "core/text/prefix_tokens.h"

namespace nibble::text {

absl::StatusOr<std::vector<int32_t>> PrefixTokens(const Tokenizer& tokenizer, bool empty_context) {
  if (!tokenizer.adds_bos() && !empty_context) return std::vector<int32_t>();
  if (tokenizer.bos_id().has_value()) return std::vector<int32_t>{*tokenizer.bos_id()};
  if (tokenizer.adds_bos()) return absl::InvalidArgumentError("the tokenizer asks for a BOS but names none");
  if (tokenizer.eos_id().has_value()) return std::vector<int32_t>{*tokenizer.eos_id()};
  return absl::InvalidArgumentError("the context is empty and the tokenizer has neither BOS nor EOS");
}

}  // namespace nibble::text
