// nibble report: the report of a run's folder, made again from its results.

#include <cstdio>

#include "core/base/status.h"
#include "reports/report.h"
#include "tools/command.h"

namespace nibble::tools {

Command ReportCommand() {
  namespace po = boost::program_options;
  Command command;
  command.name = "report";
  command.summary = "Writes report.md, results.csv, results.json, layers.csv and plots from a run's folder.";
  command.usage = "report DIR";
  command.examples = "  nibble report out/quickstart\n";
  command.options.add_options()("dir", po::value<std::string>(), "the run's folder");
  command.positional = {"dir"};
  command.required = {"dir"};
  command.run = [](const Options& options) -> absl::StatusOr<int> {
    NIBBLE_RETURN_IF_ERROR(WriteReport(options.Text("dir")));
    std::printf("%s/report.md\n", options.Text("dir").c_str());
    return kDone;
  };
  return command;
}

}  // namespace nibble::tools
