#include "eval/task.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "eval/encoding.h"
#include "eval/exact_match.h"
#include "eval/generation.h"
#include "eval/item_scorer.h"
#include "eval/metric.h"
#include "eval/statistics.h"

namespace nibble::eval {
namespace {

using datasets::TaskItem;

// One of the numbers that a kind of task gives.
struct Quantity {
  std::string name;    // before the set's: "accuracy"
  std::string filter;  // after it, where the description has filters of names
  absl::string_view unit = "fraction";
  Direction better = HIGHER;
  Metric::Aggregate aggregate = Metric::MEAN;
  // Sum and weight of an item's block.
  std::function<std::pair<double, double>(const ItemResult&)> block;

  std::string MetricName(absl::string_view set) const { return absl::StrCat(name, "/", set, filter.empty() ? "" : "/", filter); }
};

Quantity Accuracy(const std::string& name, const std::function<bool(const ItemResult&)>& is_right) {
  Quantity quantity;
  quantity.name = name;
  quantity.block = [is_right](const ItemResult& item) { return std::pair<double, double>(is_right(item), 1); };
  return quantity;
}

// Of the only continuation, or the document.
double NegativeLogLikelihood(const ItemResult& item) {
  return item.log_likelihoods.empty() ? std::accumulate(item.nll.begin(), item.nll.end(), 0.0) : -item.log_likelihoods[0];
}

// The negative log-likelihood, times `scale`, a `weight`.
Quantity Loss(const std::string& name, absl::string_view unit, Metric::Aggregate aggregate, double scale,
              const std::function<int64_t(const ItemResult&)>& weight) {
  Quantity quantity{name, "", unit, LOWER, aggregate, nullptr};
  quantity.block = [=](const ItemResult& item) {
    return std::pair<double, double>(scale * NegativeLogLikelihood(item), static_cast<double>(weight(item)));
  };
  return quantity;
}

std::vector<Quantity> ExactMatches(const TaskDescription& description) {
  std::vector<Quantity> quantities;
  for (int f = 0; f < std::max(1, description.filter_size()); ++f) {
    quantities.push_back(Accuracy("exact_match", [f](const ItemResult& item) { return item.matches[f] != 0; }));
    if (f < description.filter_size()) quantities.back().filter = description.filter(f).name();
  }
  return quantities;
}

std::vector<Quantity> QuantitiesOf(const TaskDescription& description) {
  const Quantity accuracy = Accuracy("accuracy", [](const ItemResult& item) { return item.prediction() == item.gold; });
  const auto item_weight = [](const ItemResult&) { return int64_t{1}; };
  const auto words = [](const ItemResult& item) { return item.words; };
  const auto bytes = [](const ItemResult& item) { return item.text_bytes; };
  switch (description.kind()) {
    case TaskDescription::MULTIPLE_CHOICE:
      if (!description.accuracy_norm()) return {accuracy};
      return {accuracy, Accuracy("accuracy_norm", [](const ItemResult& item) { return item.prediction_norm() == item.gold; })};
    case TaskDescription::PARTIAL: return {accuracy};
    case TaskDescription::MINIMAL_PAIR:
      return {Accuracy("accuracy", [](const ItemResult& item) { return item.log_likelihoods[0] > item.log_likelihoods[1]; })};
    case TaskDescription::LAST_WORD:
      return {Loss("perplexity", "ppl", Metric::EXP_MEAN, 1, item_weight),
              Accuracy("accuracy", [](const ItemResult& item) { return item.greedy != 0; })};
    case TaskDescription::EXACT_MATCH: return ExactMatches(description);
    case TaskDescription::ROLLING:
      return {Loss("word_perplexity", "ppl", Metric::EXP_MEAN, 1, words), Loss("byte_perplexity", "ppl", Metric::EXP_MEAN, 1, bytes),
              Loss("bits_per_byte", "bits", Metric::MEAN, 1 / std::numbers::ln2, bytes)};
    case TaskDescription::TEXT: break;
  }
  return {};
}

// Index of the largest value, the first on ties.
template <typename T>
int Best(const std::vector<T>& values) {
  return static_cast<int>(std::max_element(values.begin(), values.end()) - values.begin());
}

// Sets `matches`.
absl::Status Match(const AnswerReader& reader, ItemResult* item) {
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<std::string> answers, reader.Answers(item->said));
  item->matches.clear();
  for (const std::string& answer : answers) {
    NIBBLE_ASSIGN_OR_RETURN(const bool matches, reader.Matches(answer, item->answer));
    item->matches.push_back(matches);
  }
  return absl::OkStatus();
}

class TaskRunner {
 public:
  TaskRunner(const Plan& plan, ThreadPool& pool, const text::Tokenizer& tokenizer, const datasets::Task& task, const TaskOptions& options)
      : plan_(plan), pool_(pool), tokenizer_(tokenizer), task_(task), options_(options), label_(TaskMetricNames(task).front()) {}

