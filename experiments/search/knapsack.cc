#include "experiments/search/knapsack.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"
#include "core/base/check.h"

namespace nibble {
namespace {

double Cheapest(const std::vector<Choice>& choices) {
  return std::min_element(choices.begin(), choices.end(), [](const Choice& a, const Choice& b) { return a.cost < b.cost; })->cost;
}

// The cost of the cheapest of the choices with the least loss.
double CostOfBest(const std::vector<Choice>& choices) {
  return std::min_element(choices.begin(), choices.end(), [](const Choice& a, const Choice& b) {
           return a.loss != b.loss ? a.loss < b.loss : a.cost < b.cost;
         })->cost;
}

}  // namespace

Knapsack::Knapsack(std::vector<std::vector<Choice>> units, int steps) : units_(std::move(units)), steps_(steps) {
  double most = 0;
  for (const auto& choices : units_) {
    NIBBLE_CHECK(!choices.empty());
    least_ += Cheapest(choices);
    most += CostOfBest(choices);
  }
  part_ = std::max(most - least_, std::numeric_limits<double>::min()) / steps_;
  Fill();
}

// The cost of a choice above the unit's cheapest, rounded up to parts but for
// rounding errors of the division itself.
int Knapsack::Parts(size_t unit, int choice) const {
  const double parts = (units_[unit][choice].cost - Cheapest(units_[unit])) / part_;
  return static_cast<int>(std::min<double>(std::ceil(parts * (1 - 1e-12)), Total() + 1));
}

// Rounding up may need one part for each unit more than the sum has.
int Knapsack::Total() const { return steps_ + static_cast<int>(units_.size()); }

void Knapsack::Fill() {
  const int total = Total();
  loss_.assign(total + 1, 0.0);
  for (size_t u = 0; u < units_.size(); ++u) {
    std::vector<double> next(total + 1, std::numeric_limits<double>::infinity());
    std::vector<int16_t>& chosen = chosen_.emplace_back(total + 1, int16_t{0});
    for (int c = 0; c < static_cast<int>(units_[u].size()); ++c) {
      const int parts = Parts(u, c);
      for (int p = parts; p <= total; ++p) {
        const double loss = loss_[p - parts] + units_[u][c].loss;
        const bool cheaper = loss == next[p] && units_[u][c].cost < units_[u][chosen[p]].cost;
        if (loss < next[p] || cheaper) next[p] = loss, chosen[p] = static_cast<int16_t>(c);
      }
    }
    loss_ = std::move(next);
  }
}

Selection Knapsack::Trace(int part) const {
  Selection selection;
  selection.choice.resize(units_.size());
  for (size_t u = units_.size(); u-- > 0;) {
    const int c = chosen_[u][part];
    selection.choice[u] = c;
    selection.cost += units_[u][c].cost;
    selection.loss += units_[u][c].loss;
    part -= Parts(u, c);
  }
  return selection;
}

absl::StatusOr<Selection> Knapsack::Best(double budget) const {
  if (budget < least_ * (1 - 1e-12)) return absl::OutOfRangeError(absl::StrFormat("even the cheapest choices cost %.6g", least_));
  const double parts = std::floor((budget - least_) / part_ * (1 + 1e-12));
  return Trace(static_cast<int>(std::max(0.0, std::min<double>(parts, static_cast<double>(loss_.size() - 1)))));
}

std::vector<Selection> Knapsack::Front() const {
  std::vector<Selection> front;
  double last = std::numeric_limits<double>::infinity();
  for (size_t part = 0; part < loss_.size(); ++part) {
    if (loss_[part] < last) front.push_back(Trace(static_cast<int>(part)));
    last = std::min(last, loss_[part]);
  }
  return front;
}

}  // namespace nibble
