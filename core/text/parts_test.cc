#include <array>
#include <string>
#include <vector>

#include "core/base/rng.h"
#include "core/base/testing.h"
#include "core/text/added_tokens.h"
#include "core/text/byte_alphabet.h"
#include "core/text/merge_table.h"
#include "core/text/pre_tokenizer.h"
#include "core/text/utf8.h"

namespace nibble::text {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

TEST(Utf8, LengthOfEachForm) {
  EXPECT_EQ(Utf8CharacterLength("a"), 1u);
  EXPECT_EQ(Utf8CharacterLength("é"), 2u);
  EXPECT_EQ(Utf8CharacterLength("▁"), 3u);
  EXPECT_EQ(Utf8CharacterLength("😀"), 4u);
  EXPECT_EQ(Utf8CharacterLength("\xF4\x8F\xBF\xBF"), 4u);
}

TEST(Utf8, RejectsWhatTheStandardRejects) {
  for (absl::string_view bad : {"", "\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC3", "\xC3(", "\xE0\x9F\xBF",
                                "\xED\xA0\x80", "\xE2\x96", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
                                "\xFF", "\xF0\x9F\x98"}) {
    EXPECT_EQ(Utf8CharacterLength(bad), 0u);
  }
  EXPECT_EQ(Utf8PrefixLength("ab\xC3\xA9\xFFz"), 4u);
}

TEST(ByteAlphabet, RoundTripsEveryByte) {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes.push_back(static_cast<char>(byte));
  std::string back;
  AppendSpelledBytes(SpellBytes(bytes), &back);
  EXPECT_EQ(back, bytes);
  EXPECT_EQ(SpellBytes(" \n\x7F\xAD"), "ĠĊġŃ");
}

TEST(ByteAlphabet, ASpellingOutsideTheAlphabetStandsForItself) {
  std::string bytes = "x";
  AppendSpelledBytes("Ġa b", &bytes);
  EXPECT_EQ(bytes, "xĠa b");
}

std::vector<std::string> SplitAt(const AddedTokenMatcher& matcher, absl::string_view text) {
  std::vector<std::string> parts;
  matcher.Split(
      text, [&](absl::string_view part) { parts.emplace_back(part); },
      [&](int32_t id) { parts.push_back(absl::StrCat("#", id)); });
  return parts;
}

TEST(AddedTokens, TakesTheLeftmostThenTheLongest) {
  const AddedTokenMatcher matcher({{1, "<a>"}, {2, "<a><b>"}, {3, "a><b"}, {4, "bc"}});
  EXPECT_THAT(SplitAt(matcher, "x<a><b>y<a><c"), ElementsAre("x", "#2", "y", "#1", "<c"));
  EXPECT_THAT(SplitAt(matcher, "a><bc"), ElementsAre("#3", "c"));
  EXPECT_THAT(SplitAt(matcher, "<a<a>"), ElementsAre("<a", "#1"));
  EXPECT_THAT(SplitAt(matcher, ""), ElementsAre());
  EXPECT_THAT(SplitAt(AddedTokenMatcher(), "abc"), ElementsAre("abc"));
}

TEST(AddedTokens, FromTypes) {
  const auto added = AddedTokensFromTypes({"a", "<c>", "user", "d"}, {1, 3, 4});
  ASSERT_EQ(added.size(), 2u);
  EXPECT_EQ(added[0].id, 1);
  EXPECT_TRUE(added[0].special);
  EXPECT_EQ(added[1].content, "user");
  EXPECT_FALSE(added[1].special);
}

TEST(MergeTable, TheLeftmostOfEqualRanksGoesFirst) {
  MergeTable table;
  EXPECT_TRUE(table.Add(1, 1, 0, 2));
  EXPECT_FALSE(table.Add(1, 1, 5, 3));
  std::vector<int32_t> symbols = {1, 1, 1};
  table.Apply(&symbols);
  EXPECT_THAT(symbols, ElementsAre(2, 1));
}

// The definition, step by step.
std::vector<int32_t> MergeSlowly(const std::vector<std::array<int32_t, 3>>& merges, std::vector<int32_t> symbols) {
  while (true) {
    size_t best_rank = merges.size(), best = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      for (size_t rank = 0; rank < best_rank; ++rank) {
        if (merges[rank][0] != symbols[i] || merges[rank][1] != symbols[i + 1]) continue;
        best_rank = rank;
        best = i;
      }
    }
    if (best_rank == merges.size()) return symbols;
    symbols[best] = merges[best_rank][2];
    symbols.erase(symbols.begin() + best + 1);
  }
}

