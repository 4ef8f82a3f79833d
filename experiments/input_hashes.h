// SHA-256s of the files that metrics and methods read: part of the keys of results and of
// built models, so that a changed input is computed anew and an unchanged one is not.
#ifndef NIBBLE_EXPERIMENTS_INPUT_HASHES_H_
#define NIBBLE_EXPERIMENTS_INPUT_HASHES_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "experiments/experiment.pb.h"

namespace nibble {

class InputHashes {
 public:
  // `directory`: where relative data paths start.
  explicit InputHashes(std::string directory) : directory_(std::move(directory)) {}

  // Of the file that a metric reads; of a task its description's and its files'; "" where
  // it reads none.
  absl::StatusOr<std::string> OfMetric(const MetricRequest& request);

  // Of all files that a message names: data, and what methods mark as (nibble.is_file); ""
  // where it names none. Files that are not there count as such: whoever reads them will
  // say it.
  std::string OfOptions(const google::protobuf::Message& options);

 private:
  absl::StatusOr<std::string> OfFile(const std::string& path);
  absl::StatusOr<std::string> OfTask(const MetricRequest& request);
  void AddFiles(const google::protobuf::Message& message, std::string* parts);

  const std::string directory_;
  std::map<std::string, std::string> files_;
};

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_INPUT_HASHES_H_
