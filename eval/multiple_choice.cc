#include "eval/multiple_choice.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/progress.h"
#include "core/base/status.h"
#include "eval/log_probs.h"
#include "eval/metric.h"
#include "eval/statistics.h"

namespace nibble::eval {
namespace {

using datasets::MultipleChoiceItem;

// Positions of KV cache that a session gets in all, unless one item needs more.
constexpr int64_t kCachePositions = 8192;

// What Python's str.rstrip() removes: the characters of str.isspace().
constexpr absl::string_view kWhitespace[] = {
    " ",      "\t",     "\n",     "\v",     "\f",     "\r",     "\x1c",   "\x1d",   "\x1e",   "\x1f",
    "\u0085", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
    "\u2007", "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};

absl::string_view StripTrailingWhitespace(absl::string_view text) {
  const auto ends_text = [&](absl::string_view space) { return absl::EndsWith(text, space); };
  while (true) {
    const auto* space = std::find_if(std::begin(kWhitespace), std::end(kWhitespace), ends_text);
    if (space == std::end(kWhitespace)) return text;
    text.remove_suffix(space->size());
  }
}

int64_t CodePoints(absl::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

// Tokens before the text: BOS where one is added, or what stands for an empty context.
absl::StatusOr<std::vector<int32_t>> Prefix(const text::Tokenizer& tokenizer, bool empty_context) {
  if (!tokenizer.adds_bos() && !empty_context) return std::vector<int32_t>();
  if (tokenizer.bos_id().has_value()) return std::vector<int32_t>{*tokenizer.bos_id()};
  if (tokenizer.adds_bos()) return absl::InvalidArgumentError("the tokenizer asks for a BOS but names none");
  if (tokenizer.eos_id().has_value()) return std::vector<int32_t>{*tokenizer.eos_id()};
  return absl::InvalidArgumentError("the context is empty and the tokenizer has neither BOS nor EOS");
}

int64_t CommonPrefix(const std::vector<std::vector<int32_t>>& sequences, int64_t most) {
  const std::vector<int32_t>& first = sequences.front();
  for (const std::vector<int32_t>& other : sequences) {
    const auto end = std::mismatch(first.begin(), first.begin() + most, other.begin()).first;
    most = end - first.begin();
  }
  return most;
}

// Index of the largest value, the first on ties.
int Best(const std::vector<double>& values) {
  return static_cast<int>(std::max_element(values.begin(), values.end()) - values.begin());
}

// Scores batches of items, one item a stream.
class BatchScorer {
 public:
  BatchScorer(const Plan& plan, ThreadPool& pool, Session& session)
      : plan_(plan), pool_(pool), session_(session), width_(plan.hidden_size()) {}

  // Appends to each result the log-likelihoods of its choices.
  absl::Status Score(absl::Span<const EncodedItem> items, absl::Span<ItemResult> results) {
    NIBBLE_RETURN_IF_ERROR(ForwardShared(items));
    size_t choices = 0;
    for (const EncodedItem& item : items) choices = std::max(choices, item.sequences.size());
    for (size_t c = 0; c < choices; ++c) NIBBLE_RETURN_IF_ERROR(ScoreChoice(items, c, results));
    for (size_t s = 0; s < items.size(); ++s) session_.Rewind(static_cast<int>(s), 0);
    return absl::OkStatus();
  }

 private:
  // Runs the shared tokens of all items and keeps the state of the last of each.
  absl::Status ForwardShared(absl::Span<const EncodedItem> items) {
    std::vector<Segment> segments;
    for (size_t s = 0; s < items.size(); ++s) AddSegment(s, items[s].sequences[0], 0, items[s].shared, &segments);
    std::vector<float> hidden;
    NIBBLE_RETURN_IF_ERROR(session_.Forward(segments, &hidden));
    shared_states_.assign(items.size() * width_, 0);
    const float* end = hidden.data();
    for (size_t s = 0; s < items.size(); ++s) {
      end += items[s].shared * width_;
      if (items[s].shared > 0) std::copy(end - width_, end, shared_states_.begin() + s * width_);
    }
    return absl::OkStatus();
  }

  // Choice c of all items that have one: runs the rest of its tokens but the
  // last, scores its continuation, and takes the streams back.
  absl::Status ScoreChoice(absl::Span<const EncodedItem> items, size_t c, absl::Span<ItemResult> results) {
    std::vector<Segment> segments;
    for (size_t s = 0; s < items.size(); ++s) {
      if (c >= items[s].sequences.size()) continue;
      const std::vector<int32_t>& sequence = items[s].sequences[c];
      AddSegment(s, sequence, items[s].shared, static_cast<int64_t>(sequence.size()) - 1, &segments);
    }
    std::vector<float> hidden;
    NIBBLE_RETURN_IF_ERROR(session_.Forward(segments, &hidden));
    std::vector<float> rows;
    std::vector<int32_t> targets;
    const float* own = hidden.data();
    for (size_t s = 0; s < items.size(); ++s) {
      if (c < items[s].sequences.size()) own = GatherRows(items[s], s, c, own, &rows, &targets);
    }
    NIBBLE_ASSIGN_OR_RETURN(const TargetScores scores, ScoreTargets(plan_, session_, pool_, rows.data(), targets));
    AddLogLikelihoods(items, c, scores.nll, results);
    for (const Segment& segment : segments) session_.Rewind(segment.stream, items[segment.stream].shared);
    return absl::OkStatus();
  }

  // Tokens [begin, end) of a sequence for stream s, if there are any.
  static void AddSegment(size_t s, const std::vector<int32_t>& sequence, int64_t begin, int64_t end,
                         std::vector<Segment>* segments) {
    if (begin < end)
      segments->push_back({static_cast<int>(s), absl::MakeConstSpan(sequence).subspan(begin, end - begin)});
  }

  // Appends the states that predict the continuation, and its tokens. `own`:
  // states of the item's positions from `shared` on; returns their end.
  const float* GatherRows(const EncodedItem& item, size_t s, size_t c, const float* own, std::vector<float>* rows,
                          std::vector<int32_t>* targets) const {
    const std::vector<int32_t>& sequence = item.sequences[c];
    const int64_t last = static_cast<int64_t>(sequence.size()) - 1;
    for (int64_t position = item.first_target - 1; position < last; ++position) {
      const bool is_own = position >= item.shared;
      const float* row = is_own ? own + (position - item.shared) * width_ : shared_states_.data() + s * width_;
      rows->insert(rows->end(), row, row + width_);
      targets->push_back(sequence[position + 1]);
    }
    return own + (last - item.shared) * width_;
  }

  static void AddLogLikelihoods(absl::Span<const EncodedItem> items, size_t c, const std::vector<double>& nll,
                                absl::Span<ItemResult> results) {
    size_t next = 0;
    for (size_t s = 0; s < items.size(); ++s) {
      if (c >= items[s].sequences.size()) continue;
      const int64_t count = static_cast<int64_t>(items[s].sequences[c].size()) - items[s].first_target;
      double sum = 0;
      for (int64_t t = 0; t < count; ++t) sum += nll[next++];
      results[s].log_likelihoods.push_back(-sum);
      results[s].target_tokens.push_back(count);
    }
  }

  const Plan& plan_;
  ThreadPool& pool_;
  Session& session_;
  const int64_t width_;
  std::vector<float> shared_states_;  // [items, width_]
};

void Predict(const MultipleChoiceItem& item, ItemResult* result) {
  std::vector<double> normalized = result->log_likelihoods;
  for (size_t c = 0; c < normalized.size(); ++c) normalized[c] /= static_cast<double>(CodePoints(item.choices[c]));
  result->prediction = Best(result->log_likelihoods);
  result->prediction_norm = Best(normalized);
}

absl::StatusOr<std::vector<EncodedItem>> EncodeItems(const text::Tokenizer& tokenizer,
                                                     absl::Span<const MultipleChoiceItem> items,
                                                     const MultipleChoiceOptions& options) {
  std::vector<EncodedItem> encoded;
  for (size_t i = 0; i < items.size(); ++i) {
    const std::string name = absl::StrCat(options.set, " item ", i);
    auto item = EncodeItem(tokenizer, items[i], options.context_suffix);
    if (!item.ok()) return Annotate(item.status(), name);
    for (const std::vector<int32_t>& sequence : item->sequences) {
      const int64_t positions = static_cast<int64_t>(sequence.size()) - 1;
      if (positions <= options.max_positions) continue;
      return absl::OutOfRangeError(
          absl::StrCat(name, " needs ", positions, " positions; the session has ", options.max_positions));
    }
    encoded.push_back(*std::move(item));
  }
  return encoded;
}

SessionOptions ChooseSession(absl::Span<const EncodedItem> items, int items_at_once) {
  int64_t longest = 1;
  for (const EncodedItem& item : items) {
    for (const std::vector<int32_t>& sequence : item.sequences)
      longest = std::max<int64_t>(longest, sequence.size() - 1);
  }
  const int64_t most = std::min<int64_t>(items_at_once, items.size());
  return {.streams = static_cast<int>(std::clamp<int64_t>(kCachePositions / longest, 1, most)),
          .max_positions = longest};
}

std::string ConventionText(const text::Tokenizer& tokenizer, size_t items, const std::string& suffix) {
  return absl::StrCat("lm-eval items=", items, " bos=", tokenizer.adds_bos() ? "item" : "none",
                      suffix.empty() ? "" : absl::StrCat(" suffix=\"", absl::CEscape(suffix), "\""));
}

absl::StatusOr<std::vector<Metric>> MakeMetrics(MetricHead head, const std::string& set,
                                                absl::Span<const MultipleChoiceItem> items,
                                                const std::vector<ItemResult>& results) {
  head.name = absl::StrCat("accuracy/", set);
  Metric accuracy = MakeMetric(head);
  head.name = absl::StrCat("accuracy_norm/", set);
  Metric normalized = MakeMetric(head);
  for (size_t i = 0; i < items.size(); ++i) {
    AddBlock(results[i].prediction == items[i].gold, 1, &accuracy);
    AddBlock(results[i].prediction_norm == items[i].gold, 1, &normalized);
  }
  NIBBLE_RETURN_IF_ERROR(FillMetric(&accuracy));
  NIBBLE_RETURN_IF_ERROR(FillMetric(&normalized));
  return std::vector<Metric>{accuracy, normalized};
}

}  // namespace

absl::StatusOr<EncodedItem> EncodeItem(const text::Tokenizer& tokenizer, const MultipleChoiceItem& item,
                                       absl::string_view context_suffix) {
  const std::string query = absl::StrCat(item.query, context_suffix);
  const absl::string_view context = StripTrailingWhitespace(query);
  const absl::string_view moved = absl::string_view(query).substr(context.size());
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<int32_t> prefix, Prefix(tokenizer, context.empty()));
  EncodedItem encoded;
  encoded.first_target = static_cast<int64_t>(prefix.size());
  if (!context.empty()) encoded.first_target += static_cast<int64_t>(tokenizer.Encode(context).size());
  for (const std::string& choice : item.choices) {
    std::vector<int32_t> sequence = prefix;
    const std::vector<int32_t> joint = tokenizer.Encode(absl::StrCat(context, moved, " ", choice));
    sequence.insert(sequence.end(), joint.begin(), joint.end());
    if (static_cast<int64_t>(sequence.size()) <= encoded.first_target) {
      return absl::InvalidArgumentError(absl::StrCat("choice '", choice, "' adds no tokens to its context"));
    }
    encoded.sequences.push_back(std::move(sequence));
  }
  if (encoded.sequences.empty() || encoded.first_target == 0) {
    return absl::InvalidArgumentError("no choices or no context");
  }
  encoded.shared = CommonPrefix(encoded.sequences, encoded.first_target);
  return encoded;
}

absl::StatusOr<MultipleChoiceResult> MeasureMultipleChoice(const Plan& plan, ThreadPool& pool,
                                                           const text::Tokenizer& tokenizer,
                                                           absl::Span<const MultipleChoiceItem> items,
                                                           const MultipleChoiceOptions& options) {
  if (options.limit > 0) items = items.first(std::min<size_t>(options.limit, items.size()));
  if (items.empty()) return absl::InvalidArgumentError(absl::StrCat(options.set, " has no items"));
  if (options.items_at_once < 1) return absl::InvalidArgumentError("items_at_once must be at least 1");
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<EncodedItem> encoded, EncodeItems(tokenizer, items, options));
  const SessionOptions session_options = ChooseSession(encoded, options.items_at_once);
  NIBBLE_ASSIGN_OR_RETURN(const auto session, Session::Create(plan, pool, session_options));
  MultipleChoiceResult result;
  result.items.resize(items.size());
  BatchScorer scorer(plan, pool, *session);
  Progress progress(absl::StrCat("accuracy/", options.set), static_cast<int64_t>(items.size()));
  for (size_t begin = 0; begin < items.size(); begin += session_options.streams) {
    const size_t count = std::min<size_t>(session_options.streams, items.size() - begin);
    const auto results = absl::MakeSpan(result.items).subspan(begin, count);
    NIBBLE_RETURN_IF_ERROR(Annotate(scorer.Score(absl::MakeConstSpan(encoded).subspan(begin, count), results),
                                    absl::StrCat(options.set, " items ", begin, " to ", begin + count - 1)));
    for (size_t i = 0; i < count; ++i) Predict(items[begin + i], &results[i]);
    progress.Update(static_cast<int64_t>(begin + count));
  }
  const MetricHead head{.unit = "fraction",
                        .better = HIGHER,
                        .convention = ConventionText(tokenizer, items.size(), options.context_suffix),
                        .arithmetic = ArithmeticOf(plan)};
  NIBBLE_ASSIGN_OR_RETURN(result.metrics, MakeMetrics(head, options.set, items, result.items));
  return result;
}

}  // namespace nibble::eval
