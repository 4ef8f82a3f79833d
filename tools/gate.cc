// nibble gate: checks the bounds of a run.

#include <cstdio>

#include "core/base/file.h"
#include "core/base/status.h"
#include "reports/gate.h"
#include "reports/run_log.h"
#include "tools/command.h"

namespace nibble::tools {
namespace {

absl::StatusOr<int> Check(const Options& options) {
  NIBBLE_ASSIGN_OR_RETURN(const RunLog log, ReadRunLog(options.Text("dir")));
  if (log.run.gate_size() == 0) {
    return absl::InvalidArgumentError(options.Text("dir") + ": the experiment has no gate; add gate { ... } to its config");
  }
  const RunTable table(log.run, log.results);
  const auto outcomes = EvaluateGates(table);
  const std::vector<FailedJob> failed_jobs = FailedJobs(table);
  std::printf("%s%s", FormatGates(outcomes).c_str(), FormatFailedJobs(failed_jobs).c_str());
  if (options.Has("junit")) NIBBLE_RETURN_IF_ERROR(WriteFile(options.Text("junit"), GatesJunit(log.run.name(), outcomes, failed_jobs)));
  return AllPassed(outcomes) && failed_jobs.empty() ? kDone : kFailed;
}

}  // namespace

Command GateCommand() {
  namespace po = boost::program_options;
  Command command;
  command.name = "gate";
  command.summary = "Checks a run against its gates; exits with 1 and names each gate, and each job, that fails.";
  command.usage = "gate DIR [--junit FILE]";
  command.examples = "  nibble gate out/quickstart\n  nibble gate out/quickstart --junit gates.xml\n";
  command.options.add_options()("dir", po::value<std::string>(), "the run's folder")(
      "junit", po::value<std::string>(), "write the outcomes here as JUnit XML");
  command.positional = {"dir"};
  command.required = {"dir"};
  command.run = Check;
  return command;
}

}  // namespace nibble::tools
