// results.jsonl: one JobResult a line, appended and flushed as each job ends,
// so that a kill loses at most the job at work. A run on an existing folder
// skips the keys that are there without an error.
#ifndef NIBBLE_EXPERIMENTS_RESULT_LOG_H_
#define NIBBLE_EXPERIMENTS_RESULT_LOG_H_

#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "eval/result.pb.h"

namespace nibble {

class ResultLog {
 public:
  // Opens dir/results.jsonl and reads the keys of finished jobs.
  static absl::StatusOr<ResultLog> Open(const std::string& dir);

  bool Finished(const std::string& key) const { return finished_.count(key) > 0; }
  absl::Status Append(const JobResult& result);

 private:
  explicit ResultLog(std::string path) : path_(std::move(path)) {}
  // The file's last line has no end: a kill tore it.
  bool NeedsNewline() const;

  const std::string path_;
  std::set<std::string> finished_;
};

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_RESULT_LOG_H_
