// Greedy decoding of many prompts, several at a time as streams of one session.
// A stream that ends takes the next prompt while the others go on; what its prompt
// shares with the one before it in the stream is not computed again.
#ifndef NIBBLE_EVAL_GENERATION_H_
#define NIBBLE_EVAL_GENERATION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/thread_pool.h"
#include "core/runtime/session.h"
#include "core/text/tokenizer.h"

namespace nibble::eval {

struct GenerationOptions {
  std::string label;              // of progress
  int64_t max_tokens = 256;       // at least 1
  std::vector<std::string> stop;  // texts that end an answer
  int prompts_at_once = 16;
  std::vector<int32_t> end_tokens;  // that end an answer, beside the tokenizer's EOS
};

// The text that follows each prompt (not empty): the most likely token each time,
// the first on ties, until the EOS or another end token, a stop text or max_tokens; cut where a stop text
// begins. The order of prompts, not the pool, decides which run together.
absl::StatusOr<std::vector<std::string>> GenerateGreedily(const Plan& plan, ThreadPool& pool, const text::Tokenizer& tokenizer,
                                                          absl::Span<const std::vector<int32_t>> prompts, const GenerationOptions& options);

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_GENERATION_H_
