// Standard errors of metrics and paired comparisons with the baseline.
//
// A metric is recorded as blocks that repeat: block i has a sum
// s_i and a weight w_i (a window's negative log-likelihood and tokens, an item's
// score and 1, a timing round's time and tokens). n is the number of blocks,
// W = sum(w_i), m = sum(s_i) / W.
//
//   stderr(m) = sqrt(n / (n - 1) * sum((s_i - m w_i)^2)) / W
//
// is the linearised (delta method) standard error of a ratio of two sums; with
// all weights 1 it is s / sqrt(n). Source: W. G. Cochran, "Sampling Techniques",
// 3rd edition, 1977, section 6.4, without the finite population correction.
//
// Blocks of a text (windows, documents; not items that are scored, nor rounds) follow one
// another, and a difficult page is followed by another. Their standard errors take a factor
// sqrt((1 + r) / (1 - r)), r from 0 to 0.9 the correlation of neighbouring residuals
// e_i = s_i - m w_i,
//
//   r = r' + (1 + 4 r') / n,    r' = sum(e_i e_(i+1)) / sum(e_i^2)
//
// as in an autoregressive process of order 1 (Bayley & Hammersley, "The effective number of
// independent observations in an autocorrelated time series", 1946); the second term takes
// off the bias of r' (Marriott & Pope, "Bias in the estimation of autocorrelations", 1954).
// experiments/null_test.cc holds the intervals against draws of both kinds.
//
// A variant and the baseline saw the same blocks, so that what an easy or a hard
// block adds to both cancels in the differences d_i = s_i(variant) -
// s_i(baseline). With D = sum(d_i) / W and t the 97.5 % quantile of Student's t
// with n - 1 degrees of freedom:
//
//   MEAN       difference D +- t stderr(D)
//   EXP_MEAN   ratio exp(D), from exp(D - t stderr(D)) to exp(D + t stderr(D))
//   RATE, TIME ratio exp(mean(l_i)), likewise, where l_i is the logarithm of the
//              ratio of round i; the geometric mean of the rounds' ratios, which
//              may differ a little from the ratio of the two medians
//   NONE       value / baseline value, exact, without an interval
//
// Of items that are right or wrong the interval of D is the score interval, and a comparison
// also has McNemar's test and the paired bootstrap (paired_items.h).
#ifndef NIBBLE_EVAL_STATISTICS_H_
#define NIBBLE_EVAL_STATISTICS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "eval/paired_items.h"
#include "eval/result.pb.h"

namespace nibble {

struct Estimate {
  double value = 0;
  std::optional<Interval> interval;
};

// A variant's metric against the baseline's.
struct Comparison {
  std::optional<Estimate> ratio;       // EXP_MEAN, RATE, TIME, NONE
  std::optional<Estimate> difference;  // MEAN
  std::optional<double> recovery;      // scores: 100 * value / baseline value
  std::optional<PairedItems> items;    // of right and wrong answers to the same items
  // Why the interval or the whole estimate is missing; empty when nothing is.
  std::string why;

  // Whether the two values may be set against each other at all.
  bool comparable() const { return ratio.has_value() || difference.has_value(); }
};

// Sets value, stderr and count from aggregate and the blocks, in place of what
// they held; the one place where they are computed.
//   MEAN, EXP_MEAN  as above; the stderr of an EXP_MEAN is value * stderr(m).
//                   count is W, for a MEAN with all weights 1 so the number of items.
//   RATE, TIME      the median of the rounds, count their number. The stderr is
//                   sqrt(pi / 2) s / sqrt(n), that of the median of many normal
//                   rounds (of few it is a little less).
//   NONE            value is the caller's; stderr is removed.
// With one block there is no stderr. An error names the metric and the block.
absl::Status FillMetric(Metric* metric);

// Compares `variant` with the baseline's metric of the same name; null: it has
// none. A timing that carries baseline_block_sum is compared with those rounds.
Comparison Compare(const Metric& variant, const Metric* baseline);

// What share (in %) of what rounding lost against `reference` training brought
// back: 100 (untrained - trained) / (untrained - reference), of values
// (perplexities, accuracies) over the same blocks. The interval is the
// jackknife's over blocks (Efron & Tibshirani, "An Introduction to the
// Bootstrap", 1993, chapter 11), with the factor of a text. Without a value where rounding
// lost nothing.
struct Recovery {
  std::optional<Estimate> share;
  std::string why;  // it is missing, or has no interval
};
Recovery RecoveryOf(const Metric& untrained, const Metric& trained, const Metric& reference);

// One quantity measured several times, such as a variant's over seeds.
struct Spread {
  double mean = 0;
  std::optional<double> deviation;  // standard, with n - 1; needs two values
  double low = 0, high = 0;         // the smallest and the largest value
};
// values: one or more.
Spread SpreadOf(const std::vector<double>& values);

// Comparisons of repetitions of one variant as one: the geometric mean of their
// ratios, or the mean of their differences, with the interval that Student's t
// gives over the n repetitions (of a ratio, over its logarithm). The interval
// holds their spread alone, not that the blocks are a sample too. Without a value
// where one of them has none; `why` says so.
Comparison MeanComparison(const std::vector<Comparison>& repetitions);

// The 95 % interval of a value by itself, value ± t stderr with the degrees of
// freedom of its blocks, of an EXP_MEAN over its logarithm. Nothing without a
// stderr or blocks. Two variants are compared by their own interval (Compare),
// which is narrower, never by whether these overlap.
std::optional<Interval> ValueInterval(const Metric& metric);

// The share of items that a model gets right: accuracies, exact matches.
bool IsScore(const Metric& metric);
// How good a model is by itself: scores, and losses on text. Divergences compare with the
// baseline and are none.
bool IsQuality(const Metric& metric);

// A time or a rate.
bool IsTiming(const Metric& metric);

// A distance from the baseline's model (divergence.h), which another baseline changes.
bool IsDistance(const Metric& metric);

// A latency of simulated arithmetic: never shown, never compared.
bool IsWithheld(const Metric& metric);

// The quantile of Student's t below which 97.5 % lie; degrees >= 1.
double StudentT975(int64_t degrees);

}  // namespace nibble

#endif  // NIBBLE_EVAL_STATISTICS_H_
