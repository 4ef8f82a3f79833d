// The null experiment: where two models do not differ, intervals of their comparison must
// cover "no difference" as often as they claim. A model and its rounded twin are scored on
// the same windows and items; swapping at random, block by block, which of the two is called
// the variant leaves what blocks are like (their spread, their outliers, how rarely an answer
// changes) and takes the difference away. null_run_test.sh has a whole run of it.
//
// Blocks so drawn do not depend on each other. What intervals are worth where neighbouring
// windows do is what Dependent* tell (docs/reports.md).

#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "core/base/rng.h"
#include "core/base/testing.h"
#include "core/kernels/machine.h"
#include "eval/statistics.h"
#include "experiments/measure.h"
#include "methods/testing.h"

namespace nibble {
namespace {

// More than two hundred, so that chance alone moves the share by 0.2 %, not by 1.5 %.
constexpr int kSeeds = 10000;

// What the reference checkpoint and the same at W3 give.
class Null : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    SetProgressEnabled(false);
    auto model = OpenModel("configs/models/novelist");
    ASSERT_OK(model);
    for (const char* steps : {"step { [nibble.baseline] {} }", "step { [nibble.rtn] { bits: 3 group_size: 32 } }"}) {
      Measurer measurer(model->source, ".", 2);
      Context context(measurer.pool());
      BuiltModel built{"", "", model->graph, nullptr};
      ASSERT_OK(ApplyPipeline(context, ParsePipeline(steps).step(), built.graph));
      built.plan = *Plan::Create(built.graph, **kernels::ChooseTable());
      MetricRequest perplexity, questions;
      perplexity.mutable_perplexity()->set_text("quickstart/passages");
      perplexity.mutable_perplexity()->set_window(96);
      questions.mutable_multiple_choice()->set_set("quickstart/questions");
      perplexities_.push_back((*measurer.Measure(perplexity, built, nullptr))[0]);
      accuracies_.push_back((*measurer.Measure(questions, built, nullptr))[0]);
    }
  }

  // As many blocks, drawn with replacement, each with the two models in a random order.
  static std::array<Metric, 2> Swapped(const std::vector<Metric>& pair, uint64_t seed) {
    Rng rng(seed);
    std::array<Metric, 2> swapped = {pair[0], pair[0]};
    const int blocks = pair[0].block_sum_size();
    for (int i = 0; i < blocks; ++i) {
      const int block = static_cast<int>(rng.Below(blocks)), first = static_cast<int>(rng.Below(2));
      for (int m = 0; m < 2; ++m) {
        swapped[m].set_block_sum(i, pair[(first + m) % 2].block_sum(block));
        if (pair[0].block_weight_size() > 0) swapped[m].set_block_weight(i, pair[0].block_weight(block));
      }
    }
    for (Metric& metric : swapped) EXPECT_OK(FillMetric(&metric));
    return swapped;
  }

  // Of how many seeds the paired bootstrap's interval covers no difference; it is the same for
  // as many gained and lost.
  static int CoveredByBootstrap() {
    std::map<std::pair<int64_t, int64_t>, Interval> intervals;
    int covered = 0;
    for (int seed = 0; seed < kSeeds; ++seed) {
      const auto [variant, baseline] = Swapped(accuracies_, seed);
      const std::optional<PairedItems> pairs = CountPairs(variant, baseline);
      NIBBLE_CHECK(pairs.has_value());
      const auto [interval, is_new] = intervals.try_emplace({pairs->gained, pairs->lost});
      if (is_new) interval->second = BootstrapInterval(*pairs);
      covered += interval->second.low <= 0 && interval->second.high >= 0;
    }
    return covered;
  }

  static inline std::vector<Metric> perplexities_, accuracies_;
};

void ExpectCoverage(int covered) {
  EXPECT_GE(covered, 0.93 * kSeeds);
  EXPECT_LE(covered, 0.97 * kSeeds);
  std::printf("%d of %d intervals cover no difference\n", covered, kSeeds);
}

TEST_F(Null, PerplexityIntervalsCoverAsTheyClaim) {
  int covered = 0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    const auto [variant, baseline] = Swapped(perplexities_, seed);
    const Comparison comparison = Compare(variant, &baseline);
    ASSERT_TRUE(comparison.ratio.has_value() && comparison.ratio->interval.has_value());
    covered += comparison.ratio->interval->low <= 1 && comparison.ratio->interval->high >= 1;
  }
  ExpectCoverage(covered);
}

