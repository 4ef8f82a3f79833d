// What a run's results say beyond its cells, made once for every form of the
// report.
#ifndef NIBBLE_REPORTS_FINDINGS_H_
#define NIBBLE_REPORTS_FINDINGS_H_

#include <string>
#include <vector>

#include "reports/contrasts.h"
#include "reports/gate.h"
#include "reports/layers.h"
#include "reports/repetitions.h"

namespace nibble {

struct Findings {
  std::vector<GateOutcome> gates;
  std::vector<ContrastedMetric> contrasts;
  std::vector<RepeatedMetric> repetitions;
  std::vector<LayerGroup> layers;
  std::vector<WeightGroup> weights;
  std::vector<std::string> notes;  // what the reader of the log skipped or found odd
};

}  // namespace nibble

#endif  // NIBBLE_REPORTS_FINDINGS_H_
