#include "eval/perplexity.h"

#include <cmath>
#include <limits>
#include <numeric>

#include "core/runtime/reference.h"
#include "eval/divergence.h"
#include "eval/log_probs.h"
#include "eval/testing.h"

namespace nibble::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TextWindows Windows(int64_t tokens, const WindowOptions& options) {
  auto windows = MakeWindows("toy", RandomTokens(tokens, 5), std::nullopt, options);
  NIBBLE_CHECK_OK(windows.status());
  return *std::move(windows);
}

// Negative log-likelihoods of a window by the reference executor, from position `first` on.
double ReferenceNll(const ir::Graph& graph, absl::Span<const int32_t> window, int64_t first) {
  const auto logits = RunReference(graph, window);
  NIBBLE_CHECK_OK(logits.status());
  const int64_t vocab = graph.vocab_size();
  double sum = 0;
  for (size_t t = first; t + 1 < window.size(); ++t) {
    const float* row = logits->data() + t * vocab;
    sum += LogSumExp(row, vocab) - row[window[t + 1]];
  }
  return sum;
}

TEST(LogProbs, GoldenValues) {
  const float uniform[4] = {3, 3, 3, 3};
  EXPECT_DOUBLE_EQ(LogSumExp(uniform, 4), 3 + std::log(4.0));
  const float large[2] = {1000, 0};
  EXPECT_DOUBLE_EQ(LogSumExp(large, 2), 1000);
  const float ties[4] = {1, 7, 7, 2};
  EXPECT_EQ(ArgMax(ties, 4), 1);
  EXPECT_EQ(LogitRows(49152), 341);
  EXPECT_EQ(LogitRows(int64_t{1} << 40), 1);
}

TEST(LogProbs, FastSumsAgreeWithExactOnes) {
  Rng rng(5);
  for (const kernels::KernelTable* table : kernels::AvailableTables()) {
    for (const int64_t n : {1, 2, 511, 512, 513, 3000}) {
      std::vector<float> logits(n);
      for (float& l : logits) l = 20 + 10 * rng.Normal();
      const double exact = LogSumExp(logits.data(), n);
      EXPECT_NEAR(FastLogSumExp(*table, logits.data(), n), exact, 1e-6) << table->name << " " << n;
      for (float& l : logits) l = rng.Normal();
      logits[n / 2] = std::numeric_limits<float>::quiet_NaN();
      EXPECT_FALSE(std::isfinite(FastLogSumExp(*table, logits.data(), n))) << table->name << " " << n;
    }
  }
}

TEST(LogProbs, ScoresTargetsInChunks) {
  const auto plan = MakePlan(ToyGraph(1));
  ThreadPool pool(2);
  ASSERT_OK_AND_ASSIGN(const auto session, Session::Create(*plan, pool, {.streams = 1, .max_positions = 1}));
  const int64_t rows = 3, width = plan->hidden_size(), vocab = plan->vocab_size();
  Rng rng(3);
  std::vector<float> hidden(rows * width), logits(rows * vocab);
  for (float& h : hidden) h = rng.Normal();
  ASSERT_OK(session->Logits(hidden.data(), rows, logits.data()));
  const int32_t top = static_cast<int32_t>(ArgMax(logits.data() + vocab, vocab));
  ASSERT_OK_AND_ASSIGN(const TargetScores scores, ScoreTargets(*plan, *session, pool, hidden.data(),
                                                               {(top + 1) % 97, top, 5}, /*want_top=*/true));
  EXPECT_EQ(scores.is_top[1], 1);
  EXPECT_NEAR(scores.nll[1], LogSumExp(logits.data() + vocab, vocab) - logits[vocab + top], 1e-5);
  EXPECT_THAT(std::string(ScoreTargets(*plan, *session, pool, hidden.data(), {97}).status().message()),
              HasSubstr("token 97 is outside the vocabulary of 97"));
  hidden[width] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(ScoreTargets(*plan, *session, pool, hidden.data(), {1, 2, 3}).ok());
}

