// results.jsonl: one JobResult a line, appended and flushed as each job ends,
// so that a kill loses at most the job at work. A run on an existing folder
// skips the keys that are there without an error. Raw records of a result are
// the file records/<key>.safetensors beside it.
#ifndef NIBBLE_EXPERIMENTS_RESULT_LOG_H_
#define NIBBLE_EXPERIMENTS_RESULT_LOG_H_

#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "eval/result.pb.h"

namespace nibble {

class ResultLog {
 public:
  // Opens dir/results.jsonl and reads the keys of finished jobs.
  static absl::StatusOr<ResultLog> Open(const std::string& dir);

  bool Finished(const std::string& key) const { return finished_.count(key) > 0; }
  // `records`: the bytes of the result's raw records, "" for none. Where they cannot be
  // written the result says why, and is whole without them.
  absl::Status Append(JobResult result, absl::string_view records = "");

 private:
  explicit ResultLog(const std::string& dir) : dir_(dir), path_(dir + "/results.jsonl") {}
  RecordsFile WriteRecords(const std::string& key, absl::string_view records) const;
  // The file's last line has no end: a kill tore it.
  bool NeedsNewline() const;

  const std::string dir_, path_;
  std::set<std::string> finished_;
};

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_RESULT_LOG_H_