  absl::StatusOr<std::vector<ItemResult>> Run() {
    const std::vector<std::string> categories = datasets::Categories(task_);
    for (const TaskItem& item : task_.items) results_.push_back(Unscored(item, categories));
    const TaskDescription::Kind kind = task_.description.kind();
    NIBBLE_RETURN_IF_ERROR(kind == TaskDescription::EXACT_MATCH ? RunAnswers() : kind == TaskDescription::ROLLING ? RunDocuments() : RunChoices());
    return std::move(results_);
  }

 private:
  // What of an item decides its scores.
  static ItemResult Unscored(const TaskItem& item, const std::vector<std::string>& categories) {
    ItemResult result;
    const auto category = std::find(categories.begin(), categories.end(), item.category);
    if (category != categories.end()) result.category = static_cast<int32_t>(category - categories.begin());
    result.gold = item.gold;
    result.characters.assign(item.characters.begin(), item.characters.end());
    result.words = item.words;
    result.text_bytes = item.bytes;
    result.answer = item.answer;
    return result;
  }

  absl::Status ItemError(const absl::Status& status, const TaskItem& item) const {
    return Annotate(status, absl::StrCat(task_.label, " item at ", item.place));
  }

  std::string ContextOf(const TaskItem& item, size_t c) const { return absl::StrCat(task_.preambles[item.preamble], item.context(c)); }

  absl::StatusOr<EncodedItem> Encode(const TaskItem& item, PairEncoder& encoder, ItemResult* result) const {
    std::vector<EncodedSequence> sequences;
    for (size_t c = 0; c < item.continuations.size(); ++c) {
      auto sequence = encoder.Encode(ContextOf(item, c), item.continuations[c]);
      if (!sequence.ok()) return ItemError(sequence.status(), item);
      const auto truncated = TruncateLeft(options_.max_positions, &*sequence);
      if (!truncated.ok()) return ItemError(truncated.status(), item);
      if (*truncated) result->truncated = 1;
      sequences.push_back(*std::move(sequence));
    }
    return ShareTokens(sequences);
  }

  // Everything is encoded before anything runs: an item at fault is found at once.
  absl::Status RunChoices() {
    PairEncoder encoder(tokenizer_, task_.description.start());
    std::vector<EncodedItem> encoded;
    for (size_t i = 0; i < task_.items.size(); ++i) {
      NIBBLE_ASSIGN_OR_RETURN(EncodedItem each, Encode(task_.items[i], encoder, &results_[i]));
      encoded.push_back(std::move(each));
    }
    // A part's items share their examples, and are of like length.
    size_t begin = 0;
    for (const size_t end : task_.part_ends) {
      NIBBLE_RETURN_IF_ERROR(ScorePart(absl::MakeConstSpan(encoded).subspan(begin, end - begin), begin));
      begin = end;
    }
    return absl::OkStatus();
  }

  absl::Status ScorePart(absl::Span<const EncodedItem> items, size_t begin) {
    const ScoringOptions scoring{label_, options_.items_at_once, task_.description.kind() == TaskDescription::LAST_WORD, static_cast<int64_t>(begin)};
    NIBBLE_ASSIGN_OR_RETURN(const auto scores, ScoreItems(plan_, pool_, items, scoring));
    for (size_t i = 0; i < scores.size(); ++i) {
      ItemResult& result = results_[begin + i];
      for (const SequenceScore& score : scores[i]) {
        result.log_likelihoods.push_back(static_cast<float>(score.log_likelihood));
        result.target_tokens.push_back(static_cast<int32_t>(score.targets));
      }
      for (const std::string& text : task_.items[begin + i].continuations) result.bytes.push_back(static_cast<int32_t>(text.size()));
      result.greedy = scores[i][0].greedy;
    }
    return absl::OkStatus();
  }

