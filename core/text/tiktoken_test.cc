#include "core/text/tiktoken.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/base/testing.h"
#include "core/text/added_tokens.h"
#include "core/text/hf_json.h"
#include "core/text/sentencepiece.h"
#include "core/text/sentencepiece_model.pb.h"
#include "core/text/testing/tiny_vocabulary.h"

namespace nibble::text {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kPath[] = "some/tokenizer.model";
constexpr int32_t kAb = 256, kBc = 257, kAbc = 258, kBos = 259, kEos = 260, kStepId = 264, kEotId = 268;

std::string Letters() { return TinyTiktoken({"ab", "bc", "abc"}); }

absl::StatusOr<std::unique_ptr<Tokenizer>> Read(const std::string& model, const std::string& config = "") {
  return TokenizerFromTiktoken(model, config, kPath);
}

std::vector<int32_t> Ids(const std::vector<std::string>& tokens, const std::string& text) { return Read(TinyTiktoken(tokens)).value()->Encode(text); }

TEST(Tiktoken, TellsItsFilesFromSentencePieces) {
  EXPECT_TRUE(IsTiktoken(Letters()));
  EXPECT_TRUE(IsTiktoken("IQ== 0"));
  EXPECT_TRUE(IsTiktoken("IQ== 0\r\nIg== 1\r\n"));
  EXPECT_TRUE(IsTiktoken("version https://git-lfs.github.com/spec/v1\n"));
  EXPECT_FALSE(IsTiktoken(""));
  SentencePieceModel model;
  model.add_pieces()->set_piece("<unk>");
  EXPECT_FALSE(IsTiktoken(model.SerializeAsString()));
  EXPECT_FALSE(IsTiktoken("\x12\x03" "abc"));
}

TEST(Tiktoken, MergesByTheRankOfTheResult) {
  EXPECT_THAT(Ids({"ab", "bc"}, "xabc"), ElementsAre('x', 256, 'c'));
  EXPECT_THAT(Ids({"bc", "ab"}, "xabc"), ElementsAre('x', 'a', 256));
  EXPECT_THAT(Ids({"ab", "bc", "abc"}, "xabc bc"), ElementsAre('x', kAbc, ' ', kBc));
  EXPECT_THAT(Ids({"aa"}, "aaa"), ElementsAre(256, 'a'));
  // "abc" comes before the token that it is made of.
  EXPECT_THAT(Ids({"abc", "bc"}, "xabc"), ElementsAre('x', 256));
}

TEST(Tiktoken, TakesWholeWordsAndCutsThemAsLlama3) {
  EXPECT_THAT(Ids({"zzzz"}, "zzzz zzzzz"), ElementsAre(256, ' ', 'z', 'z', 'z', 'z', 'z'));
  EXPECT_THAT(Ids({"12", "34"}, "1234"), ElementsAre(256, '3', '4'));
  EXPECT_THAT(Ids({"\xC3\xA9"}, "\xC3\xA9\xFF"), ElementsAre(256, 0xFF));
}

TEST(Tiktoken, HasLlama3sSpecialTokens) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Read(Letters()));
  EXPECT_EQ(tokenizer->vocabulary_size(), 259 + 256);
  EXPECT_EQ(tokenizer->bos_id(), kBos);
  EXPECT_EQ(tokenizer->eos_id(), kEos);
  EXPECT_TRUE(tokenizer->adds_bos());
  std::vector<std::string> first;
  for (int32_t id = kBos; id < kBos + 12; ++id) first.push_back(tokenizer->Decode({id}));
  EXPECT_THAT(first, ElementsAre("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
                                 "<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
                                 "<|python_tag|>", "<|reserved_special_token_2|>"));
  EXPECT_EQ(tokenizer->Decode({kBos + 255}), "<|reserved_special_token_246|>");
  EXPECT_THAT(tokenizer->Encode("ab<|eot_id|>c"), ElementsAre(kAb, kEotId, 'c'));
}

TEST(Tiktoken, LinesMayComeInAnyOrder) {
  std::vector<std::string> lines = absl::StrSplit(Letters(), '\n', absl::SkipEmpty());
  std::swap(lines[0], lines[258]);
  std::swap(lines[7], lines[100]);
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Read(absl::StrJoin(lines, "\n")));
  EXPECT_EQ(tokenizer->ToJson(), Read(Letters()).value()->ToJson());
}

