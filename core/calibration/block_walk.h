// BlockWalk: what the linears of a block read, one after the other, while the linears
// before them change. Methods that quantize a linear on what the quantized ones before it
// give walk over each block once instead of from its start for every linear.
#ifndef NIBBLE_CORE_CALIBRATION_BLOCK_WALK_H_
#define NIBBLE_CORE_CALIBRATION_BLOCK_WALK_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "core/calibration/batches.h"
#include "core/calibration/block_runner.h"

namespace nibble::calibration {

class BlockWalk {
 public:
  // Bytes of activations that are kept between linears: of as many batches as fit, the
  // others start again.
  static constexpr int64_t kMostKept = int64_t{256} << 20;

  // Both outlive the walk.
  BlockWalk(BlockRunner& runner, std::vector<Batch>& batches, int64_t most_kept = kMostKept)
      : runner_(runner), batches_(batches), most_kept_(most_kept), states_(batches.size()) {}

  // What op, a linear, reads in batch b, [tokens, in]. Valid until the next call. Ops come
  // in order of execution; those before have the weights that the runner has when they run.
  absl::Span<const float> InputOf(size_t op, size_t b);

  // Forgets how far the batches are: weights that they passed have changed.
  void StartAgain();

  // Replaces what each batch brought to the block by what the block gives.
  void Finish();

 private:
  BlockRunner::State Begun(size_t b) const { return runner_.Begin(batches_[b].hidden); }

  BlockRunner& runner_;
  std::vector<Batch>& batches_;
  const int64_t most_kept_;
  std::vector<BlockRunner::State> states_;  // without values: not begun
  BlockRunner::State passing_;              // of the last call, where it is not kept
  int64_t kept_ = 0;                        // bytes of states_
};

}  // namespace nibble::calibration

#endif  // NIBBLE_CORE_CALIBRATION_BLOCK_WALK_H_
