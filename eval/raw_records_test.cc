#include "eval/raw_records.h"

#include "core/base/file.h"
#include "core/io/damage_testing.h"
#include "core/io/safetensors.h"
#include "eval/memory.h"
#include "eval/testing.h"

namespace nibble::eval {
namespace {

using datasets::Task;
using datasets::TaskItem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TextWindows Windows(int64_t window) {
  auto windows = MakeWindows("toy", RandomTokens(100, 5), std::nullopt, {.convention = WindowConvention::kLlamaCpp, .window = window});
  NIBBLE_CHECK_OK(windows.status());
  return *std::move(windows);
}

PerplexityRecords Perplexities() {
  ThreadPool pool(2);
  auto records = RecordPerplexity(*MakePlan(ToyGraph(2)), pool, Windows(33));
  NIBBLE_CHECK_OK(records.status());
  return *std::move(records);
}

TaskItem Item(const std::vector<std::string>& contexts, const std::vector<std::string>& continuations, int gold, const std::string& category = "") {
  TaskItem item;
  item.contexts = contexts;
  item.continuations = continuations;
  item.gold = gold;
  item.category = category;
  for (const std::string& text : continuations) item.characters.push_back(static_cast<int64_t>(text.size()) - 1);
  return item;
}

TaskRecords Tasks(const std::string& fields, std::vector<TaskItem> items) {
  Task task = TaskOf("part { file: '/a/file' } " + fields, std::move(items));
  task.shots = 2;
  ThreadPool pool(2);
  auto records = RecordTask(*MakePlan(ToyGraph(7)), pool, ToyTokenizer(), task, {.window = 4});
  NIBBLE_CHECK_OK(records.status());
  return *std::move(records);
}

TaskRecords Choices() {
  return Tasks("kind: MULTIPLE_CHOICE",
               {Item({"the sky is"}, {" blue", " green and wide", " an old song"}, 0, "hard"), Item({"seven"}, {" x", " yy"}, 1, "soft"),
                Item({"a b c"}, {" d", " e f g"}, 0, "hard"), Item({"none"}, {" a", " b"}, 1)});
}

TEST(RawRecords, GivePerplexityAndDivergence) {
  const PerplexityRecords records = Perplexities();
  EXPECT_EQ(records.predictions, 16);
  EXPECT_EQ(records.nll.size(), 3 * 16);
  EXPECT_EQ(records.targets[16], Windows(33).Targets(1)[0]);
  ExpectRecomputes(records);
  // Rows of 11 flags, which fill no whole bytes.
  ThreadPool pool(2);
  ASSERT_OK_AND_ASSIGN(const DivergenceRecords divergence, RecordDivergence(*MakePlan(ToyGraph(5)), *MakePlan(ToyGraph(6)), pool, Windows(24)));
  EXPECT_EQ(divergence.agree.size(), 4 * 11);
  ExpectRecomputes(divergence);
  DivergenceRecords other = divergence;
  for (size_t i = 0; i < other.agree.size(); ++i) other.agree[i] = i % 3 == 0;
  ExpectRecomputes(other);
}

TEST(RawRecords, GiveEveryKindOfTask) {
  const TaskRecords choices = Choices();
  ASSERT_OK_AND_ASSIGN(const std::vector<Metric> metrics, MetricsOf(choices));
  EXPECT_EQ(metrics.size(), 6);  // accuracy and accuracy_norm of all, of two categories
  EXPECT_EQ(metrics[2].convention(), "lm-eval items=2 bos=none task=toy@3 shots=2");
  EXPECT_THAT(choices.items[0].bytes, ElementsAre(5, 15, 12));
  EXPECT_EQ(choices.items[3].category, -1);
  ExpectRecomputes(choices);
  ExpectRecomputes(Tasks("kind: PARTIAL", {Item({"they saw the big cat", "they saw the dog"}, {" sleep", " sleep"}, 1)}));
  ExpectRecomputes(Tasks("kind: MINIMAL_PAIR", {Item({""}, {"abc", "ab"}, 0), Item({""}, {"ab", "abc"}, 0)}));
  ExpectRecomputes(Tasks("kind: LAST_WORD", {Item({"once upon a"}, {" time"}, 0), Item({"so"}, {" x"}, 0)}));
  std::vector<TaskItem> documents = {Item({""}, {"abcdefghij"}, 0), Item({""}, {"klm"}, 0)};
  documents[0].words = 4;
  documents[0].bytes = 20;
  documents[1].words = 2;
  documents[1].bytes = 5;
  const TaskRecords rolling = Tasks("kind: ROLLING", documents);
  EXPECT_THAT(rolling.items[0].window_tokens, ElementsAre(4, 4, 2));
  EXPECT_EQ(rolling.items[0].nll.size(), 10);
  ExpectRecomputes(rolling);
}

// From the texts: an answer that another filter takes, bytes beyond ASCII, an empty answer.
TEST(RawRecords, GiveExactMatches) {
  TaskRecords records;
  records.label = "toy";
  records.description = Describe("kind: EXACT_MATCH filter { name: 'first' regex: '^\\\\w+' } filter { name: 'number' last_number: true } ignore_case: true");
  for (const auto& [said, answer] : {std::pair("Paris is 12", "paris"), std::pair("caf\u00e9 costs 7", "7"), std::pair("", "x")}) {
    ItemResult& item = records.items.emplace_back();
    item.said = said;
    item.answer = answer;
  }
  ASSERT_OK(MatchAnswers(records.description, &records.items));
  EXPECT_THAT(records.items[0].matches, ElementsAre(1, 0));
  EXPECT_THAT(records.items[1].matches, ElementsAre(0, 1));
  ExpectRecomputes(records);
}

// An item takes hundreds of bytes of memory, its category four of the file.
TEST(RawRecords, ItemsThatTheFileDoesNotHoldAreNotMade) {
  const std::string path = TestTempDir() + "/r.safetensors";
  const auto message = [&](const std::string& task, const std::vector<std::pair<std::string, Tensor>>& others) {
    std::vector<std::pair<std::string, Tensor>> tensors = {{"category", Tensor::Zeros(DType::kI32, {1 << 20})},
                                                           {"categories", Tensor::Zeros(DType::kU8, {0})},
                                                           {"categories_bytes", Tensor::Zeros(DType::kI32, {0})}};
    tensors.insert(tensors.end(), others.begin(), others.end());
    EXPECT_OK(io::WriteSafetensors(path, tensors,
                                   {{"nibble.records", "1"}, {"kind", "task"}, {"arithmetic", "NATIVE"}, {"label", "toy"}, {"task", task}, {"shots", "0"},
                                    {"window", "0"}, {"bos", "none"}}));
    const double before = PeakResidentMiB().value();
    const auto read = ReadRawRecords(path);
    EXPECT_LT(PeakResidentMiB().value() - before, 64);
    return std::string(read.status().message());
  };
  EXPECT_THAT(message(R"({"kind": "MULTIPLE_CHOICE"})", {}), HasSubstr("no tensor 'choices'"));
  EXPECT_THAT(message(R"({"kind": "ROLLING"})", {{"windows", Tensor::Zeros(DType::kI32, {2})}}),
              HasSubstr("tensor 'windows' is I32 [2], the others need I32 [1048576]"));
  EXPECT_THAT(message(R"({"kind": "EXACT_MATCH"})", {}), HasSubstr("no tensor 'said_bytes'"));
  // A filter is an answer of each item.
  const Tensor none = Tensor::Zeros(DType::kI32, {1 << 20});
  EXPECT_THAT(message(R"({"kind": "EXACT_MATCH", "filter": [{}, {}]})", {{"said_bytes", none}, {"answer_bytes", none}}), HasSubstr("no tensor 'matched'"));
  EXPECT_THAT(message("{}", {}), HasSubstr("its kind is TEXT"));
}

// What docs/reports.md tells users to read.
TEST(RawRecords, AreTensorsThatAnyToolReads) {
  const std::string path = TestTempDir() + "/r.safetensors";
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ToFileBytes(Perplexities()));
  ASSERT_OK(WriteFile(path, bytes));
  ASSERT_OK_AND_ASSIGN(const auto file, io::SafetensorsFile::Open(path));
  EXPECT_THAT(file->names(), ElementsAre("nll", "target"));
  ASSERT_OK_AND_ASSIGN(const Tensor nll, file->Get("nll"));
  EXPECT_EQ(nll.dtype(), DType::kF32);
  EXPECT_EQ(nll.shape(), (Shape{3, 16}));
  EXPECT_EQ(file->metadata().at("kind"), "perplexity");
  EXPECT_EQ(file->metadata().at("convention"), "llama.cpp window=33 windows=3 bos=none");
  ASSERT_OK_AND_ASSIGN(const std::string tasks, ToFileBytes(Choices()));
  EXPECT_THAT(tasks, ::testing::Not(HasSubstr("/a/file")));  // where the data lay is no part of them
}

TEST(RawRecords, DamagedFilesAreOneMessage) {
  const std::string path = TestTempDir() + "/r.safetensors";
  const auto message = [&](const std::string& bytes) {
    io::WriteQuickly(path, bytes);
    const auto read = ReadRawRecords(path);
    EXPECT_FALSE(read.ok());
    EXPECT_THAT(std::string(read.status().message()), HasSubstr(path));
    return std::string(read.status().message());
  };
  const auto replaced = [](std::string text, const std::string& from, const std::string& to) { return text.replace(text.find(from), from.size(), to); };
  ASSERT_OK_AND_ASSIGN(const std::string perplexity, ToFileBytes(Perplexities()));
  ASSERT_OK_AND_ASSIGN(const std::string choices, ToFileBytes(Choices()));
  EXPECT_THAT(message(replaced(perplexity, "nibble.records", "nibble.recirds")), HasSubstr("holds no raw records"));
  EXPECT_THAT(message(replaced(perplexity, "\"1\"", "\"2\"")), HasSubstr("raw records of layout '2'; this program reads '1'"));
  EXPECT_THAT(message(replaced(perplexity, "\"perplexity\"", "\"perplexitx\"")), HasSubstr("the kind 'perplexitx'"));
  EXPECT_THAT(message(replaced(perplexity, "\"nll\"", "\"nlm\"")), HasSubstr("no tensor 'nll'"));
  EXPECT_THAT(message(replaced(perplexity, "\"I32\"", "\"F32\"")), HasSubstr("tensor 'target' is F32 [3, 16], the others need I32 [3, 16]"));
  EXPECT_THAT(message(replaced(perplexity, "NATIVE", "NATIVF")), HasSubstr("expected NATIVE or SIMULATED"));
  EXPECT_THAT(message(replaced(choices, "MULTIPLE_CHOICE", "MULTIPLE_CHOICF")), HasSubstr("metadata 'task'"));
  TaskRecords lacking = Choices();
  lacking.items[1].log_likelihoods = {};
  lacking.items[1].target_tokens = lacking.items[1].bytes = lacking.items[1].characters = {};
  EXPECT_THAT(message(ToFileBytes(lacking).value()), HasSubstr("item 1 has 0 continuations; MULTIPLE_CHOICE needs 1"));
  lacking.items[1].bytes = {1};
  EXPECT_THAT(message(ToFileBytes(lacking).value()), HasSubstr("tensor 'bytes' is I32 [8], the others need I32 [7]"));
  TaskRecords truncated = Choices();
  truncated.items[2].truncated = 1;
  truncated.max_positions = 9;
  EXPECT_THAT(message(replaced(ToFileBytes(truncated).value(), "\"positions\"", "\"pasitions\"")), HasSubstr("the metadata lacks 'positions'"));
  for (const std::string& bytes : {perplexity, choices}) {
    io::ForEachTruncation(path, bytes, [&](size_t length) {
      const auto read = ReadRawRecords(path);
      ASSERT_FALSE(read.ok()) << length;
      EXPECT_THAT(std::string(read.status().message()), HasSubstr(path));
    });
    io::ForEachMutation(path, bytes, bytes.size(), [&] {
      const auto read = ReadRawRecords(path);
      if (read.ok()) (void)MetricsOf(*read);
      else EXPECT_THAT(std::string(read.status().message()), HasSubstr(path));
    });
  }
}

}  // namespace
}  // namespace nibble::eval
