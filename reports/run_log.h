// The folder of a run: run.json (a RunInfo as protobuf JSON) and results.jsonl
// (one JobResult as protobuf JSON per line, appended as jobs end).
#ifndef NIBBLE_REPORTS_RUN_LOG_H_
#define NIBBLE_REPORTS_RUN_LOG_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "eval/result.pb.h"

namespace nibble {

struct RunLog {
  RunInfo run;
  std::vector<JobResult> results;
  std::vector<std::string> notes;  // what was skipped, for the report
};

// Reads both files. A missing results.jsonl is a run of which no job has ended.
absl::StatusOr<RunLog> ReadRunLog(const std::string& dir);

// Raw records that results name and `dir` has no more become missing (RecordsFile.missing).
void MarkMissingRecords(const std::string& dir, std::vector<JobResult>* results);

// Appends the lines of `text` to `log`. A line that is no whole JSON document (a
// kill tore it, or its disk was full) is skipped with a note, as are fields that
// another version wrote; JSON that is no JobResult is an error. Of several lines with one key the last counts.
// Standard errors are computed anew from the blocks (FillMetric).
// `source` (a path) starts every message.
absl::Status ParseResultLines(absl::string_view text, absl::string_view source, RunLog* log);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_RUN_LOG_H_
