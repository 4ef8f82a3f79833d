#include "experiments/recompute.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "eval/raw_records.h"
#include "eval/statistics.h"
#include "reports/run_log.h"
#include "reports/run_table.h"

namespace nibble {
namespace {

absl::StatusOr<std::vector<Metric>> MetricsFrom(const std::string& dir, const JobResult& result) {
  const RecordsFile& file = result.records();
  if (!result.has_records()) return absl::NotFoundError("no raw records were kept; measure it again in another folder");
  if (file.has_missing()) return absl::NotFoundError(absl::StrCat("records are missing: ", file.missing()));
  const std::string path = absl::StrCat(dir, "/", file.name());
  if (!FileExists(path)) return absl::NotFoundError(absl::StrCat("records are missing: no file ", path));
  NIBBLE_ASSIGN_OR_RETURN(const std::string sha256, Sha256OfFile(path));
  if (sha256 != file.sha256()) {
    return absl::DataLossError(absl::StrCat("records are damaged: ", path, " has the SHA-256 ", sha256, ", the result names ", file.sha256()));
  }
  NIBBLE_ASSIGN_OR_RETURN(const eval::RawRecords records, eval::ReadRawRecords(path));
  return eval::MetricsOf(records);
}

RecomputedMetric CompareWith(const Metric& stored, const absl::StatusOr<std::vector<Metric>>& metrics) {
  RecomputedMetric recomputed{"", stored.name(), std::nullopt, ""};
  if (!metrics.ok()) {
    recomputed.problem = std::string(metrics.status().message());
    return recomputed;
  }
  const auto again = std::find_if(metrics->begin(), metrics->end(), [&](const Metric& metric) { return metric.name() == stored.name(); });
  if (again == metrics->end()) {
    recomputed.problem = "the records give no such metric";
    return recomputed;
  }
  recomputed.value = again->value();
  if (again->value() != stored.value()) {
    recomputed.problem = absl::StrFormat("stored as %.17g", stored.value());
  } else if (again->SerializeAsString() != stored.SerializeAsString()) {
    recomputed.problem = "blocks, standard error or convention differ from the stored ones";
  }
  return recomputed;
}

}  // namespace

absl::StatusOr<std::vector<RecomputedMetric>> RecomputeMetrics(const std::string& dir) {
  NIBBLE_ASSIGN_OR_RETURN(const RunLog log, ReadRunLog(dir));
  const RunTable table(log.run, log.results);
  std::vector<RecomputedMetric> recomputed;
  for (const std::string& variant : table.variants()) {
    for (const JobResult* result : table.Results(variant)) {
      std::optional<absl::StatusOr<std::vector<Metric>>> metrics;
      for (const Metric& metric : result->metric()) {
        if (table.Source(variant, metric.name()) != result || !(IsQuality(metric) || IsDistance(metric))) continue;
        if (!metrics.has_value()) metrics = MetricsFrom(dir, *result);
        recomputed.push_back(CompareWith(metric, *metrics));
        recomputed.back().variant = variant;
      }
    }
  }
  return recomputed;
}

std::string FormatRecomputed(const std::vector<RecomputedMetric>& metrics) {
  std::string text;
  int64_t equal = 0;
  for (const RecomputedMetric& metric : metrics) {
    equal += metric.problem.empty();
    absl::StrAppend(&text, metric.problem.empty() ? "EQUAL " : "DIFFERS ", metric.variant, " ", metric.metric, ": ");
    if (metric.value.has_value()) absl::StrAppendFormat(&text, "%.17g from the records", *metric.value);
    if (metric.value.has_value() && !metric.problem.empty()) absl::StrAppend(&text, ", ");
    absl::StrAppend(&text, metric.problem, "\n");
  }
  absl::StrAppend(&text, equal, " of ", metrics.size(), " quality metrics are equal to what their raw records give\n");
  return text;
}

bool AllEqual(const std::vector<RecomputedMetric>& metrics) {
  return std::all_of(metrics.begin(), metrics.end(), [](const RecomputedMetric& metric) { return metric.problem.empty(); });
}

}  // namespace nibble
