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

// Of a model: what differs from another.
struct ModelPart {
  bool embedding = false;
  int first = 0, end = 0;  // blocks [first, end)
  bool head = false;
};

// Holds a model in fp32, and for some calibration sequences what each of its blocks and its
// head read, so that a change of a part is followed from there on.
class OutputProbe {
 public:
  static absl::StatusOr<std::unique_ptr<OutputProbe>> Create(const ir::Graph& graph, train::Machine machine, std::vector<calibration::Batch> batches);

  // The mean over positions of KL(p || q), in nats: p the model's next-token
  // distribution, q that of `changed`, which differs in the weights of
  // `part` only.
  absl::StatusOr<double> Divergence(const ir::Graph& changed, const ModelPart& part);

 private:
  OutputProbe(const ir::Graph& graph, train::Machine machine) : graph_(graph), machine_(machine) {}

  // What the head reads, from what the last block gives.
  std::vector<float> FinalNorm(const std::vector<float>& hidden) const;
  void Logits(const std::vector<float>& head, const std::vector<float>& normed, int64_t first, int64_t count, float* logits) const;
  // What the first block of a part reads, or the head, of each batch.
  absl::StatusOr<std::vector<std::vector<float>>> ReadsOf(const ir::Graph& changed, const ModelPart& part) const;
  // Of the model with `head` that gives `hidden` after its last block.
  absl::StatusOr<double> SumOfDivergences(size_t batch, const std::vector<float>& head, const std::vector<float>& hidden) const;

  const ir::Graph& graph_;
  const train::Machine machine_;
  std::vector<calibration::BlockRunner> runners_;     // of each block
  std::vector<std::vector<int64_t>> starts_;          // of each batch
  std::vector<std::vector<int32_t>> tokens_;          // of each batch
  std::vector<std::vector<std::vector<float>>> reads_;  // [batch][layer], what the block reads; last, what the last one gives
  std::vector<float> gain_, head_;
  float eps_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_SEARCH_SENSITIVITY_H_
