#include "eval/perplexity.h"

#include <numeric>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "eval/log_probs.h"
#include "eval/metric.h"
#include "eval/statistics.h"

namespace nibble::eval {

absl::StatusOr<std::vector<Metric>> MeasurePerplexity(const Plan& plan, ThreadPool& pool,
                                                      const TextWindows& windows) {
  Metric metric = MakeMetric({.name = absl::StrCat("perplexity/", windows.set),
                              .unit = "ppl",
                              .better = LOWER,
                              .aggregate = Metric::EXP_MEAN,
                              .convention = windows.convention,
                              .arithmetic = ArithmeticOf(plan)});
  const auto visit = [&](Session& session, size_t i, const float* hidden) -> absl::Status {
    NIBBLE_ASSIGN_OR_RETURN(const TargetScores scores, ScoreTargets(plan, session, pool, hidden, windows.Targets(i)));
    AddBlock(std::accumulate(scores.nll.begin(), scores.nll.end(), 0.0), static_cast<double>(scores.nll.size()),
             &metric);
    return absl::OkStatus();
  };
  NIBBLE_RETURN_IF_ERROR(VisitWindows(plan, pool, windows, metric.name(), visit));
  NIBBLE_RETURN_IF_ERROR(FillMetric(&metric));
  return std::vector<Metric>{metric};
}

}  // namespace nibble::eval
