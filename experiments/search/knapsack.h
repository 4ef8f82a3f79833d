// The multiple-choice knapsack: one choice for each unit, least loss within a budget.
#ifndef NIBBLE_EXPERIMENTS_SEARCH_KNAPSACK_H_
#define NIBBLE_EXPERIMENTS_SEARCH_KNAPSACK_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace nibble {

// A way to treat a unit. Neither number is negative.
struct Choice {
  double cost = 0, loss = 0;
};

struct Selection {
  std::vector<int> choice;  // of each unit
  double cost = 0, loss = 0;
};

// The best selections for every budget up to that which the cheapest of the least
// losses costs, by dynamic programming over costs in `steps` equal parts, each cost
// rounded up: a selection never exceeds its budget, and misses the best one by the
// parts that rounding took at most.
class Knapsack {
 public:
  // Each unit has one choice or more.
  Knapsack(std::vector<std::vector<Choice>> units, int steps = 8192);

  // An error below what the cheapest choices cost, which it says.
  absl::StatusOr<Selection> Best(double budget) const;

  // Every selection that no cheaper one beats, by cost.
  std::vector<Selection> Front() const;

 private:
  int Total() const;  // parts of the table
  void Fill();
  Selection Trace(int part) const;
  int Parts(size_t unit, int choice) const;

  const std::vector<std::vector<Choice>> units_;
  const int steps_;
  double least_ = 0, part_ = 0;          // cost of the cheapest choices; of a part above it
  std::vector<double> loss_;             // of the best selection within each number of parts
  std::vector<std::vector<int16_t>> chosen_;  // [unit][parts]
};

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_SEARCH_KNAPSACK_H_
