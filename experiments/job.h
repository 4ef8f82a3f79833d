// One job of a sweep (experiments/job.proto), as the process that is started for it does
// it. Local runs, cluster schedulers and build systems start the same processes.
#ifndef NIBBLE_EXPERIMENTS_JOB_H_
#define NIBBLE_EXPERIMENTS_JOB_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/base/subprocess.h"
#include "experiments/job.pb.h"

namespace nibble {

// An environment variable with the number of OpenBLAS's threads, which start with a process.
// Jobs use one (core/tensor/blas.h); buffers of others would count against a memory limit.
inline constexpr char kBlasThreads[] = "OPENBLAS_NUM_THREADS";

// Where the report of the job in `path` goes: beside it.
std::string ReportPath(absl::string_view path);

// Where a job finds and leaves things, when not where its file says, and what it may take.
struct JobPlaces {
  std::vector<std::string> stores;  // of built models: the first is written to, all are looked through
  std::string report;               // "": ReportPath
  int64_t memory_limit = 0;         // bytes; 0: what its machine has free
};

// Reads a job in text form. Errors name the file: neither a build nor a measurement or both,
// a build whose keys are not one a step.
absl::StatusOr<Job> ReadJob(const std::string& path);

// Does the job that the file holds (text form) and writes its BuildReport or
// MeasurementReport, as JSON. What the job's model, method or data are to blame for stands
// there; an error here is a job that cannot be read or a report that cannot be written.
absl::Status DoJob(const std::string& path, const JobPlaces& places = {});

// What hears of a job's process.
struct JobListeners {
  Listener text;                                     // its standard error
  std::function<void(const std::string& line)> line;  // that it is started again, and why
};

// Runs `nibble job` with these arguments in a process that ends with this one, and again where
// SIGKILL ends it, up to three times in all. An error: it did not come to its end; `restarts`
// is how often it was started again.
absl::Status RunJobProcess(const std::vector<std::string>& arguments, const JobListeners& listeners, int* restarts);

// Writes a report of the job in `path` for a process that left none: `why`.
absl::Status WriteErrorReport(const std::string& path, const JobPlaces& places, const absl::Status& why);

// From here on an allocation that fails, in any thread, ends this process with a report of
// the job in `path` that says so and names the limit. For a process that does nothing else.
void ReportWhenOutOfMemory(const std::string& path, const JobPlaces& places);

// A build by itself: the report, and in the store the model and the beginnings to keep.
// `memory_limit` as JobPlaces has it.
BuildReport DoBuild(const Job& job, int64_t memory_limit = 0);

// A measurement by itself.
MeasurementReport DoMeasurement(const Job& job, int64_t memory_limit = 0);

// The machine that this process runs on, without its peaks.
Machine ThisMachine(int threads);

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_JOB_H_
