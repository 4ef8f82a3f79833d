#include "eval/statistics.h"

#include <cmath>
#include <limits>
#include <vector>

#include "core/base/rng.h"
#include "core/base/testing.h"
#include "reports/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

constexpr int kExperiments = 2000;

TEST(StudentT, AgreesWithPublishedTables) {
  EXPECT_NEAR(StudentT975(1), 12.706, 5e-4);
  EXPECT_NEAR(StudentT975(2), 4.303, 5e-4);
  EXPECT_NEAR(StudentT975(10), 2.228, 5e-4);
  EXPECT_NEAR(StudentT975(1000000), 1.95997, 1e-4);
}

TEST(FillMetric, MeanOfItemsHasTheTextbookStandardError) {
  Metric metric = MakeMetric("accuracy/x", Metric::MEAN, -1, {1, 0, 1, 1}, {1, 1, 1, 1});
  EXPECT_OK(FillMetric(&metric));
  EXPECT_DOUBLE_EQ(metric.value(), 0.75);
  EXPECT_DOUBLE_EQ(metric.stderr(), 0.25);  // sqrt(0.75 / 3) / sqrt(4)
  EXPECT_EQ(metric.count(), 4);
}

TEST(FillMetric, WeightedMeanCountsWeights) {
  Metric metric = MakeMetric("kl/x", Metric::MEAN, 0, {2, 6}, {10, 20});
  EXPECT_OK(FillMetric(&metric));
  EXPECT_DOUBLE_EQ(metric.value(), 8.0 / 30);
  // Residuals 2 - 80/30 and 6 - 160/30 are -2/3 and 2/3.
  EXPECT_NEAR(metric.stderr(), std::sqrt(2 * 8.0 / 9) / 30, 1e-15);
  EXPECT_EQ(metric.count(), 30);
}

// Residuals -3, -1, 1, 3: r' = (3 - 1 + 3) / 20 = 1/4, r = 1/4 + 2/4, the factor sqrt(7).
TEST(FillMetric, NeighboursOfATextThatAreAlikeWidenTheError) {
  Metric rising = MakeMetric("perplexity/x", Metric::EXP_MEAN, 0, {17, 19, 21, 23}, {10, 10, 10, 10});
  EXPECT_OK(FillMetric(&rising));
  EXPECT_NEAR(rising.stderr(), std::exp(2.0) * std::sqrt(7.0) * std::sqrt(20.0 / 3 / 4) / 10, 1e-12);
  // Residuals -3, 3, -1, 1: r' = -13/20.
  Metric alternating = MakeMetric("perplexity/x", Metric::EXP_MEAN, 0, {17, 23, 19, 21}, {10, 10, 10, 10});
  EXPECT_OK(FillMetric(&alternating));
  EXPECT_NEAR(alternating.stderr(), std::exp(2.0) * std::sqrt(20.0 / 3 / 4) / 10, 1e-12);
  // Items have no order.
  Metric items = MakeMetric("accuracy/x", Metric::MEAN, 0, {0, 0, 1, 1}, {1, 1, 1, 1});
  items.set_unit("fraction");
  EXPECT_OK(FillMetric(&items));
  EXPECT_NEAR(items.stderr(), std::sqrt(1.0 / 3 / 4), 1e-12);
  Metric trend = MakeMetric("perplexity/x", Metric::EXP_MEAN, 0, std::vector<double>(100), std::vector<double>(100, 1.0));
  for (int i = 0; i < 100; ++i) trend.set_block_sum(i, i);
  EXPECT_OK(FillMetric(&trend));
  EXPECT_NEAR(trend.stderr() / trend.value(), std::sqrt(19.0) * std::sqrt(100 * 101 / 12.0) / 10, 1e-9);
}

TEST(FillMetric, PerplexityIsTheExponentialWithItsError) {
  Metric metric = MakeMetric("perplexity/x", Metric::EXP_MEAN, 0, {20, 30}, {10, 10});
  EXPECT_OK(FillMetric(&metric));
  EXPECT_DOUBLE_EQ(metric.value(), std::exp(2.5));
  EXPECT_NEAR(metric.stderr(), std::exp(2.5) * 0.5, 1e-12);  // s = sqrt(0.5), over sqrt(2)
  EXPECT_EQ(metric.count(), 20);
}

