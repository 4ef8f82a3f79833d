// nibble methods: every quantization method with its options, from their protos.

#include <cstdio>

#include "core/base/status.h"
#include "methods/method.h"
#include "tools/command.h"

namespace nibble::tools {

Command MethodsCommand() {
  namespace po = boost::program_options;
  Command command;
  command.name = "methods";
  command.summary = "Lists the quantization methods, or shows one with its options and defaults.";
  command.usage = "methods [NAME]";
  command.examples = "  nibble methods\n  nibble methods rtn\n";
  command.options.add_options()("name", po::value<std::string>(), "the method to describe");
  command.positional = {"name"};
  command.run = [](const Options& options) -> absl::StatusOr<int> {
    if (options.Has("name")) {
      NIBBLE_ASSIGN_OR_RETURN(const std::string text, DescribeMethod(options.Text("name")));
      std::printf("%s", text.c_str());
      return kDone;
    }
    for (const auto& [name, info] : RegisteredMethods()) std::printf("%-14s %s\n", name.c_str(), MethodSummary(name).c_str());
    return kDone;
  };
  return command;
}

}  // namespace nibble::tools
