// Jobs of a sweep on a cluster: as job arrays of Slurm, whose nodes share the file system
// with the machine that submits them. Slurm schedules; nothing here does.
#ifndef NIBBLE_EXPERIMENTS_SLURM_H_
#define NIBBLE_EXPERIMENTS_SLURM_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace nibble {

struct SlurmOptions {
  std::string name;       // of the jobs
  std::string folder;     // for the list of jobs and their logs
  std::string arguments;  // of sbatch, as a shell reads them: "--partition=cpu --time=2:00:00"
  int threads = 1;        // CPUs of a job
  int64_t memory_limit = 0;  // bytes that a job may have; 0: what its node gives it
};

// Submits `nibble job` of each file and waits for the last to end. How each went is in its
// report; one without a report did not come to its end, and LogOf names what it wrote. An
// error: Slurm does not take them.
absl::Status RunOnSlurm(const std::vector<std::string>& job_files, const SlurmOptions& options);

// Standard output and error of the job in `job_file`.
std::string LogOf(const std::string& job_file);

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_SLURM_H_
