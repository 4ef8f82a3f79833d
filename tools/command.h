// A subcommand of the `nibble` program: one file each, thin.
#ifndef NIBBLE_TOOLS_COMMAND_H_
#define NIBBLE_TOOLS_COMMAND_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "boost/program_options.hpp"
#include "experiments/expand.h"
#include "methods/method.h"

namespace nibble::tools {

// Exit codes of the program.
inline constexpr int kDone = 0;
inline constexpr int kFailed = 1;  // a gate failed, or a job did not run
inline constexpr int kWrongInput = 2;

// Parsed options of a subcommand.
class Options {
 public:
  explicit Options(boost::program_options::variables_map map) : map_(std::move(map)) {}
  bool Has(const std::string& name) const { return map_.count(name) > 0; }
  template <typename T>
  T Get(const std::string& name) const {
    return map_[name].as<T>();
  }
  std::string Text(const std::string& name) const { return Has(name) ? Get<std::string>(name) : ""; }
  std::vector<std::string> List(const std::string& name) const {
    return Has(name) ? Get<std::vector<std::string>>(name) : std::vector<std::string>();
  }

 private:
  boost::program_options::variables_map map_;
};

struct Command {
  std::string name;
  std::string summary;   // one line
  std::string usage;     // "run CONFIG [options]"
  std::string examples;  // lines of a shell
  boost::program_options::options_description options;
  std::vector<std::string> positional;  // names of options that stand without their name, in order
  bool positional_repeats = false;      // whether the last of them takes all that follow
  std::vector<std::string> required;
  bool hidden = false;
  // The exit code, or an error that is printed and exits with kWrongInput.
  std::function<absl::StatusOr<int>(const Options&)> run;
};

// One for each file of this folder.
Command RunCommand();
Command ReportCommand();
Command GateCommand();
Command QuantizeCommand();
Command EvalCommand();
Command BenchCommand();
Command GenerateCommand();
Command InspectCommand();
Command MethodsCommand();
Command SearchCommand();
Command TrainCommand();
Command DatasetsCommand();
Command JobCommand();
Command PlanCommand();
Command GatherCommand();

// Options that several commands have, each read in one place (options.cc).

// --threads, or 0 where it is not given; an error below 1.
absl::StatusOr<int> ThreadsOf(const Options& options);

// --out, or out/<config's name> below the working directory.
std::string OutFolderOf(const Options& options);

// The commit of the source tree, for reports; "" where the launcher does not say it.
std::string SourceCommit();

// Each --set, "FIELD=VALUE", split at its first "=".
absl::StatusOr<std::vector<Override>> OverridesOf(const Options& options);

// `start` and then those of the repeated options and --threads that were given: what
// reproduces a run.
std::string CommandLine(std::string start, const Options& options, const std::vector<std::string>& repeated);

// A line for each thing that a method counted.
void PrintEvents(const std::map<std::string, CountedEvent>& events);

}  // namespace nibble::tools

#endif  // NIBBLE_TOOLS_COMMAND_H_
