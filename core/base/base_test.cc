#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <vector>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/memory.h"
#include "core/base/pattern.h"
#include "core/base/progress.h"
#include "core/base/regex.h"
#include "core/base/rng.h"
#include "core/base/subprocess.h"
#include "core/base/suggest.h"
#include "core/base/testing.h"
#include "core/base/thread_pool.h"

namespace nibble {
namespace {

TEST(ThreadPool, RunsEveryTaskOnceForAnyCount) {
  for (int threads : {1, 2, 3, 16}) {
    ThreadPool pool(threads);
    for (int64_t count : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(count);
      pool.ParallelFor(count, [&](int64_t i, int worker) {
        EXPECT_LT(worker, threads);
        runs[i].fetch_add(1);
      });
      for (const auto& r : runs) EXPECT_EQ(r.load(), 1);
    }
  }
}

TEST(ThreadPool, ManyShortCallsSeeTheirOwnTask) {
  for (int threads : {2, 16}) {  // 16: more than the machine can run at once
    ThreadPool pool(threads);
    for (int call = 0; call < 5000; ++call) {
      int64_t out[4] = {};
      pool.ParallelFor(4, [&](int64_t i, int) { out[i] = call + i; });
      for (int i = 0; i < 4; ++i) ASSERT_EQ(out[i], call + i);
    }
  }
}

TEST(Rng, IsFixedForASeed) {
  Rng rng(0);
  // First outputs of SplitMix64 with seed 0, from its published reference.
  EXPECT_EQ(rng.Next(), 0xE220A8397B1DCDAFull);
  EXPECT_EQ(rng.Next(), 0x6E789E6AA1B965F4ull);
}

TEST(Rng, NormalHasUnitVariance) {
  Rng rng(3);
  double sum = 0, squares = 0;
  const int n = 100000;
  for (int i = 0; i < n; ++i) {
    const double x = rng.Normal();
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / n, 0, 0.02);
  EXPECT_NEAR(squares / n, 1, 0.03);
}

TEST(File, WriteReadHash) {
  const std::string path = TestTempDir() + "/f";
  ASSERT_OK(WriteFile(path, "abc"));
  ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(path));
  EXPECT_EQ(text, "abc");
  ASSERT_OK_AND_ASSIGN(const std::string hash, Sha256OfFile(path));
  EXPECT_EQ(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  // Of several pieces, the last of them short.
  std::string large((33 << 20) + 7, 'x');
  for (size_t i = 0; i < large.size(); i += 4099) large[i] = static_cast<char>(i);
  for (const size_t size : {size_t{0}, size_t{16} << 20, large.size()}) {
    ASSERT_OK(WriteFile(path, absl::string_view(large).substr(0, size)));
    EXPECT_EQ(*Sha256OfFile(path), Sha256(absl::string_view(large).substr(0, size))) << size;
  }
}

// Processes of two hosts that share a folder may have one number.
TEST(File, TemporaryNamesSayHostAndProcess) {
  char host[256] = "";
  ASSERT_EQ(::gethostname(host, sizeof(host) - 1), 0);
  EXPECT_EQ(TemporaryName("a/f"), absl::StrCat("a/f.tmp.", host, ".", ::getpid()));
}

TEST(File, MissingFileNamesItsPath) {
  const auto file = MappedFile::Open("/nonexistent/file");
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(file.status().message()), ::testing::HasSubstr("/nonexistent/file"));
}

TEST(File, EmptyFileMaps) {
  const std::string path = TestTempDir() + "/empty";
  ASSERT_OK(WriteFile(path, ""));
  ASSERT_OK_AND_ASSIGN(const auto file, MappedFile::Open(path));
  EXPECT_TRUE(file->bytes().empty());
}

TEST(File, APipeIsRefusedNotWaitedFor) {
  const std::string path = TestTempDir() + "/pipe";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_THAT(std::string(MappedFile::Open(path).status().message()), ::testing::HasSubstr("not a regular file"));
}

TEST(File, DroppedPagesReadAgain) {
  const std::string path = TestTempDir() + "/pages";
  const std::string text(3 * 4096 + 5, 'x');
  ASSERT_OK(WriteFile(path, text));
  ASSERT_OK_AND_ASSIGN(const auto file, MappedFile::Open(path));
  DropMappedPages(file->bytes());
  EXPECT_EQ(file->bytes()[5000], 'x');
  // Memory that is no mapping keeps what it holds.
  const std::vector<uint8_t> owned(3 * 4096, 7);
  DropMappedPages(owned);
  EXPECT_EQ(owned[5000], 7);
}

TEST(Json, ErrorNamesSource) {
  const auto json = ParseJson("{\"a\": ", "x.json");
  ASSERT_FALSE(json.ok());
  EXPECT_THAT(std::string(json.status().message()), ::testing::StartsWith("x.json: "));
}

TEST(Json, NestingHasABound) {
  const auto nested = [](int depth) { return ParseJson(std::string(depth, '[') + std::string(depth, ']'), "x.json"); };
  EXPECT_OK(nested(100));
  EXPECT_EQ(nested(101).status().message(), "x.json: nested deeper than 100 levels");
  EXPECT_FALSE(nested(1000000).ok());
  EXPECT_FALSE(ParseJson(std::string(1000000, '{'), "x.json").ok());
  // Brackets within texts nest nothing.
  EXPECT_OK(ParseJson("[\"\\\"" + std::string(1000, '[') + "\"]", "x.json"));
}

TEST(Json, NothingHidesBehindANulByte) {
  for (const absl::string_view text : {absl::string_view("{}\0", 3), absl::string_view("{}\0]", 4), absl::string_view("\0{}", 3), absl::string_view("[\"\0\"]", 5)}) {
    const auto json = ParseJson(text, "x.json");
    ASSERT_FALSE(json.ok());
    EXPECT_THAT(std::string(json.status().message()), ::testing::StartsWith("x.json: not valid JSON: a NUL byte at offset "));
  }
  EXPECT_EQ(ParseJson(absl::string_view("{}\0]", 4), "x.json").status().message(),
            "x.json: not valid JSON: a NUL byte at offset 2; take or write the file again");
  EXPECT_OK(ParseJson("\"\\u0000\"", "x.json"));
}

TEST(Json, ErrorsQuoteNoWholeFile) {
  const auto json = ParseJson("[\"" + std::string(100000, 'a'), "x.json");
  EXPECT_THAT(std::string(json.status().message()), ::testing::AllOf(::testing::HasSubstr("missing closing quote"), ::testing::EndsWith("...")));
  EXPECT_LT(json.status().message().size(), 400);
  for (const std::string text : {"\u00e9", "\u20ac", "\U0001F600"}) {
    for (const char* before : {"", "a", "aa", "aaa"}) {
      std::string whole = absl::StrCat("[\"", before);
      for (int i = 0; i < 200; ++i) whole += text;
      EXPECT_OK(ParseJson(nlohmann::json(std::string(ParseJson(whole, "x").status().message())).dump(), "a cut character"));
    }
  }
}

TEST(Memory, LimitsAreReadAndHeld) {
  EXPECT_GT(MemoryLimit(), 1 << 20);
  EXPECT_GT(AvailableMemory(), 1 << 20);
  EXPECT_LE(AvailableMemory(), MemoryLimit());
  EXPECT_EQ(ParseMemoryField("MemTotal:       24605284 kB\nMemFree:  1 kB\n", "MemTotal").value(), int64_t{24605284} * 1024);
  EXPECT_EQ(ParseMemoryField("MemTotal:       24605284 kB\nMemFree:  1 kB\n", "MemFree").value(), 1024);
  for (const char* text : {"", "MemFree: 1 kB", "MemTotal: x kB", "MemTotal: 5", "MemTotal: -1 kB"}) EXPECT_FALSE(ParseMemoryField(text, "MemTotal").ok()) << text;
  EXPECT_OK(CheckMemory("a model", 8e9, "do", 8'000'000'000));
  const absl::Status status = CheckMemory("the model 'm'", 0x1.9p33, "take another", int64_t{1} << 33);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "the model 'm' takes 12.5 GiB, more than the 8.0 GiB of this machine; take another");
}

TEST(Regex, FindsAsPythonsFindallDoes) {
  ASSERT_OK_AND_ASSIGN(const Regex pair, Regex::Compile("(?<left>\\w)-(\\w)?"));
  ASSERT_OK_AND_ASSIGN(const auto found, pair.FindAll("é-b c- d"));
  ASSERT_EQ(found.size(), 2);
  EXPECT_THAT(found[0], ::testing::ElementsAre("é-b", "é", "b"));
  EXPECT_THAT(found[1], ::testing::ElementsAre("c-", "c", ""));
  EXPECT_EQ(pair.names().size(), 1);
  ASSERT_OK_AND_ASSIGN(const Regex empty, Regex::Compile("b*"));
  ASSERT_OK_AND_ASSIGN(const auto parts, empty.FindAll("abbc"));
  std::vector<std::string> texts;
  for (const auto& groups : parts) texts.emplace_back(groups[0]);
  EXPECT_THAT(texts, ::testing::ElementsAre("", "bb", "", ""));
  ASSERT_OK_AND_ASSIGN(const Regex vowels, Regex::Compile("[aeiou]"));
  EXPECT_EQ(*vowels.Remove("\xff" "banana\xfe"), "\xff" "bnn\xfe");
  EXPECT_THAT(std::string(Regex::Compile("a(b").status().message()), ::testing::HasSubstr("regex 'a(b' is wrong at character 3"));
}

TEST(Regex, MatchesStart) {
  ASSERT_OK_AND_ASSIGN(const Regex regex, Regex::Compile("b|abc"));
  EXPECT_TRUE(*regex.MatchesStart("abcd"));
  EXPECT_TRUE(*regex.MatchesStart("b"));
  EXPECT_FALSE(*regex.MatchesStart("ab"));
}

TEST(Regex, GivesUpOnEndlessSearch) {
  ASSERT_OK_AND_ASSIGN(const Regex slow, Regex::Compile("(a+)+$"));
  EXPECT_THAT(std::string(slow.FindAll(std::string(60, 'a') + "b").status().message()), ::testing::HasSubstr("match limit exceeded"));
  EXPECT_FALSE(slow.MatchesStart(std::string(60, 'a') + "b").ok());
}

TEST(MatchesPattern, StarsMatchAnyRun) {
  EXPECT_TRUE(MatchesPattern("*", "anything"));
  EXPECT_TRUE(MatchesPattern("perplexity/*", "perplexity/"));
  EXPECT_TRUE(MatchesPattern("*a*b*", "xxaxxbaxb"));
  EXPECT_TRUE(MatchesPattern("a*b", "aXbYb"));
  EXPECT_FALSE(MatchesPattern("a*b", "aXbY"));
  EXPECT_FALSE(MatchesPattern("size", "size_mib"));
  EXPECT_FALSE(MatchesPattern("", "x"));
}

TEST(RunProgram, GivesOutputOrSaysHowItEnded) {
  const auto shell = [](const std::string& script) { return RunProgram("sh", {"-c", script}, "a script"); };
  ASSERT_OK_AND_ASSIGN(const std::string text, shell("printf 'a\nb'"));
  EXPECT_EQ(text, "a\nb");
  EXPECT_EQ(shell("exit 3").status().message(), "'a script' ended with status 3");
  EXPECT_THAT(std::string(shell("kill -TERM $$").status().message()), ::testing::HasSubstr("'a script' was killed by signal 15"));
  const absl::Status missing = RunProgram("no-such-program", {}, "the missing one").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), ::testing::HasSubstr("cannot start 'the missing one'"));
}