  absl::Status RunDocuments() {
    if (options_.window > options_.max_positions) {
      return absl::InvalidArgumentError(absl::StrCat("a window of ", options_.window, " tokens, and the model has learned ", options_.max_positions,
                                                     " positions; set window to that or less"));
    }
    std::vector<EncodedItem> windows;
    std::vector<size_t> owners;
    for (size_t i = 0; i < task_.items.size(); ++i) {
      const auto rolled = RollingWindows(tokenizer_, task_.items[i].continuations[0], options_.window);
      if (!rolled.ok()) return ItemError(rolled.status(), task_.items[i]);
      for (const EncodedSequence& window : *rolled) windows.push_back(ShareTokens({window}));
      owners.resize(windows.size(), i);
    }
    const ScoringOptions scoring{.label = label_, .items_at_once = options_.items_at_once, .want_nll = true};
    NIBBLE_ASSIGN_OR_RETURN(const auto scores, ScoreItems(plan_, pool_, windows, scoring));
    for (size_t w = 0; w < windows.size(); ++w) {
      ItemResult& document = results_[owners[w]];
      const SequenceScore& score = scores[w][0];
      const std::vector<int32_t>& tokens = windows[w].tails[0].tokens;
      document.nll.insert(document.nll.end(), score.nll.begin(), score.nll.end());
      document.targets.insert(document.targets.end(), tokens.end() - score.targets, tokens.end());
      document.window_tokens.push_back(static_cast<int32_t>(score.targets));
    }
    return absl::OkStatus();
  }

  // At most `room` tokens, the last ones.
  absl::StatusOr<std::vector<int32_t>> EncodePrompt(const TaskItem& item, int64_t room, ItemResult* result) const {
    NIBBLE_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, text::PrefixTokens(tokenizer_, /*empty_context=*/false));
    const std::vector<int32_t> ids = tokenizer_.Encode(ContextOf(item, 0));
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    if (tokens.empty()) return absl::InvalidArgumentError("the prompt has no tokens");
    if (static_cast<int64_t>(tokens.size()) > room) {
      tokens.erase(tokens.begin(), tokens.end() - room);
      result->truncated = 1;
    }
    return tokens;
  }

  absl::Status RunAnswers() {
    NIBBLE_ASSIGN_OR_RETURN(const AnswerReader reader, AnswerReader::Create(task_.description));
    const int64_t max_tokens = task_.description.max_tokens(), room = options_.max_positions - max_tokens;
    if (room < 1) {
      return absl::InvalidArgumentError(absl::StrCat(task_.label, ": max_tokens is ", max_tokens, " and the model may see ", options_.max_positions,
                                                     " positions, which leaves none for a prompt; use a description with fewer max_tokens"));
    }
    std::vector<std::vector<int32_t>> prompts;
    for (size_t i = 0; i < task_.items.size(); ++i) {
      auto prompt = EncodePrompt(task_.items[i], room, &results_[i]);
      if (!prompt.ok()) return ItemError(prompt.status(), task_.items[i]);
      prompts.push_back(*std::move(prompt));
    }
    const GenerationOptions generation{
        label_, max_tokens, {task_.description.stop().begin(), task_.description.stop().end()}, options_.items_at_once,
        options_.end_tokens};
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<std::string> texts, GenerateGreedily(plan_, pool_, tokenizer_, prompts, generation));
    for (size_t i = 0; i < texts.size(); ++i) {
      results_[i].said = texts[i];
      NIBBLE_RETURN_IF_ERROR(ItemError(Match(reader, &results_[i]), task_.items[i]));
    }
    return absl::OkStatus();
  }

  const Plan& plan_;
  ThreadPool& pool_;
  const text::Tokenizer& tokenizer_;
  const datasets::Task& task_;
  const TaskOptions& options_;
  const std::string label_;
  std::vector<ItemResult> results_;
};

// Everything that may move the scores of `items` items, of which `truncated` lost the front of
// their context.
std::string ConventionText(const TaskRecords& records, size_t items, int64_t truncated) {
  const TaskDescription& description = records.description;
  std::string text = "lm-eval";
  if (description.kind() == TaskDescription::ROLLING) absl::StrAppend(&text, " rolling window=", records.window);
  if (description.kind() == TaskDescription::EXACT_MATCH) absl::StrAppend(&text, " greedy max_tokens=", description.max_tokens());
  absl::StrAppend(&text, " items=", items, " bos=", records.adds_bos ? "item" : "none", " task=", description.name(), "@", description.version());
  if (records.shots > 0) absl::StrAppend(&text, " shots=", records.shots);
  if (truncated > 0) absl::StrAppend(&text, " truncated=", truncated, " positions=", records.max_positions);
  return text;
}

