#include "eval/item_scorer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/progress.h"
#include "core/base/status.h"
#include "eval/log_probs.h"

namespace nibble::eval {
namespace {

using Scores = std::vector<SequenceScore>;

// Scores batches of items, one item a stream.
class BatchScorer {
 public:
  BatchScorer(const Plan& plan, ThreadPool& pool, Session& session, int streams, bool want_greedy, bool want_nll)
      : plan_(plan), pool_(pool), session_(session), want_greedy_(want_greedy), want_nll_(want_nll), width_(plan.hidden_size()), cached_(streams) {}

  // Appends to each item's scores those of its sequences.
  absl::Status Score(absl::Span<const EncodedItem> items, absl::Span<Scores> scores) {
    NIBBLE_RETURN_IF_ERROR(ForwardShared(items));
    size_t sequences = 0;
    for (const EncodedItem& item : items) sequences = std::max(sequences, item.tails.size());
    for (size_t c = 0; c < sequences; ++c) NIBBLE_RETURN_IF_ERROR(ScoreSequence(items, c, scores));
    return absl::OkStatus();
  }

 private:
  // Runs the shared tokens of all items, as far as their streams do not hold them,
  // and keeps the state of the last of each.
  absl::Status ForwardShared(absl::Span<const EncodedItem> items) {
    std::vector<Segment> segments;
    for (size_t s = 0; s < items.size(); ++s) {
      const int64_t kept = KeptTokens(cached_[s], items[s].shared);
      session_.Rewind(static_cast<int>(s), kept);
      cached_[s] = items[s].shared;
      AddSegment(s, absl::MakeConstSpan(items[s].shared).subspan(kept), 1, &segments);
    }
    std::vector<float> hidden;
    NIBBLE_RETURN_IF_ERROR(session_.Forward(segments, &hidden));
    shared_states_.assign(items.size() * width_, 0);
    const float* state = hidden.data();
    for (const Segment& segment : segments) {
      std::copy(state, state + width_, shared_states_.begin() + segment.stream * width_);
      state += width_;
    }
    return absl::OkStatus();
  }

  // Sequence c of all items that have one: runs the rest of its tokens but the
  // last, scores its targets, and takes the streams back.
  absl::Status ScoreSequence(absl::Span<const EncodedItem> items, size_t c, absl::Span<Scores> scores) {
    std::vector<Segment> segments;
    for (size_t s = 0; s < items.size(); ++s) {
      if (c >= items[s].tails.size()) continue;
      const auto tokens = absl::MakeConstSpan(items[s].tails[c].tokens);
      AddSegment(s, tokens.first(tokens.size() - 1), std::nullopt, &segments);
    }
    std::vector<float> hidden;
    NIBBLE_RETURN_IF_ERROR(session_.Forward(segments, &hidden));
    std::vector<float> rows;
    std::vector<int32_t> targets;
    const float* own = hidden.data();
    for (size_t s = 0; s < items.size(); ++s) {
      if (c < items[s].tails.size()) own = GatherRows(items[s], s, c, own, &rows, &targets);
    }
    NIBBLE_ASSIGN_OR_RETURN(const TargetScores found, ScoreTargets(plan_, session_, pool_, rows.data(), targets, want_greedy_));
    AddScores(items, c, found, scores);
    for (const Segment& segment : segments) session_.Rewind(segment.stream, static_cast<int64_t>(items[segment.stream].shared.size()));
    return absl::OkStatus();
  }

  static void AddSegment(size_t s, absl::Span<const int32_t> tokens, std::optional<int64_t> wanted, std::vector<Segment>* segments) {
    if (!tokens.empty()) segments->push_back({static_cast<int>(s), tokens, wanted});
  }