TEST(Ending, SaysHow) {
  EXPECT_TRUE(Ending().ok());
  EXPECT_EQ((Ending{3, 0, "no such file"}.Text()), "ended with status 3: no such file");
  EXPECT_EQ((Ending{0, 9, "half a l"}.Text()), "killed by signal 9 (Killed; out of memory?)");
  EXPECT_EQ((Ending{0, 6, "check failed"}.Text()), "killed by signal 6 (Aborted): check failed");
}

TEST(Suggest, NearestNameOrNone) {
  EXPECT_EQ(DidYouMean("grup_size", {"group_size", "bits"}), "; did you mean 'group_size'?");
  EXPECT_EQ(DidYouMean("zzzzzz", {"group_size", "bits"}), "");
  // No distance is computed of what is no name.
  EXPECT_EQ(DidYouMean(std::string(10'000'000, 'a'), {std::string(1000, 'a')}), "");
  EXPECT_EQ(DidYouMean("aaa", {std::string(10'000'000, 'a')}), "");
}

TEST(Progress, Formats) {
  EXPECT_EQ(FormatSeconds(61), "1:01");
  EXPECT_EQ(FormatSeconds(3723), "1:02:03");
}

TEST(Subprocess, ShellWordsComeBackAsTheyWere) {
  EXPECT_EQ(ShellWord("configs/a-b.textproto"), "configs/a-b.textproto");
  EXPECT_EQ(ShellWord("metric[0].limit=4"), "'metric[0].limit=4'");
  for (const std::string word : {"", "my run", "emma's", "a\"b$c`d\\e", "*", "~", "'"}) {
    ASSERT_OK_AND_ASSIGN(const std::string echoed, RunProgram("sh", {"-c", absl::StrCat("printf %s ", ShellWord(word))}, "sh"));
    EXPECT_EQ(echoed, word);
  }
}

}  // namespace
}  // namespace nibble
