// SHA-256s of the files that metrics and methods read: part of the keys of results and of
// built models, so that a changed input is computed anew and an unchanged one is not.
#ifndef NIBBLE_EXPERIMENTS_INPUT_HASHES_H_
#define NIBBLE_EXPERIMENTS_INPUT_HASHES_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
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
  // where it names none.
  absl::StatusOr<std::string> OfOptions(const google::protobuf::Message& options);

  // An error where the message names a file that one of the metrics measures (of tasks the
  // items, not the examples), by content.
  absl::Status CheckHeldOut(const google::protobuf::Message& options, absl::Span<const MetricRequest> metrics);

 private:
  absl::StatusOr<std::string> OfFile(const std::string& path);
  absl::StatusOr<std::string> OfTask(const MetricRequest& request);
  // With what it holds.
  absl::StatusOr<std::vector<std::string>> FilesOf(const google::protobuf::Message& message) const;
  absl::StatusOr<std::vector<std::string>> MeasuredFiles(const MetricRequest& request) const;

  const std::string directory_;
  std::map<std::string, std::string> files_;
};

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_INPUT_HASHES_H_
