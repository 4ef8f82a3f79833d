// Tokens that are found in the text itself, before any pre-tokenization: control
// tokens such as "<|eot_id|>" and whole strings added by the user.
#ifndef NIBBLE_CORE_TEXT_ADDED_TOKENS_H_
#define NIBBLE_CORE_TEXT_ADDED_TOKENS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"

namespace nibble::text {

struct AddedToken {
  int32_t id = 0;
  std::string content;  // the text that is replaced by the token
  bool special = true;  // a control token rather than ordinary text
};

// The token types of GGUF and SentencePiece, with GGUF's numbers.
enum class TokenType : int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

// The tokens of a GGUF byte-level vocabulary that `types` (tokenizer.ggml.token_type,
// which may be shorter) marks as control or user-defined.
std::vector<AddedToken> AddedTokensFromTypes(const std::vector<std::string>& tokens,
                                             const std::vector<int32_t>& types);

// Finds added tokens in a text: the leftmost, and of those the longest. The time is
// bounded by the text's length times the longest token's.
class AddedTokenMatcher {
 public:
  AddedTokenMatcher() : AddedTokenMatcher(std::vector<AddedToken>()) {}
  explicit AddedTokenMatcher(const std::vector<AddedToken>& tokens);

  // Calls `on_text` for each non-empty stretch between added tokens and `on_token`
  // for each added token, in the text's order.
  void Split(absl::string_view text, absl::FunctionRef<void(absl::string_view)> on_text,
             absl::FunctionRef<void(int32_t)> on_token) const;

 private:
  // One byte of the tokens' common prefixes.
  struct Node {
    int32_t id = -1;  // the token that ends here
    absl::flat_hash_map<char, int32_t> next;
  };
  struct Match {
    int32_t id = -1;
    size_t length = 0;
  };

  void Add(const AddedToken& token);
  Match LongestAt(absl::string_view text) const;

  std::vector<Node> nodes_;
  std::array<bool, 256> is_first_byte_;
};

}  // namespace nibble::text

#endif  // NIBBLE_CORE_TEXT_ADDED_TOKENS_H_
