// nibble job: one job of a run, as the process that `nibble run` starts for it.

#include "core/base/status.h"
#include "core/base/subprocess.h"
#include "experiments/job.h"
#include "tools/command.h"

namespace nibble::tools {

Command JobCommand() {
  namespace po = boost::program_options;
  Command command;
  command.name = "job";
  command.summary = "Does one job of a run, a text nibble.Job; its report goes to a .json beside the file.";
  command.usage = "job FILE [--parent PID] [--memory-limit MIB]";
  command.examples = "  nibble job out/quickstart/jobs/measure-0123456789abcdef.textproto\n";
  command.hidden = true;
  command.options.add_options()("file", po::value<std::string>(), "the job")("parent", po::value<int>(), "end when this process ends")(
      "memory-limit", po::value<int64_t>(), "MiB of private memory");
  command.positional = {"file"};
  command.required = {"file"};
  command.run = [](const Options& options) -> absl::StatusOr<int> {
    if (options.Has("parent")) EndWithParent(options.Get<int>("parent"));
    if (options.Has("memory-limit")) NIBBLE_RETURN_IF_ERROR(LimitMemory(options.Get<int64_t>("memory-limit") << 20));
    NIBBLE_RETURN_IF_ERROR(DoJob(options.Text("file")));
    return kDone;
  };
  return command;
}

}  // namespace nibble::tools
