// nibble memory-probe: what `run` starts as a fresh process to measure peak
// memory. Prints metrics as JSON lines.

#include <cstdio>

#include "core/base/status.h"
#include "experiments/measure.h"
#include "tools/command.h"

namespace nibble::tools {

Command MemoryProbeCommand() {
  namespace po = boost::program_options;
  Command command;
  command.name = "memory-probe";
  command.summary = "Loads a model, runs one prefill, prints the peak resident size as JSON.";
  command.usage = "memory-probe --model M --prefill N --threads N";
  command.examples = "  nibble memory-probe --model out/smollm2-w4a8 --prefill 512 --threads 2\n";
  command.hidden = true;
  command.options.add_options()("model", po::value<std::string>(), "the model")("prefill", po::value<int>()->default_value(512), "tokens")(
      "threads", po::value<int>()->default_value(0), "0: all CPUs");
  command.required = {"model"};
  command.run = [](const Options& options) -> absl::StatusOr<int> {
    NIBBLE_ASSIGN_OR_RETURN(const std::string text,
                            ProbeMemory(options.Text("model"), options.Get<int>("prefill"), options.Get<int>("threads")));
    std::printf("%s", text.c_str());
    return kDone;
  };
  return command;
}

}  // namespace nibble::tools
