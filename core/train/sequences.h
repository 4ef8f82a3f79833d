// What training reads: token sequences and, for each token, whether the model
// learns to predict it.
#ifndef NIBBLE_CORE_TRAIN_SEQUENCES_H_
#define NIBBLE_CORE_TRAIN_SEQUENCES_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace nibble::train {

class Sequences {
 public:
  // `learned` has one entry a token, 1 for those to predict; the first token of
  // a sequence is never predicted.
  void Add(absl::Span<const int32_t> tokens, absl::Span<const uint8_t> learned);
  // Every token but the first is learned.
  void Add(absl::Span<const int32_t> tokens);

  // Cuts a stream into sequences of `window` tokens; a remainder is dropped.
  void AddWindows(absl::Span<const int32_t> stream, int64_t window);

  int64_t size() const { return static_cast<int64_t>(starts_.size()) - 1; }
  absl::Span<const int32_t> tokens(int64_t i) const { return Part(tokens_, i); }
  absl::Span<const uint8_t> learned(int64_t i) const { return Part(learned_, i); }
  int64_t total_tokens() const { return starts_.back(); }

 private:
  template <typename T>
  absl::Span<const T> Part(const std::vector<T>& values, int64_t i) const {
    return absl::MakeConstSpan(values).subspan(starts_[i], starts_[i + 1] - starts_[i]);
  }

  std::vector<int32_t> tokens_;
  std::vector<uint8_t> learned_;
  std::vector<int64_t> starts_ = {0};
};

// Index `position` of an endless shuffled order of `count` items: each epoch is
// a permutation of its own. A pure function, so that a resumed run goes on with
// the same data.
int64_t ShuffledIndex(int64_t position, int64_t count, uint64_t seed);

}  // namespace nibble::train

#endif  // NIBBLE_CORE_TRAIN_SEQUENCES_H_