TEST(Windows, GptqScoresAllButTheFirst) {
  const TextWindows windows = Windows(2 * 2048 + 7, {});
  EXPECT_EQ(windows.windows.size(), 2);
  EXPECT_EQ(windows.predictions(), 2047);
  EXPECT_EQ(windows.Targets(1).size(), 2047);
  EXPECT_EQ(windows.Targets(0)[0], windows.windows[0][1]);
  EXPECT_EQ(windows.convention, "gptq window=2048 windows=2 bos=none");
}

TEST(Windows, LlamaCppScoresTheSecondHalf) {
  const TextWindows windows = Windows(4 * 512 - 1, {.convention = WindowConvention::kLlamaCpp, .limit = 2});
  EXPECT_EQ(windows.windows.size(), 2);
  EXPECT_EQ(windows.first, 256);
  EXPECT_EQ(windows.predictions(), 255);
  EXPECT_EQ(windows.Targets(0).size(), 255);
  EXPECT_EQ(windows.Targets(0)[0], windows.windows[0][257]);
  EXPECT_EQ(windows.convention, "llama.cpp window=512 windows=2 bos=none");
}

TEST(Windows, BosWhereTheTokenizerAddsOne) {
  ToyTokenizer tokenizer;
  const std::string text = "abcdefghij";
  ASSERT_OK_AND_ASSIGN(const TextWindows none, MakeWindows("t", tokenizer, text, {.window = 4}));
  EXPECT_EQ(none.windows[0][0], tokenizer.Encode("a")[0]);
  tokenizer.add = true;
  ASSERT_OK_AND_ASSIGN(const TextWindows gptq, MakeWindows("t", tokenizer, text, {.window = 4}));
  EXPECT_EQ(gptq.convention, "gptq window=4 windows=2 bos=text");
  EXPECT_EQ(gptq.windows[0][0], 0);
  EXPECT_EQ(gptq.windows[1][0], tokenizer.Encode("d")[0]);
  ASSERT_OK_AND_ASSIGN(const TextWindows halves,
                       MakeWindows("t", tokenizer, text, {.convention = WindowConvention::kLlamaCpp, .window = 4}));
  EXPECT_EQ(halves.convention, "llama.cpp window=4 windows=2 bos=window");
  EXPECT_THAT(halves.windows[1],
              ElementsAre(0, tokenizer.Encode("e")[0], tokenizer.Encode("f")[0], tokenizer.Encode("g")[0]));
  tokenizer.bos.reset();
  EXPECT_FALSE(MakeWindows("t", tokenizer, text, {.window = 4}).ok());
}

TEST(Windows, ErrorsSayWhatIsMissing) {
  const auto error = [](int64_t tokens, const WindowOptions& options) {
    return std::string(MakeWindows("toy", RandomTokens(tokens, 1), std::nullopt, options).status().message());
  };
  EXPECT_EQ(error(100, {}), "the text has 100 tokens; one window needs 2048: take a longer text or a smaller window");
  EXPECT_THAT(error(100, {.window = 1}), HasSubstr("predicts nothing"));
  EXPECT_THAT(error(100, {.convention = WindowConvention::kLlamaCpp, .window = 2}), HasSubstr("predicts nothing"));
  EXPECT_FALSE(MakeWindows("toy", RandomTokens(9, 1), std::nullopt, {.window = -3}).ok());
}

TEST(Perplexity, OfUniformLogitsIsTheVocabulary) {
  const auto plan = MakePlan(ToyGraph(1, /*zero_head=*/true));
  ThreadPool pool(2);
  ASSERT_OK_AND_ASSIGN(const auto metrics, MeasurePerplexity(*plan, pool, Windows(100, {.window = 32})));
  ASSERT_EQ(metrics.size(), 1);
  EXPECT_NEAR(metrics[0].value(), 97, 1e-4);  // the losses of tokens are fp32
  EXPECT_EQ(metrics[0].name(), "perplexity/toy");
  EXPECT_EQ(metrics[0].unit(), "ppl");
  EXPECT_EQ(metrics[0].better(), LOWER);
  EXPECT_EQ(metrics[0].aggregate(), Metric::EXP_MEAN);
  EXPECT_EQ(metrics[0].arithmetic(), NATIVE);
  EXPECT_EQ(metrics[0].count(), 3 * 31);
  EXPECT_THAT(metrics[0].block_weight(), ElementsAre(31, 31, 31));
}

