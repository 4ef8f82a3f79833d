// BlockRunner: one decoder block of a graph at work on calibration sequences.
// Methods that calibrate go through a model block by block, so memory holds one
// block's weights in fp32, its activations for one batch, and the hidden states
// between blocks.
#ifndef NIBBLE_CORE_CALIBRATION_BLOCK_RUNNER_H_
#define NIBBLE_CORE_CALIBRATION_BLOCK_RUNNER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "core/ir/graph.h"
#include "core/tensor/hadamard.h"
#include "core/train/ops.h"

namespace nibble::calibration {

class BlockRunner {
 public:
  // Decodes the block's weights; `graph` outlives the runner and may change. An
  // error: a product whose first factor is no silu.
  static absl::StatusOr<BlockRunner> Create(const ir::Graph& graph, int layer, train::Machine machine);

  // Decodes the weight of an op anew, after it was replaced.
  absl::Status Reload(size_t op);

  // Runs an op with other values of its weight's shape, until Reload.
  void SetWeight(size_t op, std::vector<float> values);

  // The block's linears (indices into the graph's ops) by the value that they
  // read, in order of execution.
  std::vector<std::vector<size_t>> LinearsByInput() const;

  // Sees what a linear reads, [tokens, in], before any activation scheme.
  using Observer = absl::FunctionRef<void(size_t op, absl::Span<const float> x)>;

  // From what the block reads to what it gives, [tokens, hidden], in place.
  // `starts` are the first tokens of sequences, then the number of tokens.
  // Activation schemes do not apply: calibration sees full-precision inputs. A value that
  // is not finite is an error, and no observer sees it.
  absl::Status Run(absl::Span<const int64_t> starts, std::vector<float>* hidden, Observer observe);

  // A batch part of the way through the block: the values that the ops from `next` on
  // read.
  struct State {
    size_t next = 0;
    std::map<ir::ValueId, std::vector<float>> values;

    int64_t bytes() const;
  };
  State Begin(std::vector<float> hidden) const;
  // Runs the ops before `last`, a linear, that are still to come; what `last` reads stays
  // in `state`.
  absl::Span<const float> Advance(size_t last, absl::Span<const int64_t> starts, State* state);
  // Runs the rest; gives what the block gives.
  std::vector<float> Finish(absl::Span<const int64_t> starts, State state);

  // A batch before op `first`, with what ops [first, last] read and nothing else: all that
  // OutputOf needs, as often as the weights of those ops change.
  State Before(size_t first, size_t last, absl::Span<const int64_t> starts, std::vector<float> hidden);
  // What op `last` gives of a batch that is before it.
  std::vector<float> OutputOf(size_t last, absl::Span<const int64_t> starts, State state);

 private:
  BlockRunner(const ir::Graph& graph, train::Machine machine) : graph_(graph), machine_(machine) {}

  // Runs ops [state->next, end).
  void RunOps(size_t end, absl::Span<const int64_t> starts, Observer observe, State* state);
  void RunOp(const ir::Op& op, absl::Span<const int64_t> starts, State* state);
  // Whether one of the ops [begin, end) reads it.
  bool IsRead(ir::ValueId value, size_t begin, size_t end) const;

  const ir::Graph& graph_;
  const train::Machine machine_;
  size_t first_ = 0, end_ = 0;  // of the block's ops
  ir::ValueId input_ = -1;
  std::map<ir::ParameterId, std::vector<float>> weights_;
  std::map<std::vector<double>, train::RopeAngles<float>> angles_;
  std::map<int64_t, Hadamard> hadamards_;
};

}  // namespace nibble::calibration

#endif  // NIBBLE_CORE_CALIBRATION_BLOCK_RUNNER_H_
