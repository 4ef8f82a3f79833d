#include "eval/statistics.h"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <numeric>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status.h"

namespace nibble {
namespace {

constexpr double kHalfPi = 1.5707963267948966;
// More is no estimate: of a trend few blocks are left.
constexpr double kMostCorrelation = 0.9;

struct Mean {
  double value = 0;
  std::optional<double> error;  // needs two blocks
};

double Sum(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum;
}

enum class Blocks { kIndependent, kOfAText };

Blocks BlocksOf(const Metric& metric) { return IsTiming(metric) || IsScore(metric) ? Blocks::kIndependent : Blocks::kOfAText; }

// The root of the residuals' sum of squares, larger where neighbours correlate.
double NormOf(const std::vector<double>& residuals, Blocks blocks) {
  const double squares = std::inner_product(residuals.begin(), residuals.end(), residuals.begin(), 0.0);
  if (blocks == Blocks::kIndependent || !(squares > 0)) return std::sqrt(squares);
  const double neighbours = std::inner_product(residuals.begin() + 1, residuals.end(), residuals.begin(), 0.0) / squares;
  const double correlation = neighbours + (1 + 4 * neighbours) / static_cast<double>(residuals.size());
  const double r = std::clamp(correlation, 0.0, kMostCorrelation);
  return std::sqrt(squares * (1 + r) / (1 - r));
}

// sum(sums) / sum(weights) and its standard error.
Mean WeightedMean(const std::vector<double>& sums, const std::vector<double>& weights, Blocks blocks) {
  const double total = Sum(weights);
  Mean mean{Sum(sums) / total, std::nullopt};
  const double n = static_cast<double>(sums.size());
  if (n < 2) return mean;
  std::vector<double> residuals = sums;
  for (size_t i = 0; i < sums.size(); ++i) residuals[i] -= mean.value * weights[i];
  mean.error = std::sqrt(n / (n - 1)) * NormOf(residuals, blocks) / total;
  return mean;
}

Mean PlainMean(const std::vector<double>& values) {
  return WeightedMean(values, std::vector<double>(values.size(), 1.0), Blocks::kIndependent);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

std::vector<double> Sums(const Metric& metric) { return {metric.block_sum().begin(), metric.block_sum().end()}; }

std::vector<double> Weights(const Metric& metric) {
  return {metric.block_weight().begin(), metric.block_weight().end()};
}

bool IsPositive(double value) { return std::isfinite(value) && value > 0; }

absl::Status BlockError(const Metric& metric, int block, absl::string_view what, double got) {
  return absl::InvalidArgumentError(
      absl::StrCat("metric ", metric.name(), ": block ", block, ": ", what, ", got ", got));
}

absl::Status CheckBlocks(const Metric& metric) {
  const int n = metric.block_sum_size();
  if (n == 0) return absl::InvalidArgumentError(absl::StrCat("metric ", metric.name(), " has no blocks"));
  const bool weightless = metric.aggregate() == Metric::TIME && metric.block_weight_size() == 0;
  if (!weightless && metric.block_weight_size() != n) {
    return absl::InvalidArgumentError(absl::StrCat("metric ", metric.name(), ": ", n, " block sums but ",
                                                   metric.block_weight_size(), " block weights"));
  }
  return absl::OkStatus();
}

absl::Status CheckTimings(const Metric& metric) {
  for (int i = 0; i < metric.block_sum_size(); ++i) {
    if (!IsPositive(metric.block_sum(i))) return BlockError(metric, i, "a time must be positive", metric.block_sum(i));
    if (metric.aggregate() == Metric::RATE && !IsPositive(metric.block_weight(i))) {
      return BlockError(metric, i, "a round must process tokens", metric.block_weight(i));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckWeights(const Metric& metric) {
  for (int i = 0; i < metric.block_weight_size(); ++i) {
    const double weight = metric.block_weight(i);
    if (!std::isfinite(weight) || weight < 0) return BlockError(metric, i, "a weight must not be negative", weight);
  }
  if (Sum(Weights(metric)) > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("metric ", metric.name(), ": all block weights are 0"));
}

// What a round counts as: tokens per second or milliseconds.
std::vector<double> Rounds(const Metric& metric) {
  std::vector<double> rounds = Sums(metric);
  if (metric.aggregate() == Metric::TIME) return rounds;
  for (size_t i = 0; i < rounds.size(); ++i) rounds[i] = metric.block_weight(i) / rounds[i];
  return rounds;
}

void SetError(const std::optional<double>& error, double factor, Metric* metric) {
  metric->clear_stderr();
  if (error.has_value()) metric->set_stderr(*error * factor);
}

absl::Status FillTiming(Metric* metric) {
  NIBBLE_RETURN_IF_ERROR(CheckTimings(*metric));
  const std::vector<double> rounds = Rounds(*metric);
  metric->set_value(Median(rounds));
  metric->set_count(rounds.size());
  SetError(PlainMean(rounds).error, std::sqrt(kHalfPi), metric);
  return absl::OkStatus();
}

absl::Status FillMean(Metric* metric) {
  NIBBLE_RETURN_IF_ERROR(CheckWeights(*metric));
  const Mean mean = WeightedMean(Sums(*metric), Weights(*metric), BlocksOf(*metric));
  const bool exponential = metric->aggregate() == Metric::EXP_MEAN;
  metric->set_value(exponential ? std::exp(mean.value) : mean.value);
  metric->set_count(std::llround(Sum(Weights(*metric))));
  SetError(mean.error, exponential ? metric->value() : 1.0, metric);
  return absl::OkStatus();
}

std::string WhyNotComparable(const Metric& variant, const Metric* baseline) {
  if (baseline == nullptr) return "the baseline has no such metric";
  if (IsWithheld(variant)) return "a latency of simulated arithmetic compares with nothing";
  if (IsWithheld(*baseline)) return "the baseline's latency is of simulated arithmetic";
  if (variant.name() != baseline->name() || variant.aggregate() != baseline->aggregate()) {
    return absl::StrCat("not the same metric as the baseline's ", baseline->name());
  }
  if (variant.convention() != baseline->convention()) {
    return absl::StrCat("measured as '", variant.convention(), "', the baseline as '", baseline->convention(), "'");
  }
  if (!std::isfinite(variant.value())) return "the value is not a finite number";
  if (!std::isfinite(baseline->value())) return "the baseline's value is not a finite number";
  if (variant.aggregate() != Metric::MEAN && baseline->value() == 0) return "the baseline's value is 0";
  return "";
}

std::string WhyDifferentWeights(const Metric& variant, const Metric& baseline) {
  for (int i = 0; i < variant.block_sum_size(); ++i) {
    if (variant.block_weight(i) == baseline.block_weight(i)) continue;
    return absl::StrCat("block ", i, " weighs ", variant.block_weight(i), ", the baseline's ",
                        baseline.block_weight(i), ": not the same items");
  }
  return "";
}

std::string WhyNotPaired(const Metric& variant, const Metric& baseline) {
  const int n = variant.block_sum_size();
  if (n != baseline.block_sum_size()) {
    return absl::StrCat(n, " blocks, the baseline has ", baseline.block_sum_size());
  }
  if (n < 2) return n == 0 ? "no blocks were recorded" : "a single block has no spread";
  for (const Metric* metric : {&variant, &baseline}) {
    if (!CheckBlocks(*metric).ok()) return "block sums and weights differ in number";
    const absl::Status usable = IsTiming(*metric) ? CheckTimings(*metric) : CheckWeights(*metric);
    if (!usable.ok()) return std::string(usable.message());
  }
  return IsTiming(variant) ? "" : WhyDifferentWeights(variant, baseline);
}

Mean MeanOfDifferences(const Metric& variant, const Metric& baseline) {
  std::vector<double> differences = Sums(variant);
  for (size_t i = 0; i < differences.size(); ++i) differences[i] -= baseline.block_sum(i);
  return WeightedMean(differences, Weights(variant), BlocksOf(variant));
}

Mean MeanOfLogRatios(const Metric& variant, const Metric& baseline) {
  std::vector<double> logs = Rounds(variant);
  const std::vector<double> base = Rounds(baseline);
  for (size_t i = 0; i < logs.size(); ++i) logs[i] = std::log(logs[i] / base[i]);
  return PlainMean(logs);
}

Estimate WithInterval(const Mean& mean, int blocks) {
  if (!mean.error.has_value()) return {mean.value, std::nullopt};
  const double reach = StudentT975(blocks - 1) * *mean.error;
  return {mean.value, Interval{mean.value - reach, mean.value + reach}};
}

Estimate Exponential(const Estimate& logarithm) {
  Estimate estimate{std::exp(logarithm.value), std::nullopt};
  if (const auto& interval = logarithm.interval) estimate.interval = Interval{std::exp(interval->low), std::exp(interval->high)};
  return estimate;
}

Estimate PairedEstimate(const Metric& variant, const Metric& baseline) {
  const Mean mean = IsTiming(variant) ? MeanOfLogRatios(variant, baseline) : MeanOfDifferences(variant, baseline);
  const Estimate estimate = WithInterval(mean, variant.block_sum_size());
  return variant.aggregate() == Metric::MEAN ? estimate : Exponential(estimate);
}

Estimate PlainEstimate(const Metric& variant, const Metric& baseline) {
  const bool difference = variant.aggregate() == Metric::MEAN;
  return {difference ? variant.value() - baseline.value() : variant.value() / baseline.value(), std::nullopt};
}

Comparison CompareRecords(const Metric& variant, const Metric* baseline) {
  Comparison comparison;
  comparison.why = WhyNotComparable(variant, baseline);
  if (!comparison.why.empty()) return comparison;
  const bool exact = variant.aggregate() == Metric::NONE;
  if (!exact) comparison.why = WhyNotPaired(variant, *baseline);
  const bool paired = !exact && comparison.why.empty();
  Estimate estimate = paired ? PairedEstimate(variant, *baseline) : PlainEstimate(variant, *baseline);
  if (paired) comparison.items = CountPairs(variant, *baseline);
  if (comparison.items.has_value()) estimate.interval = ScoreInterval(*comparison.items);
  (variant.aggregate() == Metric::MEAN ? comparison.difference : comparison.ratio) = estimate;
  if (IsScore(variant) && baseline->value() > 0) {
    comparison.recovery = 100 * variant.value() / baseline->value();
  }
  return comparison;
}

// A metric's value without block `left_out`; -1 leaves out none.
class Shortened {
 public:
  explicit Shortened(const Metric& metric) : metric_(metric), sum_(Sum(Sums(metric))), weight_(Sum(Weights(metric))) {}

  double Value(int left_out) const {
    const double sum = sum_ - (left_out < 0 ? 0 : metric_.block_sum(left_out));
    const double weight = weight_ - (left_out < 0 ? 0 : metric_.block_weight(left_out));
    return metric_.aggregate() == Metric::EXP_MEAN ? std::exp(sum / weight) : sum / weight;
  }

 private:
  const Metric& metric_;
  const double sum_, weight_;
};

double Share(double untrained, double trained, double reference) { return 100 * (untrained - trained) / (untrained - reference); }

Interval JackknifeInterval(double value, std::vector<double> shares, Blocks blocks) {
  const double n = static_cast<double>(shares.size());
  const double mean = Sum(shares) / n;
  for (double& share : shares) share -= mean;
  const double reach = StudentT975(static_cast<int64_t>(shares.size()) - 1) * std::sqrt((n - 1) / n) * NormOf(shares, blocks);
  return {value - reach, value + reach};
}

// The baseline's timing in the rounds that alternated with the variant's.
absl::StatusOr<Metric> BaselineBeside(const Metric& variant, const Metric& baseline) {
  Metric beside = baseline;
  *beside.mutable_block_sum() = variant.baseline_block_sum();
  *beside.mutable_block_weight() = variant.block_weight();
  NIBBLE_RETURN_IF_ERROR(FillMetric(&beside));
  return beside;
}

}  // namespace

bool IsScore(const Metric& metric) {
  return metric.aggregate() == Metric::MEAN && metric.unit() == "fraction" && !absl::StartsWith(metric.name(), "top1_agreement/");
}

bool IsQuality(const Metric& metric) {
  return IsScore(metric) || metric.aggregate() == Metric::EXP_MEAN || absl::StartsWith(metric.name(), "bits_per_byte/");
}

double StudentT975(int64_t degrees) {
  NIBBLE_CHECK(degrees >= 1);
  return boost::math::quantile(boost::math::students_t(static_cast<double>(degrees)), 0.975);
}

Recovery RecoveryOf(const Metric& untrained, const Metric& trained, const Metric& reference) {
  Recovery recovery;
  for (const Metric* other : {&trained, &reference}) {
    recovery.why = WhyNotComparable(untrained, other);
    if (!recovery.why.empty()) return recovery;
  }
  const double lost = untrained.value() - reference.value();
  if (untrained.better() == HIGHER ? lost >= 0 : lost <= 0) {
    recovery.why = "rounding lost nothing against the reference";
    return recovery;
  }
  recovery.share = Estimate{Share(untrained.value(), trained.value(), reference.value()), std::nullopt};
  for (const Metric* other : {&trained, &reference}) {
    if (recovery.why.empty()) recovery.why = WhyNotPaired(untrained, *other);
  }
  if (!recovery.why.empty()) return recovery;
  const Shortened u(untrained), t(trained), r(reference);
  std::vector<double> shares;
  for (int i = 0; i < untrained.block_sum_size(); ++i) shares.push_back(Share(u.Value(i), t.Value(i), r.Value(i)));
  if (absl::c_all_of(shares, [](double share) { return std::isfinite(share); })) {
    recovery.share->interval = JackknifeInterval(recovery.share->value, shares, BlocksOf(untrained));
  } else {
    recovery.why = "without one of the blocks rounding would have lost nothing";
  }
  return recovery;
}

Spread SpreadOf(const std::vector<double>& values) {
  NIBBLE_CHECK(!values.empty());
  const Mean mean = PlainMean(values);
  Spread spread{mean.value, std::nullopt, *absl::c_min_element(values), *absl::c_max_element(values)};
  if (mean.error.has_value()) spread.deviation = *mean.error * std::sqrt(static_cast<double>(values.size()));
  return spread;
}

Comparison MeanComparison(const std::vector<Comparison>& repetitions) {
  NIBBLE_CHECK(!repetitions.empty());
  Comparison result;
  std::vector<double> values;
  for (const Comparison& each : repetitions) {
    if (each.ratio.has_value() && !IsPositive(each.ratio->value)) {
      result.why = "the ratio of a repetition is not positive";
    } else if (!each.comparable()) {
      result.why = each.why;
    }
    if (!result.why.empty()) return result;
    values.push_back(each.ratio.has_value() ? std::log(each.ratio->value) : each.difference->value);
  }
  const Estimate mean = WithInterval(PlainMean(values), static_cast<int>(values.size()));
  if (!mean.interval.has_value()) result.why = "a single repetition has no spread";
  if (repetitions[0].ratio.has_value()) {
    result.ratio = Exponential(mean);
  } else {
    result.difference = mean;
  }
  return result;
}

std::optional<Interval> ValueInterval(const Metric& metric) {
  const int blocks = metric.block_sum_size();
  if (!metric.has_stderr() || blocks < 2) return std::nullopt;
  const double value = metric.value(), reach = StudentT975(blocks - 1) * metric.stderr();
  if (metric.aggregate() != Metric::EXP_MEAN) return Interval{value - reach, value + reach};
  return Interval{value * std::exp(-reach / value), value * std::exp(reach / value)};
}

bool IsTiming(const Metric& metric) {
  return metric.aggregate() == Metric::RATE || metric.aggregate() == Metric::TIME;
}

bool IsDistance(const Metric& metric) { return absl::StartsWith(metric.name(), "kl/") || absl::StartsWith(metric.name(), "top1_agreement/"); }

bool IsWithheld(const Metric& metric) { return IsTiming(metric) && metric.arithmetic() == SIMULATED; }

absl::Status FillMetric(Metric* metric) {
  if (metric->aggregate() == Metric::NONE) {
    metric->clear_stderr();
    return absl::OkStatus();
  }
  NIBBLE_RETURN_IF_ERROR(CheckBlocks(*metric));
  return IsTiming(*metric) ? FillTiming(metric) : FillMean(metric);
}

Comparison Compare(const Metric& variant, const Metric* baseline) {
  if (baseline != nullptr && IsTiming(variant) && variant.baseline_block_sum_size() > 0) {
    const absl::StatusOr<Metric> beside = BaselineBeside(variant, *baseline);
    if (beside.ok()) return CompareRecords(variant, &*beside);
    Comparison refused;
    refused.why = std::string(beside.status().message());
    return refused;
  }
  return CompareRecords(variant, baseline);
}

}  // namespace nibble
