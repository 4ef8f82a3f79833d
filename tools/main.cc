// The `nibble` program: finds the subcommand, parses its options, runs it,
// prints an error once.

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/base/suggest.h"
#include "tools/command.h"

namespace nibble::tools {
namespace {

namespace po = boost::program_options;

std::vector<Command> AllCommands() {
  return {RunCommand(),      ReportCommand(),  GateCommand(),    QuantizeCommand(), EvalCommand(),
          BenchCommand(),    GenerateCommand(), InspectCommand(), MethodsCommand(),  SearchCommand(),
          TrainCommand(),    DatasetsCommand(), JobCommand(),
          PlanCommand(),     GatherCommand()};
}

void PrintOverview(const std::vector<Command>& commands) {
  std::printf("nibble: what quantizing a language model costs, and what it buys\n\nusage: nibble COMMAND [options]\n\n");
  for (const Command& command : commands) {
    if (!command.hidden) std::printf("  %-10s %s\n", command.name.c_str(), command.summary.c_str());
  }
  std::printf("\n`nibble COMMAND --help` shows its options and examples.\n"
              "Exit status: 0 done, 1 a gate or a job failed, 2 the input was wrong.\n");
}

void PrintHelp(const Command& command) {
  std::ostringstream options;
  options << command.options;
  std::printf("%s\n\nusage: nibble %s\n\n%s\nexamples:\n%s", command.summary.c_str(), command.usage.c_str(), options.str().c_str(),
              command.examples.c_str());
}

int Fail(const std::string& message) {
  std::fprintf(stderr, "nibble: %s\n", message.c_str());
  return kWrongInput;
}

// The parsed options, or an error that names the option.
absl::StatusOr<Options> Parse(const Command& command, const std::vector<std::string>& arguments) {
  po::options_description all;
  all.add(command.options);
  po::positional_options_description positional;
  for (const std::string& name : command.positional) {
    const bool repeats = command.positional_repeats && name == command.positional.back();
    positional.add(name.c_str(), repeats ? -1 : 1);
  }
  try {
    po::variables_map map;
    po::store(po::command_line_parser(arguments).options(all).positional(positional).run(), map);
    po::notify(map);
    for (const std::string& name : command.required) {
      if (map.count(name) == 0) {
        return absl::InvalidArgumentError(absl::StrCat("needs ", name, "; usage: nibble ", command.usage));
      }
    }
    return Options(std::move(map));
  } catch (const po::unknown_option& error) {
    std::vector<std::string> names;
    for (const auto& option : command.options.options()) names.push_back(absl::StrCat("--", option->long_name()));
    return absl::InvalidArgumentError(UnknownName("option", error.get_option_name(), names));
  } catch (const po::error& error) {
    return absl::InvalidArgumentError(absl::StrCat(error.what(), "; usage: nibble ", command.usage));
  }
}

int RunOne(const Command& command, const std::vector<std::string>& arguments) {
  for (const std::string& argument : arguments) {
    if (argument == "--help" || argument == "-h") {
      PrintHelp(command);
      return kDone;
    }
  }
  const auto options = Parse(command, arguments);
  if (!options.ok()) return Fail(absl::StrCat(command.name, ": ", options.status().message()));
  const absl::StatusOr<int> code = command.run(*options);
  return code.ok() ? *code : Fail(std::string(code.status().message()));
}

}  // namespace

int Main(int argc, char** argv) {
  // Under `bazel run` relative paths are meant from where the user stands.
  if (const char* directory = std::getenv("BUILD_WORKING_DIRECTORY"); directory != nullptr && ::chdir(directory) != 0) {
    return Fail(absl::StrCat("cannot enter ", directory));
  }
  const std::vector<Command> commands = AllCommands();
  const std::string name = argc > 1 ? argv[1] : "help";
  if (name == "help" || name == "--help" || name == "-h") {
    PrintOverview(commands);
    return argc > 1 ? kDone : kWrongInput;
  }
  std::vector<std::string> names;
  for (const Command& command : commands) {
    if (command.name == name) return RunOne(command, std::vector<std::string>(argv + 2, argv + argc));
    if (!command.hidden) names.push_back(command.name);
  }
  return Fail(UnknownName("command", name, names));
}

}  // namespace nibble::tools

int main(int argc, char** argv) { return nibble::tools::Main(argc, argv); }