TEST(Perplexity, AgreesWithTheReferenceExecutor) {
  const ir::Graph graph = ToyGraph(2);
  const auto plan = MakePlan(graph);
  ThreadPool pool(2);
  for (const WindowConvention convention : {WindowConvention::kGptq, WindowConvention::kLlamaCpp}) {
    const TextWindows windows = Windows(170, {.convention = convention, .window = 33});
    ASSERT_OK_AND_ASSIGN(const auto metrics, MeasurePerplexity(*plan, pool, windows));
    ASSERT_EQ(metrics[0].block_sum_size(), 5);
    for (size_t i = 0; i < windows.windows.size(); ++i) {
      const double expected = ReferenceNll(graph, windows.windows[i], windows.first);
      EXPECT_NEAR(metrics[0].block_sum(i) / windows.predictions(), expected / windows.predictions(), 1e-4);
    }
    EXPECT_GT(metrics[0].value(), 110);  // far from uniform: random targets are worse than 97
  }
}

TEST(Perplexity, IsTheSameForAnyPool) {
  const auto plan = MakePlan(ToyGraph(3));
  const auto states_windows = Windows(200, {.window = 40});
  std::vector<std::string> bytes;
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    ASSERT_OK_AND_ASSIGN(const auto metrics, MeasurePerplexity(*plan, pool, states_windows));
    bytes.push_back(metrics[0].SerializeAsString());
  }
  EXPECT_EQ(bytes[0], bytes[1]);
  EXPECT_EQ(bytes[0], bytes[2]);
}

TEST(Divergence, GoldenValue) {
  const float p[3] = {std::log(.5f), std::log(.25f), std::log(.25f)},
              q[3] = {std::log(.4f), std::log(.4f), std::log(.2f)};
  EXPECT_NEAR(KlDivergence(p, q, 3), 0.0498568, 1e-7);
  EXPECT_EQ(KlDivergence(p, p, 3), 0);
}

TEST(Divergence, OfAPlanFromItselfIsZero) {
  const auto plan = MakePlan(ToyGraph(4));
  ThreadPool pool(2);
  ASSERT_OK_AND_ASSIGN(const auto metrics, MeasureDivergence(*plan, *plan, pool, Windows(100, {.window = 20})));
  ASSERT_EQ(metrics.size(), 2);
  EXPECT_EQ(metrics[0].name(), "kl/toy");
  for (const double sum : metrics[0].block_sum()) EXPECT_EQ(sum, 0);
  EXPECT_EQ(metrics[1].name(), "top1_agreement/toy");
  EXPECT_EQ(metrics[1].value(), 1);
  EXPECT_EQ(metrics[1].better(), HIGHER);
  EXPECT_EQ(metrics[1].count(), 5 * 19);
}

TEST(Divergence, AgreesWithTheReferenceExecutor) {
  const ir::Graph base = ToyGraph(5), variant = ToyGraph(6);
  const auto base_plan = MakePlan(base), variant_plan = MakePlan(variant);
  ThreadPool pool(2);
  const TextWindows windows = Windows(50, {.convention = WindowConvention::kLlamaCpp, .window = 24});
  ASSERT_OK_AND_ASSIGN(const auto metrics, MeasureDivergence(*base_plan, *variant_plan, pool, windows));
  for (size_t w = 0; w < windows.windows.size(); ++w) {
    ASSERT_OK_AND_ASSIGN(const auto p, RunReference(base, windows.windows[w]));
    ASSERT_OK_AND_ASSIGN(const auto q, RunReference(variant, windows.windows[w]));
    double kl = 0, agree = 0;
    for (int64_t t = 12; t < 23; ++t) {
      kl += KlDivergence(p.data() + t * 97, q.data() + t * 97, 97);
      agree += ArgMax(p.data() + t * 97, 97) == ArgMax(q.data() + t * 97, 97);
    }
    EXPECT_NEAR(metrics[0].block_sum(w), kl, 1e-3);
    EXPECT_EQ(metrics[1].block_sum(w), agree);
  }
  EXPECT_GT(metrics[0].value(), 0.5);
}

}  // namespace
}  // namespace nibble::eval
