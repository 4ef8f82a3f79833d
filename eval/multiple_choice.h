// Multiple-choice accuracy as lm-evaluation-harness defines it:
//   context = query + suffix, continuation = " " + choice; whitespace that ends
//   the context moves to the front of the continuation;
//   tokens of the continuation = enc(context + continuation)[len(enc(context)):];
//   ll = sum of their log-probabilities after what precedes them;
//   acc:      argmax of ll is the gold choice;
//   acc_norm: argmax of ll / (length of the choice in Unicode code points,
//             without the delimiting space) is;
//   the first choice on ties. A BOS goes first iff the tokenizer adds one. An
//   empty context is the BOS, or the EOS where there is no BOS.
//
// Where the joint encoding changes the tokens of the context, the continuation
// is conditioned on the joint encoding's tokens (the harness keeps enc(context)
// there and so loses text).
#ifndef NIBBLE_EVAL_MULTIPLE_CHOICE_H_
#define NIBBLE_EVAL_MULTIPLE_CHOICE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/thread_pool.h"
#include "core/runtime/session.h"
#include "core/text/tokenizer.h"
#include "datasets/multiple_choice.h"
#include "eval/result.pb.h"

namespace nibble::eval {

struct MultipleChoiceOptions {
  std::string set;               // what the items are called: "hellaswag"
  std::string context_suffix;    // after each query: "\nAnswer:"
  int64_t limit = 0;             // the first items only; 0: all
  int items_at_once = 16;        // streams of the session; fewer when items are long
  int64_t max_positions = 2048;  // the longest sequence that the model may see
};

// An item as tokens.
struct EncodedItem {
  std::vector<std::vector<int32_t>> sequences;  // per choice: context and continuation
  int64_t first_target = 0;                     // where the continuation starts in each sequence; at least 1
  int64_t shared = 0;                           // leading tokens that are computed once; at most first_target
};

// Errors: a choice that adds no tokens, an empty context without BOS and EOS.
absl::StatusOr<EncodedItem> EncodeItem(const text::Tokenizer& tokenizer, const datasets::MultipleChoiceItem& item,
                                       absl::string_view context_suffix);

struct ItemResult {
  std::vector<double> log_likelihoods;  // per choice
  std::vector<int64_t> target_tokens;   // per choice
  int prediction = 0;
  int prediction_norm = 0;
};

struct MultipleChoiceResult {
  std::vector<Metric> metrics;  // "accuracy/<set>", "accuracy_norm/<set>"; a block is an item
  std::vector<ItemResult> items;
};

// Errors name the item, counted from 0: a sequence beyond max_positions, an
// item that does not encode.
absl::StatusOr<MultipleChoiceResult> MeasureMultipleChoice(const Plan& plan, ThreadPool& pool,
                                                           const text::Tokenizer& tokenizer,
                                                           absl::Span<const datasets::MultipleChoiceItem> items,
                                                           const MultipleChoiceOptions& options);

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_MULTIPLE_CHOICE_H_
