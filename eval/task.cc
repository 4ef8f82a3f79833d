#include "eval/task.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
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
  std::function<std::pair<double, double>(const TaskItem&, const ItemResult&)> block;

  std::string MetricName(absl::string_view set) const { return absl::StrCat(name, "/", set, filter.empty() ? "" : "/", filter); }
};

Quantity Accuracy(const std::string& name, const std::function<bool(const TaskItem&, const ItemResult&)>& is_right) {
  Quantity quantity;
  quantity.name = name;
  quantity.block = [is_right](const TaskItem& item, const ItemResult& result) { return std::pair<double, double>(is_right(item, result), 1); };
  return quantity;
}

// The negative log-likelihood of the only continuation, times `scale`, a `weight`.
Quantity Loss(const std::string& name, absl::string_view unit, Metric::Aggregate aggregate, double scale,
              const std::function<int64_t(const TaskItem&)>& weight) {
  Quantity quantity{name, "", unit, LOWER, aggregate, nullptr};
  quantity.block = [=](const TaskItem& item, const ItemResult& result) {
    return std::pair<double, double>(-scale * result.log_likelihoods[0], static_cast<double>(weight(item)));
  };
  return quantity;
}

std::vector<Quantity> ExactMatches(const TaskDescription& description) {
  std::vector<Quantity> quantities;
  for (int f = 0; f < std::max(1, description.filter_size()); ++f) {
    quantities.push_back(Accuracy("exact_match", [f](const TaskItem&, const ItemResult& result) { return result.matches[f]; }));
    if (f < description.filter_size()) quantities.back().filter = description.filter(f).name();
  }
  return quantities;
}

std::vector<Quantity> QuantitiesOf(const TaskDescription& description) {
  const Quantity accuracy = Accuracy("accuracy", [](const TaskItem& item, const ItemResult& result) { return result.prediction == item.gold; });
  const auto item_weight = [](const TaskItem&) { return int64_t{1}; };
  const auto words = [](const TaskItem& item) { return item.words; };
  const auto bytes = [](const TaskItem& item) { return item.bytes; };
  switch (description.kind()) {
    case TaskDescription::MULTIPLE_CHOICE:
      if (!description.accuracy_norm()) return {accuracy};
      return {accuracy, Accuracy("accuracy_norm", [](const TaskItem& item, const ItemResult& result) { return result.prediction_norm == item.gold; })};
    case TaskDescription::PARTIAL: return {accuracy};
    case TaskDescription::MINIMAL_PAIR:
      return {Accuracy("accuracy", [](const TaskItem&, const ItemResult& result) { return result.log_likelihoods[0] > result.log_likelihoods[1]; })};
    case TaskDescription::LAST_WORD:
      return {Loss("perplexity", "ppl", Metric::EXP_MEAN, 1, item_weight),
              Accuracy("accuracy", [](const TaskItem&, const ItemResult& result) { return result.greedy; })};
    case TaskDescription::EXACT_MATCH: return ExactMatches(description);
    case TaskDescription::ROLLING:
      return {Loss("word_perplexity", "ppl", Metric::EXP_MEAN, 1, words), Loss("byte_perplexity", "ppl", Metric::EXP_MEAN, 1, bytes),
              Loss("bits_per_byte", "bits", Metric::MEAN, 1 / std::numbers::ln2, bytes)};
    case TaskDescription::TEXT: break;
  }
  return {};
}

// Index of the largest value, the first on ties.
int Best(const std::vector<double>& values) { return static_cast<int>(std::max_element(values.begin(), values.end()) - values.begin()); }

void Predict(const TaskItem& item, ItemResult* result) {
  std::vector<double> normalized = result->log_likelihoods;
  for (size_t c = 0; c < item.characters.size(); ++c) normalized[c] /= static_cast<double>(item.characters[c]);
  result->prediction = Best(result->log_likelihoods);
  result->prediction_norm = Best(normalized);
}

class TaskRunner {
 public:
  TaskRunner(const Plan& plan, ThreadPool& pool, const text::Tokenizer& tokenizer, const datasets::Task& task, const TaskOptions& options)
      : plan_(plan), pool_(pool), tokenizer_(tokenizer), task_(task), options_(options), label_(TaskMetricNames(task).front()) {}