TEST(FillMetric, TimingsAreMediansOfRounds) {
  Metric rate = MakeMetric("decode_tokens_per_s/8", Metric::RATE, 0, {1, 2, 4}, {8, 8, 8});
  EXPECT_OK(FillMetric(&rate));
  EXPECT_DOUBLE_EQ(rate.value(), 4);
  EXPECT_EQ(rate.count(), 3);
  EXPECT_NEAR(rate.stderr(), std::sqrt(M_PI / 2) * std::sqrt(28.0 / 3 / 3), 1e-12);
  Metric time = MakeMetric("ttft_ms/8", Metric::TIME, 0, {10, 40, 20, 30});
  EXPECT_OK(FillMetric(&time));
  EXPECT_DOUBLE_EQ(time.value(), 25);
  EXPECT_EQ(time.count(), 4);
}

TEST(FillMetric, OneBlockHasNoStandardError) {
  Metric metric = MakeMetric("perplexity/x", Metric::EXP_MEAN, 0, {20}, {10});
  metric.set_stderr(7);
  EXPECT_OK(FillMetric(&metric));
  EXPECT_FALSE(metric.has_stderr());
}

TEST(FillMetric, NoneKeepsItsValue) {
  Metric metric = MakeMetric("size_mib", Metric::NONE, 72);
  EXPECT_OK(FillMetric(&metric));
  EXPECT_EQ(metric.value(), 72);
  EXPECT_FALSE(metric.has_stderr());
}

TEST(FillMetric, ErrorsNameTheMetricAndTheBlock) {
  const auto error = [](Metric metric) { return std::string(FillMetric(&metric).message()); };
  EXPECT_EQ(error(MakeMetric("a", Metric::MEAN, 0)), "metric a has no blocks");
  EXPECT_EQ(error(MakeMetric("a", Metric::MEAN, 0, {1, 2}, {1})), "metric a: 2 block sums but 1 block weights");
  EXPECT_EQ(error(MakeMetric("a", Metric::MEAN, 0, {1, 2}, {0, 0})), "metric a: all block weights are 0");
  EXPECT_THAT(error(MakeMetric("a", Metric::MEAN, 0, {1, 2}, {1, -1})), HasSubstr("block 1: a weight"));
  EXPECT_THAT(error(MakeMetric("a", Metric::RATE, 0, {1, 0}, {1, 1})), HasSubstr("block 1: a time"));
  EXPECT_THAT(error(MakeMetric("a", Metric::RATE, 0, {1, 1}, {1, 0})), HasSubstr("block 1: a round"));
}

TEST(FillMetric, NanStaysVisible) {
  Metric metric = MakeMetric("perplexity/x", Metric::EXP_MEAN, 0, {std::nan(""), 1}, {10, 10});
  EXPECT_OK(FillMetric(&metric));
  EXPECT_TRUE(std::isnan(metric.value()));
}

TEST(ValueInterval, IsStudentsAroundTheValue) {
  Metric rate = MakeMetric("decode_tokens_per_s/8", Metric::RATE, 0, {1, 2, 4}, {8, 8, 8});
  EXPECT_OK(FillMetric(&rate));
  EXPECT_NEAR(ValueInterval(rate)->high, 4 + 4.30265 * rate.stderr(), 1e-4);
  EXPECT_NEAR(ValueInterval(rate)->low, 4 - 4.30265 * rate.stderr(), 1e-4);
  Metric perplexity = MakeMetric("perplexity/x", Metric::EXP_MEAN, 0, {20, 30}, {10, 10});
  EXPECT_OK(FillMetric(&perplexity));
  // A logarithm of 2.5 with a standard error of 0.5 and one degree of freedom.
  EXPECT_NEAR(ValueInterval(perplexity)->high, std::exp(2.5 + 12.7062 * 0.5), 1);
  EXPECT_NEAR(ValueInterval(perplexity)->low, std::exp(2.5 - 12.7062 * 0.5), 1e-5);
  EXPECT_FALSE(ValueInterval(MakeMetric("size_mib", Metric::NONE, 72)).has_value());
}

TEST(Compare, PerplexityRatioByHand) {
  const Metric baseline = Perplexity(std::exp(2.5), {20, 30});
  const Metric variant = Perplexity(std::exp(2.6), {20.5, 31.5});
  const Comparison comparison = Compare(variant, &baseline);
  ASSERT_TRUE(comparison.ratio.has_value());
  EXPECT_NEAR(comparison.ratio->value, std::exp(0.1), 1e-12);
  // Differences 0.5 and 1.5, residuals 0.5 each way: stderr sqrt(2 * 0.5) / 20.
  EXPECT_NEAR(comparison.ratio->interval->low, std::exp(0.1 - 12.7062047 / 20), 1e-7);
  EXPECT_NEAR(comparison.ratio->interval->high, std::exp(0.1 + 12.7062047 / 20), 1e-7);
  EXPECT_EQ(comparison.why, "");
  EXPECT_FALSE(comparison.recovery.has_value());
}

