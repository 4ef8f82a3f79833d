// nibble job: one job of a run, as the process that `nibble run` starts for it.

#include <fcntl.h>
#include <sys/file.h>

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/base/subprocess.h"
#include "experiments/job.h"
#include "tools/command.h"

namespace nibble::tools {
namespace {

// The lock goes with the process.
absl::Status WaitForOthers() {
  const std::string path = "/tmp/nibble-job.lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd >= 0 && ::flock(fd, LOCK_EX) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError("--alone: cannot lock " + path);
}

// The job in a process of its own: where that is killed, this one is left to say so.
absl::Status Supervise(const std::string& file, const JobPlaces& places) {
  std::vector<std::string> arguments = {file};
  for (const std::string& store : places.stores) arguments.insert(arguments.end(), {"--store", store});
  if (!places.report.empty()) arguments.insert(arguments.end(), {"--report", places.report});
  if (places.memory_limit > 0) arguments.insert(arguments.end(), {"--memory-limit", absl::StrCat(places.memory_limit >> 20)});
  ::setenv(kBlasThreads, "1", 1);
  int restarts = 0;
  const absl::Status ended = RunJobProcess(arguments, {PassOn, [](const std::string& line) { PassOn(line + "\n"); }}, &restarts);
  return ended.ok() ? absl::OkStatus() : WriteErrorReport(file, places, ended);
}

absl::StatusOr<int> Do(const Options& options) {
  if (options.Has("parent")) EndWithParent(options.Get<int>("parent"));
  const std::string file = options.Text("file");
  JobPlaces places = {options.List("store"), options.Text("report")};
  if (options.Has("memory-limit")) places.memory_limit = options.Get<int64_t>("memory-limit") << 20;
  if (options.Has("alone")) NIBBLE_RETURN_IF_ERROR(WaitForOthers());
  if (options.Has("supervise")) {
    NIBBLE_RETURN_IF_ERROR(Supervise(file, places));
    return kDone;
  }
  ReportWhenOutOfMemory(file, places);
  if (options.Has("memory-limit")) NIBBLE_RETURN_IF_ERROR(LimitMemory(places.memory_limit));
  NIBBLE_RETURN_IF_ERROR(DoJob(file, places));
  return kDone;
}

}  // namespace

Command JobCommand() {
  namespace po = boost::program_options;
  Command command;
  command.name = "job";
  command.summary = "Does one job of a run, a text nibble.Job; its report goes to a .json beside the file.";
  command.usage = "job FILE [--report FILE] [--store DIR ...] [--alone] [--supervise] [--parent PID] [--memory-limit MIB]";
  command.examples =
      "  nibble job out/quickstart/jobs/measure-0123456789abcdef.textproto\n"
      "  nibble job jobs/int4.2.textproto --store models/int4 --store models/bf16 --report int4.2.json --alone --supervise\n";
  command.hidden = true;
  command.options.add_options()("file", po::value<std::string>(), "the job")("parent", po::value<int>(), "end when this process ends")(
      "memory-limit", po::value<int64_t>(), "MiB of private memory; without it a job that is thought to need more than is free is refused")("report", po::value<std::string>(), "write the report there")(
      "store", po::value<std::vector<std::string>>()->composing(), "a folder of built models; the first is written to, others are read too")(
      "alone", "wait until no other job of this machine with --alone runs: they would share its CPUs")(
      "supervise", "do it in a process of its own; one that is killed is a report that says so");
  command.positional = {"file"};
  command.required = {"file"};
  command.run = Do;
  return command;
}

}  // namespace nibble::tools
