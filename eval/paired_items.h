// Right and wrong answers of two models to the same items: how many changed sides, and
// whether that may be chance.
#ifndef NIBBLE_EVAL_PAIRED_ITEMS_H_
#define NIBBLE_EVAL_PAIRED_ITEMS_H_

#include <cstdint>
#include <optional>

#include "eval/result.pb.h"

namespace nibble {

// A 95 % confidence interval.
struct Interval {
  double low = 0;
  double high = 0;
};

struct PairedItems {
  int64_t items = 0;
  int64_t gained = 0, lost = 0;  // right for the variant alone, for the baseline alone
};

// Nothing where items score otherwise than 0 or 1, or are not the same items.
std::optional<PairedItems> CountPairs(const Metric& variant, const Metric& baseline);

// McNemar's exact test: how likely a split of the changed items as uneven as this, or more,
// is where each changes to either side alike (two-sided binomial; Q. McNemar, "Note on the
// sampling error of the difference between correlated proportions or percentages",
// Psychometrika 12, 1947). 1 where nothing changed.
double McNemarP(const PairedItems& pairs);

// The 95 % score interval of the difference (gained - lost) / items: the differences that a
// score test does not refuse. Unlike a t interval it holds its level where few items or none
// changed (T. Tango, "Equivalence test and confidence interval for the difference in
// proportions for the paired-sample design", Statistics in Medicine 17, 1998, section 3).
Interval ScoreInterval(const PairedItems& pairs);

// The paired bootstrap's 95 % percentile interval of the difference (gained - lost) / items
// (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). A resample
// draws each item as gained, lost or neither by their shares, so the distribution over all
// resamples is computed instead of sampled.
Interval BootstrapInterval(const PairedItems& pairs);

}  // namespace nibble

#endif  // NIBBLE_EVAL_PAIRED_ITEMS_H_
