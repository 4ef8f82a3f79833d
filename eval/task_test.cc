#include "eval/task.h"

#include <cmath>

#include "core/runtime/reference.h"
#include "eval/encoding.h"
#include "eval/exact_match.h"
#include "eval/item_scorer.h"
#include "eval/log_probs.h"
#include "eval/testing.h"

namespace nibble::eval {
namespace {

using datasets::Task;
using datasets::TaskItem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Choices {
  std::string query;
  std::vector<std::string> choices;
  int gold;
};

std::vector<Choices> ToyChoices() {
  return {{"the sky is", {"blue", "green and wide", "an old song"}, 0},
          {"seven", {"x", "y"}, 1},
          {"two and two make  ", {"four", "naïve café", "many, many more than one would think", "5"}, 3},
          {"", {"nothing before", "it"}, 0},
          {"a b c d e f g", {"h", "h i j k", "h i"}, 2}};
}

int64_t CodePoints(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

Task ChoiceTask(const std::vector<Choices>& choices) {
  std::vector<TaskItem> items;
  for (const Choices& each : choices) {
    TaskItem& item = items.emplace_back();
    item.contexts = {each.query};
    item.gold = each.gold;
    for (const std::string& choice : each.choices) {
      item.continuations.push_back(" " + choice);
      item.characters.push_back(CodePoints(choice));
    }
  }
  return TaskOf("kind: MULTIPLE_CHOICE", std::move(items));
}

// The log-likelihood of each continuation by the reference executor, no sharing.
std::vector<double> ReferenceLogLikelihoods(const ir::Graph& graph, const text::Tokenizer& tokenizer, const std::string& preamble,
                                            const TaskItem& item) {
  std::vector<double> result;
  for (size_t c = 0; c < item.continuations.size(); ++c) {
    const auto sequence = PairEncoder(tokenizer).Encode(preamble + item.context(c), item.continuations[c]);
    NIBBLE_CHECK_OK(sequence.status());
    const auto logits = RunReference(graph, sequence->tokens);
    NIBBLE_CHECK_OK(logits.status());
    double sum = 0;
    for (size_t t = sequence->first_target; t < sequence->tokens.size(); ++t) {
      const float* row = logits->data() + (t - 1) * graph.vocab_size();
      sum += row[sequence->tokens[t]] - LogSumExp(row, graph.vocab_size());
    }
    result.push_back(sum);
  }
  return result;
}

void ExpectReference(const ir::Graph& graph, const ToyTokenizer& tokenizer, const Task& task) {
  const auto plan = MakePlan(graph);
  ThreadPool pool(2);
  ASSERT_OK_AND_ASSIGN(const auto result, MeasureTask(*plan, pool, tokenizer, task, {}));
  for (size_t i = 0; i < task.items.size(); ++i) {
    const auto expected = ReferenceLogLikelihoods(graph, tokenizer, task.preambles[task.items[i].preamble], task.items[i]);
    ASSERT_EQ(result.items[i].log_likelihoods.size(), expected.size());
    for (size_t c = 0; c < expected.size(); ++c) EXPECT_NEAR(result.items[i].log_likelihoods[c], expected[c], 1e-3) << i << " " << c;
  }
}

EncodedSequence Encoded(const text::Tokenizer& tokenizer, absl::string_view context, absl::string_view continuation,
                        TaskDescription::Start start = TaskDescription::PREFIX_TOKEN) {
  const auto sequence = PairEncoder(tokenizer, start).Encode(context, continuation);
  EXPECT_OK(sequence);
  return *sequence;
}

TEST(PairEncoder, ContinuationFollowsTheContext) {
  ToyTokenizer tokenizer;
  const EncodedSequence sequence = Encoded(tokenizer, "ab", " dd");
  EXPECT_EQ(sequence.first_target, 2);
  EXPECT_EQ(sequence.tokens, tokenizer.Encode("ab dd"));
}

TEST(PairEncoder, TrailingWhitespaceMovesToTheContinuation) {
  ToyTokenizer tokenizer;
  const EncodedSequence sequence = Encoded(tokenizer, "ab \n\u00a0", " c");
  EXPECT_EQ(sequence.first_target, 2);
  EXPECT_EQ(sequence.tokens, tokenizer.Encode("ab \n\u00a0 c"));
}

TEST(PairEncoder, BosAndEmptyContexts) {
  ToyTokenizer tokenizer;
  EXPECT_EQ(Encoded(tokenizer, " ", " c").first_target, 1);
  EXPECT_EQ(Encoded(tokenizer, " ", " c").tokens.front(), 0);
  EXPECT_EQ(Encoded(tokenizer, " ", " c").tokens.size(), 1 + 3);
  tokenizer.bos.reset();
  EXPECT_EQ(Encoded(tokenizer, "", " c").tokens.front(), 1);
  tokenizer.eos.reset();
  EXPECT_FALSE(PairEncoder(tokenizer).Encode("", " c").ok());
  tokenizer.bos = 0;
  tokenizer.add = true;
  EXPECT_EQ(Encoded(tokenizer, "ab", " c").tokens.front(), 0);
  EXPECT_EQ(Encoded(tokenizer, "ab", " c").first_target, 3);
}

TEST(PairEncoder, FirstTokensMayStandForTheContext) {
  ToyTokenizer tokenizer;
  const EncodedSequence sequence = Encoded(tokenizer, "", "abc", TaskDescription::FIRST_TOKEN);
  EXPECT_EQ(sequence.first_target, 1);
  EXPECT_EQ(sequence.tokens, tokenizer.Encode("abc"));
  EXPECT_FALSE(PairEncoder(tokenizer, TaskDescription::FIRST_TOKEN).Encode("", "a").ok());
  tokenizer.add = true;
  EXPECT_EQ(Encoded(tokenizer, "", "abc", TaskDescription::FIRST_TOKEN).tokens.size(), 4);
  EXPECT_EQ(Encoded(tokenizer, "", "abc", TaskDescription::FIRST_TOKEN).first_target, 1);
}

TEST(ShareTokens, SharesOnlyWhatTheJointEncodingKeeps) {
  const ToyTokenizer tokenizer({"b c"});
  const EncodedItem item = ShareTokens({Encoded(tokenizer, "ab", " cd"), Encoded(tokenizer, "ab", " x")});
  EXPECT_EQ(item.shared, tokenizer.Encode("a"));
  EXPECT_THAT(item.tails[0].tokens, ElementsAre(82, tokenizer.Encode("d")[0]));
  EXPECT_EQ(item.tails[0].first_target, 2);
  EXPECT_EQ(item.positions(), 3);
  EXPECT_THAT(std::string(PairEncoder(tokenizer).Encode("ab", " c").status().message()), HasSubstr("' c' adds no tokens"));
}

TEST(ShareTokens, DifferentContextsShareTheirBeginning) {
  const ToyTokenizer tokenizer;
  const EncodedItem item = ShareTokens({Encoded(tokenizer, "so Ann", " ran"), Encoded(tokenizer, "so Alma", " ran")});
  EXPECT_EQ(item.shared, tokenizer.Encode("so A"));
  EXPECT_EQ(item.tails[0].first_target, 6);
  EXPECT_EQ(item.tails[1].first_target, 7);
  EXPECT_EQ(item.tails[1].tokens, tokenizer.Encode("lma ran"));
}

TEST(TruncateLeft, KeepsTheEnd) {
  const ToyTokenizer tokenizer;
  const EncodedSequence whole = Encoded(tokenizer, "abcdef", " gh");
  EncodedSequence sequence = whole;
  EXPECT_FALSE(*TruncateLeft(8, &sequence));
  EXPECT_EQ(sequence.tokens, whole.tokens);
  EXPECT_EQ(sequence.first_target, 6);
  EXPECT_TRUE(*TruncateLeft(5, &sequence));
  EXPECT_EQ(sequence.tokens, tokenizer.Encode("def gh"));
  EXPECT_EQ(sequence.first_target, 3);
  EXPECT_TRUE(*TruncateLeft(3, &sequence));
  EXPECT_EQ(sequence.tokens, tokenizer.Encode("f gh"));
  EXPECT_EQ(sequence.first_target, 1);
  EXPECT_THAT(std::string(TruncateLeft(2, &sequence).status().message()), HasSubstr("the continuation alone has 3 tokens; the model may see 2"));
}

TEST(KeptTokens, LeaveTheLastToCompute) {
  const std::vector<int32_t> held = {1, 2, 3, 4};
  const auto kept = [&](const std::vector<int32_t>& next) { return KeptTokens(held, next); };
  EXPECT_EQ(kept({1, 2, 3, 4, 5}), 4);
  EXPECT_EQ(kept({1, 2, 3, 4}), 3);
  EXPECT_EQ(kept({1, 2, 9}), 2);
  EXPECT_EQ(kept({9}), 0);
  EXPECT_EQ(kept({}), 0);
  EXPECT_EQ(KeptTokens({}, held), 0);
}

TEST(MeasureTask, ChoicesAgreeWithTheReferenceExecutor) {
  const ir::Graph graph = ToyGraph(7);
  ToyTokenizer tokenizer({"y b", "e f", "p"});
  ExpectReference(graph, tokenizer, ChoiceTask(ToyChoices()));
  tokenizer.add = true;
  ExpectReference(graph, tokenizer, ChoiceTask(ToyChoices()));
}

TEST(MeasureTask, ContextsThatTheJointEncodingChanges) {
  // The context's last token becomes another one with some choices, in items 0, 1 and 2.
  const ToyTokenizer tokenizer({"s b", "s g", "n x", "e  f", "g h"});
  std::vector<Choices> choices = ToyChoices();
  choices[1].choices = {"xx", "y"};
  choices.pop_back();
  ExpectReference(ToyGraph(8), tokenizer, ChoiceTask(choices));
}

// Items of one stream share examples, wholly or in part, and begin at once with the item.
TEST(MeasureTask, SharedExamplesGiveTheSameScores) {
  const ir::Graph graph = ToyGraph(11);
  const ToyTokenizer tokenizer;
  Task task = ChoiceTask(ToyChoices());
  task.preambles = {"one example\n\nanother one\n\n", "one example\n\na third\n\n"};
  for (size_t i = 0; i < task.items.size(); ++i) task.items[i].preamble = i / 2 % 2;
  task.part_ends = {2, task.items.size()};
  const auto plan = MakePlan(graph);
  ThreadPool pool(2);
  for (const int at_once : {1, 2, 16}) {
    ASSERT_OK_AND_ASSIGN(const auto result, MeasureTask(*plan, pool, tokenizer, task, {.items_at_once = at_once}));
    for (size_t i = 0; i < task.items.size(); ++i) {
      const auto expected = ReferenceLogLikelihoods(graph, tokenizer, task.preambles[task.items[i].preamble], task.items[i]);
      for (size_t c = 0; c < expected.size(); ++c) EXPECT_NEAR(result.items[i].log_likelihoods[c], expected[c], 1e-3) << at_once << " " << i;
    }
  }
}

TEST(MeasureTask, BatchesEqualOneAtATime) {
  const auto plan = MakePlan(ToyGraph(9));
  const ToyTokenizer tokenizer;
  ThreadPool pool(2);
  const Task task = ChoiceTask(ToyChoices());
  ASSERT_OK_AND_ASSIGN(const auto one, MeasureTask(*plan, pool, tokenizer, task, {.items_at_once = 1}));
  for (const int at_once : {2, 3, 16}) {
    ASSERT_OK_AND_ASSIGN(const auto many, MeasureTask(*plan, pool, tokenizer, task, {.items_at_once = at_once}));
    for (size_t i = 0; i < one.items.size(); ++i) {
      EXPECT_EQ(one.items[i].prediction(), many.items[i].prediction());
      EXPECT_EQ(one.items[i].prediction_norm(), many.items[i].prediction_norm());
      for (size_t c = 0; c < one.items[i].log_likelihoods.size(); ++c) {
        EXPECT_NEAR(one.items[i].log_likelihoods[c], many.items[i].log_likelihoods[c], 1e-4);
      }
    }
  }
}

TEST(MeasureTask, NormalizesByCodePoints) {
  const auto plan = MakePlan(ToyGraph(1, /*zero_head=*/true));
  ThreadPool pool(1);
  const ToyTokenizer tokenizer;
  // With uniform logits ll = -(1 + bytes) log 97: "ab" is likelier than "abcd", but
  // per character 3/2 loses to 5/4; "éé" has 5 tokens for 2 characters, and of
  // equal choices the first wins.
  Task task = ChoiceTask({{"q", {"ab", "abcd", "éé"}, 1}, {"q", {"éé", "abcd", "cdef"}, 1}});
  ASSERT_OK_AND_ASSIGN(const auto result, MeasureTask(*plan, pool, tokenizer, task, {}));
  EXPECT_EQ(result.items[0].prediction(), 0);
  EXPECT_EQ(result.items[0].prediction_norm(), 1);
  EXPECT_EQ(result.items[1].prediction(), 0);
  EXPECT_EQ(result.items[1].prediction_norm(), 1);
  EXPECT_THAT(result.items[0].target_tokens, ElementsAre(3, 5, 5));
  ASSERT_EQ(result.metrics.size(), 2);
  EXPECT_EQ(result.metrics[0].name(), "accuracy/toy");
  EXPECT_EQ(result.metrics[0].value(), 0);
  EXPECT_EQ(result.metrics[1].name(), "accuracy_norm/toy");
  EXPECT_EQ(result.metrics[1].value(), 1);
  EXPECT_EQ(result.metrics[1].count(), 2);
  EXPECT_EQ(result.metrics[1].convention(), "lm-eval items=2 bos=none task=toy@3");
  EXPECT_THAT(result.metrics[1].block_weight(), ElementsAre(1, 1));
  task.description.set_accuracy_norm(false);
  task.shots = 2;
  ASSERT_OK_AND_ASSIGN(const auto plain, MeasureTask(*plan, pool, tokenizer, task, {}));
  ASSERT_EQ(plain.metrics.size(), 1);
  EXPECT_EQ(plain.metrics[0].convention(), "lm-eval items=2 bos=none task=toy@3 shots=2");
}

TEST(MeasureTask, IsTheSameForAnyPool) {
  const auto plan = MakePlan(ToyGraph(10));
  const ToyTokenizer tokenizer;
  const Task task = ChoiceTask(ToyChoices());
  std::vector<std::vector<float>> first;
  std::vector<std::string> bytes;
  for (const int threads : {1, 2}) {
    ThreadPool pool(threads);
    ASSERT_OK_AND_ASSIGN(const auto result, MeasureTask(*plan, pool, tokenizer, task, {}));
    first.push_back(result.items[2].log_likelihoods);
    bytes.push_back(result.metrics[0].SerializeAsString() + result.metrics[1].SerializeAsString());
  }
  EXPECT_EQ(first[0], first[1]);
  EXPECT_EQ(bytes[0], bytes[1]);
}

TEST(MeasureTask, PartialScoresTheEnding) {
  const ir::Graph graph = ToyGraph(12);
  const ToyTokenizer tokenizer;
  TaskItem item;
  item.contexts = {"they saw the big cat", "they saw the dog"};
  item.continuations = {" sleep", " sleep"};
  Task task = TaskOf("kind: PARTIAL", {item, item});
  ExpectReference(graph, tokenizer, task);
  const auto expected = ReferenceLogLikelihoods(graph, tokenizer, "", item);
  const int best = expected[0] >= expected[1] ? 0 : 1;
  task.items[0].gold = best;
  task.items[1].gold = 1 - best;
  const auto plan = MakePlan(graph);
  ThreadPool pool(1);
  ASSERT_OK_AND_ASSIGN(const auto result, MeasureTask(*plan, pool, tokenizer, task, {}));
  ASSERT_EQ(result.metrics.size(), 1);
  EXPECT_THAT(result.metrics[0].block_sum(), ElementsAre(1, 0));
}

TEST(MeasureTask, MinimalPairsNeedTheGoodSentenceToBeLikelier) {
  const ToyTokenizer tokenizer;
  ThreadPool pool(1);
  // Uniform logits: the shorter sentence is likelier, and a tie is no success.
  const auto plan = MakePlan(ToyGraph(1, /*zero_head=*/true));
  std::vector<TaskItem> items(3);
  items[0].continuations = {"ab", "abc"};
  items[1].continuations = {"abc", "ab"};
  items[2].continuations = {"ab", "ba"};
  for (TaskItem& item : items) item.contexts = {""};
  ASSERT_OK_AND_ASSIGN(const auto result, MeasureTask(*plan, pool, tokenizer, TaskOf("kind: MINIMAL_PAIR", items), {}));
  EXPECT_THAT(result.metrics[0].block_sum(), ElementsAre(1, 0, 0));
  EXPECT_THAT(result.items[0].target_tokens, ElementsAre(2, 3));
  ASSERT_OK_AND_ASSIGN(const auto given, MeasureTask(*plan, pool, tokenizer, TaskOf("kind: MINIMAL_PAIR start: FIRST_TOKEN", items), {}));
  EXPECT_THAT(given.items[0].target_tokens, ElementsAre(1, 2));
  EXPECT_NEAR(given.items[0].log_likelihoods[1], -2 * std::log(97), 1e-4);
}

// What the model says after `context`, by the reference executor.
std::string GreedyWord(const ir::Graph& graph, const text::Tokenizer& tokenizer, const std::string& context) {
  const auto logits = RunReference(graph, tokenizer.Encode(context));
  NIBBLE_CHECK_OK(logits.status());
  const float* last = logits->data() + logits->size() - graph.vocab_size();
  const int64_t token = ArgMax(last, graph.vocab_size());
  NIBBLE_CHECK(token >= 2 && token < 82);
  // Byte b is token 2 + b % 80.
  return std::string(1, static_cast<char>(token - 2 < 32 ? token - 2 + 80 : token - 2));
}

TEST(MeasureTask, LastWordsThatTheModelWouldSay) {
  const ir::Graph graph = ToyGraph(13);
  const ToyTokenizer tokenizer;
  TaskItem said, other;
  said.contexts = {"once upon a"};
  said.continuations = {GreedyWord(graph, tokenizer, said.contexts[0])};
  other.contexts = {"once upon a"};
  other.continuations = {said.continuations[0] == "t" ? "u" : "t"};
  const Task task = TaskOf("kind: LAST_WORD", {said, other});
  ExpectReference(graph, tokenizer, task);
  const auto plan = MakePlan(graph);
  ThreadPool pool(2);
  ASSERT_OK_AND_ASSIGN(const auto result, MeasureTask(*plan, pool, tokenizer, task, {}));
  ASSERT_EQ(result.metrics.size(), 2);
  EXPECT_EQ(result.metrics[0].name(), "perplexity/toy");
  const double mean = (double{result.items[0].log_likelihoods[0]} + result.items[1].log_likelihoods[0]) / 2;
  EXPECT_NEAR(result.metrics[0].value(), std::exp(-mean), 1e-9);
  EXPECT_EQ(result.metrics[0].aggregate(), Metric::EXP_MEAN);
  EXPECT_EQ(result.metrics[1].name(), "accuracy/toy");
  EXPECT_THAT(result.metrics[1].block_sum(), ElementsAre(1, 0));
}

TEST(MeasureTask, CategoriesHaveScoresOfTheirOwn) {
  Task task = ChoiceTask({{"q", {"ab", "abcd"}, 0}, {"q", {"abcd", "ab"}, 0}, {"q", {"ab", "abcd"}, 0}});
  task.items[0].category = task.items[1].category = "hard";
  task.items[2].category = "soft";
  task.description.set_accuracy_norm(false);
  EXPECT_THAT(TaskMetricNames(task), ElementsAre("accuracy/toy", "accuracy/toy_hard", "accuracy/toy_soft"));
  const auto plan = MakePlan(ToyGraph(1, /*zero_head=*/true));
  ThreadPool pool(1);
  ASSERT_OK_AND_ASSIGN(const auto result, MeasureTask(*plan, pool, ToyTokenizer(), task, {}));
  ASSERT_EQ(result.metrics.size(), 3);
  EXPECT_THAT(result.metrics[0].block_sum(), ElementsAre(1, 0, 1));
  EXPECT_THAT(result.metrics[1].block_sum(), ElementsAre(1, 0));
  EXPECT_EQ(result.metrics[1].convention(), "lm-eval items=2 bos=none task=toy@3");
  EXPECT_EQ(result.metrics[2].value(), 1);
}

TEST(RollingWindows, EveryTokenIsPredictedOnce) {
  ToyTokenizer tokenizer;
  const std::string text = "abcdefghij";
  const std::vector<int32_t> ids = tokenizer.Encode(text);
  ASSERT_OK_AND_ASSIGN(const auto windows, RollingWindows(tokenizer, text, 4));
  ASSERT_EQ(windows.size(), 3);
  // BOS, then abcd; d before efgh; the last window is filled up: fgh before ij.
  EXPECT_THAT(windows[0].tokens, ElementsAre(0, ids[0], ids[1], ids[2], ids[3]));
  EXPECT_EQ(windows[0].first_target, 1);
  EXPECT_THAT(windows[1].tokens, ElementsAre(ids[3], ids[4], ids[5], ids[6], ids[7]));
  EXPECT_EQ(windows[1].first_target, 1);
  EXPECT_THAT(windows[2].tokens, ElementsAre(ids[5], ids[6], ids[7], ids[8], ids[9]));
  EXPECT_EQ(windows[2].first_target, 3);
  ASSERT_OK_AND_ASSIGN(const auto one, RollingWindows(tokenizer, "ab", 4));
  ASSERT_EQ(one.size(), 1);
  EXPECT_THAT(one[0].tokens, ElementsAre(0, ids[0], ids[1]));
  // A BOS that the tokenizer adds is predicted too.
  tokenizer.add = true;
  ASSERT_OK_AND_ASSIGN(const auto with_bos, RollingWindows(tokenizer, "ab", 4));
  EXPECT_THAT(with_bos[0].tokens, ElementsAre(0, 0, ids[0], ids[1]));
  EXPECT_FALSE(RollingWindows(tokenizer, "ab", 0).ok());
  tokenizer.add = false;
  EXPECT_FALSE(RollingWindows(tokenizer, "", 4).ok());
}

TEST(MeasureTask, RollingPerplexities) {
  const ToyTokenizer tokenizer;
  ThreadPool pool(2);
  std::vector<TaskItem> items(2);
  items[0].continuations = {"abcdefghij"};
  items[0].words = 4;
  items[0].bytes = 20;
  items[1].continuations = {"klm"};
  items[1].words = 2;
  items[1].bytes = 5;
  for (TaskItem& item : items) item.contexts = {""};
  const Task task = TaskOf("kind: ROLLING", items);
  // Uniform logits: 13 tokens of log 97 nats over 6 words and 25 bytes.
  const auto uniform = MakePlan(ToyGraph(1, /*zero_head=*/true));
  ASSERT_OK_AND_ASSIGN(const auto flat, MeasureTask(*uniform, pool, tokenizer, task, {.window = 4}));
  ASSERT_EQ(flat.metrics.size(), 3);
  EXPECT_EQ(flat.metrics[0].name(), "word_perplexity/toy");
  EXPECT_NEAR(std::log(flat.metrics[0].value()), 13 * std::log(97) / 6, 1e-5);
  EXPECT_EQ(flat.metrics[1].name(), "byte_perplexity/toy");
  EXPECT_NEAR(std::log(flat.metrics[1].value()), 13 * std::log(97) / 25, 1e-5);
  EXPECT_EQ(flat.metrics[2].name(), "bits_per_byte/toy");
  EXPECT_NEAR(flat.metrics[2].value(), std::log2(flat.metrics[1].value()), 1e-9);
  EXPECT_EQ(flat.metrics[2].convention(), "lm-eval rolling window=4 items=2 bos=none task=toy@3");
  EXPECT_THAT(flat.metrics[0].block_weight(), ElementsAre(4, 2));
  // Windows by the reference executor.
  const ir::Graph graph = ToyGraph(14);
  const auto plan = MakePlan(graph);
  ASSERT_OK_AND_ASSIGN(const auto result, MeasureTask(*plan, pool, tokenizer, task, {.window = 4}));
  ASSERT_OK_AND_ASSIGN(const auto windows, RollingWindows(tokenizer, "abcdefghij", 4));
  double sum = 0;
  for (const EncodedSequence& window : windows) {
    const auto logits = RunReference(graph, window.tokens);
    for (size_t t = window.first_target; t < window.tokens.size(); ++t) {
      const float* row = logits->data() + (t - 1) * graph.vocab_size();
      sum += row[window.tokens[t]] - LogSumExp(row, graph.vocab_size());
    }
  }
  EXPECT_NEAR(-result.metrics[0].block_sum(0), sum, 1e-3);
  EXPECT_EQ(result.items[0].targets, tokenizer.Encode("abcdefghij"));
  EXPECT_THAT(result.items[0].window_tokens, ElementsAre(4, 4, 2));
}

TEST(MeasureTask, ContextsThatDoNotFitLoseTheirFront) {
  const ir::Graph graph = ToyGraph(15);
  const auto plan = MakePlan(graph);
  const ToyTokenizer tokenizer;
  ThreadPool pool(2);
  Task task = ChoiceTask({{"a long context in front", {"b", "and longer"}, 0}, {"q", {"a", "b"}, 0}});
  task.description.set_accuracy_norm(false);
  task.items[0].category = "hard";
  task.items[1].category = "soft";
  ASSERT_OK_AND_ASSIGN(const TaskRecords records, RecordTask(*plan, pool, tokenizer, task, {.max_positions = 14}));
  // The last 15 tokens, choice included, of which the model sees 14.
  TaskItem left = task.items[0];
  left.contexts = {"text in front", "ront"};
  const auto expected = ReferenceLogLikelihoods(graph, tokenizer, "", left);
  for (size_t c = 0; c < 2; ++c) EXPECT_NEAR(records.items[0].log_likelihoods[c], expected[c], 1e-3) << c;
  ASSERT_OK_AND_ASSIGN(const std::vector<Metric> metrics, MetricsOf(records));
  ASSERT_EQ(metrics.size(), 3);
  EXPECT_EQ(metrics[0].convention(), "lm-eval items=2 bos=none task=toy@3 truncated=1 positions=14");
  EXPECT_EQ(metrics[1].convention(), "lm-eval items=1 bos=none task=toy@3 truncated=1 positions=14");
  EXPECT_EQ(metrics[2].convention(), "lm-eval items=1 bos=none task=toy@3");
  ExpectRecomputes(records);
  // All but the last token of the longest sequence.
  ASSERT_OK_AND_ASSIGN(const auto fits, MeasureTask(*plan, pool, tokenizer, task, {.max_positions = 33}));
  EXPECT_EQ(fits.metrics[0].convention(), "lm-eval items=2 bos=none task=toy@3");
  ASSERT_OK_AND_ASSIGN(const auto short_of_one, MeasureTask(*plan, pool, tokenizer, task, {.max_positions = 32}));
  EXPECT_EQ(short_of_one.metrics[0].convention(), "lm-eval items=2 bos=none task=toy@3 truncated=1 positions=32");
}

TEST(MeasureTask, ErrorsNameTheItem) {
  const auto plan = MakePlan(ToyGraph(1));
  ThreadPool pool(1);
  const ToyTokenizer tokenizer;
  const auto error = [&](const std::vector<Choices>& choices, int64_t max_positions) {
    return std::string(MeasureTask(*plan, pool, tokenizer, ChoiceTask(choices), {.max_positions = max_positions}).status().message());
  };
  const std::vector<Choices> choices = {{"q", {"a", "b"}, 0}, {"long", {"a", "and longer"}, 0}};
  EXPECT_THAT(error(choices, 10), HasSubstr("toy item at toy.jsonl:2: the continuation alone has 11 tokens; the model may see 10 positions"));
  EXPECT_EQ(error(choices, 11), "");
  EXPECT_THAT(error({}, 10), HasSubstr("toy has no items"));
  // Documents are cut into windows, never truncated.
  TaskItem document;
  document.contexts = {""};
  document.continuations = {"abcdefghij"};
  const auto rolled = MeasureTask(*plan, pool, tokenizer, TaskOf("kind: ROLLING", {document}), {.window = 5, .max_positions = 4});
  EXPECT_THAT(std::string(rolled.status().message()), HasSubstr("a window of 5 tokens, and the model has learned 4 positions"));
}

TEST(AnswerReader, TakesAndComparesAnswersAsGsm8kDoes) {
  const TaskDescription description = Describe(R"(
      filter { name: 'strict' regex: '#### (\\-?[0-9\\.\\,]+)' }
      filter { name: 'flexible' last_number: true }
      ignore: ',' ignore: '\\$' ignore: '(?s).*#### ' ignore: '\\.$' ignore_case: true)");
  ASSERT_OK_AND_ASSIGN(const AnswerReader reader, AnswerReader::Create(description));
  const std::string gold = "Half of 2,468 is\n1234.\n#### 1,234";
  struct Case {
    std::string said;
    std::vector<std::string> answers;
    bool strict, flexible;
  };
  const Case cases[] = {{" so it is\n#### 1234\nQ", {"1234", "1234"}, true, true},
                        {"it costs $1,234.", {"[invalid]", "$1,234."}, false, true},
                        {"#### 7 or 1234", {"7", "1234"}, false, true},
                        {"no number", {"[invalid]", "[invalid]"}, false, false},
                        {"minus -5", {"[invalid]", "-5"}, false, false}};
  for (const Case& c : cases) {
    ASSERT_OK_AND_ASSIGN(const std::vector<std::string> answers, reader.Answers(c.said));
    EXPECT_EQ(answers, c.answers) << c.said;
    EXPECT_EQ(*reader.Matches(answers[0], gold), c.strict) << c.said;
    EXPECT_EQ(*reader.Matches(answers[1], gold), c.flexible) << c.said;
  }
}

TEST(AnswerReader, PicksAndIgnores) {
  ASSERT_OK_AND_ASSIGN(const AnswerReader all, AnswerReader::Create(Describe("ignore_case: true")));
  EXPECT_THAT(*all.Answers(" Paris "), ElementsAre(" Paris "));
  EXPECT_TRUE(*all.Matches(" PARIS\n", "Paris"));
  EXPECT_FALSE(*all.Matches("Par is", "Paris"));
  ASSERT_OK_AND_ASSIGN(const AnswerReader letters, AnswerReader::Create(Describe("filter { regex: '[A-D]' pick: LAST } filter { name: 'x' regex: '(a)|(b)' }")));
  EXPECT_THAT(*letters.Answers("A or C: b"), ElementsAre("C", "b"));
}

}  // namespace
}  // namespace nibble::eval
