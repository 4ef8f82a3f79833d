// nibble bench: how fast one model runs here, beside what the machine can do.

#include <cstdio>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "core/kernels/machine.h"
#include "core/runtime/plan.h"
#include "eval/earlier_speeds.h"
#include "eval/speed.h"
#include "experiments/model.h"
#include "tools/command.h"

namespace nibble::tools {
namespace {

using Json = nlohmann::ordered_json;

// "64,512" as numbers of 1 or more; "0" is an empty list.
absl::StatusOr<std::vector<int64_t>> ParseList(const Options& options, const std::string& name) {
  std::vector<int64_t> values;
  const std::string text = options.Text(name);
  if (text == "0") return values;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    int64_t value = 0;
    if (!absl::SimpleAtoi(part, &value) || value < 1 || value > 1000000) {
      return absl::InvalidArgumentError(absl::StrCat("--", name, ": '", part, "' is not a number of 1 or more; give a list such as 128,512"));
    }
    values.push_back(value);
  }
  return values;
}

absl::StatusOr<CacheType> ParseCacheType(const std::string& text) {
  if (text == "fp32") return CacheType::kFp32;
  if (text == "fp16") return CacheType::kFp16;
  if (text == "bf16") return CacheType::kBf16;
  if (text == "int8") return CacheType::kInt8;
  if (text == "int4") return CacheType::kInt4;
  return absl::InvalidArgumentError(absl::StrCat("--cache: '", text, "' is none of fp32, fp16, bf16, int8, int4"));
}

Json OpJson(const eval::OpSpeed& op, const eval::MachinePeaks& peaks) {
  return {{"name", op.name},
          {"seconds", op.seconds},
          {"bytes", op.bytes},
          {"ops", op.ops},
          {"products", op.products == eval::Products::kBytes ? "bytes" : op.products == eval::Products::kBf16 ? "bf16" : "float"},
          {"roofline", eval::RooflineSeconds(op, peaks) / op.seconds}};
}

Json ReportJson(const Json& settings, const Plan& plan, const eval::SpeedReport& report) {
  const kernels::MachineInfo info = kernels::DescribeMachine();
  Json json = {{"settings", settings},
               {"machine",
                {{"cpu", info.cpu},
                 {"features", info.features},
                 {"read_gb_s", report.peaks.read_gb_s},
                 {"fma_gflop_s", report.peaks.fma_gflop_s},
                 {"bf16_gflop_s", report.peaks.bf16_gflop_s},
                 {"byte_gop_s", report.peaks.byte_gop_s}}},
               {"weight_bytes", plan.weight_bytes()},
               {"decode_bytes", report.decode_bytes},
               {"arithmetic", plan.arithmetic() == kernels::Arithmetic::kNative ? "native" : "simulated"}};
  for (const eval::Speed& speed : report.speeds) {
    Json entry = {{"name", speed.name}, {"tokens_per_s", speed.tokens_per_s}, {"stderr", speed.stderr}};
    if (speed.bandwidth_share > 0) entry["bandwidth_share"] = speed.bandwidth_share, entry["share_stderr"] = speed.share_stderr;
    json["speeds"].push_back(std::move(entry));
  }
  for (const eval::OpSpeed& op : report.prefill_ops) json["prefill_ops"].push_back(OpJson(op, report.peaks));
  for (const eval::OpSpeed& op : report.decode_ops) json["decode_ops"].push_back(OpJson(op, report.peaks));
  return json;
}

// What decides how fast a case runs, beside the program.
Json SettingsJson(const Options& options, int threads) {
  return {{"model", options.Text("model")}, {"threads", threads},          {"dtype", options.Text("dtype")},
          {"cache", options.Text("cache")}, {"decode", options.Get<int>("decode")}, {"kernel_table", kernels::DescribeMachine().kernel_table}};
}

// `earlier` may be null.
void PrintSpeeds(const eval::SpeedReport& report, const eval::EarlierSpeeds* earlier) {
  for (const eval::Speed& speed : report.speeds) {
    std::printf("%-18s %9.2f +- %.2f tokens/s", speed.name.c_str(), speed.tokens_per_s, speed.stderr);
    if (const double before = earlier == nullptr ? 0 : earlier->TokensPerSecond(speed.name); before > 0) {
      std::printf("   %9.2f before, x%.3f", before, speed.tokens_per_s / before);
    } else if (earlier != nullptr) {
      std::printf("   not in --compare's file");
    }
    if (speed.bandwidth_share > 0) {
      std::printf("   reads %.1f GB/s of weights, %.0f +- %.0f %% of the bandwidth beside it", speed.tokens_per_s * report.decode_bytes * 1e-9,
                  100 * speed.bandwidth_share, 100 * speed.share_stderr);
    }
    std::printf("\n");
  }
}

void PrintOps(const char* title, const std::vector<eval::OpSpeed>& ops, const eval::MachinePeaks& peaks) {
  if (ops.empty()) return;
  double total = 0;
  for (const eval::OpSpeed& op : ops) total += op.seconds;
  std::printf("\n%s, all layers\n%-16s %10s %6s %9s %9s %9s\n", title, "op", "ms", "share", "GB/s", "Gop/s", "roofline");
  for (const eval::OpSpeed& op : ops) {
    std::printf("%-16s %10.3f %5.1f%%", op.name.c_str(), 1e3 * op.seconds, 100 * op.seconds / total);
    if (op.ops == 0) {
      std::printf("\n");
      continue;
    }
    std::printf(" %9.1f %9.1f %8.0f%%\n", op.bytes / op.seconds * 1e-9, op.ops / op.seconds * 1e-9,
                100 * eval::RooflineSeconds(op, peaks) / op.seconds);
  }
}

absl::StatusOr<int> Bench(const Options& options) {
  NIBBLE_ASSIGN_OR_RETURN(const int asked, ThreadsOf(options));
  const int threads = ThreadsOrAll(asked);
  eval::SpeedOptions speed;
  speed.rounds = options.Get<int>("rounds");
  speed.decode = options.Get<int>("decode");
  if (speed.decode < 1 || speed.rounds < 2) {
    return absl::InvalidArgumentError("--decode must be 1 or more, --rounds 2 or more");
  }
  NIBBLE_ASSIGN_OR_RETURN(speed.prefill, ParseList(options, "prefill"));
  NIBBLE_ASSIGN_OR_RETURN(speed.depth, ParseList(options, "depth"));
  NIBBLE_ASSIGN_OR_RETURN(speed.streams, ParseList(options, "streams"));
  if (options.Has("cache")) {
    NIBBLE_ASSIGN_OR_RETURN(speed.cache_type, ParseCacheType(options.Text("cache")));
  }
  std::optional<eval::EarlierSpeeds> earlier;
  if (options.Has("compare")) {
    NIBBLE_ASSIGN_OR_RETURN(earlier, eval::EarlierSpeeds::Read(options.Text("compare")));
  }
  NIBBLE_ASSIGN_OR_RETURN(OpenedModel model, OpenModel(options.Text("model")));
  NIBBLE_RETURN_IF_ERROR(SetProductInputs(options.Text("dtype"), model.graph));
  NIBBLE_ASSIGN_OR_RETURN(const auto plan, PlanOf(model));
  ThreadPool pool(threads);
  NIBBLE_ASSIGN_OR_RETURN(const eval::SpeedReport report, eval::MeasureSpeed(*plan, pool, speed));

  const kernels::MachineInfo info = kernels::DescribeMachine();
  std::printf("%s, %d threads, kernels %s (%s)\n", info.cpu.c_str(), threads, info.kernel_table.c_str(), info.features.c_str());
  std::printf("machine: reads %.1f GB/s, fp32 multiply-add %.0f GFLOP/s, byte products %.0f Gop/s", report.peaks.read_gb_s,
              report.peaks.fma_gflop_s, report.peaks.byte_gop_s);
  if (report.peaks.bf16_gflop_s > 0) std::printf(", bf16 products %.0f GFLOP/s", report.peaks.bf16_gflop_s);
  std::printf("\n");
  std::printf("%s: %.1f MiB of weights, %s arithmetic\n", options.Text("model").c_str(), plan->weight_bytes() / 1048576.0,
              plan->arithmetic() == kernels::Arithmetic::kNative ? "native" : "simulated");
  const Json settings = SettingsJson(options, threads);
  for (const std::string& other : earlier.has_value() ? earlier->OtherSettings(settings) : std::vector<std::string>()) {
    std::printf("note: --compare was %s\n", other.c_str());
  }
  PrintSpeeds(report, earlier.has_value() ? &*earlier : nullptr);
  if (!speed.prefill.empty()) PrintOps(absl::StrCat("prefill of ", speed.prefill.back()).c_str(), report.prefill_ops, report.peaks);
  if (!speed.depth.empty()) PrintOps(absl::StrCat("decode of a token after ", speed.depth.back()).c_str(), report.decode_ops, report.peaks);
  if (options.Has("json")) {
    NIBBLE_RETURN_IF_ERROR(WriteFile(options.Text("json"), ReportJson(settings, *plan, report).dump(2) + "\n"));
  }
  return kDone;
}

}  // namespace

