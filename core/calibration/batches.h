// Calibration sequences in batches, with the hidden states between blocks.
#ifndef NIBBLE_CORE_CALIBRATION_BATCHES_H_
#define NIBBLE_CORE_CALIBRATION_BATCHES_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "core/ir/graph.h"
#include "core/train/sequences.h"

namespace nibble::calibration {

// Tokens that pass through a block at a time: a batch has as many or, with its
// last sequence, more.
inline constexpr int64_t kBatchTokens = 2048;

struct Batch {
  std::vector<int64_t> starts = {0};  // first tokens of sequences, then the number of tokens
  std::vector<int32_t> tokens;
  std::vector<float> hidden;          // [tokens, hidden], what the next block reads
};

// The embedded tokens of the first `count` sequences (at most all) in the order that
// `seed` shuffles them.
absl::StatusOr<std::vector<Batch>> EmbedBatches(const ir::Graph& graph, const train::Sequences& sequences, int64_t count, uint64_t seed);

}  // namespace nibble::calibration

#endif  // NIBBLE_CORE_CALIBRATION_BATCHES_H_
