#include "core/calibration/batches.h"

#include <algorithm>

#include "core/base/status.h"

namespace nibble::calibration {

absl::StatusOr<std::vector<Batch>> EmbedBatches(const ir::Graph& graph, const train::Sequences& sequences, int64_t count, uint64_t seed) {
  std::vector<Batch> batches;
  for (int64_t i = 0; i < std::min(count, sequences.size()); ++i) {
    if (batches.empty() || batches.back().starts.back() >= kBatchTokens) batches.emplace_back();
    const auto sequence = sequences.tokens(train::ShuffledIndex(i, sequences.size(), seed));
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<float> rows, ir::EmbedTokens(graph, sequence));
    Batch& batch = batches.back();
    batch.tokens.insert(batch.tokens.end(), sequence.begin(), sequence.end());
    batch.hidden.insert(batch.hidden.end(), rows.begin(), rows.end());
    batch.starts.push_back(batch.starts.back() + static_cast<int64_t>(sequence.size()));
  }
  return batches;
}

}  // namespace nibble::calibration
