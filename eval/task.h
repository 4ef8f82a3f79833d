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
  // The longest sequence that the model may see. A longer context loses its front, as in
  // lm-evaluation-harness; EXACT_MATCH leaves room for max_tokens after it.
  int64_t max_positions = 2048;
  std::vector<int32_t> end_tokens;  // EXACT_MATCH: the model's, beside the tokenizer's EOS
};

// What a model made of an item, and what of the item decides its scores.
struct ItemResult {
  int32_t category = -1;  // index into TaskRecords.categories; -1: none
  uint8_t truncated = 0;  // 1 where a context lost its front
  // Of each continuation, but for ROLLING and EXACT_MATCH, which have none.
  std::vector<float> log_likelihoods;   // nats
  std::vector<int32_t> target_tokens;
  std::vector<int32_t> bytes;           // UTF-8, the delimiter included
  std::vector<int32_t> characters;      // MULTIPLE_CHOICE: code points, the delimiter not counted
  int32_t gold = 0;
  uint8_t greedy = 0;                   // LAST_WORD: 1 where every token is the argmax
  // ROLLING
  std::vector<float> nll;               // of each token of the document, nats
  std::vector<int32_t> targets;         // those tokens
  std::vector<int32_t> window_tokens;   // how many of them each window predicts
  int64_t words = 0, text_bytes = 0;    // of the text as it stands in the file
  // EXACT_MATCH
  std::string said, answer;
  std::vector<uint8_t> matches;         // 1 where what a filter takes of `said` is the answer

  int prediction() const;  // the likeliest continuation
  int prediction_norm() const;
};

struct TaskRecords {
  std::string label;            // in metric names
  TaskDescription description;  // without its parts
  std::vector<std::string> categories;
  int shots = 0;
  int64_t window = 0, max_positions = 0;  // TaskOptions'
  bool adds_bos = false;  // the tokenizer
  Arithmetic arithmetic = NATIVE;
  std::vector<ItemResult> items;
};

struct TaskResult {
  std::vector<Metric> metrics;
  std::vector<ItemResult> items;
};

// The metrics that a task gives, in order: "accuracy/mmlu", then one for each
// category, "accuracy/mmlu_stem".
std::vector<std::string> TaskMetricNames(const datasets::Task& task);

// Errors name the item's file and line: a continuation that alone takes more than
// max_positions, a text that gives no tokens. A window beyond max_positions is one too, and
// max_tokens that leave no position for a prompt.
absl::StatusOr<TaskRecords> RecordTask(const Plan& plan, ThreadPool& pool, const text::Tokenizer& tokenizer, const datasets::Task& task,
                                       const TaskOptions& options);

// Of items that have what their kind of task needs.
absl::StatusOr<std::vector<Metric>> MetricsOf(const TaskRecords& records);

// Sets each item's `matches` from what was said; nothing where the kind is another.
absl::Status MatchAnswers(const TaskDescription& description, std::vector<ItemResult>* items);

// RecordTask and MetricsOf.
absl::StatusOr<TaskResult> MeasureTask(const Plan& plan, ThreadPool& pool, const text::Tokenizer& tokenizer, const datasets::Task& task,
                                       const TaskOptions& options);

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_TASK_H_
