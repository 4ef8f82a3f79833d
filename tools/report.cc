// nibble report: the report of a run's folder, made again from its results; of
// several folders what differs between them.

#include <cstdio>

#include "core/base/status.h"
#include "reports/compare_runs.h"
#include "reports/report.h"
#include "tools/command.h"

namespace nibble::tools {
namespace {

absl::StatusOr<int> Run(const Options& options) {
  const std::vector<std::string> dirs = options.List("dir");
  if (dirs.size() > 1) {
    const std::string out = options.Has("out") ? options.Text("out") : "out/comparison";
    NIBBLE_RETURN_IF_ERROR(WriteComparison(dirs, out));
    std::printf("%s/comparison.md %s/comparison.html\n", out.c_str(), out.c_str());
    return kDone;
  }
  if (options.Has("out")) return absl::InvalidArgumentError("--out is for several folders; the report of one run stands in its own folder");
  NIBBLE_RETURN_IF_ERROR(WriteReport(dirs[0]));
  std::printf("%s/report.md %s/report.html\n", dirs[0].c_str(), dirs[0].c_str());
  return kDone;
}

}  // namespace

Command ReportCommand() {
  namespace po = boost::program_options;
  Command command;
  command.name = "report";
  command.summary = "Writes report.md, report.html, results.csv, results.json and more from a run's folder, or compares several runs.";
  command.usage = "report DIR [DIR ...] [--out DIR]";
  command.examples =
      "  nibble report out/quickstart\n"
      "  nibble report out/quickstart out/quickstart_arm --out out/two_machines\n";
  command.options.add_options()("dir", po::value<std::vector<std::string>>()->composing(), "the run's folder; of several runs, each variant is compared")(
      "out", po::value<std::string>(), "where the comparison of several runs goes (default out/comparison)");
  command.positional = {"dir"};
  command.positional_repeats = true;
  command.required = {"dir"};
  command.run = Run;
  return command;
}

}  // namespace nibble::tools
