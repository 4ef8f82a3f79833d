// The data sets that Nibble knows by name: where each comes from, under which
// licence, how its files are recognized, and how a model is scored on it. They are
// the messages in datasets/tasks. No data set but "quickstart" is part of the
// project; nothing is downloaded.
#ifndef NIBBLE_DATASETS_REGISTRY_H_
#define NIBBLE_DATASETS_REGISTRY_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "datasets/task.pb.h"

namespace nibble::datasets {

// By name; a `base` is resolved.
const std::vector<TaskDescription>& KnownTasks();

// The known set of that name or alias; of a task in parts also one part, "mmlu_anatomy",
// or the parts of one category, "mmlu_stem": a description with these parts alone.
// The description's name is then `name`.
std::optional<TaskDescription> FindKnownTask(absl::string_view name);

// What `description` leaves unset, taken from the known task that it names as
// `base`. Error: an unknown base, with the nearest name.
absl::StatusOr<TaskDescription> WithBase(const TaskDescription& description);

struct ResolvedTask {
  TaskDescription description;
  struct Files {
    std::string items, shots;  // paths; shots "" where the part has no such file
  };
  std::vector<Files> parts;
};

// Folders that may hold `file` of a data set, in order: $NIBBLE_DATA,
// base_dir/../shared/data, base_dir/../../shared/data, CacheDirectory()/data; for
// "quickstart/..." also the datasets/ folders of base_dir, of its parents and of the
// working directory.
std::vector<std::string> DataRoots(absl::string_view file, const std::string& base_dir);

// Finds a task's files: as paths relative to `folder` (where the description
// stands; "" for a known one), then below DataRoots. NotFound says where was
// looked, and whence and under which licence the set is to be had. A file whose
// SHA-256 is not the description's is FailedPrecondition.
absl::StatusOr<ResolvedTask> ResolveFiles(TaskDescription description, const std::string& folder, const std::string& base_dir);

// One file of a known set and where it stands.
struct FileStatus {
  std::string file, sha256;  // as the description has them
  std::string path;          // "" where it was not found
  bool as_expected = false;  // its SHA-256 is the description's
};
std::vector<FileStatus> LookUp(const TaskDescription& description, const std::string& base_dir);

struct ResolvedDataset {
  std::string path;
  std::string label;  // for metric names: the known name, or the file's name
};

// A data set of one file by name or path. A file that exists wins: an absolute
// path, or one relative to the working directory or to `base_dir`. Then a known
// name is looked up as in ResolveFiles.
absl::StatusOr<ResolvedDataset> ResolveDataset(const std::string& name_or_path, const std::string& base_dir);

// "unknown data set 'x'; did you mean ...", with the paths that were tried.
absl::Status UnknownDataset(const std::string& name, const std::string& base_dir);

// The file that `name_or_path` names by itself, as ResolveDataset looks for it.
std::optional<std::string> FindFile(const std::string& name_or_path, const std::string& base_dir);

}  // namespace nibble::datasets

#endif  // NIBBLE_DATASETS_REGISTRY_H_
