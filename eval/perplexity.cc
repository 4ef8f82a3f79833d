#include "eval/perplexity.h"

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "eval/log_probs.h"
#include "eval/metric.h"
#include "eval/statistics.h"

namespace nibble::eval {

absl::StatusOr<PerplexityRecords> RecordPerplexity(const Plan& plan, ThreadPool& pool, const TextWindows& windows) {
  PerplexityRecords records{HeadOf(windows, plan), {}, {}};
  const auto visit = [&](Session& session, size_t i, const float* hidden) -> absl::Status {
    const absl::Span<const int32_t> targets = windows.Targets(i);
    NIBBLE_ASSIGN_OR_RETURN(const TargetScores scores, ScoreTargets(plan, session, pool, hidden, targets));
    records.nll.insert(records.nll.end(), scores.nll.begin(), scores.nll.end());
    records.targets.insert(records.targets.end(), targets.begin(), targets.end());
    return absl::OkStatus();
  };
  NIBBLE_RETURN_IF_ERROR(VisitWindows(plan, pool, windows, absl::StrCat("perplexity/", windows.set), visit));
  return records;
}

absl::StatusOr<std::vector<Metric>> MetricsOf(const PerplexityRecords& records) {
  Metric metric = MakeMetric({.name = absl::StrCat("perplexity/", records.set),
                              .unit = "ppl",
                              .better = LOWER,
                              .aggregate = Metric::EXP_MEAN,
                              .convention = records.convention,
                              .arithmetic = records.arithmetic});
  AddWindows(records, records.nll, &metric);
  NIBBLE_RETURN_IF_ERROR(FillMetric(&metric));
  return std::vector<Metric>{metric};
}

absl::StatusOr<std::vector<Metric>> MeasurePerplexity(const Plan& plan, ThreadPool& pool, const TextWindows& windows) {
  NIBBLE_ASSIGN_OR_RETURN(const PerplexityRecords records, RecordPerplexity(plan, pool, windows));
  return MetricsOf(records);
}

}  // namespace nibble::eval
