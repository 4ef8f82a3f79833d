// What a quality measurement saw, token by token or item by item, in a file from which its
// metrics follow without the model: a safetensors file, whose metadata says what is measured.
//
//   metadata   nibble.records "1"; kind "perplexity", "divergence" or "task"; arithmetic
//              "NATIVE" or "SIMULATED"
//
// perplexity and divergence, with set and convention (of the metrics) in the metadata:
//   nll        F32 [windows, predictions]  perplexity: -log p of each scored token, nats
//   target     I32 likewise                perplexity: that token
//   kl         F32 [windows, predictions]  divergence: KL(baseline || variant), nats
//   agree      U8 [windows, ceil(predictions / 8)]  divergence: whether the two have one
//              argmax; prediction i is bit i % 8, counted from the lowest, of byte i / 8
//
// task, with label (in metric names), task (a TaskDescription as protobuf JSON, without its
// parts), shots, window and bos ("item" or "none") in the metadata; items in the data's order:
//   category   I32 [items]     which of the categories; -1: none
//   categories text            their names
//   truncated  U8 [items]      1 where a context lost its front; only where one did, and then
//                              positions in the metadata: how many the model may see
// of MULTIPLE_CHOICE, PARTIAL, MINIMAL_PAIR and LAST_WORD:
//   choices    I32 [items]     how many continuations an item has; those of all items follow
//                              each other in
//   log_likelihood F32, tokens I32, bytes I32 (UTF-8, the delimiter included), and of
//   MULTIPLE_CHOICE characters I32 (code points, the delimiter not counted)
//   gold       I32 [items]     the right continuation, counted from 0
//   greedy     U8 [items]      LAST_WORD: 1 where every token is the argmax
// of ROLLING, where an item is a document:
//   windows, tokens I32 [items]; words, bytes I64 [items]
//   window_tokens I32 [all windows]  how many tokens each predicts
//   nll F32, target I32 [all tokens]
// of EXACT_MATCH:
//   said, answer  text         what the model said, and the right answer
//   matched    U8 [items, filters]  1 where what a filter takes of the first is the second
//
// A text named t is two tensors: t U8, the UTF-8 bytes of all of them, and t_bytes I32, how
// many each has.
#ifndef NIBBLE_EVAL_RAW_RECORDS_H_
#define NIBBLE_EVAL_RAW_RECORDS_H_

#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "eval/divergence.h"
#include "eval/perplexity.h"
#include "eval/result.pb.h"
#include "eval/task.h"

namespace nibble::eval {

using RawRecords = std::variant<PerplexityRecords, DivergenceRecords, TaskRecords>;

// What every evaluation makes its metrics with, so that a file gives the measured ones.
absl::StatusOr<std::vector<Metric>> MetricsOf(const RawRecords& records);

// The bytes of their file. Error: a name that is not UTF-8.
absl::StatusOr<std::string> ToFileBytes(const RawRecords& records);

// Errors name the file: no safetensors file, no raw records, a tensor that is missing or that
// the others contradict. The values of `matched` are not read but made again from the texts.
absl::StatusOr<RawRecords> ReadRawRecords(const std::string& path);

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_RAW_RECORDS_H_
