#include <cstdlib>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/testing.h"
#include "datasets/conversations.h"
#include "datasets/multiple_choice.h"
#include "datasets/registry.h"
#include "datasets/text.h"

namespace nibble::datasets {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;

std::string Write(const std::string& name, absl::string_view contents) {
  const std::string path = absl::StrCat(TestTempDir(), "/", name);
  EXPECT_OK(WriteFile(path, contents));
  return path;
}

template <typename T>
std::string Message(const absl::StatusOr<T>& result) {
  return std::string(result.status().message());
}

// Sets an environment variable for a scope.
class ScopedEnv {
 public:
  ScopedEnv(const char* name, const std::string& value) : name_(name) { ::setenv(name, value.c_str(), 1); }
  ~ScopedEnv() { ::unsetenv(name_); }

 private:
  const char* const name_;
};

TEST(ReadText, GivesTheBytesAndRefusesOthers) {
  ASSERT_OK_AND_ASSIGN(const std::string text, ReadText(Write("a.txt", "naïve\r\n café\n")));
  EXPECT_EQ(text, "naïve\r\n café\n");
  EXPECT_THAT(Message(ReadText(Write("b.txt", "ab\xff"))), AllOf(HasSubstr("b.txt"), HasSubstr("byte 2")));
  EXPECT_THAT(Message(ReadText(Write("c.txt", ""))), HasSubstr("c.txt is empty"));
  EXPECT_EQ(ReadText("/no/such/file").status().code(), absl::StatusCode::kNotFound);
}

TEST(CutWindows, DropsTheTail) {
  std::vector<int32_t> tokens(11);
  std::iota(tokens.begin(), tokens.end(), 0);
  ASSERT_OK_AND_ASSIGN(const auto windows, CutWindows(tokens, 4));
  ASSERT_EQ(windows.size(), 2);
  EXPECT_THAT(windows[0], ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(windows[1], ElementsAre(4, 5, 6, 7));
  ASSERT_OK_AND_ASSIGN(const auto first, CutWindows(tokens, 4, 1));
  EXPECT_EQ(first.size(), 1);
  ASSERT_OK_AND_ASSIGN(const auto all, CutWindows(tokens, 4, 9));
  EXPECT_EQ(all.size(), 2);
  EXPECT_EQ(Message(CutWindows(tokens, 12)), "the text has 11 tokens; one window needs 12: take a longer text or a smaller window");
}

TEST(ReadMultipleChoiceJsonLines, ReadsItems) {
  const std::string path = Write("a.jsonl",
                                 "{\"query\": \"Q\", \"choices\": [\"a\", \"b c\"], \"gold\": 1, \"id\": 7}\r\n\n"
                                 "{\"query\": \"\", \"choices\": [\"x\", \"y\", \"z\"], \"gold\": 0}");
  ASSERT_OK_AND_ASSIGN(const auto items, ReadMultipleChoice(path));
  ASSERT_EQ(items.size(), 2);
  EXPECT_EQ(items[0].query, "Q");
  EXPECT_THAT(items[0].choices, ElementsAre("a", "b c"));
  EXPECT_EQ(items[0].gold, 1);
  EXPECT_EQ(items[1].choices.size(), 3);
}

TEST(ReadMultipleChoiceJsonLines, ErrorsNameLineAndField) {
  const auto error = [](absl::string_view line) {
    return Message(ReadMultipleChoiceJsonLines(Write("a.jsonl", absl::StrCat("\n", line, "\n"))));
  };
  EXPECT_THAT(error("{\"query\": "), HasSubstr("a.jsonl:2: not valid JSON"));
  EXPECT_THAT(error("[]"), HasSubstr("a.jsonl:2: not a JSON object"));
  EXPECT_THAT(error("{\"choices\": [\"a\", \"b\"], \"gold\": 0}"), HasSubstr("a.jsonl:2: field 'query' is missing"));
  EXPECT_THAT(error("{\"query\": 3, \"choices\": [\"a\", \"b\"], \"gold\": 0}"),
              HasSubstr("'query' must be a string"));
  EXPECT_THAT(error("{\"query\": \"q\", \"choices\": [\"a\"], \"gold\": 0}"),
              HasSubstr("'choices' must be a list of two"));
  EXPECT_THAT(error("{\"query\": \"q\", \"choices\": [\"a\", \"\"], \"gold\": 0}"), HasSubstr("'choices[1]'"));
  EXPECT_THAT(error("{\"query\": \"q\", \"choices\": [\"a\", \"b\"]}"), HasSubstr("'gold' is missing"));
  EXPECT_THAT(error("{\"query\": \"q\", \"choices\": [\"a\", \"b\"], \"gold\": \"0\"}"),
              HasSubstr("'gold' must be an integer"));
  EXPECT_THAT(error("{\"query\": \"q\", \"choices\": [\"a\", \"b\"], \"gold\": 2}"),
              HasSubstr("'gold' is 2; there are 2"));
  EXPECT_THAT(error("{\"query\": \"q\", \"choices\": [\"a\", \"b\"], \"gold\": -1}"), HasSubstr("'gold' is -1"));
  EXPECT_THAT(error(""), HasSubstr("holds no items"));
}

TEST(ReadHellaSwag, ReadsSixLinesAnItem) {
  ASSERT_OK_AND_ASSIGN(const auto items,
                       ReadMultipleChoice(Write("h.txt", "Act: ctx\n2\na\nb\nc\nd\nB: e\n0\nf\ng\nh\ni\n")));
  ASSERT_EQ(items.size(), 2);
  EXPECT_EQ(items[0].query, "Act: ctx");
  EXPECT_EQ(items[0].gold, 2);
  EXPECT_THAT(items[1].choices, ElementsAre("f", "g", "h", "i"));
}

TEST(ReadHellaSwag, ErrorsNameTheLine) {
  const auto error = [](absl::string_view text) { return Message(ReadHellaSwag(Write("h.txt", text))); };
  EXPECT_THAT(error("c\n0\na\nb\nc\n"), HasSubstr("h.txt: 5 lines, not a multiple of 6"));
  EXPECT_THAT(error("c\nx\na\nb\nc\nd\n"), HasSubstr("h.txt:2: field 'gold' must be an index, not 'x'"));
  EXPECT_THAT(error("c\n4\na\nb\nc\nd\n"), HasSubstr("h.txt:2: field 'gold' is 4; there are 4 choices"));
  EXPECT_THAT(error("c\n0\na\n\nc\nd\n"), HasSubstr("h.txt:4: an empty ending"));
  EXPECT_THAT(error(""), HasSubstr("holds no items"));
  EXPECT_THAT(Message(ReadMultipleChoice("items.csv")), HasSubstr("items.csv"));
}

TEST(ReadConversations, ReadsMessagesAndPrompts) {
  const std::string path = TestTempDir() + "/c.jsonl";
  ASSERT_OK(WriteFile(path, R"({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}

{"prompt": "2+2?", "completion": "4", "other": 1}
)"));
  ASSERT_OK_AND_ASSIGN(const auto conversations, ReadConversations(path));
  ASSERT_EQ(conversations.size(), 2);
  EXPECT_EQ(conversations[0].messages[1].role, "assistant");
  EXPECT_EQ(conversations[0].messages[1].content, "hello");
  EXPECT_EQ(conversations[1].messages[0].content, "2+2?");
  EXPECT_EQ(conversations[1].messages[1].content, "4");
}

TEST(ReadConversations, ErrorsNameLineAndField) {
  const std::string path = TestTempDir() + "/c.jsonl";
  const auto message = [&](const std::string& line) {
    EXPECT_OK(WriteFile(path, "{\"prompt\": \"a\", \"completion\": \"b\"}\n" + line + "\n"));
    return std::string(ReadConversations(path).status().message());
  };
  EXPECT_THAT(message("[]"), HasSubstr(path + ":2: not a JSON object"));
  EXPECT_THAT(message("{}"), HasSubstr("'messages' is missing"));
  EXPECT_THAT(message(R"({"messages": []})"), HasSubstr("'messages' must be a list"));
  EXPECT_THAT(message(R"({"messages": [{"role": "user", "content": "x"}]})"), HasSubstr("none of role 'assistant'"));
  EXPECT_THAT(message(R"({"messages": [{"role": "assistant"}]})"), HasSubstr("messages[0]: field 'content' is missing"));
  EXPECT_THAT(message(R"({"prompt": "a"})"), HasSubstr("'completion' is missing"));
}

TEST(ReadPreferences, ReadsPairsAndMinimalPairs) {
  const std::string path = TestTempDir() + "/p.jsonl";
  ASSERT_OK(WriteFile(path, R"({"prompt": "", "chosen": "good", "rejected": "bad"}
{"sentence_good": "He sleeps.", "sentence_bad": "He sleep.", "field": "morphology"}
)"));
  ASSERT_OK_AND_ASSIGN(const auto preferences, ReadPreferences(path));
  ASSERT_EQ(preferences.size(), 2);
  EXPECT_EQ(preferences[0].rejected, "bad");
  EXPECT_EQ(preferences[1].prompt, "");
  EXPECT_EQ(preferences[1].chosen, "He sleeps.");
  ASSERT_OK(WriteFile(path, R"({"prompt": "x", "chosen": ""})"));
  EXPECT_THAT(std::string(ReadPreferences(path).status().message()), HasSubstr(":1: field 'chosen' must not be empty"));
  ASSERT_OK(WriteFile(path, "\n"));
  EXPECT_THAT(std::string(ReadPreferences(path).status().message()), HasSubstr("holds no items"));
}

TEST(ResolveDataset, AFileWins) {
  const std::string path = Write("mine.txt", "text");
  ASSERT_OK_AND_ASSIGN(const ResolvedDataset absolute, ResolveDataset(path, "/nowhere"));
  EXPECT_EQ(absolute.path, path);
  EXPECT_EQ(absolute.label, "mine.txt");
  EXPECT_EQ(absolute.known, nullptr);
  const std::string folder = path.substr(0, path.rfind('/'));
  ASSERT_OK_AND_ASSIGN(const ResolvedDataset relative, ResolveDataset("mine.txt", folder));
  EXPECT_TRUE(FileExists(relative.path));
}

TEST(ResolveDataset, FindsQuickstartInTheRepository) {
  const ScopedEnv cache("XDG_CACHE_HOME", "/nowhere");
  ASSERT_OK_AND_ASSIGN(const ResolvedDataset passages, ResolveDataset("quickstart/passages", "configs"));
  EXPECT_EQ(passages.label, "quickstart/passages");
  EXPECT_OK(ReadText(passages.path));
  ASSERT_OK_AND_ASSIGN(const ResolvedDataset questions, ResolveDataset("quickstart/questions", ""));
  ASSERT_OK_AND_ASSIGN(const auto items, ReadMultipleChoice(questions.path));
  EXPECT_EQ(items.size(), 160);
}

TEST(ResolveDataset, ChecksTheHashOfKnownFiles) {
  const std::string root = TestTempDir();
  ASSERT_OK(MakeDirectories(root + "/hellaswag"));
  ASSERT_OK(WriteFile(root + "/hellaswag/validation.txt", "c\n0\na\nb\nc\nd\n"));
  const ScopedEnv data("NIBBLE_DATA", root);
  const auto resolved = ResolveDataset("hellaswag", "");
  EXPECT_EQ(resolved.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(resolved), AllOf(HasSubstr("hellaswag/validation.txt"), HasSubstr("d572539320eb")));
}

TEST(ResolveDataset, SaysWhatIsMissing) {
  const ScopedEnv cache("XDG_CACHE_HOME", "/nowhere");
  const auto missing = ResolveDataset("wikitext-2-raw/test", TestTempDir());
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(missing),
              AllOf(HasSubstr("/shared/data/wikitext-2-raw/wiki.test.raw"), HasSubstr("/nowhere/nibble/data/"),
                    HasSubstr("https://"), HasSubstr("CC BY-SA 3.0"), HasSubstr("NIBBLE_DATA")));
  const auto unknown = ResolveDataset("helaswag", TestTempDir());
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(unknown), AllOf(HasSubstr("did you mean 'hellaswag'?"), HasSubstr("no such file either: ")));
}

TEST(SharedData, KnownSetsAreThere) {
  NIBBLE_REQUIRE_SHARED();
  const ScopedEnv data("NIBBLE_DATA", SharedDir() + "/data");
  for (const KnownDataset& known : KnownDatasets()) {
    ASSERT_OK_AND_ASSIGN(const ResolvedDataset resolved, ResolveDataset(std::string(known.name), ""));
    EXPECT_THAT(resolved.path, EndsWith(std::string(known.file)));
    if (known.kind == DatasetKind::kText) {
      EXPECT_OK(ReadText(resolved.path));
    } else {
      EXPECT_OK(ReadMultipleChoice(resolved.path));
    }
  }
}

TEST(SharedData, ItemCounts) {
  NIBBLE_REQUIRE_SHARED();
  const std::string data = SharedDir() + "/data/";
  ASSERT_OK_AND_ASSIGN(const auto hellaswag, ReadMultipleChoice(data + "hellaswag/validation.txt"));
  EXPECT_EQ(hellaswag.size(), 10042);
  EXPECT_EQ(hellaswag[0].choices[3], "starts pulling up roofing on a roof.");
  EXPECT_EQ(hellaswag[0].gold, 3);
  ASSERT_OK_AND_ASSIGN(const auto arc, ReadMultipleChoice(data + "multiple-choice/arc_easy.jsonl"));
  EXPECT_EQ(arc.size(), 2376);
}

}  // namespace
}  // namespace nibble::datasets
