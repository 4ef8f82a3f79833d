// Scores of tasks.
//   MULTIPLE_CHOICE  accuracy: the gold choice has the largest log-likelihood after
//                    the context; accuracy_norm: with log-likelihoods divided by the
//                    choice's length in Unicode code points, delimiter not counted.
//                    The first choice on ties.
//   PARTIAL          accuracy: the ending is the likeliest after the gold context.
//   MINIMAL_PAIR     accuracy: the good sentence is likelier than the bad one.
//   LAST_WORD        accuracy: every token of the word is the argmax; perplexity:
//                    exp of the words' mean negative log-likelihood.
//   EXACT_MATCH      exact_match: what the model says, filtered, is the answer.
//   ROLLING          word_perplexity, byte_perplexity: exp of the negative
//                    log-likelihood of all documents by word and byte;
//                    bits_per_byte: the same in bits.
// A block of a metric is an item (a document), so variants compare item by item.
#ifndef NIBBLE_EVAL_TASK_H_
#define NIBBLE_EVAL_TASK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/thread_pool.h"
#include "core/runtime/session.h"
#include "core/text/tokenizer.h"
#include "datasets/task.h"
#include "eval/result.pb.h"

namespace nibble::eval {

struct TaskOptions {
  int64_t window = 2048;         // ROLLING: tokens that the model sees at once
  int items_at_once = 16;        // streams of the session; fewer when items are long
  int64_t max_positions = 2048;  // the longest sequence that the model may see
  std::vector<int32_t> end_tokens;  // EXACT_MATCH: the model's, beside the tokenizer's EOS
};

struct ItemResult {
  std::vector<double> log_likelihoods;  // of each continuation; ROLLING: of the document
  std::vector<int64_t> target_tokens;   // of each continuation
  int prediction = 0;                   // the likeliest continuation
  int prediction_norm = 0;
  bool greedy = false;                  // LAST_WORD
  std::string said;                     // EXACT_MATCH
  std::vector<bool> matches;            // by filter
};

struct TaskResult {
  std::vector<Metric> metrics;
  std::vector<ItemResult> items;
};

// The metrics that a task gives, in order: "accuracy/mmlu", then one for each
// category, "accuracy/mmlu_stem".
std::vector<std::string> TaskMetricNames(const datasets::Task& task);

// Errors name the item's file and line: more positions than max_positions, a text
// that gives no tokens.
absl::StatusOr<TaskResult> MeasureTask(const Plan& plan, ThreadPool& pool, const text::Tokenizer& tokenizer, const datasets::Task& task,
                                       const TaskOptions& options);

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_TASK_H_