TEST(MergeTable, EqualsTheDefinitionOnRandomTables) {
  Rng rng(7);
  for (int trial = 0; trial < 300; ++trial) {
    MergeTable table;
    std::vector<std::array<int32_t, 3>> merges;
    for (int i = 0; i < 12; ++i) {
      const int32_t left = rng.Below(6), right = rng.Below(6), result = rng.Below(8);
      if (table.Add(left, right, static_cast<int32_t>(merges.size()), result)) merges.push_back({left, right, result});
    }
    std::vector<int32_t> symbols(rng.Below(40));
    for (int32_t& symbol : symbols) symbol = rng.Below(4);
    const std::vector<int32_t> expected = MergeSlowly(merges, symbols);
    table.Apply(&symbols);
    ASSERT_THAT(symbols, ElementsAreArray(expected)) << trial;
  }
}

std::vector<std::string> Words(PreTokenizer kind, absl::string_view text, uint32_t limit = WordSplitter::kMatchLimit) {
  std::vector<std::string> words;
  WordSplitter(kind, limit).Split(text, [&](absl::string_view word) { words.emplace_back(word); });
  return words;
}

TEST(PreTokenizer, Gpt2) {
  EXPECT_THAT(Words(PreTokenizer::kGpt2, "I'll  go, 123!\n\n "),
              ElementsAre("I", "'ll", " ", " go", ",", " 123", "!", "\n\n "));
  EXPECT_THAT(Words(PreTokenizer::kGpt2, "It'LL"), ElementsAre("It", "'", "LL"));
}

TEST(PreTokenizer, Llama3) {
  EXPECT_THAT(Words(PreTokenizer::kLlama3, "I'LL (go) 12345!\n\n x\r\n"),
              ElementsAre("I", "'LL", " (", "go", ")", " ", "123", "45", "!\n\n", " x", "\r\n"));
}

TEST(PreTokenizer, SmolLmIsolatesEveryNumericCharacter) {
  EXPECT_THAT(Words(PreTokenizer::kSmolLm, "a  12½ b"), ElementsAre("a", "  ", "1", "2", "½", " b"));
  EXPECT_THAT(Words(PreTokenizer::kSmolLm, "  b"), ElementsAre(" ", " b"));
  EXPECT_THAT(Words(PreTokenizer::kSmolLm, "(7)"), ElementsAre("(", "7", ")"));
}

TEST(PreTokenizer, WhiteSpaceIsTheUnicodeProperty) {
  EXPECT_THAT(Words(PreTokenizer::kGpt2, "a\u3000b\u0085c"), ElementsAre("a", "\u3000", "b", "\u0085", "c"));
  EXPECT_THAT(Words(PreTokenizer::kGpt2, "!\u180E!\x1F!"), ElementsAre("!\u180E!\x1F!"));
}

TEST(PreTokenizer, InvalidBytesAreWords) {
  EXPECT_THAT(Words(PreTokenizer::kGpt2, "ab \xFF\xC3(c"), ElementsAre("ab", " ", "\xFF", "\xC3", "(", "c"));
  EXPECT_THAT(Words(PreTokenizer::kGpt2, "\x80"), ElementsAre("\x80"));
}

TEST(PreTokenizer, AMatchThatIsGivenUpTakesTheRest) {
  EXPECT_THAT(Words(PreTokenizer::kLlama3, "ab cd\xFF" "e", 0), ElementsAre("ab cd", "\xFF", "e"));
}

TEST(PreTokenizer, GgufNames) {
  for (const auto& [name, kind] : std::vector<std::pair<std::string, PreTokenizer>>{
           {"", PreTokenizer::kGpt2}, {"default", PreTokenizer::kGpt2}, {"gpt-2", PreTokenizer::kGpt2},
           {"llama-bpe", PreTokenizer::kLlama3}, {"smollm", PreTokenizer::kSmolLm}}) {
    ASSERT_OK_AND_ASSIGN(const PreTokenizer found, PreTokenizerFromGgufName(name));
    EXPECT_EQ(found, kind) << name;
  }
  const absl::Status status = PreTokenizerFromGgufName("smolm").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("smollm"));
}

TEST(Utf8, IllFormedBytesAreReplaced) {
  EXPECT_EQ(WellFormed(""), "");
  EXPECT_EQ(WellFormed("caf\u00e9"), "caf\u00e9");
  EXPECT_EQ(WellFormed("\xFFx\xC3"), "\uFFFDx\uFFFD");
  EXPECT_EQ(WellFormed("\xE2\x82x"), "\uFFFD\uFFFDx");
}

}  // namespace
}  // namespace nibble::text
