// Jobs of a sweep on a cluster: as job arrays of Slurm, whose nodes share the file system
// with the machine that submits them. Slurm schedules; nothing here does.
#ifndef NIBBLE_EXPERIMENTS_SLURM_H_
#define NIBBLE_EXPERIMENTS_SLURM_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/subprocess.h"

namespace nibble {

struct SlurmOptions {
  std::string name;       // of the jobs
  std::string folder;     // of the jobs, for lists of them and their logs
  std::string arguments;  // of sbatch, as a shell reads them: "--partition=cpu --time=2:00:00"
  int threads = 1;        // CPUs of a job
  int64_t memory_limit = 0;  // bytes that a job may have; 0: what its node gives it
  double memory = 0;         // bytes that the largest job is thought to need
  bool exclusive = false;    // whether a job has its node for itself
};

// Submits `nibble job` of each file and waits until each has left its report or Slurm has no
// more of them; `tell` hears how many have, a line each time. Gives of each file without a
// report why there is none. An error: Slurm does not take them.
absl::StatusOr<std::map<std::string, std::string>> RunOnSlurm(const std::vector<std::string>& job_files, const SlurmOptions& options,
                                                              const Listener& tell);

// Ends the arrays whose runner was killed while it waited for them, so that none of their
// tasks reads or writes in `folder` any more. An error: one does not end.
absl::Status EndLeftArrays(const std::string& folder);

// Standard output and error of the job in `job_file`.
std::string LogOf(const std::string& job_file);

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_SLURM_H_