// The sets that metrics are given for: the task, then its categories.
std::vector<std::string> SetNames(const std::string& label, const std::vector<std::string>& categories) {
  std::vector<std::string> sets = {label};
  for (const std::string& category : categories) sets.push_back(absl::StrCat(label, "_", category));
  return sets;
}

}  // namespace

std::vector<std::string> TaskMetricNames(const datasets::Task& task) {
  std::vector<std::string> names;
  for (const std::string& set : SetNames(task.label, datasets::Categories(task))) {
    for (const Quantity& quantity : QuantitiesOf(task.description)) names.push_back(quantity.MetricName(set));
  }
  return names;
}

int ItemResult::prediction() const { return Best(log_likelihoods); }

int ItemResult::prediction_norm() const {
  std::vector<double> normalized(log_likelihoods.begin(), log_likelihoods.end());
  for (size_t c = 0; c < characters.size(); ++c) normalized[c] /= static_cast<double>(characters[c]);
  return Best(normalized);
}

absl::Status MatchAnswers(const TaskDescription& description, std::vector<ItemResult>* items) {
  if (description.kind() != TaskDescription::EXACT_MATCH) return absl::OkStatus();
  NIBBLE_ASSIGN_OR_RETURN(const AnswerReader reader, AnswerReader::Create(description));
  for (size_t i = 0; i < items->size(); ++i) {
    NIBBLE_RETURN_IF_ERROR(Annotate(Match(reader, &(*items)[i]), absl::StrCat("item ", i)));
  }
  return absl::OkStatus();
}

absl::StatusOr<TaskRecords> RecordTask(const Plan& plan, ThreadPool& pool, const text::Tokenizer& tokenizer, const datasets::Task& task,
                                       const TaskOptions& options) {
  if (task.items.empty()) return absl::InvalidArgumentError(absl::StrCat(task.label, " has no items"));
  if (options.items_at_once < 1) return absl::InvalidArgumentError("items_at_once must be at least 1");
  TaskRecords records;
  records.label = task.label;
  records.description = task.description;
  records.categories = datasets::Categories(task);
  records.shots = task.shots;
  records.window = options.window;
  records.max_positions = options.max_positions;
  records.adds_bos = tokenizer.adds_bos();
  records.arithmetic = ArithmeticOf(plan);
  records.description.clear_part();
  NIBBLE_ASSIGN_OR_RETURN(records.items, TaskRunner(plan, pool, tokenizer, task, options).Run());
  return records;
}

absl::StatusOr<std::vector<Metric>> MetricsOf(const TaskRecords& records) {
  const std::vector<std::string> sets = SetNames(records.label, records.categories);
  std::vector<Metric> metrics;
  for (size_t s = 0; s < sets.size(); ++s) {
    for (const Quantity& quantity : QuantitiesOf(records.description)) {
      Metric metric = MakeMetric({.name = quantity.MetricName(sets[s]),
                                  .unit = quantity.unit,
                                  .better = quantity.better,
                                  .aggregate = quantity.aggregate,
                                  .arithmetic = records.arithmetic});
      int64_t truncated = 0;
      for (const ItemResult& item : records.items) {
        if (s > 0 && item.category != static_cast<int32_t>(s) - 1) continue;
        const auto [sum, weight] = quantity.block(item);
        AddBlock(sum, weight, &metric);
        truncated += item.truncated != 0;
      }
      metric.set_convention(ConventionText(records, metric.block_sum_size(), truncated));
      NIBBLE_RETURN_IF_ERROR(FillMetric(&metric));
      metrics.push_back(std::move(metric));
    }
  }
  return metrics;
}

absl::StatusOr<TaskResult> MeasureTask(const Plan& plan, ThreadPool& pool, const text::Tokenizer& tokenizer, const datasets::Task& task,
                                       const TaskOptions& options) {
  NIBBLE_ASSIGN_OR_RETURN(TaskRecords records, RecordTask(plan, pool, tokenizer, task, options));
  NIBBLE_ASSIGN_OR_RETURN(std::vector<Metric> metrics, MetricsOf(records));
  return TaskResult{std::move(metrics), std::move(records.items)};
}

}  // namespace nibble::eval