  absl::StatusOr<std::vector<ItemResult>> Run() {
    results_.resize(task_.items.size());
    const TaskDescription::Kind kind = task_.description.kind();
    NIBBLE_RETURN_IF_ERROR(kind == TaskDescription::EXACT_MATCH ? RunAnswers() : kind == TaskDescription::ROLLING ? RunDocuments() : RunChoices());
    return std::move(results_);
  }

 private:
  absl::Status ItemError(const absl::Status& status, const TaskItem& item) const {
    return Annotate(status, absl::StrCat(task_.label, " item at ", item.place));
  }

  absl::Status CheckPositions(int64_t positions, const TaskItem& item) const {
    if (positions <= options_.max_positions) return absl::OkStatus();
    return ItemError(absl::OutOfRangeError(absl::StrCat("needs ", positions, " positions; the model may see ", options_.max_positions,
                                                        task_.shots > 0 ? "; ask for fewer shots" : "")),
                     item);
  }

  std::string ContextOf(const TaskItem& item, size_t c) const { return absl::StrCat(task_.preambles[item.preamble], item.context(c)); }

  absl::StatusOr<EncodedItem> Encode(const TaskItem& item, PairEncoder& encoder) const {
    std::vector<EncodedSequence> sequences;
    for (size_t c = 0; c < item.continuations.size(); ++c) {
      auto sequence = encoder.Encode(ContextOf(item, c), item.continuations[c]);
      if (!sequence.ok()) return ItemError(sequence.status(), item);
      sequences.push_back(*std::move(sequence));
    }
    EncodedItem encoded = ShareTokens(sequences);
    NIBBLE_RETURN_IF_ERROR(CheckPositions(encoded.positions(), item));
    return encoded;
  }

  // Everything is encoded before anything runs: an item at fault is found at once.
  absl::Status RunChoices() {
    PairEncoder encoder(tokenizer_, task_.description.start());
    std::vector<EncodedItem> encoded;
    for (const TaskItem& item : task_.items) {
      NIBBLE_ASSIGN_OR_RETURN(EncodedItem each, Encode(item, encoder));
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
        result.log_likelihoods.push_back(score.log_likelihood);
        result.target_tokens.push_back(score.targets);
      }
      result.greedy = scores[i][0].greedy;
      Predict(task_.items[begin + i], &result);
    }
    return absl::OkStatus();
  }

  absl::Status RunDocuments() {
    std::vector<EncodedItem> windows;
    std::vector<size_t> owners;
    for (size_t i = 0; i < task_.items.size(); ++i) {
      const auto rolled = RollingWindows(tokenizer_, task_.items[i].continuations[0], options_.window);
      if (!rolled.ok()) return ItemError(rolled.status(), task_.items[i]);
      for (const EncodedSequence& window : *rolled) {
        windows.push_back(ShareTokens({window}));
        NIBBLE_RETURN_IF_ERROR(CheckPositions(windows.back().positions(), task_.items[i]));
      }
      owners.resize(windows.size(), i);
      results_[i] = {.log_likelihoods = {0}, .target_tokens = {0}};
    }
    NIBBLE_ASSIGN_OR_RETURN(const auto scores, ScoreItems(plan_, pool_, windows, {label_, options_.items_at_once}));
    for (size_t w = 0; w < windows.size(); ++w) {
      results_[owners[w]].log_likelihoods[0] += scores[w][0].log_likelihood;
      results_[owners[w]].target_tokens[0] += scores[w][0].targets;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<int32_t>> EncodePrompt(const TaskItem& item) const {
    NIBBLE_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, text::PrefixTokens(tokenizer_, /*empty_context=*/false));
    const std::vector<int32_t> ids = tokenizer_.Encode(ContextOf(item, 0));
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    if (tokens.empty()) return absl::InvalidArgumentError("the prompt has no tokens");
    return tokens;
  }

  absl::Status RunAnswers() {
    NIBBLE_ASSIGN_OR_RETURN(const AnswerReader reader, AnswerReader::Create(task_.description));
    const int64_t max_tokens = task_.description.max_tokens();
    std::vector<std::vector<int32_t>> prompts;
    for (const TaskItem& item : task_.items) {
      auto prompt = EncodePrompt(item);
      if (!prompt.ok()) return ItemError(prompt.status(), item);
      NIBBLE_RETURN_IF_ERROR(CheckPositions(static_cast<int64_t>(prompt->size()) + max_tokens - 1, item));
      prompts.push_back(*std::move(prompt));
    }
    const GenerationOptions generation{
        label_, max_tokens, {task_.description.stop().begin(), task_.description.stop().end()}, options_.items_at_once,
        options_.end_tokens};
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<std::string> texts, GenerateGreedily(plan_, pool_, tokenizer_, prompts, generation));
    for (size_t i = 0; i < texts.size(); ++i) {
      results_[i].said = texts[i];
      NIBBLE_RETURN_IF_ERROR(ItemError(Compare(reader, task_.items[i], &results_[i]), task_.items[i]));
    }
    return absl::OkStatus();
  }

  static absl::Status Compare(const AnswerReader& reader, const TaskItem& item, ItemResult* result) {
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<std::string> answers, reader.Answers(result->said));
    for (const std::string& answer : answers) {
      NIBBLE_ASSIGN_OR_RETURN(const bool matches, reader.Matches(answer, item.answer));
      result->matches.push_back(matches);
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

// Everything that may move the scores of `items` items.
std::string ConventionText(const text::Tokenizer& tokenizer, const datasets::Task& task, const TaskOptions& options, size_t items) {
  const TaskDescription& description = task.description;
  std::string text = "lm-eval";
  if (description.kind() == TaskDescription::ROLLING) absl::StrAppend(&text, " rolling window=", options.window);
  if (description.kind() == TaskDescription::EXACT_MATCH) absl::StrAppend(&text, " greedy max_tokens=", description.max_tokens());
  absl::StrAppend(&text, " items=", items, " bos=", tokenizer.adds_bos() ? "item" : "none", " task=", description.name(), "@", description.version());
  if (task.shots > 0) absl::StrAppend(&text, " shots=", task.shots);
  return text;
}

// The sets that metrics are given for: the task, then its categories.
std::vector<std::pair<std::string, std::string>> SetsAndCategories(const datasets::Task& task) {
  std::vector<std::pair<std::string, std::string>> sets = {{task.label, ""}};
  for (const std::string& category : datasets::Categories(task)) sets.emplace_back(absl::StrCat(task.label, "_", category), category);
  return sets;
}

}  // namespace

