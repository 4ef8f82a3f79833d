// Runs an experiment: builds each variant once, measures every metric on it, appends
// results as they come. Each of these is a process of its own (job.h), so that one which
// crashes, is killed or takes more memory than there is becomes a row that says why, and
// the rest goes on. A run on an existing folder does only what is missing; runs on one
// folder take turns.
#ifndef NIBBLE_EXPERIMENTS_RUNNER_H_
#define NIBBLE_EXPERIMENTS_RUNNER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "experiments/expand.h"

namespace nibble {

struct RunOptions {
  std::string out;                // the run's folder
  std::vector<std::string> only;  // variants to run beside the baseline; all when empty
  int threads = 0;                // 0: the config's, or all CPUs
  std::string commit;             // of the source tree, for the report
  std::string command;            // what reproduces the run
  enum class Backend { kLocal, kSlurm };
  Backend backend = Backend::kLocal;
  std::string slurm_arguments;    // of sbatch
  int64_t memory_limit = 0;       // bytes that a job may have; 0: what the machine has
  std::string work;               // where trainings are kept, to go on with or to take finished; "" keeps none
};

struct RunSummary {
  int done = 0;      // jobs measured now
  int reused = 0;    // found finished in the folder
  int failed = 0;
};

// Errors: a model that does not load, a folder that cannot be written, an
// unknown variant in `only`. Failures of single jobs are counted, not returned.
absl::StatusOr<RunSummary> RunExperiment(const ExpandedExperiment& experiment, const RunOptions& options);

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_RUNNER_H_
