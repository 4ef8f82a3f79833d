#include "eval/generation.h"

#include "core/runtime/reference.h"
#include "eval/log_probs.h"
#include "eval/task.h"
#include "eval/testing.h"

namespace nibble::eval {
namespace {

using ::testing::HasSubstr;

// Each token is the letter of its number in base 26, so that every text shows its tokens.
class LetterTokenizer : public ToyTokenizer {
 public:
  std::string Decode(absl::Span<const int32_t> ids) const override {
    std::string text;
    for (const int32_t id : ids) absl::StrAppend(&text, std::string(1, static_cast<char>('a' + id / 26)), std::string(1, static_cast<char>('a' + id % 26)));
    return text;
  }
};

// Greedy decoding with the reference executor, the whole sequence each time.
std::string Reference(const ir::Graph& graph, const LetterTokenizer& tokenizer, std::vector<int32_t> tokens, int64_t count) {
  const size_t prompt = tokens.size();
  for (int64_t i = 0; i < count; ++i) {
    const auto logits = RunReference(graph, tokens);
    NIBBLE_CHECK_OK(logits.status());
    const int64_t next = ArgMax(logits->data() + logits->size() - graph.vocab_size(), graph.vocab_size());
    if (tokenizer.eos_id() == static_cast<int32_t>(next)) break;
    tokens.push_back(static_cast<int32_t>(next));
  }
  return tokenizer.Decode(absl::MakeConstSpan(tokens).subspan(prompt));
}

std::vector<std::vector<int32_t>> Prompts() {
  // Two share their first tokens, one is the beginning of another, lengths differ.
  const std::vector<int32_t> shared = RandomTokens(20, 1);
  std::vector<std::vector<int32_t>> prompts = {shared, {shared.begin(), shared.begin() + 15}, RandomTokens(3, 2), RandomTokens(40, 3), shared};
  prompts.back().push_back(17);
  return prompts;
}

TEST(GenerateGreedily, IsWhatTheReferenceExecutorSays) {
  const ir::Graph graph = ToyGraph(21);
  const auto plan = MakePlan(graph);
  LetterTokenizer tokenizer;
  ThreadPool pool(2);
  const auto prompts = Prompts();
  std::vector<std::string> expected;
  for (const auto& prompt : prompts) expected.push_back(Reference(graph, tokenizer, prompt, 6));
  for (const int at_once : {1, 2, 16}) {
    ASSERT_OK_AND_ASSIGN(const auto texts, GenerateGreedily(*plan, pool, tokenizer, prompts, {"toy", 6, {}, at_once}));
    EXPECT_EQ(texts, expected) << at_once;
  }
}

TEST(GenerateGreedily, StopsAtTextsAndTheEos) {
  const ir::Graph graph = ToyGraph(22);
  const auto plan = MakePlan(graph);
  LetterTokenizer tokenizer;
  ThreadPool pool(1);
  const std::vector<std::vector<int32_t>> prompts = {RandomTokens(9, 4)};
  const std::string whole = Reference(graph, tokenizer, prompts[0], 8);
  ASSERT_EQ(whole.size(), 16);
  // A stop text that begins within a token and ends within the next.
  const std::string stop = whole.substr(5, 2);
  ASSERT_OK_AND_ASSIGN(const auto cut, GenerateGreedily(*plan, pool, tokenizer, prompts, {"toy", 8, {"#", stop}}));
  EXPECT_EQ(cut[0], whole.substr(0, whole.find(stop)));
  // The third token as EOS.
  tokenizer.eos = (whole[4] - 'a') * 26 + (whole[5] - 'a');
  ASSERT_OK_AND_ASSIGN(const auto ended, GenerateGreedily(*plan, pool, tokenizer, prompts, {"toy", 8, {}}));
  EXPECT_EQ(ended[0], Reference(graph, tokenizer, prompts[0], 8));
  EXPECT_LT(ended[0].size(), whole.size());
  // The same token as one of the model's others.
  const int32_t end = *std::exchange(tokenizer.eos, std::nullopt);
  GenerationOptions options{"toy", 8, {}};
  options.end_tokens = {96, end};
  EXPECT_EQ(GenerateGreedily(*plan, pool, tokenizer, prompts, options).value(), ended);
}

datasets::Task AnswerTask(const std::vector<std::string>& answers) {
  datasets::Task task;
  task.label = "toy";
  task.description.set_name("toy");
  task.description.set_version("1");
  task.description.set_kind(TaskDescription::EXACT_MATCH);
  task.description.set_max_tokens(4);
  task.preambles = {"an example "};
  for (const std::string& answer : answers) {
    datasets::TaskItem& item = task.items.emplace_back();
    item.place = absl::StrCat("toy.jsonl:", task.items.size());
    item.contexts = {"what is it?"};
    item.answer = answer;
  }
  task.part_ends = {task.items.size()};
  return task;
}

TEST(MeasureTask, ExactMatch) {
  const ir::Graph graph = ToyGraph(23);
  const auto plan = MakePlan(graph);
  const LetterTokenizer tokenizer;
  ThreadPool pool(2);
  const std::string said = Reference(graph, tokenizer, tokenizer.Encode("an example what is it?"), 4);
  datasets::Task task = AnswerTask({said, "other"});
  ASSERT_OK_AND_ASSIGN(const auto result, MeasureTask(*plan, pool, tokenizer, task, {}));
  ASSERT_EQ(result.metrics.size(), 1);
  EXPECT_EQ(result.metrics[0].name(), "exact_match/toy");
  EXPECT_THAT(result.metrics[0].block_sum(), ::testing::ElementsAre(1, 0));
  EXPECT_EQ(result.metrics[0].convention(), "lm-eval greedy max_tokens=4 items=2 bos=none task=toy@1");
  EXPECT_EQ(result.items[1].said, said);
  TaskDescription::Filter* first = task.description.add_filter();
  first->set_name("first");
  first->set_regex("^..");
  TaskDescription::Filter* all = task.description.add_filter();
  all->set_name("all");
  all->set_regex(".*");
  task.items[1].answer = said.substr(0, 2);
  ASSERT_OK_AND_ASSIGN(const auto filtered, MeasureTask(*plan, pool, tokenizer, task, {}));
  ASSERT_EQ(filtered.metrics.size(), 2);
  EXPECT_EQ(filtered.metrics[0].name(), "exact_match/toy/first");
  EXPECT_THAT(filtered.metrics[0].block_sum(), ::testing::ElementsAre(0, 1));
  EXPECT_EQ(filtered.metrics[1].name(), "exact_match/toy/all");
  EXPECT_THAT(filtered.metrics[1].block_sum(), ::testing::ElementsAre(1, 0));
  ASSERT_OK_AND_ASSIGN(const TaskRecords records, RecordTask(*plan, pool, tokenizer, task, {}));
  EXPECT_EQ(records.items[0].said, said);
  ExpectRecomputes(records);
}

TEST(MeasureTask, PromptsThatDoNotFitLoseTheirFront) {
  const ir::Graph graph = ToyGraph(23);
  const auto plan = MakePlan(graph);
  const LetterTokenizer tokenizer;
  ThreadPool pool(1);
  const datasets::Task task = AnswerTask({"x"});
  // Of the prompt's 22 tokens those that leave room for 4.
  ASSERT_OK_AND_ASSIGN(const TaskRecords records, RecordTask(*plan, pool, tokenizer, task, {.max_positions = 24}));
  EXPECT_EQ(records.items[0].said, Reference(graph, tokenizer, tokenizer.Encode(" example what is it?"), 4));
  ASSERT_OK_AND_ASSIGN(const std::vector<Metric> metrics, MetricsOf(records));
  EXPECT_EQ(metrics[0].convention(), "lm-eval greedy max_tokens=4 items=1 bos=none task=toy@1 truncated=1 positions=24");
  ExpectRecomputes(records);
  ASSERT_OK_AND_ASSIGN(const auto fits, MeasureTask(*plan, pool, tokenizer, task, {.max_positions = 26}));
  EXPECT_EQ(fits.metrics[0].convention(), "lm-eval greedy max_tokens=4 items=1 bos=none task=toy@1");
  const auto none = MeasureTask(*plan, pool, tokenizer, task, {.max_positions = 4});
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("toy: max_tokens is 4 and the model may see 4 positions"));
}

}  // namespace
}  // namespace nibble::eval
