// Log-likelihoods of encoded items: the core of every task that compares texts.
//
// Items run several at a time, one a stream. What the sequences of an item share is
// computed once, and so is what an item shares with the one before it in the same
// stream: a prompt's examples are computed once a stream, not once an item.
#ifndef NIBBLE_EVAL_ITEM_SCORER_H_
#define NIBBLE_EVAL_ITEM_SCORER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/thread_pool.h"
#include "core/runtime/session.h"
#include "eval/encoding.h"

namespace nibble::eval {

struct SequenceScore {
  double log_likelihood = 0;  // sum over the targets, nats
  int64_t targets = 0;
  bool greedy = false;  // every target is the argmax (first on ties); only where asked for
  std::vector<float> nll;  // of each target; only where asked for
};

struct ScoringOptions {
  std::string label;           // of progress and messages: "accuracy/hellaswag"
  int items_at_once = 16;      // streams of the session; fewer when items are long
  bool want_greedy = false;
  int64_t first_item = 0;      // what items[0] is called in messages
  bool want_nll = false;
};

// Tokens that all streams of a session may hold together, unless one item needs more.
inline constexpr int64_t kCachePositions = 8192;

// A session for items of at most `longest` positions: `at_once` streams, fewer where
// kCachePositions asks for it, never more than `items`.
SessionOptions SessionFor(int64_t longest, int at_once, size_t items);

// Tokens at the front of `tokens` that `cached` begins with too, one less than all
// of `tokens`: the state of the last is always computed.
int64_t KeptTokens(absl::Span<const int32_t> cached, absl::Span<const int32_t> tokens);

// scores[i][c]: of sequence c of item i.
absl::StatusOr<std::vector<std::vector<SequenceScore>>> ScoreItems(const Plan& plan, ThreadPool& pool, absl::Span<const EncodedItem> items,
                                                                   const ScoringOptions& options);

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_ITEM_SCORER_H_