TEST(Compare, AccuracyDifferenceAndRecoveryByHand) {
  const Metric baseline = Accuracy({1, 1, 0, 1});
  const Comparison comparison = Compare(Accuracy({1, 0, 0, 1}), &baseline);
  ASSERT_TRUE(comparison.difference.has_value());
  EXPECT_DOUBLE_EQ(comparison.difference->value, -0.25);
  const Interval interval = ScoreInterval({4, 0, 1});
  EXPECT_EQ(comparison.difference->interval->low, interval.low);
  EXPECT_EQ(comparison.difference->interval->high, interval.high);
  EXPECT_NEAR(*comparison.recovery, 100 * 0.5 / 0.75, 1e-12);
}

TEST(Compare, LatencyRatioIsPairedByRound) {
  const Metric baseline = Decode({1.0, 2.0, 4.0});
  const Comparison comparison = Compare(Decode({0.5, 1.0, 2.0}), &baseline);
  EXPECT_NEAR(comparison.ratio->value, 2, 1e-12);
  EXPECT_NEAR(comparison.ratio->interval->low, 2, 1e-12);
  EXPECT_NEAR(comparison.ratio->interval->high, 2, 1e-12);
}

TEST(Compare, ExactQuantitiesHaveAPlainRatio) {
  const Metric baseline = Size(200);
  const Comparison comparison = Compare(Size(50), &baseline);
  EXPECT_EQ(comparison.ratio->value, 0.25);
  EXPECT_FALSE(comparison.ratio->interval.has_value());
  EXPECT_EQ(comparison.why, "");
}

TEST(Compare, VariantEqualToBaselineGivesExactlyOne) {
  Rng rng(3);
  std::vector<double> sums;
  for (int i = 0; i < 100; ++i) sums.push_back(30 + rng.Normal());
  const Metric metric = Perplexity(20, sums);
  const Comparison comparison = Compare(metric, &metric);
  EXPECT_EQ(comparison.ratio->value, 1.0);
  EXPECT_EQ(comparison.ratio->interval->low, 1.0);
  EXPECT_EQ(comparison.ratio->interval->high, 1.0);
  const Metric decode = Decode({1.0, 1.3, 0.7});
  EXPECT_EQ(Compare(decode, &decode).ratio->interval->high, 1.0);
  const Metric accuracy = Accuracy({1, 0, 1});
  EXPECT_EQ(Compare(accuracy, &accuracy).difference->value, 0.0);
}

TEST(Compare, SaysWhyThereIsNoInterval) {
  const Metric metric = Perplexity(20, {30, 31, 32});
  const Metric shorter = Perplexity(20, {30, 31});
  const Comparison comparison = Compare(metric, &shorter);
  EXPECT_EQ(comparison.why, "3 blocks, the baseline has 2");
  EXPECT_EQ(comparison.ratio->value, 1.0);
  EXPECT_FALSE(comparison.ratio->interval.has_value());
  const Metric single = Perplexity(20, {30});
  EXPECT_EQ(Compare(single, &single).why, "a single block has no spread");
  Metric heavier = metric;
  heavier.set_block_weight(1, 11);
  EXPECT_EQ(Compare(metric, &heavier).why, "block 1 weighs 10, the baseline's 11: not the same items");
}

TEST(Compare, SaysWhyThereIsNoComparison) {
  const Metric metric = Perplexity(20, {30, 31, 32});
  EXPECT_EQ(Compare(metric, nullptr).why, "the baseline has no such metric");
  EXPECT_FALSE(Compare(metric, nullptr).comparable());
  Metric other = metric;
  other.set_convention("strided");
  EXPECT_EQ(Compare(metric, &other).why, "measured as 'gptq window=10', the baseline as 'strided'");
  other = metric;
  other.set_value(std::numeric_limits<double>::quiet_NaN());
  EXPECT_THAT(Compare(other, &metric).why, HasSubstr("not a finite number"));
  const Metric empty = Size(0);
  EXPECT_EQ(Compare(Size(1), &empty).why, "the baseline's value is 0");
  const Metric decode = Decode({1, 2});
  EXPECT_THAT(Compare(Decode({1, 2}, SIMULATED), &decode).why, HasSubstr("simulated"));
}

