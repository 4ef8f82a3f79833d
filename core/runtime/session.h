// Session: a plan at work. Holds the KV cache of one or more token streams and
// the arena of intermediate values; feeds tokens, gives final hidden states
// and, where asked, logits.
//
// Work is cut by tokens, heads and tiles, never by thread, so the numbers are
// the same for any pool.
#ifndef NIBBLE_CORE_RUNTIME_SESSION_H_
#define NIBBLE_CORE_RUNTIME_SESSION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/thread_pool.h"
#include "core/runtime/attention.h"
#include "core/runtime/kv_cache.h"
#include "core/runtime/plan.h"

namespace nibble {

struct SessionOptions {
  int streams = 1;
  int64_t max_positions = 2048;  // per stream
  std::optional<CacheType> cache_type;  // where the graph does not say; CacheSchemesOf
  bool profile = false;          // measure each step; costs two clock readings a step
};

// What a step of the plan took since the session began or ClearProfile().
struct StepProfile {
  double seconds = 0;
  int64_t calls = 0, tokens = 0;
};

// Tokens to append to one stream.
struct Segment {
  int stream = 0;
  absl::Span<const int32_t> tokens;
  // Hidden states are wanted of so many of its last tokens; none: of all. The others leave
  // the plan at the last attention, when their keys and values are stored.
  std::optional<int64_t> wanted = std::nullopt;

  int64_t wanted_count() const { return wanted.value_or(static_cast<int64_t>(tokens.size())); }
};

class Session {
 public:
  // `plan` and `pool` must outlive the session.
  static absl::StatusOr<std::unique_ptr<Session>> Create(const Plan& plan, ThreadPool& pool, const SessionOptions& options);

  // Appends the segments' tokens to their streams (a stream at most once a
  // call). When `hidden` is given it receives the final normalized hidden
  // states [wanted tokens in order, hidden_size]; else none is wanted. Long inputs run in chunks of
  // chunk_tokens(). Errors: a token outside the vocabulary, a stream beyond
  // max_positions (nothing is appended then).
  absl::Status Forward(absl::Span<const Segment> segments, std::vector<float>* hidden);

  // Logits [count, vocab_size] of final hidden states.
  absl::Status Logits(const float* hidden, int64_t count, float* logits);

  // Tokens in the stream's cache.
  int64_t position(int stream) const { return positions_[stream]; }
  // Forgets everything from `position` on.
  void Rewind(int stream, int64_t position);

  int64_t cache_bytes() const;
  int64_t arena_bytes() const { return arena_.byte_size(); }

  // One entry for each step of the plan, then one for the head; empty without
  // SessionOptions::profile.
  const std::vector<StepProfile>& profile() const { return profile_; }
  void ClearProfile() { profile_.assign(profile_.size(), {}); }

  // Tokens that pass through the plan together. The more there are, the less it counts that
  // products make panels of weights anew for each chunk, and the larger is the arena: as
  // many as kArenaBytes hold, but kLeastChunkTokens of wide models too.
  static constexpr int64_t kLeastChunkTokens = 512, kMostChunkTokens = 2048, kArenaBytes = 32 << 20;
  int64_t chunk_tokens() const { return chunk_tokens_; }

 private:
  Session(const Plan& plan, ThreadPool& pool, const SessionOptions& options);
  absl::Status CheckSegments(absl::Span<const Segment> segments) const;
  absl::Status RunChunk();
  // Forgets the rows of the chunk that are not wanted; what steps still read moves up.
  void KeepWanted();
  absl::Status RunStep(const PlanStep& step);
  // Runs `work`, and adds its time to a step's profile where there is one; `tokens` is read
  // afterwards.
  template <typename Work>
  absl::Status Profiled(size_t step, const int64_t& tokens, const Work& work);
  void Embed(const PlanStep& step);
  absl::Status RunLinear(const PlanStep& step, int64_t tokens);
  void MakeRow(const PlanStep& step, int64_t t, float* row) const;
  // The step's rotation, where it has one, of a row that it gives.
  void RotateRow(const PlanStep& step, int64_t width, float* row) const;
  void Rope(const PlanStep& step);
  void Attend(const PlanStep& step);

  float* Slot(int slot) { return arena_floats_ + slot_begins_[slot]; }
  const float* Slot(int slot) const { return arena_floats_ + slot_begins_[slot]; }

  const Plan& plan_;
  ThreadPool& pool_;
  const SessionOptions options_;
  const int64_t chunk_tokens_;
  std::vector<int64_t> positions_;
  Tensor arena_;  // of all slots
  float* arena_floats_ = nullptr;
  std::vector<int64_t> slot_begins_;
  std::vector<int32_t> tokens_;  // of the chunk that runs
  std::vector<TokenRun> runs_, wanted_;
  int64_t rows_ = 0;  // of the chunk that are still in the plan
  std::vector<KvCache> caches_;
  std::vector<Attention> attentions_;
  std::vector<float> rope_cos_, rope_sin_;  // [max_positions, head_dim / 2]
  std::vector<StepProfile> profile_;
  kernels::PreparedInput input_, head_input_;
  ir::ValueId prepared_value_ = -1;
  const kernels::InputForm* prepared_form_ = nullptr;
};

}  // namespace nibble

#endif  // NIBBLE_CORE_RUNTIME_SESSION_H_
