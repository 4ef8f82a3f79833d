#include "eval/multiple_choice.h"

#include "core/runtime/reference.h"
#include "eval/log_probs.h"
#include "eval/testing.h"

namespace nibble::eval {
namespace {

using datasets::MultipleChoiceItem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<MultipleChoiceItem> ToyItems() {
  return {{"the sky is", {"blue", "green and wide", "an old song"}, 0},
          {"seven", {"x", "y"}, 1},
          {"two and two make  ", {"four", "naïve café", "many, many more than one would think", "5"}, 3},
          {"", {"nothing before", "it"}, 0},
          {"a b c d e f g", {"h", "h i j k", "h i"}, 2}};
}

// The log-likelihood of each choice by the reference executor, no sharing.
std::vector<double> ReferenceLogLikelihoods(const ir::Graph& graph, const EncodedItem& item) {
  std::vector<double> result;
  for (const auto& sequence : item.sequences) {
    const auto logits = RunReference(graph, sequence);
    NIBBLE_CHECK_OK(logits.status());
    double sum = 0;
    for (size_t t = item.first_target; t < sequence.size(); ++t) {
      const float* row = logits->data() + (t - 1) * graph.vocab_size();
      sum += row[sequence[t]] - LogSumExp(row, graph.vocab_size());
    }
    result.push_back(sum);
  }
  return result;
}

void ExpectReference(const ir::Graph& graph, const ToyTokenizer& tokenizer, const MultipleChoiceOptions& options) {
  const std::vector<MultipleChoiceItem> items = ToyItems();
  const auto plan = MakePlan(graph);
  ThreadPool pool(2);
  ASSERT_OK_AND_ASSIGN(const auto result, MeasureMultipleChoice(*plan, pool, tokenizer, items, options));
  for (size_t i = 0; i < items.size(); ++i) {
    ASSERT_OK_AND_ASSIGN(const EncodedItem encoded, EncodeItem(tokenizer, items[i], options.context_suffix));
    const std::vector<double> expected = ReferenceLogLikelihoods(graph, encoded);
    ASSERT_EQ(result.items[i].log_likelihoods.size(), expected.size());
    for (size_t c = 0; c < expected.size(); ++c)
      EXPECT_NEAR(result.items[i].log_likelihoods[c], expected[c], 1e-3) << i << " " << c;
  }
}

TEST(EncodeItem, ContinuationIsASpaceAndTheChoice) {
  ToyTokenizer tokenizer;
  ASSERT_OK_AND_ASSIGN(const EncodedItem item, EncodeItem(tokenizer, {"ab", {"c", "dd"}, 0}, ""));
  EXPECT_EQ(item.first_target, 2);
  EXPECT_EQ(item.shared, 2);
  EXPECT_EQ(item.sequences[0], tokenizer.Encode("ab c"));
  EXPECT_EQ(item.sequences[1], tokenizer.Encode("ab dd"));
  ASSERT_OK_AND_ASSIGN(const EncodedItem suffixed, EncodeItem(tokenizer, {"ab", {"c"}, 0}, "\nAnswer:"));
  EXPECT_EQ(suffixed.sequences[0], tokenizer.Encode("ab\nAnswer: c"));
  EXPECT_EQ(suffixed.first_target, 10);
}

TEST(EncodeItem, TrailingWhitespaceMovesToTheContinuation) {
  ToyTokenizer tokenizer;
  ASSERT_OK_AND_ASSIGN(const EncodedItem item, EncodeItem(tokenizer, {"ab \n\u00a0", {"c"}, 0}, ""));
  EXPECT_EQ(item.first_target, 2);
  EXPECT_EQ(item.sequences[0], tokenizer.Encode("ab \n\u00a0 c"));
}

TEST(EncodeItem, BosAndEmptyContexts) {
  ToyTokenizer tokenizer;
  ASSERT_OK_AND_ASSIGN(EncodedItem item, EncodeItem(tokenizer, {" ", {"c"}, 0}, ""));
  EXPECT_EQ(item.first_target, 1);
  EXPECT_EQ(item.sequences[0].front(), 0);
  EXPECT_EQ(item.sequences[0].size(), 1 + 3);
  tokenizer.bos.reset();
  ASSERT_OK_AND_ASSIGN(item, EncodeItem(tokenizer, {"", {"c"}, 0}, ""));
  EXPECT_EQ(item.sequences[0].front(), 1);
  tokenizer.eos.reset();
  EXPECT_FALSE(EncodeItem(tokenizer, {"", {"c"}, 0}, "").ok());
  tokenizer.bos = 0;
  tokenizer.add = true;
  ASSERT_OK_AND_ASSIGN(item, EncodeItem(tokenizer, {"ab", {"c"}, 0}, ""));
  EXPECT_EQ(item.sequences[0].front(), 0);
  EXPECT_EQ(item.first_target, 3);
}

TEST(EncodeItem, SharesOnlyWhatTheJointEncodingKeeps) {
  const ToyTokenizer tokenizer({"b c"});
  ASSERT_OK_AND_ASSIGN(const EncodedItem item, EncodeItem(tokenizer, {"ab", {"cd", "x"}, 0}, ""));
  EXPECT_EQ(item.first_target, 2);
  EXPECT_EQ(item.shared, 1);
  EXPECT_THAT(item.sequences[0], ElementsAre(tokenizer.Encode("a")[0], 82, tokenizer.Encode("d")[0]));
  EXPECT_THAT(std::string(EncodeItem(tokenizer, {"ab", {"c", "x"}, 0}, "").status().message()),
              HasSubstr("choice 'c' adds no tokens"));
}

TEST(MultipleChoice, AgreesWithTheReferenceExecutor) {
  const ir::Graph graph = ToyGraph(7);
  ToyTokenizer tokenizer({"y b", "e f", "p"});
  ExpectReference(graph, tokenizer, {.set = "toy"});
  tokenizer.add = true;
  ExpectReference(graph, tokenizer, {.set = "toy", .context_suffix = "\nA:"});
}

TEST(MultipleChoice, ContextsThatTheJointEncodingChanges) {
  const ir::Graph graph = ToyGraph(8);
  // The context's last token becomes another one with some choices, in items 0, 1, 2 and 4.
  const ToyTokenizer tokenizer({"s b", "s g", "n x", "e  f", "g h"});
  std::vector<MultipleChoiceItem> items = ToyItems();
  ASSERT_OK_AND_ASSIGN(const EncodedItem first, EncodeItem(tokenizer, items[0], ""));
  EXPECT_EQ(first.shared, first.first_target - 1);
  items[1].choices = {"xx", "y"};
  const auto plan = MakePlan(graph);
  ThreadPool pool(2);
  items.pop_back();
  ASSERT_OK_AND_ASSIGN(const auto result, MeasureMultipleChoice(*plan, pool, tokenizer, items, {.set = "toy"}));
  for (size_t i = 0; i < items.size(); ++i) {
    ASSERT_OK_AND_ASSIGN(const EncodedItem encoded, EncodeItem(tokenizer, items[i], ""));
    const auto expected = ReferenceLogLikelihoods(graph, encoded);
    for (size_t c = 0; c < expected.size(); ++c) EXPECT_NEAR(result.items[i].log_likelihoods[c], expected[c], 1e-3);
  }
}

TEST(MultipleChoice, BatchesEqualOneAtATime) {
  const auto plan = MakePlan(ToyGraph(9));
  const ToyTokenizer tokenizer;
  ThreadPool pool(2);
  ASSERT_OK_AND_ASSIGN(const auto one,
                       MeasureMultipleChoice(*plan, pool, tokenizer, ToyItems(), {.set = "toy", .items_at_once = 1}));
  for (const int at_once : {2, 3, 16}) {
    ASSERT_OK_AND_ASSIGN(const auto many, MeasureMultipleChoice(*plan, pool, tokenizer, ToyItems(),
                                                                {.set = "toy", .items_at_once = at_once}));
    for (size_t i = 0; i < one.items.size(); ++i) {
      EXPECT_EQ(one.items[i].prediction, many.items[i].prediction);
      EXPECT_EQ(one.items[i].prediction_norm, many.items[i].prediction_norm);
      for (size_t c = 0; c < one.items[i].log_likelihoods.size(); ++c) {
        EXPECT_NEAR(one.items[i].log_likelihoods[c], many.items[i].log_likelihoods[c], 1e-4);
      }
    }
  }
}

TEST(MultipleChoice, NormalizesByCodePoints) {
  const auto plan = MakePlan(ToyGraph(1, /*zero_head=*/true));
  ThreadPool pool(1);
  const ToyTokenizer tokenizer;
  // With uniform logits ll = -(1 + bytes) log 97: "ab" is likelier than "abcd", but
  // per character 3/2 loses to 5/4; "éé" has 5 tokens for 2 characters, and of
  // equal choices the first wins.
  const std::vector<MultipleChoiceItem> items = {{"q", {"ab", "abcd", "éé"}, 1}, {"q", {"éé", "abcd", "cdef"}, 1}};
  ASSERT_OK_AND_ASSIGN(const auto result, MeasureMultipleChoice(*plan, pool, tokenizer, items, {.set = "toy"}));
  EXPECT_EQ(result.items[0].prediction, 0);
  EXPECT_EQ(result.items[0].prediction_norm, 1);
  EXPECT_EQ(result.items[1].prediction, 0);
  EXPECT_EQ(result.items[1].prediction_norm, 1);
  EXPECT_THAT(result.items[0].target_tokens, ElementsAre(3, 5, 5));
  ASSERT_EQ(result.metrics.size(), 2);
  EXPECT_EQ(result.metrics[0].name(), "accuracy/toy");
  EXPECT_EQ(result.metrics[0].value(), 0);
  EXPECT_EQ(result.metrics[1].name(), "accuracy_norm/toy");
  EXPECT_EQ(result.metrics[1].value(), 1);
  EXPECT_EQ(result.metrics[1].count(), 2);
  EXPECT_EQ(result.metrics[1].convention(), "lm-eval items=2 bos=none");
  EXPECT_THAT(result.metrics[1].block_weight(), ElementsAre(1, 1));
}

TEST(MultipleChoice, IsTheSameForAnyPoolAndObeysTheLimit) {
  const auto plan = MakePlan(ToyGraph(10));
  const ToyTokenizer tokenizer;
  std::vector<std::vector<double>> first;
  std::vector<std::string> bytes;
  for (const int threads : {1, 2}) {
    ThreadPool pool(threads);
    ASSERT_OK_AND_ASSIGN(const auto result,
                         MeasureMultipleChoice(*plan, pool, tokenizer, ToyItems(), {.set = "toy", .limit = 3}));
    ASSERT_EQ(result.items.size(), 3);
    first.push_back(result.items[2].log_likelihoods);
    bytes.push_back(result.metrics[0].SerializeAsString() + result.metrics[1].SerializeAsString());
  }
  EXPECT_EQ(first[0], first[1]);
  EXPECT_EQ(bytes[0], bytes[1]);
}

TEST(MultipleChoice, ErrorsNameTheItem) {
  const auto plan = MakePlan(ToyGraph(1));
  ThreadPool pool(1);
  const ToyTokenizer tokenizer;
  const auto error = [&](const std::vector<MultipleChoiceItem>& items, int64_t max_positions) {
    return std::string(
        MeasureMultipleChoice(*plan, pool, tokenizer, items, {.set = "toy", .max_positions = max_positions})
            .status()
            .message());
  };
  EXPECT_THAT(error({{"q", {"a", "b"}, 0}, {"long", {"a", "and longer"}, 0}}, 13),
              HasSubstr("toy item 1 needs 14 positions"));
  EXPECT_EQ(error({{"q", {"a", "b"}, 0}, {"long", {"a", "and longer"}, 0}}, 14), "");
  EXPECT_THAT(error({}, 10), HasSubstr("toy has no items"));
}

}  // namespace
}  // namespace nibble::eval
