// nibble search: the mix of schemes that loses least within a size or a time.

#include <cstdio>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/base/status.h"
#include "core/base/subprocess.h"
#include "core/base/thread_pool.h"
#include "experiments/input_hashes.h"
#include "experiments/run_plan.h"
#include "experiments/runner.h"
#include "experiments/search/search.h"
#include "experiments/text_config.h"
#include "reports/report.h"
#include "tools/command.h"

namespace nibble::tools {
namespace {

// "700MiB", "0.7GiB", "700" (MiB) or "12ms".
absl::Status AddBudget(const std::string& text, ::nibble::Search* search) {
  absl::string_view number = text;
  const bool is_time = absl::ConsumeSuffix(&number, "ms");
  const bool is_gib = !is_time && absl::ConsumeSuffix(&number, "GiB");
  if (!is_time && !is_gib) absl::ConsumeSuffix(&number, "MiB");
  double value;
  if (!absl::SimpleAtod(number, &value) || !(value > 0)) {
    return absl::InvalidArgumentError(absl::StrCat("--budget ", text, ": expected a size such as 700MiB or 1.5GiB, or the time of a decoded token such as 12ms"));
  }
  is_time ? search->add_budget_ms(value) : search->add_budget_mib(is_gib ? value * 1024 : value);
  return absl::OkStatus();
}

// What errors and reports call the config, where relative paths start.
std::string ConfigOf(const Options& options) { return options.Has("config") ? options.Text("config") : "configs/search_weights.textproto, built in"; }
std::string FolderOf(const Options& options) { return options.Has("config") ? DirectoryOf(options.Text("config")) : "."; }

// The config given, or the one that the program carries, whose budgets and model are examples.
absl::Status ReadConfig(const Options& options, ::nibble::Search* search) {
  if (!options.Has("config")) {
    NIBBLE_RETURN_IF_ERROR(ParseText(kDefaultSearch, ConfigOf(options), search));
    search->clear_model();
    search->clear_budget_mib();
    return absl::OkStatus();
  }
  NIBBLE_RETURN_IF_ERROR(ReadTextFile(options.Text("config"), search));
  return Annotate(ResolveIncludedData(search, FolderOf(options)), options.Text("config"));
}

// As `nibble run` checks it: metrics are needed at the end of a long time, and so is what
// builds the mixes.
absl::Status CheckComparison(const ::nibble::Search& search, const std::string& name, const std::string& directory) {
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Mix> mixes, UniformMixes(search));
  NIBBLE_ASSIGN_OR_RETURN(const ExpandedExperiment experiment, ExpandExperiment(SearchExperiment(search, mixes, 0), name, directory));
  InputHashes hashes(directory);
  NIBBLE_RETURN_IF_ERROR(RunPlan::Check(experiment, {}, hashes));
  return hashes.CheckHeldOut(search.data(), experiment.metrics);
}

absl::StatusOr<::nibble::Search> ReadSearch(const Options& options) {
  const std::string path = ConfigOf(options);
  ::nibble::Search search;
  NIBBLE_RETURN_IF_ERROR(ReadConfig(options, &search));
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Override> overrides, OverridesOf(options));
  for (const auto& [field, value] : overrides) NIBBLE_RETURN_IF_ERROR(Annotate(SetField(&search, field, value), "--set"));
  if (options.Has("model")) search.mutable_model()->set_source(options.Text("model"));
  if (options.Has("budget")) {
    search.clear_budget_mib();
    search.clear_budget_ms();
  }
  for (const std::string& budget : options.List("budget")) NIBBLE_RETURN_IF_ERROR(AddBudget(budget, &search));
  if (search.model().source().empty()) return absl::InvalidArgumentError("give --model, or model { source: ... } in the config");
  NIBBLE_RETURN_IF_ERROR(Annotate(CheckSearch(search), path));
  NIBBLE_RETURN_IF_ERROR(Annotate(CheckComparison(search, path, FolderOf(options)), path));
  return search;
}

