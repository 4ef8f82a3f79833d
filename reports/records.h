// The measurements of a run as flat records, for JSON and CSV.
#ifndef NIBBLE_REPORTS_RECORDS_H_
#define NIBBLE_REPORTS_RECORDS_H_

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "eval/result.pb.h"
#include "eval/statistics.h"
#include "reports/findings.h"
#include "reports/run_table.h"

namespace nibble {

// What a comparison of right and wrong answers to the same items says beside its score interval.
struct ItemTests {
  double mcnemar_p = 1;
  Interval bootstrap;  // of the difference
};
// Nothing of other comparisons.
std::optional<ItemTests> TestsOf(const Comparison& comparison);

// Where the raw records of a figure are. Both empty for what has none by its kind: sizes, timings.
struct RawRecordsPlace {
  std::string file;     // below the run's folder
  std::string missing;  // why they cannot be read there
};

// One metric of one variant.
struct Record {
  std::string variant;
  const Metric* metric = nullptr;
  std::optional<double> baseline_value;  // the baseline's own row repeats its value
  Comparison comparison;                 // empty in the baseline's rows
  std::optional<ItemTests> tests;        // of the comparison
  std::string data_hash;                 // of what the metric read; "" where it read nothing
  RawRecordsPlace raw;
};

// A latency of simulated arithmetic, left out of the records.
struct WithheldMetric {
  std::string variant;
  std::string metric;
  std::string reason;
};

struct Records {
  std::vector<Record> records;  // by variant, then metric
  std::vector<WithheldMetric> withheld;
};

Records MakeRecords(const RunTable& table);

// Records by variant and metric; they must outlive it.
class RecordIndex {
 public:
  explicit RecordIndex(const Records& records);
  // Null where there is none, or its value is not finite.
  const Record* Find(const std::string& variant, const std::string& metric) const;

 private:
  std::map<std::pair<std::string, std::string>, const Record*> index_;
};

// results.json, keys in a fixed order, numbers exact, null for what is absent or
// not finite:
//   run, machine  RunInfo and Machine as protobuf JSON
//   peaks         variant, job, machine: of each timing's result, with the peaks beside it
//   records       variant, metric, value, stderr, count, unit, better ("lower" or
//                 "higher"), baseline_value, arithmetic ("native" or
//                 "simulated"), convention; where there is a comparison ratio,
//                 ratio_low, ratio_high or difference, difference_low,
//                 difference_high; of right and wrong answers to the same items gained,
//                 lost, mcnemar_p, bootstrap_low, bootstrap_high; recovery; note (why an
//                 interval is missing)
//   withheld      variant, metric, reason
//   failures      variant, job, error
//   events        variant, job, what, count, detail
//   layers        variant, method, layer, error, rounding_error, ratio
//   weights       variant, layer, error (null where a rewrite makes it incomparable)
//   repetitions   of (the repeated variant), metric, repetitions, counted, mean,
//                 deviation, min, max; ratio or difference of the mean as in
//                 records; note; values: variant, label ("seed=1"), value,
//                 missing (why there is none, with the error of a failure)
//   contrasts     variant, against, metric, ratio or difference as in records,
//                 verdict ("better", "worse" or ""), note
//   gates         variant, metric, bound, measured, passed, message
//   notes         what the reader of the log skipped or found odd
std::string RecordsJson(const RunTable& table, const Records& records, const Findings& findings);

// The `records` of an earlier run's results.json, each under the name `file`.
// Values that are absent there are left out. Errors name the path.
absl::StatusOr<std::vector<EarlierResult>> ReadEarlierResults(const std::string& path, const std::string& file);

// The records with one header row (RFC 4180: CRLF, quotes where needed); empty
// fields for what is absent. raw_records is a file below the run's folder,
// raw_records_missing why it is not there.
std::string RecordsCsv(const Records& records);

// Every layer of every group (ratio: ErrorRatio) in the same form, then the weights that were
// compared, with the method "weights" and neither rounding_error nor ratio; "" without any.
std::string LayersCsv(const std::vector<LayerGroup>& groups, const std::vector<WeightGroup>& weights);

// One field, quoted where it holds a comma, a quote or a line break.
std::string CsvField(const std::string& text);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_RECORDS_H_
