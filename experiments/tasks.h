// The tasks that metric requests ask for: known ones by name, a user's own by the
// path of a description, items without one by the path of their file.
#ifndef NIBBLE_EXPERIMENTS_TASKS_H_
#define NIBBLE_EXPERIMENTS_TASKS_H_

#include <string>

#include "absl/status/statusor.h"
#include "datasets/task.h"
#include "experiments/experiment.pb.h"

namespace nibble {

// `task` and `multiple_choice` are scored as tasks.
inline bool IsTask(const MetricRequest& request) { return request.has_task() || request.has_multiple_choice(); }

// A request's description with its files, and its name in metrics in place of the
// description's. Relative paths start at `directory`. Errors carry file, line and
// column of a mistake in a description, or say where its files were looked for.
absl::StatusOr<datasets::ResolvedTask> FindTask(const MetricRequest& request, const std::string& directory);

// The task's items. The description keeps its own name; label is the request's.
absl::StatusOr<datasets::Task> LoadTask(const MetricRequest& request, const std::string& directory);

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_TASKS_H_
