#include "core/text/bpe.h"

#include <string>
#include <thread>
#include <vector>

#include "core/base/rng.h"
#include "core/base/testing.h"
#include "core/text/hf_json.h"
#include "core/text/testing/tiny_vocabulary.h"

namespace nibble::text {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<std::pair<std::string, std::string>> kMerges = {
    {"l", "o"}, {"lo", "w"}, {"e", "r"}, {"Ġ", "low"}, {"low", "er"}};
constexpr int32_t kLo = 256, kLow = 257, kEr = 258, kSpaceLow = 259, kLower = 260, kEnd = 261;

std::string Message(BpeVocabulary vocabulary) {
  const auto made = MakeBpe(std::move(vocabulary));
  EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(made.status().message());
}

TEST(Bpe, MergesByRank) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, MakeBpe(TinyBpe(kMerges)));
  EXPECT_THAT(tokenizer->Encode("lower low lo"), ElementsAre(kLower, kSpaceLow, ' ', kLo));
  // " low" goes before "lower", so that " lower" is not " " + "lower".
  EXPECT_THAT(tokenizer->Encode(" lower"), ElementsAre(kSpaceLow, kEr));
  EXPECT_THAT(tokenizer->Encode(""), ElementsAre());
  EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{kLower, kSpaceLow, ' ', kLo}), "lower low lo");
}

TEST(Bpe, Properties) {
  BpeVocabulary vocabulary = TinyBpe(kMerges);
  vocabulary.add_bos = true;
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, MakeBpe(vocabulary));
  EXPECT_EQ(tokenizer->vocabulary_size(), 262);
  EXPECT_EQ(tokenizer->bos_id(), kEnd);
  EXPECT_EQ(tokenizer->eos_id(), kEnd);
  EXPECT_TRUE(tokenizer->adds_bos());
}

TEST(Bpe, FindsSpecialTokensInTheText) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, MakeBpe(TinyBpe(kMerges)));
  EXPECT_THAT(tokenizer->Encode("lo<|end|>low<|end|"),
              ElementsAre(kLo, kEnd, kLow, '<', '|', 'e', 'n', 'd', '|'));
  EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{kLo, kEnd, -1, 1000, kLow}), "lo<|end|>low");
}

TEST(Bpe, IgnoreMergesTakesAWholeWord) {
  BpeVocabulary vocabulary = TinyBpe(kMerges);
  vocabulary.tokens.push_back("owl");
  ASSERT_OK_AND_ASSIGN(auto tokenizer, MakeBpe(vocabulary));
  EXPECT_THAT(tokenizer->Encode("owl"), ElementsAre('o', 'w', 'l'));
  vocabulary.ignore_merges = true;
  ASSERT_OK_AND_ASSIGN(tokenizer, MakeBpe(vocabulary));
  EXPECT_THAT(tokenizer->Encode("owl owls"), ElementsAre(262, ' ', 'o', 'w', 'l', 's'));
}

TEST(Bpe, EveryByteStringRoundTrips) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, MakeBpe(TinyBpe(kMerges)));
  EXPECT_THAT(tokenizer->Encode("lo\xFFlow\xC3"), ElementsAre(kLo, 0xFF, kLow, 0xC3));
  Rng rng(1);
  for (int trial = 0; trial < 500; ++trial) {
    std::string text(rng.Below(60), '\0');
    for (char& byte : text) byte = rng.Below(3) == 0 ? static_cast<char>(rng.Next()) : "lower <"[rng.Below(7)];
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)), text);
  }
}

TEST(Bpe, AByteWithoutATokenIsDroppedOrUnknown) {
  BpeVocabulary vocabulary = TinyBpe({});
  vocabulary.tokens[0xFF] = "filler";
  ASSERT_OK_AND_ASSIGN(auto tokenizer, MakeBpe(vocabulary));
  EXPECT_THAT(tokenizer->Encode("a\xFF" "b"), ElementsAre('a', 'b'));
  vocabulary.unk_id = 256;
  ASSERT_OK_AND_ASSIGN(tokenizer, MakeBpe(vocabulary));
  EXPECT_THAT(tokenizer->Encode("a\xFF" "b"), ElementsAre('a', 256, 'b'));
}

TEST(Bpe, ALongWordTakesNoQuadraticTime) {
  std::vector<std::pair<std::string, std::string>> merges;
  std::string word = "a";
  for (int i = 0; i < 16; ++i, word += word) merges.emplace_back(word, word);
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, MakeBpe(TinyBpe(merges)));
  const std::string text(1 << 20, 'a');
  const std::vector<int32_t> ids = tokenizer->Encode(text);
  EXPECT_EQ(ids, std::vector<int32_t>(16, 256 + 15));
  EXPECT_EQ(tokenizer->Decode(ids), text);
}

TEST(Bpe, LongRunsOfAnything) {
  for (PreTokenizer kind : {PreTokenizer::kGpt2, PreTokenizer::kLlama3, PreTokenizer::kSmolLm}) {
    BpeVocabulary vocabulary = TinyBpe(kMerges);
    vocabulary.pre_tokenizer = kind;
    ASSERT_OK_AND_ASSIGN(const auto tokenizer, MakeBpe(vocabulary));
    for (absl::string_view unit : {" ", "\n", " \n", "\xFF", "<", "<|end|", "1", "é", "\u3000", "'"}) {
      std::string text;
      while (text.size() < 200000) absl::StrAppend(&text, unit);
      text += "x";
      EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)), text);
    }
  }
}

