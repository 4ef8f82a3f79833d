#include "methods/training/data.h"

#include <algorithm>

#include "absl/strings/strip.h"
#include "core/base/file.h"
#include "methods/testing.h"
#include "methods/training/training.h"

namespace nibble {
namespace {

// "<|im_start|>" and "<|im_end|>" as tokens 100 and 101 before letters.
class ChatTokenizer : public LetterTokenizer {
 public:
  std::vector<int32_t> Encode(absl::string_view text) const override {
    std::vector<int32_t> ids;
    while (!text.empty()) {
      if (absl::ConsumePrefix(&text, "<|im_start|>")) {
        ids.push_back(100);
      } else if (absl::ConsumePrefix(&text, "<|im_end|>")) {
        ids.push_back(101);
      } else {
        ids.push_back(text[0] % 90);
        text.remove_prefix(1);
      }
    }
    return ids;
  }
};

// The tokens of a sequence that are learned.
std::vector<int32_t> Learned(const train::Sequences& sequences, int64_t i) {
  std::vector<int32_t> learned;
  for (size_t t = 0; t < sequences.tokens(i).size(); ++t) {
    if (sequences.learned(i)[t] != 0) learned.push_back(sequences.tokens(i)[t]);
  }
  return learned;
}

TEST(TrainingData, OnlyTheAssistantIsLearned) {
  const datasets::Conversation conversation = {{{"user", "ab"}, {"assistant", "cd"}, {"user", "e"}, {"assistant", "f"}}};
  train::Sequences chat, plain;
  ASSERT_OK(AddConversation(ChatTokenizer(), conversation, 100, &chat));
  EXPECT_EQ(chat.tokens(0)[0], 100);
  EXPECT_EQ(Learned(chat, 0), (std::vector<int32_t>{'c' % 90, 'd' % 90, 101, '\n', 'f' % 90, 101, '\n'}));
  ASSERT_OK(AddConversation(LetterTokenizer(), conversation, 100, &plain));
  EXPECT_EQ(Learned(plain, 0), LetterTokenizer().Encode("cd\nf\n"));
  train::Sequences cut;
  EXPECT_EQ(*AddConversation(LetterTokenizer(), conversation, 23, &cut), Added::kCut);
  EXPECT_EQ(cut.tokens(0).size(), 23);
  // "user: ab\nassistant: " is cut off before the first reply.
  EXPECT_EQ(*AddConversation(LetterTokenizer(), conversation, 20, &cut), Added::kNotAtAll);
  EXPECT_EQ(cut.size(), 1);
}

TEST(TrainingData, ConversationsThatDoNotFitAreCounted) {
  const std::string folder = TestTempDir();
  ASSERT_OK(WriteFile(folder + "/chats.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"ab\"}, {\"role\": \"assistant\", \"content\": \"cdefg\"}]}\n"
                                              "{\"messages\": [{\"role\": \"user\", \"content\": \"abcdefghijkl\"}, {\"role\": \"assistant\", \"content\": \"c\"}]}\n"));
  const LetterTokenizer tokenizer;
  ThreadPool pool(1);
  TrainingData data;
  data.add_conversations("chats.jsonl");
  data.set_window(23);
  Context context(pool, {&tokenizer, folder, "", ""});
  ASSERT_OK_AND_ASSIGN(const train::Sequences sequences, ReadTrainingData(context, data));
  EXPECT_EQ(sequences.size(), 1);
  EXPECT_EQ(context.events().at("conversations.cut").count, 1);
  EXPECT_EQ(context.events().at("conversations.without_reply").count, 1);
  data.set_window(8);
  const auto none = ReadTrainingData(context, data);
  ASSERT_FALSE(none.ok());
  EXPECT_THAT(std::string(none.status().message()), ::testing::HasSubstr("raise data.window"));
}

TEST(TrainingData, APromptIsNotLearned) {
  train::Sequences sequences;
  EXPECT_TRUE(*AddCompletion(LetterTokenizer(), "abc", "de", 5, &sequences));
  EXPECT_EQ(Learned(sequences, 0), LetterTokenizer().Encode("de"));
  EXPECT_FALSE(*AddCompletion(LetterTokenizer(), "abc", "def", 5, &sequences));
  EXPECT_EQ(sequences.size(), 1);
}

// Writes 95 before a text, as tokenizers of SentencePiece write a space, and has a BOS
// that it does not ask for.
class PrefixTokenizer : public LetterTokenizer {
 public:
  std::vector<int32_t> Encode(absl::string_view text) const override {
    std::vector<int32_t> ids = LetterTokenizer::Encode(text);
    if (!ids.empty()) ids.insert(ids.begin(), 95);
    return ids;
  }
  std::optional<int32_t> bos_id() const override { return 99; }
};

TEST(TrainingData, PartsAreTokenizedAsOneText) {
  const PrefixTokenizer tokenizer;
  train::Sequences sequences;
  ASSERT_TRUE(*AddCompletion(tokenizer, "abc", "de", 6, &sequences));
  EXPECT_EQ(sequences.tokens(0), absl::MakeConstSpan(tokenizer.Encode("abcde")));
  EXPECT_EQ(Learned(sequences, 0), LetterTokenizer().Encode("de"));
  ASSERT_EQ(*AddConversation(tokenizer, {{{"user", "ab"}, {"assistant", "cd"}}}, 100, &sequences), Added::kWhole);
  EXPECT_EQ(sequences.tokens(1), absl::MakeConstSpan(tokenizer.Encode("user: ab\nassistant: cd\n")));
  EXPECT_EQ(Learned(sequences, 1), LetterTokenizer().Encode("cd\n"));
}

// A space before a letter is one token with it, as a word of most vocabularies.
class MergingTokenizer : public LetterTokenizer {
 public:
  std::vector<int32_t> Encode(absl::string_view text) const override {
    std::vector<int32_t> ids;
    for (size_t i = 0; i < text.size(); ++i) {
      const bool merges = text[i] == ' ' && i + 1 < text.size();
      if (merges) ++i;
      ids.push_back(text[i] % 90 + (merges ? 100 : 0));
    }
    return ids;
  }
};

TEST(TrainingData, AWordThatTakesThePromptsSpaceIsLearned) {
  const MergingTokenizer tokenizer;
  train::Sequences sequences;
  ASSERT_TRUE(*AddCompletion(tokenizer, "a: ", "yes", 10, &sequences));
  EXPECT_EQ(Learned(sequences, 0), (std::vector<int32_t>{'y' % 90 + 100, 'e' % 90, 's' % 90}));
  ASSERT_TRUE(*AddCompletion(tokenizer, "a: ", "y", 10, &sequences));
  EXPECT_EQ(Learned(sequences, 1), (std::vector<int32_t>{'y' % 90 + 100}));
  ASSERT_EQ(*AddConversation(tokenizer, {{{"user", "ab"}, {"assistant", "c d"}}}, 100, &sequences), Added::kWhole);
  EXPECT_EQ(Learned(sequences, 2), (std::vector<int32_t>{'c' % 90 + 100, 'd' % 90 + 100, '\n'}));
  EXPECT_FALSE(*AddCompletion(tokenizer, "a", "", 10, &sequences));
  EXPECT_FALSE(AddCompletion(tokenizer, "", "yes", 10, &sequences).ok());
}

// Without a prompt the first token of the completion is learned from the BOS.
TEST(TrainingData, ACompletionAloneFollowsTheBos) {
  const PrefixTokenizer tokenizer;
  train::Sequences sequences;
  ASSERT_TRUE(*AddCompletion(tokenizer, "", "de", 6, &sequences));
  EXPECT_EQ(sequences.tokens(0)[0], 99);
  EXPECT_EQ(Learned(sequences, 0), tokenizer.Encode("de"));
}

TEST(TrainingData, WindowsBeyondTheModelsPositionsAreErrors) {
  ThreadPool pool(1);
  Workplace workplace = TestWorkplace();
  workplace.max_positions = 19;
  Context context(pool, workplace);
  TrainingData data;
  data.add_text("text.txt");
  data.set_window(20);
  EXPECT_THAT(std::string(ReadTrainingData(context, data).status().message()), ::testing::HasSubstr("data.window: 20 tokens, but the model was made for 19"));
  data.set_window(19);
  EXPECT_OK(ReadTrainingData(context, data));
  PreferenceData pairs;
  pairs.add_pairs("pairs.jsonl");
  EXPECT_THAT(std::string(ReadPreferenceData(context, pairs).status().message()), ::testing::HasSubstr("data.window: 512"));
  pairs.clear_pairs();
  *pairs.mutable_shuffled() = data;
  EXPECT_OK(ReadPreferenceData(context, pairs));
}

TEST(TrainingData, FoldersAreReadByNameWithoutTheExcluded) {
  const std::string dir = TestTempDir();
  for (const char* name : {"b.txt", "a.txt", "held.txt", "c.md"}) ASSERT_OK(WriteFile(absl::StrCat(dir, "/", name), name));
  ASSERT_OK_AND_ASSIGN(const auto files, TextFiles({dir}, {"held*"}, ""));
  EXPECT_EQ(files, (std::vector<std::string>{dir + "/a.txt", dir + "/b.txt"}));
  EXPECT_FALSE(TextFiles({dir}, {"*"}, "").ok());
  EXPECT_THAT(std::string(TextFiles({dir}, {"held*", "hold*"}, "").status().message()), ::testing::HasSubstr("exclude: \"hold*\" matches no file"));
}

// The second half of a window is preferred to the same tokens in another order.
TEST(TrainingData, ShuffledPairs) {
  ThreadPool pool(1);
  Context context(pool, TestWorkplace());
  PreferenceData data;
  data.mutable_shuffled()->add_text("text.txt");
  data.mutable_shuffled()->set_window(20);
  data.set_shuffled_pairs(7);
  ASSERT_OK_AND_ASSIGN(const train::Sequences pairs, ReadPreferenceData(context, data));
  ASSERT_EQ(pairs.size(), 14);
  int moved = 0;
  for (int64_t i = 0; i < pairs.size(); i += 2) {
    std::vector<int32_t> chosen = Learned(pairs, i), rejected = Learned(pairs, i + 1);
    EXPECT_EQ(chosen.size(), 10);
    EXPECT_EQ(pairs.tokens(i).subspan(0, 10), pairs.tokens(i + 1).subspan(0, 10));
    moved += chosen != rejected;
    std::sort(chosen.begin(), chosen.end());
    std::sort(rejected.begin(), rejected.end());
    EXPECT_EQ(chosen, rejected);
  }
  EXPECT_GT(moved, 5);
}

}  // namespace
}  // namespace nibble