// Measures the mixes on held-out text, as `nibble run` does.
absl::StatusOr<int> Compare(const ::nibble::Search& search, const std::vector<Mix>& mixes, const Options& options, const std::string& out,
                            const FolderLock& lock) {
  RunOptions run;
  run.out = out;
  NIBBLE_ASSIGN_OR_RETURN(run.plan.threads, ThreadsOf(options));
  NIBBLE_ASSIGN_OR_RETURN(const ExpandedExperiment experiment,
                          ExpandExperiment(SearchExperiment(search, mixes, run.plan.threads), ConfigOf(options), FolderOf(options)));
  run.plan.commit = SourceCommit();
  const std::string config = options.Has("config") ? absl::StrCat(ShellWord(options.Text("config")), " ") : "";
  run.plan.command = CommandLine(absl::StrCat("./nibble search ", config, "--model ", ShellWord(search.model().source()), " --out ", ShellWord(out)), options, {"budget", "set"});
  NIBBLE_ASSIGN_OR_RETURN(const RunSummary summary, RunExperiment(experiment, run, lock));
  NIBBLE_RETURN_IF_ERROR(WriteReport(out));
  std::printf("%d measured, %d reused, %d failed; reports: %s/search.md, %s/report.md\n", summary.done, summary.reused, summary.failed,
              out.c_str(), out.c_str());
  return summary.failed == 0 ? kDone : kFailed;
}

absl::StatusOr<int> Run(const Options& options) {
  NIBBLE_ASSIGN_OR_RETURN(const ::nibble::Search search, ReadSearch(options));
  const std::string out = options.Has("config") || options.Has("out") ? OutFolderOf(options) : "out/search";
  NIBBLE_ASSIGN_OR_RETURN(const FolderLock lock, FolderLock::Take(out));
  NIBBLE_ASSIGN_OR_RETURN(const OpenedModel model, OpenModel(search.model().source()));
  NIBBLE_ASSIGN_OR_RETURN(const int threads, ThreadsOf(options));
  ThreadPool pool(ThreadsOrAll(threads));
  NIBBLE_ASSIGN_OR_RETURN(const auto searcher, Searcher::Create(search, model, FolderOf(options), out, pool));
  PrintEvents(searcher->events());
  NIBBLE_ASSIGN_OR_RETURN(const Sensitivities sensitivities, searcher->Measure());
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Mix> mixes, searcher->FindMixes(sensitivities));
  NIBBLE_RETURN_IF_ERROR(WriteSearchReport(search, sensitivities, mixes, out));
  for (const Mix& mix : mixes) {
    std::printf("%-16s %9.2f MiB", mix.name.c_str(), mix.cost.bytes / (1 << 20));
    if (mix.cost.seconds > 0) std::printf("  %.3f ms a token predicted, %.3f measured", mix.predicted_cost.seconds * 1e3, mix.cost.seconds * 1e3);
    std::printf("  loss %.5f predicted, %.5f measured%s\n", mix.predicted_loss, mix.loss, IsBeyondBudget(mix) ? "  BEYOND ITS BUDGET" : "");
  }
  return Compare(search, mixes, options, out, lock);
}

}  // namespace

Command SearchCommand() {
  namespace po = boost::program_options;
  Command command;
  command.name = "search";
  command.summary = "Finds the scheme of each layer that lets a model keep most within a size or a time.";
  command.usage = "search [CONFIG] [--model M] [--budget SIZE|TIME] [--set FIELD=VALUE] [--out DIR] [--threads N]";
  command.examples =
      "  nibble search --model ~/models/Llama-3.2-1B --budget 700MiB\n"
      "  nibble search --model smollm2-135m --budget 100MiB --set data.text=notes.txt --set samples=4\n"
      "  nibble search configs/search_weights.textproto --model smollm2-135m --budget 100MiB --budget 80MiB\n"
      "  nibble search configs/search_weights.textproto --model configs/models/novelist --budget 3.5MiB --out out/novelist_search\n"
      "  nibble search configs/search_weights.textproto --model smollm2-135m --budget 6ms\n"
      "  nibble search configs/search_whole.textproto --model smollm2-135m --budget 75MiB\n"
      "  nibble quantize --model smollm2-135m --pipeline out/search_weights/mix_100mib.textproto --out out/smollm2-100mib\n";
  command.options.add_options()("config", po::value<std::string>(), "candidates, text and metrics, a text nibble.Search (default: configs/search_weights.textproto, rounding to 2 to 8 bits measured on WikiText-2's training text, embedding and head in 8, budgets aside)")(
      "model", po::value<std::string>(), "a folder, a .gguf or llama2.c .bin file, synthetic:<preset>, or a fetched name; decoded: before it for floats (default: the config's)")(
      "budget", po::value<std::vector<std::string>>()->composing(),
      "size of the whole model, as 700MiB, or time of a decoded token on this machine, as 12ms; may be repeated (default: the config's)")(
      "set", po::value<std::vector<std::string>>()->composing(), "override a field of the config; may be repeated")(
      "out", po::value<std::string>(), "the folder to write (default out/<config's name>, or out/search); a search on an existing folder goes on")(
      "threads", po::value<int>(), "threads (default: all CPUs)");
  command.positional = {"config"};
  command.run = Run;
  return command;
}

}  // namespace nibble::tools
