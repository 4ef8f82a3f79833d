#include "core/text/sentencepiece.h"

#include <limits>
#include <string>
#include <vector>

#include "core/base/rng.h"
#include "core/base/testing.h"
#include "core/text/hf_json.h"
#include "core/text/testing/tiny_vocabulary.h"

namespace nibble::text {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int32_t kFirstByte = 3, kSpace = 259;

// Ids from 260 on: a b c ab bc ▁a abc ▁ab
SpmVocabulary Letters() {
  return TinySpm({{"a", -50}, {"b", -50}, {"c", -50},
                  {"ab", -2}, {"bc", -1}, {"▁a", -3}, {"abc", -4}, {"▁ab", -5}});
}
constexpr int32_t kA = 260, kB = 261, kC = 262, kAb = 263, kBc = 264, kSpaceA = 265, kAbc = 266, kSpaceAb = 267;

std::string Message(SpmVocabulary vocabulary) {
  const auto made = MakeSpm(std::move(vocabulary));
  EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(made.status().message());
}

TEST(Spm, MergesTheBestScoreFirst) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, MakeSpm(Letters()));
  EXPECT_THAT(tokenizer->Encode("abc"), ElementsAre(kSpaceA, kBc));  // bc, then ▁a
  EXPECT_THAT(tokenizer->Encode("babc"), ElementsAre(kSpace, kB, kAbc));
  EXPECT_THAT(tokenizer->Encode("ab  ab"), ElementsAre(kSpaceAb, kSpace, kSpaceAb));
  EXPECT_THAT(tokenizer->Encode(""), ElementsAre());
  EXPECT_THAT(tokenizer->Encode("▁c"), ElementsAre(kSpace, kSpace, kC));
  EXPECT_THAT(tokenizer->Encode("cab"), ElementsAre(kSpace, kC, kAb));
  EXPECT_THAT(tokenizer->Encode("aa"), ElementsAre(kSpaceA, kA));
}

TEST(Spm, TheLeftmostOfEqualScoresGoesFirst) {
  // xy and yx score alike: the leftmost of them decides.
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, MakeSpm(TinySpm({{"x", -9}, {"y", -9}, {"yx", -1}, {"xy", -1}})));
  EXPECT_THAT(tokenizer->Encode("xyx"), ElementsAre(kSpace, 263, 260));
  EXPECT_THAT(tokenizer->Encode("yxy"), ElementsAre(kSpace, 262, 261));
}

TEST(Spm, WithoutTheSpacePrefix) {
  SpmVocabulary vocabulary = Letters();
  vocabulary.add_space_prefix = false;
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, MakeSpm(vocabulary));
  EXPECT_THAT(tokenizer->Encode("ab ab"), ElementsAre(kAb, kSpaceAb));
  EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{kSpaceAb, kAb}), " abab");
}

TEST(Spm, FallsBackToBytes) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, MakeSpm(Letters()));
  EXPECT_THAT(tokenizer->Encode("aé\n"),
              ElementsAre(kSpaceA, kFirstByte + 0xC3, kFirstByte + 0xA9, kFirstByte + '\n'));
  EXPECT_THAT(tokenizer->Encode("a\xFF" "bc"), ElementsAre(kSpaceA, kFirstByte + 0xFF, kBc));
  // The spelling of a byte piece in a text is ordinary text.
  EXPECT_EQ(tokenizer->Encode("<0x41>").size(), 7u);
}

TEST(Spm, WithoutBytesConsecutiveUnknownCharactersAreOnePiece) {
  SpmVocabulary vocabulary;
  vocabulary.pieces = {"<unk>", "▁", "a"};
  vocabulary.scores = {0, 0, 0};
  vocabulary.types = {2, 1, 1};
  vocabulary.add_bos = false;
  EXPECT_THAT(Message(vocabulary), HasSubstr("neither byte pieces nor an unknown piece"));
  vocabulary.unk_id = 0;
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, MakeSpm(vocabulary));
  EXPECT_THAT(tokenizer->Encode("a\xFFxé a"), ElementsAre(1, 2, 0, 1, 2));
  EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{1, 2, 0, 1, 2}), "a<unk> a");
}

TEST(Spm, SpecialAndUserDefinedPieces) {
  SpmVocabulary vocabulary = Letters();
  vocabulary.pieces.push_back("a▁b");
  vocabulary.scores.push_back(0);
  vocabulary.types.push_back(4);
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, MakeSpm(vocabulary));
  const std::string text = "ab</s>ab<s>  c<unk>a ba b";
  const std::vector<int32_t> ids = tokenizer->Encode(text);
  EXPECT_THAT(ids, ElementsAre(kSpaceAb, 2, kSpaceAb, 1, kSpace, kSpace, kSpace, kC, 0, 268, 268));
  EXPECT_EQ(tokenizer->Decode(ids), text);
}

TEST(Spm, UnusedPiecesAreNotProduced) {
  SpmVocabulary vocabulary = Letters();
  vocabulary.types[kBc] = 5;
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, MakeSpm(vocabulary));
  EXPECT_THAT(tokenizer->Encode("bc"), ElementsAre(kSpace, kB, kC));
  EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{kSpace, kBc}), "bc");
}