TEST(Tiktoken, TheConfigGoesFirst) {
  ASSERT_OK_AND_ASSIGN(auto tokenizer, Read(Letters(), R"({"eos_token": "<|eot_id|>", "add_bos_token": false})"));
  EXPECT_EQ(tokenizer->bos_id(), kBos);
  EXPECT_EQ(tokenizer->eos_id(), kEotId);
  EXPECT_FALSE(tokenizer->adds_bos());
  ASSERT_OK_AND_ASSIGN(tokenizer, Read(Letters(), R"({"added_tokens_decoder": {"264": {"content": "<|mine|>"}}})"));
  EXPECT_THAT(tokenizer->Encode("<|mine|>"), ElementsAre(kStepId));
  EXPECT_GT(tokenizer->Encode("<|step_id|>").size(), 1u);
}

TEST(Tiktoken, BadConfigsAreErrors) {
  const auto message = [](const std::string& config) { return std::string(Read(Letters(), config).status().message()); };
  EXPECT_THAT(message("{"), AllOf(HasSubstr(kPath), HasSubstr("tokenizer_config.json: not valid JSON")));
  EXPECT_THAT(message(R"({"eos_token": "<end>"})"), AllOf(HasSubstr("eos_token"), HasSubstr("'<end>'")));
  for (const char* id : {"5", "515", "-1", "x"}) {
    EXPECT_THAT(message(absl::StrCat(R"({"added_tokens_decoder": {")", id, R"(": {"content": "<|x|>"}}})")),
                AllOf(HasSubstr(absl::StrCat("'", id, "'")), HasSubstr("259 to 514")));
  }
  EXPECT_THAT(message(R"({"added_tokens_decoder": {"264": 7}})"), HasSubstr("'264'"));
  EXPECT_THAT(message(R"({"added_tokens_decoder": {"264": {"content": "<|eot_id|>"}}})"), HasSubstr("tokens 264 and 268 are both '<|eot_id|>'"));
}

// The message about a file whose line `number` is another.
std::string WithLine(size_t number, const std::string& line) {
  std::vector<std::string> lines = absl::StrSplit(Letters(), '\n', absl::SkipEmpty());
  lines[number - 1] = line;
  const absl::Status status = Read(absl::StrJoin(lines, "\n")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << line;
  return std::string(status.message());
}

std::string Base64(const std::string& token) { return absl::Base64Escape(token); }

TEST(Tiktoken, BadLinesAreNamed) {
  const auto at_3 = [](const std::string& problem) { return HasSubstr(absl::StrCat(kPath, ":3: ", problem)); };
  for (const char* line : {"", " 2", "!!!! 2", "Ag 2", "Ah== 2", "Ag.. 2", "Ag==\t2", "= 2"}) {
    EXPECT_THAT(WithLine(3, line), at_3("expected a token in Base64, a space and its rank")) << line;
  }
  for (const char* rank : {"", "two", "-2", "+2", "2 3", " 2", "2\r", "2.0", "99999999999999999999"}) {
    EXPECT_THAT(WithLine(3, absl::StrCat("Ag== ", rank)), at_3("the rank is '")) << rank;
  }
  EXPECT_THAT(WithLine(3, "Ag== 259"), at_3("the rank is 259; the file has 259 lines, so ranks are 0 to 258"));
  EXPECT_THAT(WithLine(3, "Ag== 1"), at_3("the rank 1 is there twice"));
  EXPECT_THAT(WithLine(3, absl::StrCat(Base64(std::string(257, 'x')), " 2")), at_3("the token has 257 bytes; at most 256"));
}

TEST(Tiktoken, BadFilesAreErrors) {
  EXPECT_THAT(WithLine(3, Base64("xyz") + " 2"), HasSubstr(absl::StrCat(kPath, ": the byte 2 is no token")));
  EXPECT_THAT(WithLine(259, Base64("ab") + " 258"), AllOf(HasSubstr(kPath), HasSubstr("tokens 256 and 258 are both 'ab'")));
  EXPECT_THAT(WithLine(259, Base64("<|eot_id|>") + " 258"), HasSubstr("tokens 258 and 268 are both '<|eot_id|>'"));
  EXPECT_THAT(std::string(Read("").status().message()), HasSubstr(absl::StrCat(kPath, ":1: ")));
  EXPECT_THAT(std::string(Read("not a model").status().message()), HasSubstr("'not a model'"));
  EXPECT_THAT(std::string(Read(std::string((16 << 20) + 1, 'a')).status().message()),
              AllOf(HasSubstr(kPath), HasSubstr("16777217 bytes; a tokenizer.model has at most 16777216")));
}

// A file that ends with a whole line, and has all bytes by then, is one of fewer tokens.
TEST(Tiktoken, CutsWithinLinesAreErrors) {
  const std::string model = Letters();
  const size_t bytes_end = model.find("YWI=") - 1;
  for (size_t size = 0; size < model.size(); ++size) {
    const bool whole = size >= bytes_end && (model[size] == '\n' || model[size - 1] == '\n');
    const auto tokenizer = Read(model.substr(0, size));
    EXPECT_EQ(tokenizer.ok(), whole) << size;
    if (!whole) {
      EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(kPath));
    }
  }
}

