#include "eval/paired_items.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/rng.h"
#include "core/base/testing.h"

namespace nibble {
namespace {

Metric Answers(const std::vector<double>& scores) {
  Metric metric;
  metric.set_name("accuracy/set");
  metric.set_aggregate(Metric::MEAN);
  for (const double score : scores) {
    metric.add_block_sum(score);
    metric.add_block_weight(1);
  }
  return metric;
}

TEST(PairedItems, AreCounted) {
  const auto pairs = CountPairs(Answers({1, 1, 0, 0, 1}), Answers({1, 0, 0, 1, 0}));
  ASSERT_TRUE(pairs.has_value());
  EXPECT_EQ(pairs->items, 5);
  EXPECT_EQ(pairs->gained, 2);
  EXPECT_EQ(pairs->lost, 1);
}

TEST(PairedItems, NeedAnswersToTheSameItems) {
  EXPECT_FALSE(CountPairs(Answers({1, 0}), Answers({1})).has_value());
  EXPECT_FALSE(CountPairs(Answers({1, 0.5}), Answers({1, 0})).has_value());
  EXPECT_FALSE(CountPairs(Answers({}), Answers({})).has_value());
  Metric weighted = Answers({1, 0});
  weighted.set_block_weight(0, 2);
  EXPECT_FALSE(CountPairs(weighted, Answers({1, 0})).has_value());
}

// Binomial tails by hand: 2 (1 + 6) / 2^6, 2 (1 + 10 + 45) / 2^10, 2 / 2^5.
TEST(McNemar, ExactTails) {
  EXPECT_NEAR(McNemarP({100, 1, 5}), 14.0 / 64, 1e-12);
  EXPECT_NEAR(McNemarP({100, 8, 2}), 112.0 / 1024, 1e-12);
  EXPECT_NEAR(McNemarP({100, 5, 0}), 2.0 / 32, 1e-12);
  EXPECT_EQ(McNemarP({100, 0, 0}), 1);
  EXPECT_EQ(McNemarP({100, 3, 3}), 1);
  EXPECT_LT(McNemarP({100000, 30000, 20000}), 1e-300);
}

// Nothing changed: n d / (1 - d) = z^2, so d = z^2 / (n + z^2).
TEST(ScoreInterval, WithoutAChangeItIsNotEmpty) {
  const double square = 1.9599639845400545 * 1.9599639845400545;
  for (const int64_t n : {10, 100, 1000}) {
    EXPECT_NEAR(ScoreInterval({n, 0, 0}).high, square / (static_cast<double>(n) + square), 1e-12);
    EXPECT_NEAR(ScoreInterval({n, 0, 0}).low, -square / (static_cast<double>(n) + square), 1e-12);
  }
}

// 40 of 100 changed, half each way: under a difference d the likeliest share lost is the root
// of 200 q^2 + (200 d - 40) q - 20 d (1 - d).
TEST(ScoreInterval, AtItsEndsTheScoreIsTheQuantile) {
  const Interval interval = ScoreInterval({100, 20, 20});
  EXPECT_NEAR(interval.low, -interval.high, 1e-12);
  const double d = interval.high, b = 200 * d - 40, q = (std::sqrt(b * b + 4 * 200 * 20 * d * (1 - d)) - b) / 400;
  EXPECT_NEAR(100 * d / std::sqrt(100 * (2 * q + d * (1 - d))), 1.9599639845400545, 1e-9);
}

TEST(ScoreInterval, HoldsTheDifferenceAndStaysInRange) {
  for (const PairedItems& pairs : {PairedItems{5, 5, 0}, PairedItems{5, 0, 5}, PairedItems{7, 3, 1}, PairedItems{1000, 4, 1}}) {
    const Interval interval = ScoreInterval(pairs);
    const double difference = static_cast<double>(pairs.gained - pairs.lost) / static_cast<double>(pairs.items);
    EXPECT_LE(interval.low, difference);
    EXPECT_GE(interval.high, difference);
    EXPECT_GE(interval.low, -1);
    EXPECT_LE(interval.high, 1);
  }
}

// One item: a resample is that item. Two items, one gained: sums 0, 1, 2 with 1/4, 1/2, 1/4.
TEST(Bootstrap, SmallCasesByHand) {
  EXPECT_EQ(BootstrapInterval({1, 1, 0}).low, 1);
  EXPECT_EQ(BootstrapInterval({1, 1, 0}).high, 1);
  EXPECT_EQ(BootstrapInterval({2, 1, 0}).low, 0);
  EXPECT_EQ(BootstrapInterval({2, 1, 0}).high, 1);
  EXPECT_EQ(BootstrapInterval({50, 0, 0}).low, 0);
  EXPECT_EQ(BootstrapInterval({50, 0, 0}).high, 0);
}

TEST(Bootstrap, IsTheLimitOfResampling) {
  const PairedItems pairs = {120, 14, 6};
  Rng rng(3);
  std::vector<double> differences;
  for (int resample = 0; resample < 40000; ++resample) {
    int sum = 0;
    for (int i = 0; i < pairs.items; ++i) {
      const uint64_t item = rng.Below(pairs.items);
      sum += item < 14 ? 1 : item < 20 ? -1 : 0;
    }
    differences.push_back(static_cast<double>(sum) / 120);
  }
  std::sort(differences.begin(), differences.end());
  const Interval interval = BootstrapInterval(pairs);
  EXPECT_NEAR(interval.low, differences[1000], 1.01 / 120);
  EXPECT_NEAR(interval.high, differences[39000], 1.01 / 120);
}

}  // namespace
}  // namespace nibble
