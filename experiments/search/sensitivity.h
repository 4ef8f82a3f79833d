// What quantizing one part of a model does to its output.
#ifndef NIBBLE_EXPERIMENTS_SEARCH_SENSITIVITY_H_
#define NIBBLE_EXPERIMENTS_SEARCH_SENSITIVITY_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/calibration/batches.h"
#include "core/calibration/block_runner.h"
#include "core/ir/graph.h"

namespace nibble {

// Holds a model in fp32, and for some calibration sequences what each of its blocks
// reads and the logits that it gives, so that a change of one block is followed from
// there on.
class OutputProbe {
 public:
  static absl::StatusOr<std::unique_ptr<OutputProbe>> Create(const ir::Graph& graph, train::Machine machine, std::vector<calibration::Batch> batches);

  // The mean over positions of KL(p || q), in nats: p the model's next-token
  // distribution, q that of `changed`, which differs in the weights of blocks
  // [first, end) only.
  absl::StatusOr<double> Divergence(const ir::Graph& changed, int first, int end);

 private:
  OutputProbe(const ir::Graph& graph, train::Machine machine) : graph_(graph), machine_(machine) {}

  // What the head reads, from what the last block gives.
  std::vector<float> FinalNorm(const std::vector<float>& hidden) const;
  void Logits(const std::vector<float>& normed, int64_t first, int64_t count, float* logits) const;
  absl::StatusOr<double> SumOfDivergences(size_t batch, const std::vector<float>& hidden) const;

  const ir::Graph& graph_;
  const train::Machine machine_;
  std::vector<calibration::BlockRunner> runners_;     // of each block
  std::vector<std::vector<int64_t>> starts_;          // of each batch
  std::vector<std::vector<std::vector<float>>> reads_;  // [batch][layer], what the block reads
  std::vector<std::vector<float>> normed_;            // of each batch, what the head reads
  std::vector<float> gain_, head_;
  float eps_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_SEARCH_SENSITIVITY_H_