TEST(Bpe, ManyThreadsEncodeAtOnce) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, MakeBpe(TinyBpe(kMerges)));
  const std::string text = "lower low<|end|> lo 12 \xFF";
  const std::vector<int32_t> expected = tokenizer->Encode(text);
  std::vector<std::thread> threads;
  std::vector<int> same(4, 0);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int n = 0; n < 200; ++n) same[i] += tokenizer->Encode(text) == expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(same, ElementsAre(200, 200, 200, 200));
}

TEST(Bpe, ToJsonReadsBackEqual) {
  for (PreTokenizer kind : {PreTokenizer::kGpt2, PreTokenizer::kLlama3, PreTokenizer::kSmolLm}) {
    for (bool flag : {false, true}) {
      BpeVocabulary vocabulary = TinyBpe(kMerges);
      vocabulary.pre_tokenizer = kind;
      vocabulary.ignore_merges = vocabulary.add_bos = flag;
      vocabulary.tokens.push_back("owl");
      vocabulary.tokens.push_back("user text");
      vocabulary.added_tokens.push_back({263, "user text", false});
      if (!flag) vocabulary.bos_id = std::nullopt;
      ASSERT_OK_AND_ASSIGN(const auto tokenizer, MakeBpe(vocabulary));
      const std::string json = tokenizer->ToJson();
      for (const std::string& config : {std::string(), tokenizer->ToConfigJson()}) {
        ASSERT_OK_AND_ASSIGN(const auto back, TokenizerFromJson(json, config, "back"));
        EXPECT_EQ(back->ToJson(), json);
        EXPECT_EQ(back->bos_id(), tokenizer->bos_id());
        EXPECT_EQ(back->eos_id(), tokenizer->eos_id());
        EXPECT_EQ(back->adds_bos(), tokenizer->adds_bos());
        const std::string text = "I'LL lower 1234 owl user text<|end|>  low\n\n \xFF x";
        EXPECT_EQ(back->Encode(text), tokenizer->Encode(text));
      }
    }
  }
}

TEST(Bpe, ParsesMerges) {
  ASSERT_OK_AND_ASSIGN(const auto merge, ParseMerge("Ġlow er"));
  EXPECT_EQ(merge, (std::pair<std::string, std::string>("Ġlow", "er")));
  for (absl::string_view bad : {"", "a", " a", "a ", "a b c", " "}) {
    EXPECT_EQ(ParseMerge(bad).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(Bpe, BadMergesAreErrors) {
  const auto with = [](std::string left, std::string right) {
    BpeVocabulary vocabulary = TinyBpe(kMerges);
    vocabulary.merges.emplace_back(left, right);
    return Message(std::move(vocabulary));
  };
  EXPECT_THAT(with("x", "y"), HasSubstr("merge 5 ('x' 'y'): the result is not in the vocabulary"));
  EXPECT_THAT(with("xx", "y"), HasSubstr("left side"));
  EXPECT_THAT(with("x", "yy"), HasSubstr("right side"));
  EXPECT_THAT(with("", "y"), HasSubstr("empty"));
  EXPECT_THAT(with("l", "o"), HasSubstr("twice"));
}

TEST(Bpe, BadTokensAreErrors) {
  EXPECT_THAT(Message(BpeVocabulary()), HasSubstr("no tokens"));
  BpeVocabulary vocabulary = TinyBpe({});
  vocabulary.tokens.push_back("a");
  EXPECT_THAT(Message(vocabulary), HasSubstr("tokens 97 and 257 are both 'a'"));
  vocabulary = TinyBpe({});
  vocabulary.tokens['a'] = "abc";
  EXPECT_THAT(Message(vocabulary), HasSubstr("not byte-level"));
  vocabulary = TinyBpe({});
  vocabulary.tokens.push_back("\xFF");
  EXPECT_THAT(Message(vocabulary), HasSubstr("not UTF-8"));
}

TEST(Bpe, BadIdsAreErrors) {
  BpeVocabulary vocabulary = TinyBpe({});
  vocabulary.bos_id = 257;
  EXPECT_THAT(Message(vocabulary), HasSubstr("BOS id 257"));
  vocabulary = TinyBpe({});
  vocabulary.eos_id = -1;
  EXPECT_THAT(Message(vocabulary), HasSubstr("EOS id -1"));
  vocabulary = TinyBpe({});
  vocabulary.bos_id = std::nullopt;
  vocabulary.add_bos = true;
  EXPECT_THAT(Message(vocabulary), HasSubstr("no BOS id"));
  vocabulary = TinyBpe({});
  vocabulary.added_tokens.push_back({300, "<x>", true});
  EXPECT_THAT(Message(vocabulary), HasSubstr("id 300 is outside"));
  vocabulary.added_tokens.back() = {5, "<x>", true};
  EXPECT_THAT(Message(vocabulary), HasSubstr("'<x>' has id 5"));
  vocabulary.tokens[5] = std::string(1025, 'x');
  vocabulary.added_tokens.back() = {5, vocabulary.tokens[5], true};
  EXPECT_THAT(Message(vocabulary), HasSubstr("has 1025 bytes; at most 1024"));
  vocabulary.added_tokens.back() = vocabulary.added_tokens.front();
  EXPECT_THAT(Message(vocabulary), HasSubstr("twice"));
}

}  // namespace
}  // namespace nibble::text
