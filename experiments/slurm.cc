#include "experiments/slurm.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/base/subprocess.h"

namespace nibble {
namespace {

// Slurm's own default for the size of an array (MaxArraySize) is 1001.
constexpr size_t kArray = 1000;

// Each task of the array takes a line of the list, and leaves its log beside the job.
std::string Script(const std::string& list, int64_t memory_limit) {
  std::error_code error;
  const std::string self = std::filesystem::read_symlink("/proc/self/exe", error).string();
  const std::string limit = memory_limit > 0 ? absl::StrCat(" --memory-limit ", memory_limit >> 20) : "";
  return absl::StrCat("#!/bin/sh\njob=$(sed -n \"$((SLURM_ARRAY_TASK_ID + 1))p\" ", ShellWord(list), ")\nexec ", ShellWord(self),
                      " job \"$job\"", limit, " > \"${job%.textproto}.log\" 2>&1\n");
}

absl::Status Submit(const std::vector<std::string>& files, const SlurmOptions& options) {
  const std::string list = options.folder + "/array.txt", script = options.folder + "/array.sh";
  NIBBLE_RETURN_IF_ERROR(WriteFile(list, absl::StrJoin(files, "\n") + "\n"));
  NIBBLE_RETURN_IF_ERROR(WriteFile(script, Script(list, options.memory_limit)));
  const std::string command = absl::StrCat("exec sbatch --wait --job-name=", ShellWord(options.name), " --array=0-", files.size() - 1, " --cpus-per-task=",
                                           options.threads, " --output=/dev/null ", options.arguments, " ", ShellWord(script));
  // With --wait its status is that of the worst task, which has told its own story.
  NIBBLE_ASSIGN_OR_RETURN(const Ending ending, RunToEnd("sh", {"-c", command}, "sbatch"));
  const bool submitted = std::any_of(files.begin(), files.end(), [](const std::string& file) { return FileExists(LogOf(file)); });
  if (ending.ok() || submitted) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("sbatch ", ending.Text(), "; is this machine part of a Slurm cluster?"));
}

}  // namespace

std::string LogOf(const std::string& job_file) { return absl::StrCat(absl::StripSuffix(job_file, ".textproto"), ".log"); }

absl::Status RunOnSlurm(const std::vector<std::string>& job_files, const SlurmOptions& options) {
  for (size_t begin = 0; begin < job_files.size(); begin += kArray) {
    const size_t end = std::min(begin + kArray, job_files.size());
    std::fprintf(stderr, "submitting %zu jobs to Slurm\n", end - begin);
    NIBBLE_RETURN_IF_ERROR(Submit({job_files.begin() + static_cast<int64_t>(begin), job_files.begin() + static_cast<int64_t>(end)}, options));
  }
  return absl::OkStatus();
}

}  // namespace nibble