  // Appends the states that predict the targets, and the targets. `own`: states of
  // the sequence's positions after the shared ones; returns their end.
  const float* GatherRows(const EncodedItem& item, size_t s, size_t c, const float* own, std::vector<float>* rows,
                          std::vector<int32_t>* targets) const {
    const std::vector<int32_t>& tokens = item.tails[c].tokens;
    const int64_t shared = static_cast<int64_t>(item.shared.size()), last = static_cast<int64_t>(tokens.size()) - 1;
    for (int64_t t = item.tails[c].first_target - shared; t <= last; ++t) {
      const float* row = t > 0 ? own + (t - 1) * width_ : shared_states_.data() + s * width_;
      rows->insert(rows->end(), row, row + width_);
      targets->push_back(tokens[t]);
    }
    return own + last * width_;
  }

  void AddScores(absl::Span<const EncodedItem> items, size_t c, const TargetScores& found, absl::Span<Scores> scores) const {
    size_t next = 0;
    for (size_t s = 0; s < items.size(); ++s) {
      if (c >= items[s].tails.size()) continue;
      const EncodedItem::Tail& tail = items[s].tails[c];
      SequenceScore score;
      score.targets = static_cast<int64_t>(items[s].shared.size() + tail.tokens.size()) - tail.first_target;
      score.greedy = want_greedy_;
      if (want_nll_) score.nll.assign(found.nll.begin() + next, found.nll.begin() + next + score.targets);
      double sum = 0;
      for (int64_t t = 0; t < score.targets; ++t, ++next) {
        sum += found.nll[next];
        if (want_greedy_) score.greedy = score.greedy && found.is_top[next] != 0;
      }
      score.log_likelihood = -sum;
      scores[s].push_back(std::move(score));
    }
  }

  const Plan& plan_;
  ThreadPool& pool_;
  Session& session_;
  const bool want_greedy_, want_nll_;
  const int64_t width_;
  std::vector<std::vector<int32_t>> cached_;  // tokens that each stream holds
  std::vector<float> shared_states_;          // [items, width_]
};

}  // namespace

SessionOptions SessionFor(int64_t longest, int at_once, size_t items) {
  const int64_t most = std::min<int64_t>(at_once, static_cast<int64_t>(items));
  return {.streams = static_cast<int>(std::clamp<int64_t>(kCachePositions / longest, 1, most)), .max_positions = longest};
}

int64_t KeptTokens(absl::Span<const int32_t> cached, absl::Span<const int32_t> tokens) {
  if (tokens.empty()) return 0;
  const size_t most = std::min(cached.size(), tokens.size() - 1);
  return std::mismatch(tokens.begin(), tokens.begin() + most, cached.begin()).first - tokens.begin();
}

absl::StatusOr<std::vector<std::vector<SequenceScore>>> ScoreItems(const Plan& plan, ThreadPool& pool, absl::Span<const EncodedItem> items,
                                                                   const ScoringOptions& options) {
  int64_t longest = 1;
  for (const EncodedItem& item : items) longest = std::max(longest, item.positions());
  const SessionOptions session_options = SessionFor(longest, options.items_at_once, items.size());
  NIBBLE_ASSIGN_OR_RETURN(const auto session, Session::Create(plan, pool, session_options));
  std::vector<Scores> scores(items.size());
  BatchScorer scorer(plan, pool, *session, session_options.streams, options.want_greedy, options.want_nll);
  Progress progress(options.label, static_cast<int64_t>(items.size()));
  for (size_t begin = 0; begin < items.size(); begin += session_options.streams) {
    const size_t count = std::min<size_t>(session_options.streams, items.size() - begin);
    const absl::Status status = scorer.Score(items.subspan(begin, count), absl::MakeSpan(scores).subspan(begin, count));
    const int64_t first = options.first_item + static_cast<int64_t>(begin);
    NIBBLE_RETURN_IF_ERROR(Annotate(status, absl::StrCat(options.label, " items ", first, " to ", first + static_cast<int64_t>(count) - 1)));
    progress.Update(static_cast<int64_t>(begin + count));
  }
  return scores;
}

}  // namespace nibble::eval
