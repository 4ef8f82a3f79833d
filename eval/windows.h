// A text as windows of tokens, by the two conventions that published
// perplexities follow. The text is tokenized once; windows do not overlap,
// start at token 0, and the tail is dropped. Each window is a sequence of its
// own from position 0.
//
//   GPTQ      window 2048: positions 0 .. W-2 predict tokens 1 .. W-1. One BOS
//             at the very start of the text where the tokenizer adds one, none
//             at the windows. (Frantar et al., "GPTQ", 2022, and its successors.)
//   LLAMACPP  window 512: positions W/2 .. W-2 predict the next token, W-1-W/2
//             predictions; 255 of 512. Where the tokenizer adds a BOS, the text
//             begins with one and it takes the place of each window's first
//             token. (llama.cpp's perplexity tool.)
#ifndef NIBBLE_EVAL_WINDOWS_H_
#define NIBBLE_EVAL_WINDOWS_H_

#include <cstdint>
#include <functional>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/base/thread_pool.h"
#include "core/runtime/session.h"
#include "core/text/tokenizer.h"
#include "eval/metric.h"

namespace nibble::eval {

enum class WindowConvention { kGptq, kLlamaCpp };

struct WindowOptions {
  WindowConvention convention = WindowConvention::kGptq;
  int64_t window = 0;  // 0: 2048 for GPTQ, 512 for LLAMACPP
  int64_t limit = 0;   // the first windows only; 0: all
};

struct TextWindows {
  std::string set;                            // what the text is called: "wikitext-2-raw/test"
  std::string convention;                     // "gptq window=2048 windows=20 bos=none"
  int64_t first = 0;                          // the first position whose prediction is scored
  std::vector<std::vector<int32_t>> windows;  // all of one length

  int64_t window() const { return static_cast<int64_t>(windows.front().size()); }
  int64_t predictions() const { return window() - 1 - first; }
  // Tokens that the scored positions of a window predict.
  absl::Span<const int32_t> Targets(size_t i) const { return absl::MakeConstSpan(windows[i]).subspan(first + 1); }
};

// What the raw records of each metric of a text begin with.
struct TextRecords {
  std::string set, convention;  // those of the windows
  Arithmetic arithmetic = NATIVE;
  int64_t predictions = 0;  // of a window
};

inline TextRecords HeadOf(const TextWindows& windows, const Plan& plan) {
  return {windows.set, windows.convention, ArithmeticOf(plan), windows.predictions()};
}

// Adds a block for each window: the sum of its values and their number. `values`: of all
// predictions.
template <typename T>
void AddWindows(const TextRecords& records, const std::vector<T>& values, Metric* metric) {
  for (auto next = values.begin(); next != values.end(); next += records.predictions) {
    AddBlock(std::accumulate(next, next + records.predictions, 0.0), static_cast<double>(records.predictions), metric);
  }
}

// The ids of the whole text, with one BOS before them iff the tokenizer adds
// one. Error: it adds one but has none.
absl::StatusOr<std::vector<int32_t>> TokenizeForPerplexity(const text::Tokenizer& tokenizer, absl::string_view text);

// `bos`: what the tokenizer adds, nullopt for none. Errors: no whole window, a
// window that predicts nothing.
absl::StatusOr<TextWindows> MakeWindows(std::string set, absl::Span<const int32_t> tokens, std::optional<int32_t> bos,
                                        const WindowOptions& options);

// Tokenizes and cuts.
absl::StatusOr<TextWindows> MakeWindows(std::string set, const text::Tokenizer& tokenizer, absl::string_view text,
                                        const WindowOptions& options);

// Called for the windows in order with the final hidden states [predictions(),
// hidden_size] of a window's scored positions.
using WindowVisitor = std::function<absl::Status(Session& session, size_t window, const float* hidden)>;

// Runs `plan` over all windows, short ones several at a time as streams of one
// session. Progress is shown under `label`.
absl::Status VisitWindows(const Plan& plan, ThreadPool& pool, const TextWindows& windows, const std::string& label,
                          const WindowVisitor& visit);

// What one of several plans made of a window.
struct WindowStates {
  Session* session;
  const float* hidden;  // [predictions(), hidden_size]
};
using WindowsVisitor = std::function<absl::Status(absl::Span<const WindowStates> states, size_t window)>;

// The same of several plans, batch by batch in turn; `states` are in their order.
absl::Status VisitWindows(absl::Span<const Plan* const> plans, ThreadPool& pool, const TextWindows& windows, const std::string& label,
                          const WindowsVisitor& visit);

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_WINDOWS_H_
