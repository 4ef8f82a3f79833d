// Runs an experiment: builds each variant once, measures every metric on it, appends
// results as they come. Each of these is a process of its own (job.h), so that one which
// crashes, is killed or takes more memory than there is becomes a row that says why, and
// the rest goes on. A run on an existing folder does only what is missing; runs on one
// folder take turns.
#ifndef NIBBLE_EXPERIMENTS_RUNNER_H_
#define NIBBLE_EXPERIMENTS_RUNNER_H_

#include <string>

#include "absl/status/statusor.h"
#include "core/base/folder_lock.h"
#include "experiments/expand.h"
#include "experiments/run_plan.h"

namespace nibble {

struct RunOptions {
  std::string out;              // the run's folder
  RunPlanOptions plan;          // its store is the folder's own
  enum class Backend { kLocal, kSlurm };
  Backend backend = Backend::kLocal;
  std::string slurm_arguments;  // of sbatch
  int64_t memory_limit = 0;     // bytes that a job may have, free or not; 0: what its machine has free
};

struct RunSummary {
  int done = 0;      // jobs measured now
  int reused = 0;    // found finished in the folder
  int failed = 0;    // without a result: failed, or left when results could not be written
};

// `lock`: of the folder `options.out`; who reads the results holds it until they are read.
// Errors: a model that does not load, a folder that cannot be written, an
// unknown variant in `plan.only`. Failures of single jobs are counted, not returned. Where a
// result cannot be written (a full disk) the run says so and stops; the job's report stays in
// the folder, and a later run takes it.
absl::StatusOr<RunSummary> RunExperiment(const ExpandedExperiment& experiment, const RunOptions& options, const FolderLock& lock);

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_RUNNER_H_
