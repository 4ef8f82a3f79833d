#include "experiments/search/knapsack.h"

#include <limits>

#include "core/base/rng.h"
#include "core/base/testing.h"

namespace nibble {
namespace {

std::vector<std::vector<Choice>> RandomUnits(int units, int choices, Rng& rng) {
  std::vector<std::vector<Choice>> all(units);
  for (auto& unit : all) {
    for (int c = 0; c < choices; ++c) unit.push_back({0.1 + rng.Uniform(), rng.Uniform()});
  }
  return all;
}

// The least loss within the budget over every selection; infinite for none.
double BruteForce(const std::vector<std::vector<Choice>>& units, double budget, size_t unit = 0) {
  if (unit == units.size()) return budget >= -1e-12 ? 0 : std::numeric_limits<double>::infinity();
  double best = std::numeric_limits<double>::infinity();
  for (const Choice& choice : units[unit]) best = std::min(best, choice.loss + BruteForce(units, budget - choice.cost, unit + 1));
  return best;
}

TEST(Knapsack, MeetsEverySelectionOfSmallCases) {
  Rng rng(3);
  for (int i = 0; i < 30; ++i) {
    const auto units = RandomUnits(5, 3, rng);
    const Knapsack knapsack(units, 20000);
    for (const double budget : {1.2, 1.8, 2.5, 3.3, 6.0}) {
      const double best = BruteForce(units, budget), slack = BruteForce(units, budget - 5 * 6.0 / 20000);
      const auto selection = knapsack.Best(budget);
      ASSERT_EQ(selection.ok(), std::isfinite(best)) << budget;
      if (!selection.ok()) continue;
      EXPECT_LE(selection->cost, budget + 1e-9);
      EXPECT_GE(selection->loss, best - 1e-6);
      EXPECT_LE(selection->loss, slack + 1e-6);
    }
  }
}

// Whole costs: nothing is lost to rounding.
TEST(Knapsack, ByHand) {
  const Knapsack knapsack({{{1, 9}, {3, 4}, {5, 0}}, {{1, 5}, {2, 1}, {5, 0}}}, 8);
  const auto loss = [&](double budget) { return knapsack.Best(budget)->loss; };
  EXPECT_FALSE(knapsack.Best(1.9).ok());
  EXPECT_EQ(loss(2), 14);
  EXPECT_EQ(loss(3), 10);
  EXPECT_EQ(loss(5), 5);
  EXPECT_EQ(loss(7), 1);
  EXPECT_EQ(loss(9.9), 1);
  EXPECT_EQ(loss(10), 0);
  EXPECT_EQ(loss(1000), 0);
  EXPECT_EQ(knapsack.Best(5)->choice, (std::vector<int>{1, 1}));
}

// A choice of no loss that costs more than all budgets together is never within one.
TEST(Knapsack, AnExpensiveChoiceDoesNotFit) {
  const Knapsack knapsack({{{100, 0}, {1, 5}, {2, 0}}});
  EXPECT_EQ(knapsack.Best(3)->cost, 2);
  EXPECT_EQ(knapsack.Best(1.5)->cost, 1);
}

TEST(Knapsack, TheFrontFallsAsItCosts) {
  Rng rng(4);
  const Knapsack knapsack(RandomUnits(12, 4, rng));
  const std::vector<Selection> front = knapsack.Front();
  ASSERT_GT(front.size(), 10u);
  for (size_t i = 1; i < front.size(); ++i) EXPECT_LT(front[i].loss, front[i - 1].loss + 1e-6);
}

TEST(Knapsack, OneChoiceEach) {
  const Knapsack knapsack({{{2, 1}}, {{3, 1}}});
  EXPECT_FALSE(knapsack.Best(4.9).ok());
  ASSERT_OK_AND_ASSIGN(const Selection selection, knapsack.Best(5));
  EXPECT_EQ(selection.loss, 2);
}

}  // namespace
}  // namespace nibble
