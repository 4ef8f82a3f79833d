// Text, conversations and preferences as token sequences.
#ifndef NIBBLE_METHODS_TRAINING_DATA_H_
#define NIBBLE_METHODS_TRAINING_DATA_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/text/tokenizer.h"
#include "core/train/sequences.h"
#include "datasets/conversations.h"

namespace nibble {

// The files that `names` stand for: a file, a known set, or the .txt files of a
// folder by name, less those whose name matches a pattern of `exclude`.
absl::StatusOr<std::vector<std::string>> TextFiles(const std::vector<std::string>& names, const std::vector<std::string>& exclude,
                                                   const std::string& directory);

// All files as one stream of tokens, each file between the tokenizer's BOS and
// EOS where it has them.
absl::StatusOr<std::vector<int32_t>> TokenStream(const text::Tokenizer& tokenizer, const std::vector<std::string>& files);

// A conversation in the form of the tokenizer's model: ChatML where its
// vocabulary has <|im_start|>, Llama 3's headers where it has
// <|start_header_id|>, "role: text" lines elsewhere. What the assistant says,
// with the token that ends its turn, is learned. What is longer than `window` is cut there;
// a conversation of which nothing learned is left is not added.
// Error: that of text::PrefixTokens.
enum class Added { kWhole, kCut, kNotAtAll };
absl::StatusOr<Added> AddConversation(const text::Tokenizer& tokenizer, const datasets::Conversation& conversation, int64_t window, train::Sequences* sequences);

// Prompt and completion; only the completion is learned, after text::PrefixTokens where
// there is no prompt. False when they are longer than `window` or say nothing to learn.
absl::StatusOr<bool> AddCompletion(const text::Tokenizer& tokenizer, const std::string& prompt, const std::string& completion, int64_t window,
                                   train::Sequences* sequences);

}  // namespace nibble

#endif  // NIBBLE_METHODS_TRAINING_DATA_H_