std::vector<std::string> TaskMetricNames(const datasets::Task& task) {
  std::vector<std::string> names;
  for (const auto& [set, category] : SetsAndCategories(task)) {
    for (const Quantity& quantity : QuantitiesOf(task.description)) names.push_back(quantity.MetricName(set));
  }
  return names;
}

absl::StatusOr<TaskResult> MeasureTask(const Plan& plan, ThreadPool& pool, const text::Tokenizer& tokenizer, const datasets::Task& task,
                                       const TaskOptions& options) {
  if (task.items.empty()) return absl::InvalidArgumentError(absl::StrCat(task.label, " has no items"));
  if (options.items_at_once < 1) return absl::InvalidArgumentError("items_at_once must be at least 1");
  TaskResult result;
  NIBBLE_ASSIGN_OR_RETURN(result.items, TaskRunner(plan, pool, tokenizer, task, options).Run());
  for (const auto& [set, category] : SetsAndCategories(task)) {
    for (const Quantity& quantity : QuantitiesOf(task.description)) {
      Metric metric = MakeMetric({.name = quantity.MetricName(set),
                                  .unit = quantity.unit,
                                  .better = quantity.better,
                                  .aggregate = quantity.aggregate,
                                  .arithmetic = ArithmeticOf(plan)});
      for (size_t i = 0; i < task.items.size(); ++i) {
        if (!category.empty() && task.items[i].category != category) continue;
        const auto [sum, weight] = quantity.block(task.items[i], result.items[i]);
        AddBlock(sum, weight, &metric);
      }
      metric.set_convention(ConventionText(tokenizer, task, options, metric.block_sum_size()));
      NIBBLE_RETURN_IF_ERROR(FillMetric(&metric));
      result.metrics.push_back(std::move(metric));
    }
  }
  return result;
}

}  // namespace nibble::eval