// What Read makes of Letters().
BpeVocabulary Vocabulary() {
  const GgufVocabulary gguf = Read(Letters()).value()->ToGguf().value();
  BpeVocabulary vocabulary;
  vocabulary.tokens = gguf.tokens;
  for (const std::string& merge : gguf.merges) vocabulary.merges.push_back(ParseMerge(merge).value());
  vocabulary.pre_tokenizer = PreTokenizer::kLlama3;
  vocabulary.ignore_merges = true;
  vocabulary.added_tokens = AddedTokensFromTypes(gguf.tokens, gguf.types);
  return vocabulary;
}

// The message of ToTiktoken, "" where it writes the file.
std::string Refusal(const BpeVocabulary& vocabulary) {
  const auto tokenizer = MakeBpe(vocabulary);
  EXPECT_OK(tokenizer);
  return std::string(ToTiktoken(**tokenizer).status().message());
}

TEST(Tiktoken, WritesTheFileAgain) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Read(Letters()));
  EXPECT_THAT(tokenizer->ToGguf().value().merges, ElementsAre("a b", "b c", "a bc", "ab c"));
  ASSERT_OK_AND_ASSIGN(std::string model, ToTiktoken(*tokenizer));
  EXPECT_EQ(model, Letters());
  ASSERT_OK_AND_ASSIGN(const auto back, TokenizerFromJson(tokenizer->ToJson(), tokenizer->ToConfigJson(), "back"));
  EXPECT_TRUE(back->adds_bos());
  ASSERT_OK_AND_ASSIGN(model, ToTiktoken(*back));
  EXPECT_EQ(model, Letters());
}

TEST(Tiktoken, ReservedTokensMayHaveOtherNames) {
  BpeVocabulary vocabulary = Vocabulary();
  EXPECT_EQ(Refusal(vocabulary), "");
  vocabulary.tokens[kStepId] = vocabulary.added_tokens[kStepId - kBos].content = "<|reserved_special_token_999|>";
  EXPECT_EQ(Refusal(vocabulary), "");
}

TEST(Tiktoken, WhatItCannotHoldIsNamed) {
  BpeVocabulary vocabulary = Vocabulary();
  vocabulary.pre_tokenizer = PreTokenizer::kGpt2;
  vocabulary.ignore_merges = false;
  EXPECT_THAT(Refusal(vocabulary), AllOf(HasSubstr("tiktoken"), HasSubstr("it cuts words as 'gpt-2' does")));
  vocabulary = Vocabulary();
  vocabulary.ignore_merges = false;
  EXPECT_THAT(Refusal(vocabulary), HasSubstr("ignore_merges is false"));
  vocabulary = Vocabulary();
  vocabulary.merges.pop_back();
  EXPECT_THAT(Refusal(vocabulary), HasSubstr("it has 3 merges, by the ranks of tokens there are 4"));
  vocabulary = Vocabulary();
  std::swap(vocabulary.merges[0], vocabulary.merges[1]);
  EXPECT_THAT(Refusal(vocabulary), HasSubstr("merge 0 is 'b c', by the ranks of tokens it is 'a b'"));
  EXPECT_THAT(std::string(ToTiktoken(*MakeSpm(TinySpm({})).value()).status().message()), HasSubstr("it is no byte-level BPE"));
}

TEST(Tiktoken, TokensThatItCannotHoldAreNamed) {
  BpeVocabulary vocabulary = Vocabulary();
  vocabulary.tokens[kEotId] = vocabulary.added_tokens[kEotId - kBos].content = "<|im_end|>";
  EXPECT_THAT(Refusal(vocabulary), HasSubstr("token 268 is '<|im_end|>', which in Meta's is <|eot_id|>"));
  vocabulary = Vocabulary();
  vocabulary.added_tokens[kEotId - kBos].special = false;
  EXPECT_THAT(Refusal(vocabulary), HasSubstr("token 268 is '<|eot_id|>'"));
  vocabulary = Vocabulary();
  vocabulary.added_tokens.push_back({kAb, "ab", true});
  EXPECT_THAT(Refusal(vocabulary), HasSubstr("token 256, 'ab', is special"));
  vocabulary = Vocabulary();
  vocabulary.tokens[7] = "xyz";
  EXPECT_THAT(Refusal(vocabulary), HasSubstr("the byte 7 is no token"));
  vocabulary.tokens[7] = "\u20ac";
  EXPECT_THAT(Refusal(vocabulary), HasSubstr("token 7, '\u20ac', does not spell 1 to 256 bytes"));
}

}  // namespace
}  // namespace nibble::text
