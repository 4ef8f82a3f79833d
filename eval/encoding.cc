#include "eval/encoding.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status.h"
#include "datasets/whitespace.h"

namespace nibble::eval {
namespace {

// How many tokens all sequences begin with, of the first `most`.
int64_t CommonPrefix(const std::vector<EncodedSequence>& sequences, int64_t most) {
  const std::vector<int32_t>& first = sequences.front().tokens;
  for (const EncodedSequence& other : sequences) {
    most = std::mismatch(first.begin(), first.begin() + most, other.tokens.begin()).first - first.begin();
  }
  return most;
}

}  // namespace

int64_t EncodedItem::positions() const {
  size_t longest = 0;
  for (const Tail& tail : tails) longest = std::max(longest, tail.tokens.size());
  return static_cast<int64_t>(shared.size() + longest) - 1;
}

EncodedItem ShareTokens(const std::vector<EncodedSequence>& sequences) {
  NIBBLE_CHECK(!sequences.empty());
  int64_t most = sequences.front().first_target;
  for (const EncodedSequence& sequence : sequences) most = std::min(most, sequence.first_target);
  const int64_t shared = CommonPrefix(sequences, most);
  EncodedItem item;
  item.shared.assign(sequences.front().tokens.begin(), sequences.front().tokens.begin() + shared);
  for (const EncodedSequence& sequence : sequences) {
    item.tails.push_back({{sequence.tokens.begin() + shared, sequence.tokens.end()}, sequence.first_target});
  }
  return item;
}

absl::StatusOr<bool> TruncateLeft(int64_t positions, EncodedSequence* sequence) {
  const int64_t size = static_cast<int64_t>(sequence->tokens.size()), targets = size - sequence->first_target;
  if (targets > positions) {
    return absl::OutOfRangeError(absl::StrCat("the continuation alone has ", targets, " tokens; the model may see ", positions, " positions"));
  }
  const int64_t excess = size - 1 - positions;
  if (excess <= 0) return false;
  sequence->tokens.erase(sequence->tokens.begin(), sequence->tokens.begin() + excess);
  sequence->first_target -= excess;
  return true;
}

absl::StatusOr<EncodedSequence> PairEncoder::Encode(absl::string_view context, absl::string_view continuation) {
  const std::string joint = absl::StrCat(context, continuation);
  const absl::string_view given = datasets::StripTrailingWhitespace(context);
  const bool prefix_needed = given.empty() && start_ == TaskDescription::PREFIX_TOKEN;
  EncodedSequence sequence;
  NIBBLE_ASSIGN_OR_RETURN(sequence.tokens, text::PrefixTokens(tokenizer_, prefix_needed));
  if (given != context_) {
    context_ = std::string(given);
    context_tokens_ = static_cast<int64_t>(tokenizer_.Encode(context_).size());
  }
  // Without anything before the text, its first token is given.
  sequence.first_target = std::max<int64_t>(1, static_cast<int64_t>(sequence.tokens.size()) + context_tokens_);
  const std::vector<int32_t> ids = tokenizer_.Encode(joint);
  sequence.tokens.insert(sequence.tokens.end(), ids.begin(), ids.end());
  if (static_cast<int64_t>(sequence.tokens.size()) > sequence.first_target) return sequence;
  return absl::InvalidArgumentError(absl::StrCat("'", continuation, "' adds no tokens to its context"));
}

absl::StatusOr<std::vector<EncodedSequence>> RollingWindows(const text::Tokenizer& tokenizer, absl::string_view text, int64_t window) {
  if (window < 1) return absl::InvalidArgumentError(absl::StrCat("a window of ", window, " tokens predicts nothing"));
  NIBBLE_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, text::PrefixTokens(tokenizer, /*empty_context=*/true));
  if (tokenizer.adds_bos()) tokens.push_back(tokens[0]);
  const std::vector<int32_t> ids = tokenizer.Encode(text);
  tokens.insert(tokens.end(), ids.begin(), ids.end());
  // Token `end` - 1 is the last that a window predicts; token 0 predicts the first.
  const int64_t size = static_cast<int64_t>(tokens.size());
  if (size < 2) return absl::InvalidArgumentError("the text has no tokens");
  std::vector<EncodedSequence> windows;
  for (int64_t begin = 1; begin < size; begin += window) {
    const int64_t end = std::min(begin + window, size);
    // The prefix stands before the first window alone.
    const int64_t start = begin == 1 ? 0 : end - window - 1;
    windows.push_back({{tokens.begin() + start, tokens.begin() + end}, begin - start});
  }
  return windows;
}

}  // namespace nibble::eval