// Windows of unequal length whose difficulty both models share; the variant's
// extra loss per token is `shift` on average.
struct Windows {
  std::vector<double> baseline, variant, weights;
};

Windows DrawWindows(int count, double shift, Rng* rng) {
  Windows windows;
  for (int i = 0; i < count; ++i) {
    const double tokens = 50 + static_cast<double>(rng->Below(100));
    const double difficulty = 3 + 0.5 * rng->Normal();
    windows.weights.push_back(tokens);
    windows.baseline.push_back(tokens * difficulty);
    windows.variant.push_back(tokens * (difficulty + shift + 0.05 * rng->Normal()));
  }
  return windows;
}

double PerplexityCoverage(int windows_per_experiment) {
  constexpr double kShift = 0.1;
  Rng rng(1);
  int covered = 0;
  for (int i = 0; i < kExperiments; ++i) {
    const Windows w = DrawWindows(windows_per_experiment, kShift, &rng);
    const Metric baseline = MakeMetric("perplexity/x", Metric::EXP_MEAN, 20, w.baseline, w.weights);
    const Metric variant = MakeMetric("perplexity/x", Metric::EXP_MEAN, 22, w.variant, w.weights);
    const Interval interval = *Compare(variant, &baseline).ratio->interval;
    covered += interval.low <= std::exp(kShift) && std::exp(kShift) <= interval.high;
  }
  return static_cast<double>(covered) / kExperiments;
}

TEST(Coverage, PairedPerplexityRatio) {
  for (const int windows : {8, 40}) {
    const double coverage = PerplexityCoverage(windows);
    EXPECT_GE(coverage, 0.92) << windows;
    EXPECT_LE(coverage, 0.98) << windows;
  }
}

// Intervals that hold the true difference where a share of the answers, 0.6 of them right, is
// drawn anew with chance 0.5 of being right.
int CoveredDifferences(uint64_t seed, int items, double redrawn, double difference) {
  Rng rng(seed);
  int covered = 0;
  for (int i = 0; i < kExperiments; ++i) {
    std::vector<double> base, variant;
    for (int item = 0; item < items; ++item) {
      base.push_back(rng.Uniform() < 0.6);
      variant.push_back(rng.Uniform() < redrawn ? rng.Uniform() < 0.5 : base.back());
    }
    const Metric baseline = Accuracy(base);
    const Interval interval = *Compare(Accuracy(variant), &baseline).difference->interval;
    covered += interval.low <= difference && difference <= interval.high;
  }
  return covered;
}

TEST(Coverage, PairedAccuracyDifference) {
  const int covered = CoveredDifferences(2, 200, 0.1, -0.01);
  EXPECT_GE(covered, 0.92 * kExperiments);
  EXPECT_LE(covered, 0.98 * kExperiments);
}

// Where one item in a hundred changes.
TEST(Coverage, OfFewChanges) {
  const int covered = CoveredDifferences(9, 1000, 0.02, -0.002);
  EXPECT_GE(covered, 0.92 * kExperiments);
  EXPECT_LE(covered, 0.98 * kExperiments);
}

TEST(Coverage, PairedLatencyRatio) {
  Rng rng(4);
  int covered = 0;
  for (int i = 0; i < kExperiments; ++i) {
    std::vector<double> base, variant;
    for (int round = 0; round < 7; ++round) {
      const double load = std::exp(0.2 * rng.Normal());  // slows both down
      base.push_back(load * std::exp(0.03 * rng.Normal()));
      variant.push_back(0.5 * load * std::exp(0.03 * rng.Normal()));
    }
    const Metric baseline = Decode(base);
    const Interval interval = *Compare(Decode(variant), &baseline).ratio->interval;
    covered += interval.low <= 2 && 2 <= interval.high;
  }
  EXPECT_GE(covered, 0.92 * kExperiments);
  EXPECT_LE(covered, 0.98 * kExperiments);
}

