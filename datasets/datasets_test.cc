#include <cstdlib>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/testing.h"
#include "datasets/conversations.h"
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
  EXPECT_EQ(questions.label, "quickstart/questions");
  EXPECT_TRUE(FileExists(questions.path));
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
                    HasSubstr("It comes from https://"), HasSubstr("(published at https://huggingface.co/datasets/Salesforce/wikitext; licence: CC BY-SA 3.0)"),
                    HasSubstr("goes into wikitext-2-raw/"), HasSubstr("NIBBLE_DATA")));
  const auto unknown = ResolveDataset("helaswag", TestTempDir());
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(unknown), AllOf(HasSubstr("did you mean 'hellaswag'?"), HasSubstr("no such file either: ")));
}

TEST(ResolveDataset, WantsOneFile) {
  EXPECT_THAT(Message(ResolveDataset("mmlu", "")), HasSubstr("'mmlu' is a task of 57 files"));
}

TEST(LookUp, TellsFoundMissingAndOther) {
  const std::string root = TestTempDir();
  ASSERT_OK(MakeDirectories(root + "/gsm8k"));
  ASSERT_OK(WriteFile(root + "/gsm8k/test.jsonl", "{}"));
  const ScopedEnv data("NIBBLE_DATA", root);
  const std::vector<FileStatus> gsm8k = LookUp(*FindKnownTask("gsm8k"), root);
  ASSERT_EQ(gsm8k.size(), 2);
  EXPECT_THAT(gsm8k[0].path, EndsWith("/gsm8k/test.jsonl"));
  EXPECT_FALSE(gsm8k[0].as_expected);
  EXPECT_EQ(gsm8k[1].file, "gsm8k/train.jsonl");
  EXPECT_EQ(gsm8k[1].path, "");
  const std::vector<FileStatus> passages = LookUp(*FindKnownTask("quickstart/passages"), "");
  ASSERT_EQ(passages.size(), 1);
  EXPECT_TRUE(passages[0].as_expected);
}

TEST(SharedData, KnownSetsAreThere) {
  NIBBLE_REQUIRE_SHARED();
  const ScopedEnv data("NIBBLE_DATA", SharedDir() + "/data");
  for (const TaskDescription& known : KnownTasks()) {
    if (known.name() == "gsm8k") continue;  // not part of the reference data
    for (const FileStatus& file : LookUp(known, "")) EXPECT_TRUE(file.as_expected) << known.name() << " " << file.file;
    if (known.kind() != TaskDescription::TEXT) continue;
    ASSERT_OK_AND_ASSIGN(const ResolvedDataset resolved, ResolveDataset(known.name(), ""));
    EXPECT_OK(ReadText(resolved.path));
  }
}

}  // namespace
}  // namespace nibble::datasets
