// nibble report: the report of a run's folder, made again from its results; of
// several folders what differs between them; or its figures again from the raw records.

#include <cstdio>

#include "core/base/status.h"
#include "experiments/recompute.h"
#include "reports/compare_runs.h"
#include "reports/report.h"
#include "tools/command.h"

namespace nibble::tools {
namespace {

absl::StatusOr<int> Recompute(const std::string& dir) {
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<RecomputedMetric> metrics, RecomputeMetrics(dir));
  std::printf("%s", FormatRecomputed(metrics).c_str());
  return AllEqual(metrics) ? kDone : kFailed;
}

absl::StatusOr<int> Run(const Options& options) {
  const std::vector<std::string> dirs = options.List("dir");
  if (options.Has("recompute")) {
    if (dirs.size() > 1 || options.Has("out")) return absl::InvalidArgumentError("--recompute is for one folder and writes nothing");
    return Recompute(dirs[0]);
  }
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
  command.usage = "report DIR [DIR ...] [--out DIR] [--recompute]";
  command.examples =
      "  nibble report out/quickstart\n"
      "  nibble report out/quickstart out/quickstart_arm --out out/two_machines\n"
      "  nibble report out/quickstart --recompute\n";
  command.options.add_options()("dir", po::value<std::vector<std::string>>()->composing(), "the run's folder; of several runs, each variant is compared")(
      "out", po::value<std::string>(), "where the comparison of several runs goes (default out/comparison)")(
      "recompute", "compute every quality metric of a run from its raw records and say whether each equals the stored one; exits 1 where one does not");
  command.positional = {"dir"};
  command.positional_repeats = true;
  command.required = {"dir"};
  command.run = Run;
  return command;
}

}  // namespace nibble::tools
