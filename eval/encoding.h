// Texts as tokens to be scored, as lm-evaluation-harness encodes them.
//
// A pair of a context and a continuation: white space that ends the context moves
// to the front of the continuation; the continuation's tokens are
//   enc(context + continuation)[len(enc(context)):].
// A BOS goes first iff the tokenizer adds one. An empty context is the BOS, or the
// EOS where there is no BOS, unless the task says that nothing stands there.
// Where the joint encoding changes the tokens of the context, the continuation is
// conditioned on the joint encoding's tokens (the harness keeps enc(context) there
// and so loses text).
#ifndef NIBBLE_EVAL_ENCODING_H_
#define NIBBLE_EVAL_ENCODING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/text/prefix_tokens.h"
#include "core/text/tokenizer.h"
#include "datasets/task.pb.h"

namespace nibble::eval {

// Tokens [first_target, end) are scored, each after all before it.
struct EncodedSequence {
  std::vector<int32_t> tokens;
  int64_t first_target = 0;  // at least 1, less than tokens.size()
};

// Sequences that are compared, or the only one.
struct EncodedItem {
  std::vector<int32_t> shared;  // what all begin with, as far as none of it is scored; computed once
  struct Tail {
    std::vector<int32_t> tokens;  // after `shared`
    int64_t first_target = 0;     // counted from the sequence's start; at least shared.size()
  };
  std::vector<Tail> tails;

  // Tokens that the model sees of the longest sequence: all but the last.
  int64_t positions() const;
};

EncodedItem ShareTokens(const std::vector<EncodedSequence>& sequences);

// Leaves the last `positions` + 1 tokens, of which the model sees all but the last, as the harness
// does; a BOS goes first. Whether there were more. Error: more targets than positions.
absl::StatusOr<bool> TruncateLeft(int64_t positions, EncodedSequence* sequence);

class PairEncoder {
 public:
  // `tokenizer` must outlive the encoder.
  explicit PairEncoder(const text::Tokenizer& tokenizer, TaskDescription::Start start = TaskDescription::PREFIX_TOKEN)
      : tokenizer_(tokenizer), start_(start) {}

  // Errors: those of text::PrefixTokens; a continuation that adds no tokens to its context.
  absl::StatusOr<EncodedSequence> Encode(absl::string_view context, absl::string_view continuation);

 private:
  const text::Tokenizer& tokenizer_;
  const TaskDescription::Start start_;
  std::string context_;  // the last one, and the number of its tokens
  int64_t context_tokens_ = 0;
};

// A text of which every token is predicted, in windows of at most `window` tokens
// that the model sees: the first predicts `window` tokens after the BOS (or EOS);
// each later one predicts the next `window` after the one token before them; the
// last is filled up to `window` with tokens before those that it predicts. Where
// the tokenizer adds a BOS, it is a token of the text too, as in the harness.
// Errors: those of text::PrefixTokens; a text without tokens, a window below 1.
absl::StatusOr<std::vector<EncodedSequence>> RollingWindows(const text::Tokenizer& tokenizer, absl::string_view text, int64_t window);

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_ENCODING_H_