// Perplexities exp(3), exp(2.5), exp(2) over two equal blocks.
TEST(RecoveryTest, ShareOfWhatWasLost) {
  const auto metric = [](double a, double b) {
    Metric m;
    m.set_name("perplexity/x");
    m.set_aggregate(Metric::EXP_MEAN);
    m.set_better(LOWER);
    for (const double sum : {a, b}) {
      m.add_block_sum(sum);
      m.add_block_weight(1);
    }
    EXPECT_TRUE(FillMetric(&m).ok());
    return m;
  };
  const Metric untrained = metric(3, 3), trained = metric(2.5, 2.5), reference = metric(2, 2);
  const Recovery recovery = RecoveryOf(untrained, trained, reference);
  const double expected = 100 * (std::exp(3) - std::exp(2.5)) / (std::exp(3) - std::exp(2));
  ASSERT_TRUE(recovery.share.has_value());
  EXPECT_NEAR(recovery.share->value, expected, 1e-9);
  // Both blocks give the same share, so leaving one out moves nothing.
  EXPECT_NEAR(recovery.share->interval->low, expected, 1e-6);
  EXPECT_NEAR(recovery.share->interval->high, expected, 1e-6);
  const Recovery spread = RecoveryOf(metric(3, 4), metric(2.6, 2.4), metric(2, 2.2));
  EXPECT_LT(spread.share->interval->low, spread.share->value - 1);
  // Without the second block nothing is lost: the share stands, its interval does not.
  const Recovery lone = RecoveryOf(metric(2, 4), metric(2, 3), metric(2, 2));
  EXPECT_TRUE(lone.share.has_value() && !lone.share->interval.has_value());
  EXPECT_NE(lone.why, "");
  EXPECT_FALSE(RecoveryOf(reference, trained, untrained).share.has_value());
  EXPECT_FALSE(RecoveryOf(reference, trained, untrained).why.empty());
}

TEST(SpreadTest, MeanAndDeviationOfAFew) {
  const Spread spread = SpreadOf({2, 4, 9});
  EXPECT_DOUBLE_EQ(spread.mean, 5);
  EXPECT_NEAR(*spread.deviation, std::sqrt((9 + 1 + 16) / 2.0), 1e-12);
  EXPECT_EQ(spread.low, 2);
  EXPECT_EQ(spread.high, 9);
  EXPECT_FALSE(SpreadOf({7}).deviation.has_value());
  EXPECT_EQ(SpreadOf({7}).mean, 7);
}

Comparison OfRatio(double value) {
  Comparison comparison;
  comparison.ratio = Estimate{value, std::nullopt};
  return comparison;
}

Comparison OfDifference(double value) {
  Comparison comparison;
  comparison.difference = Estimate{value, Interval{value - 1, value + 1}};
  return comparison;
}

// Logarithms 0, 1, 2: mean 1, deviation 1; t over three is 4.30265.
TEST(MeanComparisonTest, RatiosByTheirLogarithms) {
  const Comparison mean = MeanComparison({OfRatio(1), OfRatio(std::exp(1)), OfRatio(std::exp(2))});
  ASSERT_TRUE(mean.ratio.has_value() && mean.ratio->interval.has_value());
  EXPECT_NEAR(mean.ratio->value, std::exp(1), 1e-12);
  EXPECT_NEAR(std::log(mean.ratio->interval->low), 1 - 4.30265 / std::sqrt(3), 1e-4);
  EXPECT_NEAR(std::log(mean.ratio->interval->high), 1 + 4.30265 / std::sqrt(3), 1e-4);
  EXPECT_EQ(mean.why, "");
}

TEST(MeanComparisonTest, DifferencesAsTheyAre) {
  const Comparison mean = MeanComparison({OfDifference(-3), OfDifference(-1)});
  ASSERT_TRUE(mean.difference.has_value() && mean.difference->interval.has_value());
  EXPECT_DOUBLE_EQ(mean.difference->value, -2);
  EXPECT_NEAR(mean.difference->interval->high, -2 + 12.706, 1e-3);  // deviation sqrt(2), over sqrt(2)
  EXPECT_FALSE(mean.ratio.has_value());
}

TEST(MeanComparisonTest, SaysWhatIsMissing) {
  const Comparison lone = MeanComparison({OfRatio(1.5)});
  EXPECT_NEAR(lone.ratio->value, 1.5, 1e-12);
  EXPECT_FALSE(lone.ratio->interval.has_value());
  EXPECT_THAT(lone.why, HasSubstr("single repetition"));
  Comparison refused;
  refused.why = "the baseline has no such metric";
  EXPECT_EQ(MeanComparison({OfRatio(2), refused}).why, refused.why);
  EXPECT_FALSE(MeanComparison({OfRatio(2), refused}).comparable());
  EXPECT_THAT(MeanComparison({OfRatio(0), OfRatio(1)}).why, HasSubstr("not positive"));
}

}  // namespace
}  // namespace nibble