Command BenchCommand() {
  namespace po = boost::program_options;
  Command command;
  command.name = "bench";
  command.summary = "Times prefill and decode of one model, op by op, beside the machine's bandwidth and compute peaks.";
  command.usage = "bench --model M [--prefill LIST] [--depth LIST] [--streams LIST] [--json FILE] [--compare FILE] [options]";
  command.examples =
      "  nibble bench --model smollm2-135m\n"
      "  nibble bench --model synthetic:llama-3.2-1b --prefill 512 --depth 512 --streams 0 --json before.json\n"
      "  nibble bench --model synthetic:llama-3.2-1b --prefill 512 --depth 512 --streams 0 --compare before.json\n";
  command.options.add_options()("model", po::value<std::string>(),
                                "a folder, a .gguf or llama2.c .bin file, synthetic:<preset>, or a fetched name; decoded: before it for floats")(
      "prefill", po::value<std::string>()->default_value("64,128,512,2048"), "tokens of the prompts; 0 for none")(
      "depth", po::value<std::string>()->default_value("128,512,2048"), "tokens before a decode; 0 for none")(
      "streams", po::value<std::string>()->default_value("1,2,4,8,16"), "streams decoded at once; 0 for none")(
      "decode", po::value<int>()->default_value(32), "tokens of a decode")(
      "cache", po::value<std::string>(), "KV cache: fp32, fp16, bf16, int8 or int4 (default: as --dtype)")(
      "dtype", po::value<std::string>()->default_value("fp32"),
      "inputs of products that quantize none: fp32, or bf16 for hardware with bf16 products")("threads", po::value<int>(), "threads (default: all CPUs)")("rounds", po::value<int>()->default_value(5), "after one warm-up")(
      "json", po::value<std::string>(), "write the figures there")("compare", po::value<std::string>(),
                                                                   "an earlier --json file: print both and the ratio");
  command.required = {"model"};
  command.run = Bench;
  return command;
}

}  // namespace nibble::tools
