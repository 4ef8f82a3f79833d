// nibble bench: how fast one model runs here, beside what the machine can do.

#include <algorithm>
#include <cstdio>

#include "core/base/status.h"
#include "core/kernels/machine.h"
#include "core/runtime/plan.h"
#include "eval/latency.h"
#include "experiments/model.h"
#include "tools/command.h"

namespace nibble::tools {
namespace {

// Parameters of linears, the head's apart, that a token is multiplied with.
int64_t BlockParameters(const ir::Graph& graph) {
  int64_t count = 0;
  for (const ir::Op& op : graph.ops()) {
    if (op.kind == ir::OpKind::kLinear) count += graph.parameter(*op.weight).shape()[0] * graph.parameter(*op.weight).shape()[1];
  }
  return count;
}

void PrintMachine(const kernels::MachineInfo& info, int threads, double bandwidth, double peak) {
  std::printf("%s, %d threads, kernels %s (%s)\n", info.cpu.c_str(), threads, info.kernel_table.c_str(), info.features.c_str());
  std::printf("machine: reads %.1f GB/s, fp32 FMA %.0f GFLOP/s\n", bandwidth, peak);
}

absl::StatusOr<int> Bench(const Options& options) {
  const int threads = options.Has("threads") ? options.Get<int>("threads") : AvailableCpus();
  const int prefill = options.Get<int>("prefill"), decode = options.Get<int>("decode"), rounds = options.Get<int>("rounds");
  if (threads < 1 || prefill < 1 || decode < 1 || rounds < 2) {
    return absl::InvalidArgumentError("--threads, --prefill and --decode must be 1 or more, --rounds 2 or more");
  }
  NIBBLE_ASSIGN_OR_RETURN(const OpenedModel model, OpenModel(options.Text("model")));
  NIBBLE_ASSIGN_OR_RETURN(const auto* table, kernels::ChooseTable());
  NIBBLE_ASSIGN_OR_RETURN(const auto plan, Plan::Create(model.graph, *table));
  ThreadPool pool(threads);
  NIBBLE_ASSIGN_OR_RETURN(const auto probe, eval::LatencyProbe::Create(*plan, pool, prefill, decode));
  std::vector<eval::LatencyRound> measured;
  double bandwidth = 0, peak = 0;
  for (int i = 0; i < rounds; ++i) {
    NIBBLE_ASSIGN_OR_RETURN(const auto round, probe->Round());
    measured.push_back(round);
    bandwidth = std::max(bandwidth, kernels::MeasureReadBandwidth(threads));
    peak = std::max(peak, kernels::MeasureFmaPeak(threads));
  }
  PrintMachine(kernels::DescribeMachine(), threads, bandwidth, peak);
  std::printf("%s: %.1f MiB of weights, %s arithmetic\n", options.Text("model").c_str(), plan->weight_bytes() / 1048576.0,
              plan->arithmetic() == kernels::Arithmetic::kNative ? "native" : "simulated");
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Metric> metrics, probe->Metrics(measured));
  for (const Metric& metric : metrics) {
    std::printf("%-28s %10.2f +- %.2f %s\n", metric.name().c_str(), metric.value(), metric.stderr(), metric.unit().c_str());
  }
  // The embedding is only gathered; the head is read whole unless tied, when
  // its bytes are counted once with the embedding's.
  const int64_t gathered = model.graph.tied() ? 0 : plan->embedding().byte_size();
  const double bytes_per_token = static_cast<double>(plan->weight_bytes() - gathered);
  for (const Metric& metric : metrics) {
    if (metric.name().rfind("decode", 0) == 0) {
      const double rate = metric.value() * bytes_per_token / 1e9;
      std::printf("decode reads %.1f GB/s of weights: %.0f %% of the bandwidth\n", rate, 100 * rate / bandwidth);
    }
    if (metric.name().rfind("prefill", 0) == 0) {
      const double rate = metric.value() * 2 * static_cast<double>(BlockParameters(model.graph)) / 1e9;
      std::printf("prefill does %.0f Gop/s in linears: %.0f %% of the fp32 FMA peak\n", rate, 100 * rate / peak);
    }
  }
  return kDone;
}

}  // namespace

Command BenchCommand() {
  namespace po = boost::program_options;
  Command command;
  command.name = "bench";
  command.summary = "Times prefill and decode of one model beside the machine's bandwidth and compute peak.";
  command.usage = "bench --model M [--prefill N] [--decode N] [--threads N] [--rounds N]";
  command.examples =
      "  nibble bench --model smollm2-135m\n"
      "  nibble bench --model synthetic:llama-3.2-1b --prefill 512 --decode 32 --threads 2\n";
  command.options.add_options()("model", po::value<std::string>(),
                                "a folder, a .gguf or llama2.c .bin file, synthetic:<preset>, or a fetched name")(
      "prefill", po::value<int>()->default_value(512), "tokens of the prompt")("decode", po::value<int>()->default_value(32),
                                                                               "tokens decoded one by one")(
      "threads", po::value<int>(), "threads (default: all CPUs)")("rounds", po::value<int>()->default_value(5), "after one warm-up");
  command.required = {"model"};
  command.run = Bench;
  return command;
}

}  // namespace nibble::tools
