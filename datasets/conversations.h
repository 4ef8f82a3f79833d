// Conversations to learn from, and pairs of completions of which one is
// preferred.
#ifndef NIBBLE_DATASETS_CONVERSATIONS_H_
#define NIBBLE_DATASETS_CONVERSATIONS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace nibble::datasets {

struct Message {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

struct Conversation {
  std::vector<Message> messages;
};

// JSON Lines: {"messages": [{"role": ..., "content": ...}, ...]}, at least one
// of them the assistant's, or {"prompt": ..., "completion": ...}. Other fields
// and blank lines are ignored. Errors name file:line and the field.
absl::StatusOr<std::vector<Conversation>> ReadConversations(const std::string& path);

struct Preference {
  std::string prompt;  // may be empty
  std::string chosen, rejected;
};

// JSON Lines: {"prompt": ..., "chosen": ..., "rejected": ...}, or minimal pairs
// {"sentence_good": ..., "sentence_bad": ...} as BLiMP has them.
absl::StatusOr<std::vector<Preference>> ReadPreferences(const std::string& path);

}  // namespace nibble::datasets

#endif  // NIBBLE_DATASETS_CONVERSATIONS_H_