TEST_F(Null, AccuracyIntervalsCoverAsTheyClaim) {
  int covered = 0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    const auto [variant, baseline] = Swapped(accuracies_, seed);
    const Comparison comparison = Compare(variant, &baseline);
    ASSERT_TRUE(comparison.difference.has_value() && comparison.difference->interval.has_value());
    covered += comparison.difference->interval->low <= 0 && comparison.difference->interval->high >= 0;
  }
  ExpectCoverage(covered);
}

TEST_F(Null, BootstrapIntervalsCoverAsTheyClaim) { ExpectCoverage(CoveredByBootstrap()); }

TEST_F(Null, AModelUnderAnotherNameDoesNotDiffer) {
  for (const Metric& metric : {perplexities_[0], accuracies_[0]}) {
    const Comparison comparison = Compare(metric, &metric);
    const Estimate& estimate = comparison.ratio.has_value() ? *comparison.ratio : *comparison.difference;
    const double none = comparison.ratio.has_value() ? 1 : 0;
    EXPECT_EQ(estimate.value, none);
    // Of items the interval is not empty: on others of their kind the two could have differed.
    const double reach = comparison.items.has_value() ? ScoreInterval({comparison.items->items, 0, 0}).high : 0;
    EXPECT_NEAR(estimate.interval->low, none - reach, 1e-12);
    EXPECT_NEAR(estimate.interval->high, none + reach, 1e-12);
  }
}

// Perplexities of two models that do not differ, on a text of so many windows: what one loses
// more than the other in a window is normal and correlates with that in the next (an
// autoregressive process of order 1). `joined` windows make a block, as windows so many times as
// long would.
std::array<Metric, 2> DependentPerplexities(int windows, double correlation, int joined, uint64_t seed) {
  std::array<Metric, 2> pair;
  for (Metric& metric : pair) metric.set_aggregate(Metric::EXP_MEAN);
  Rng rng(seed);
  double difference = rng.Normal();
  for (int i = 0; i < windows; i += joined) {
    double sum = 0;
    for (int j = 0; j < joined; ++j) {
      sum += difference;
      difference = correlation * difference + std::sqrt(1 - correlation * correlation) * rng.Normal();
    }
    const double tokens = 100.0 * joined;
    for (int m = 0; m < 2; ++m) {
      pair[m].add_block_sum(3 * tokens + (m == 0 ? sum : 0));
      pair[m].add_block_weight(tokens);
    }
  }
  for (Metric& metric : pair) EXPECT_OK(FillMetric(&metric));
  return pair;
}

int CoveredWithDependence(int windows, double correlation, int joined = 1) {
  int covered = 0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    const auto [variant, baseline] = DependentPerplexities(windows, correlation, joined, seed);
    const Comparison comparison = Compare(variant, &baseline);
    covered += comparison.ratio->interval->low <= 1 && comparison.ratio->interval->high >= 1;
  }
  return covered;
}

TEST(Dependent, IndependentWindowsAreCovered) {
  for (const int windows : {4, 8, 16, 64, 256}) ExpectCoverage(CoveredWithDependence(windows, 0));
}

// The mean's standard error is sqrt((1 + 0.3) / (1 - 0.3)) = 1.36 times what independent windows
// would give it, so that intervals blind to it would cover 85 %.
TEST(Dependent, NeighboursThatCorrelateAreCoveredToo) {
  for (const int windows : {64, 256}) ExpectCoverage(CoveredWithDependence(windows, 0.3));
}

// Of few windows the correlation is hardly known.
TEST(Dependent, FewWindowsThatCorrelateAreCoveredLess) {
  for (const int windows : {8, 16}) {
    const int covered = CoveredWithDependence(windows, 0.3);
    EXPECT_GE(covered, 0.90 * kSeeds);
    EXPECT_LE(covered, 0.95 * kSeeds);
    std::printf("%d windows: %d of %d intervals cover no difference\n", windows, covered, kSeeds);
  }
}

// Within a window dependence does no harm, and there are fewer borders for it to cross.
TEST(Dependent, LongerWindowsMakeUpForIt) { ExpectCoverage(CoveredWithDependence(256, 0.3, 8)); }

}  // namespace
}  // namespace nibble