std::string RandomText(Rng& rng) {
  std::string text(rng.Below(60), '\0');
  for (char& byte : text) byte = rng.Below(6) == 0 ? static_cast<char>(rng.Next()) : "abc  <s>"[rng.Below(8)];
  return text;
}

TEST(Spm, EveryByteStringRoundTrips) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, MakeSpm(Letters()));
  Rng rng(1);
  for (int trial = 0; trial < 500; ++trial) {
    const std::string text = RandomText(rng);
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)), text);
  }
}

// A piece with a space after another character keeps words from being encoded apart;
// this one cannot be merged to, so that it changes nothing else.
TEST(Spm, EncodingWordByWordChangesNothing) {
  SpmVocabulary vocabulary = Letters();
  ASSERT_OK_AND_ASSIGN(const auto by_word, MakeSpm(vocabulary));
  vocabulary.pieces.push_back("q▁q");
  vocabulary.scores.push_back(0);
  vocabulary.types.push_back(1);
  ASSERT_OK_AND_ASSIGN(const auto whole, MakeSpm(vocabulary));
  Rng rng(2);
  for (int trial = 0; trial < 500; ++trial) {
    const std::string text = RandomText(rng);
    EXPECT_EQ(by_word->Encode(text), whole->Encode(text));
  }
}

TEST(Spm, MergesAcrossSpacesWhereAPieceAsksForIt) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer,
                       MakeSpm(TinySpm({{"a", -9}, {"b", -9}, {"a▁", -1}, {"a▁b", -2}, {"▁b", -3}})));
  EXPECT_THAT(tokenizer->Encode("a b b"), ElementsAre(kSpace, 263, 264));
}

TEST(Spm, ALongTextTakesNoQuadraticTime) {
  SpmVocabulary vocabulary = TinySpm({{"a", -50}, {"aa", -1}, {"aaaa", -2}, {"▁▁", -3}});
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, MakeSpm(vocabulary));
  for (absl::string_view unit : {"a", " ", "a ", "\xFF", "<s>", "<"}) {
    std::string text;
    while (text.size() < 300000) absl::StrAppend(&text, unit);
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)), text);
  }
}

TEST(Spm, ToJsonReadsBackEqual) {
  for (bool flag : {false, true}) {
    SpmVocabulary vocabulary = Letters();
    vocabulary.add_bos = vocabulary.add_space_prefix = flag;
    vocabulary.types[kAbc] = 5;
    vocabulary.pieces.push_back("user");
    vocabulary.scores.push_back(0);
    vocabulary.types.push_back(4);
    ASSERT_OK_AND_ASSIGN(const auto tokenizer, MakeSpm(vocabulary));
    const std::string json = tokenizer->ToJson();
    for (const std::string& config : {std::string(), tokenizer->ToConfigJson()}) {
      ASSERT_OK_AND_ASSIGN(const auto back, TokenizerFromJson(json, config, "back"));
      EXPECT_EQ(back->ToJson(), json);
      EXPECT_EQ(back->bos_id(), 1);
      EXPECT_EQ(back->eos_id(), 2);
      EXPECT_EQ(back->adds_bos(), flag);
      Rng rng(3);
      for (int trial = 0; trial < 300; ++trial) {
        const std::string text = RandomText(rng) + "user";
        const std::vector<int32_t> ids = tokenizer->Encode(text);
        EXPECT_EQ(back->Encode(text), ids);
        EXPECT_EQ(back->Decode(ids), text);
      }
    }
  }
}

TEST(Spm, BadVocabulariesAreErrors) {
  SpmVocabulary vocabulary = Letters();
  vocabulary.scores.pop_back();
  EXPECT_THAT(Message(vocabulary), HasSubstr("scores"));
  vocabulary = Letters();
  vocabulary.scores[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(Message(vocabulary), HasSubstr("not a number"));
  vocabulary = Letters();
  vocabulary.types[5] = 7;
  EXPECT_THAT(Message(vocabulary), HasSubstr("type 7"));
  vocabulary = Letters();
  vocabulary.pieces[kA] = "b";
  EXPECT_THAT(Message(vocabulary), HasSubstr("both 'b'"));
  vocabulary = Letters();
  vocabulary.pieces[kSpace] = "d";
  EXPECT_THAT(Message(vocabulary), HasSubstr("U+2581"));
  vocabulary = Letters();
  vocabulary.types[kFirstByte + 65] = 1;
  EXPECT_THAT(Message(vocabulary), HasSubstr("<0x41> is missing"));
  vocabulary = Letters();
  vocabulary.types[kA] = 6;
  EXPECT_THAT(Message(vocabulary), HasSubstr("type byte"));
  vocabulary = Letters();
  vocabulary.unk_id = 10000;
  EXPECT_THAT(Message(vocabulary), HasSubstr("unknown piece id 10000"));
  vocabulary = Letters();
  vocabulary.pieces[kA] = std::string(2000, 'a');
  EXPECT_THAT(Message(vocabulary), HasSubstr("2000 bytes"));
}

}  // namespace
}  // namespace nibble::text
