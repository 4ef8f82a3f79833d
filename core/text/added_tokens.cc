#include "core/text/added_tokens.h"

#include <algorithm>

namespace nibble::text {

std::vector<AddedToken> AddedTokensFromTypes(const std::vector<std::string>& tokens,
                                             const std::vector<int32_t>& types) {
  std::vector<AddedToken> added;
  for (size_t i = 0; i < std::min(tokens.size(), types.size()); ++i) {
    const TokenType type = static_cast<TokenType>(types[i]);
    if (type != TokenType::kControl && type != TokenType::kUserDefined) continue;
    added.push_back({static_cast<int32_t>(i), tokens[i], type == TokenType::kControl});
  }
  return added;
}

AddedTokenMatcher::AddedTokenMatcher(const std::vector<AddedToken>& tokens) : nodes_(1) {
  is_first_byte_.fill(false);
  for (const AddedToken& token : tokens) Add(token);
}

void AddedTokenMatcher::Add(const AddedToken& token) {
  if (token.content.empty()) return;
  is_first_byte_[static_cast<uint8_t>(token.content[0])] = true;
  int32_t node = 0;
  for (char byte : token.content) {
    const auto [it, is_new] = nodes_[node].next.try_emplace(byte, static_cast<int32_t>(nodes_.size()));
    node = it->second;
    if (is_new) nodes_.emplace_back();
  }
  nodes_[node].id = token.id;
}

AddedTokenMatcher::Match AddedTokenMatcher::LongestAt(absl::string_view text) const {
  Match match;
  const Node* node = &nodes_[0];
  for (size_t i = 0; i < text.size(); ++i) {
    const auto it = node->next.find(text[i]);
    if (it == node->next.end()) break;
    node = &nodes_[it->second];
    if (node->id >= 0) match = {node->id, i + 1};
  }
  return match;
}

void AddedTokenMatcher::Split(absl::string_view text, absl::FunctionRef<void(absl::string_view)> on_text,
                              absl::FunctionRef<void(int32_t)> on_token) const {
  size_t start = 0;
  size_t i = 0;
  while (i < text.size()) {
    const Match match = is_first_byte_[static_cast<uint8_t>(text[i])] ? LongestAt(text.substr(i)) : Match();
    if (match.length == 0) {
      ++i;
      continue;
    }
    if (i > start) on_text(text.substr(start, i - start));
    on_token(match.id);
    i += match.length;
    start = i;
  }
  if (start < text.size()) on_text(text.substr(start));
}

}  // namespace nibble::text
