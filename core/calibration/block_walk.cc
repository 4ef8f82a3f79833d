#include "core/calibration/block_walk.h"

#include <utility>

namespace nibble::calibration {

absl::Span<const float> BlockWalk::InputOf(size_t op, size_t b) {
  BlockRunner::State state = std::exchange(states_[b], {});
  kept_ -= state.bytes();
  if (state.values.empty()) state = Begun(b);
  runner_.Advance(op, batches_[b].starts, &state);
  const bool keeps = kept_ + state.bytes() <= most_kept_;
  if (keeps) kept_ += state.bytes();
  BlockRunner::State& held = keeps ? states_[b] : passing_;
  held = std::move(state);
  return runner_.Advance(op, batches_[b].starts, &held);
}

void BlockWalk::StartAgain() {
  for (BlockRunner::State& state : states_) state = {};
  kept_ = 0;
}

void BlockWalk::Finish() {
  passing_ = {};
  for (size_t b = 0; b < batches_.size(); ++b) {
    BlockRunner::State state = std::exchange(states_[b], {});
    if (state.values.empty()) state = runner_.Begin(std::move(batches_[b].hidden));
    batches_[b].hidden = runner_.Finish(batches_[b].starts, std::move(state));
  }
  kept_ = 0;
}

}  // namespace nibble::calibration
