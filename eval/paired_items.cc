#include "eval/paired_items.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <numbers>
#include <vector>

namespace nibble {
namespace {

bool IsAnswer(double score) { return score == 0 || score == 1; }

// Probabilities of a sum of `n` steps that are +1 with probability `up` and -1 with `down`,
// for the sums first, first + 1 ... first + count - 1, by the inverse Fourier transform of
// its characteristic function. What lies outside of these sums must be negligible.
std::vector<double> SumOfSteps(int64_t n, double up, double down, int64_t first, int64_t count) {
  using Complex = std::complex<double>;
  std::vector<Complex> transform(count);
  for (int64_t j = 0; j < count; ++j) {
    const double angle = 2 * std::numbers::pi * static_cast<double>(j) / static_cast<double>(count);
    const Complex step = up * std::polar(1.0, angle) + down * std::polar(1.0, -angle) + (1 - up - down);
    transform[j] = step == Complex() ? Complex() : std::pow(step, static_cast<double>(n));
  }
  std::vector<double> probability(count);
  for (int64_t k = 0; k < count; ++k) {
    double sum = 0;
    for (int64_t j = 0; j < count; ++j) {
      const double turn = static_cast<double>(j * (first + k) % count) / static_cast<double>(count);
      sum += (transform[j] * std::polar(1.0, -2 * std::numbers::pi * turn)).real();
    }
    probability[k] = sum / static_cast<double>(count);
  }
  return probability;
}

// How many standard errors the observed difference is above `difference`, the error under
// that difference, where `lost` is as likely as is possible with it.
double ScoreOf(const PairedItems& pairs, double difference) {
  const auto n = static_cast<double>(pairs.items), gained = static_cast<double>(pairs.gained), lost = static_cast<double>(pairs.lost);
  const double b = (2 * n - gained + lost) * difference - gained - lost, c = -lost * difference * (1 - difference);
  const double share_lost = (std::sqrt(b * b - 8 * n * c) - b) / (4 * n);
  const double variance = n * (2 * share_lost + difference * (1 - difference)), distance = gained - lost - n * difference;
  if (distance == 0) return 0;
  return distance / std::sqrt(std::max(variance, 1e-300));
}

// Where ScoreOf, which falls, passes `score` between `low` and `high`.
double DifferenceOfScore(const PairedItems& pairs, double score, double low, double high) {
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (ScoreOf(pairs, middle) > score ? low : high) = middle;
  }
  return (low + high) / 2;
}

}  // namespace

std::optional<PairedItems> CountPairs(const Metric& variant, const Metric& baseline) {
  const int items = variant.block_sum_size();
  if (variant.aggregate() != Metric::MEAN || items == 0 || items != baseline.block_sum_size()) return std::nullopt;
  PairedItems pairs;
  pairs.items = items;
  for (int i = 0; i < items; ++i) {
    const double ours = variant.block_sum(i), theirs = baseline.block_sum(i);
    const bool is_item = variant.block_weight_size() == 0 || variant.block_weight(i) == 1;
    if (!is_item || !IsAnswer(ours) || !IsAnswer(theirs)) return std::nullopt;
    pairs.gained += ours > theirs;
    pairs.lost += ours < theirs;
  }
  return pairs;
}

double McNemarP(const PairedItems& pairs) {
  const auto changed = static_cast<double>(pairs.gained + pairs.lost);
  double tail = 0;
  for (int64_t i = 0; i <= std::min(pairs.gained, pairs.lost); ++i) {
    const auto x = static_cast<double>(i);
    tail += std::exp(std::lgamma(changed + 1) - std::lgamma(x + 1) - std::lgamma(changed - x + 1) - changed * std::numbers::ln2);
  }
  return std::min(1.0, 2 * tail);
}

Interval ScoreInterval(const PairedItems& pairs) {
  constexpr double kNormal975 = 1.9599639845400545;
  const double middle = static_cast<double>(pairs.gained - pairs.lost) / static_cast<double>(pairs.items);
  return {DifferenceOfScore(pairs, kNormal975, -1, middle), DifferenceOfScore(pairs, -kNormal975, middle, 1)};
}

Interval BootstrapInterval(const PairedItems& pairs) {
  const auto n = static_cast<double>(pairs.items);
  const double up = static_cast<double>(pairs.gained) / n, down = static_cast<double>(pairs.lost) / n;
  const double mean = n * (up - down), deviation = std::sqrt(n * (up + down - (up - down) * (up - down)));
  // Ten deviations and a few steps to each side, or all sums there are.
  const int64_t reach = std::min(2 * pairs.items, static_cast<int64_t>(10 * deviation) + 10);
  const int64_t first = std::llround(mean) - reach, count = 2 * reach + 1;
  const std::vector<double> probability = SumOfSteps(pairs.items, up, down, first, count);
  const auto quantile = [&](double share) {
    double sum = 0;
    int64_t k = 0;
    for (; k < count; ++k) {
      sum += probability[k];
      if (sum >= share) break;
    }
    return static_cast<double>(first + k) / n;
  };
  return {quantile(0.025), quantile(0.975)};
}

}  // namespace nibble
