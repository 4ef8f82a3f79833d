// Variants compared with each other instead of with the baseline.
#ifndef NIBBLE_REPORTS_CONTRASTS_H_
#define NIBBLE_REPORTS_CONTRASTS_H_

#include <string>
#include <vector>

#include "eval/result.pb.h"
#include "eval/statistics.h"
#include "reports/run_table.h"

namespace nibble {

// One metric of one contrast. Pointers into the table's run and results.
struct ContrastedMetric {
  const Contrast* contrast = nullptr;
  const Metric* metric = nullptr;  // the variant's
  Comparison comparison;           // with that of Contrast.against

  // "better" or "worse" where the interval leaves no other reading, else "".
  std::string Verdict() const;
};

// By contrast, then metric: those that both variants have, timings left out,
// which pair with the baseline's rounds alone.
std::vector<ContrastedMetric> ContrastedMetrics(const RunTable& table);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_CONTRASTS_H_
