#include "experiments/measure.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/runtime/session.h"
#include "datasets/registry.h"
#include "datasets/text.h"
#include "eval/latency.h"
#include "eval/memory.h"
#include "eval/perplexity.h"
#include "eval/size.h"
#include "eval/task.h"
#include "experiments/expand.h"
#include "experiments/tasks.h"

namespace nibble {
namespace {

// What goes wrong while a model runs is the model's: its weights, its tokenizer.
template <typename T>
absl::StatusOr<T> OfModel(const io::LoadedModel& source, absl::StatusOr<T> result) {
  if (!result.ok()) return Annotate(result.status(), source.source);
  return result;
}

template <typename T>
absl::StatusOr<eval::RawRecords> Raw(absl::StatusOr<T> records) {
  if (!records.ok()) return records.status();
  return eval::RawRecords(*std::move(records));
}

}  // namespace

Measurer::Measurer(const io::LoadedModel& source, std::string directory, int threads)
    : source_(source), directory_(std::move(directory)), pool_(ThreadsOrAll(threads)) {}

absl::StatusOr<const text::Tokenizer*> Measurer::Tokenizer() const {
  if (source_.tokenizer != nullptr) return source_.tokenizer.get();
  return absl::FailedPreconditionError(absl::StrCat(source_.source, " has no tokenizer, so it can read no text; measure size, memory "
                                                    "and latency, or use a model with one"));
}

absl::StatusOr<const eval::TextWindows*> Measurer::Windows(const std::string& text, const std::string& name,
                                                           const eval::WindowOptions& options) {
  const std::string key = absl::StrCat(text, "|", name, "|", static_cast<int>(options.convention), "|", options.window, "|", options.limit);
  if (const auto it = windows_.find(key); it != windows_.end()) return &it->second;
  NIBBLE_ASSIGN_OR_RETURN(const text::Tokenizer* tokenizer, Tokenizer());
  NIBBLE_ASSIGN_OR_RETURN(const auto resolved, datasets::ResolveDataset(text, directory_));
  NIBBLE_ASSIGN_OR_RETURN(const std::string contents, datasets::ReadText(resolved.path));
  auto windows = eval::MakeWindows(name, *tokenizer, contents, options);
  if (!windows.ok()) return Annotate(windows.status(), resolved.path);
  if (windows->window() > source_.config.max_position_embeddings) {
    return absl::InvalidArgumentError(absl::StrCat("a window of ", windows->window(), " tokens, and ", source_.source, " has learned ",
                                                   source_.config.max_position_embeddings, " positions; set window to that or less"));
  }
  return &windows_.emplace(key, *std::move(windows)).first->second;
}

eval::WindowOptions WindowOptionsOf(const Perplexity& request) {
  eval::WindowOptions options;
  options.convention = request.convention() == LLAMACPP ? eval::WindowConvention::kLlamaCpp : eval::WindowConvention::kGptq;
  options.window = request.window();
  options.limit = request.limit();
  return options;
}

absl::StatusOr<std::vector<Metric>> Measurer::Measure(const MetricRequest& request, const BuiltModel& model, const BuiltModel* baseline,
                                                      MeasuredBeside* beside) {
  if (request.has_size()) return eval::MeasureSize(model.graph);
  if (request.has_latency()) return MeasureLatency(request.latency(), model, baseline, beside);
  NIBBLE_ASSIGN_OR_RETURN(const eval::RawRecords raw, RecordQuality(request, model, baseline));
  if (beside != nullptr) {
    NIBBLE_ASSIGN_OR_RETURN(beside->records, eval::ToFileBytes(raw));
  }
  return OfModel(source_, eval::MetricsOf(raw));
}

absl::StatusOr<eval::RawRecords> Measurer::RecordQuality(const MetricRequest& request, const BuiltModel& model, const BuiltModel* baseline) {
  if (IsTask(request)) return RecordTask(request, model);
  NIBBLE_ASSIGN_OR_RETURN(const std::string label, SetLabel(request, directory_));
  if (request.has_perplexity()) {
    NIBBLE_ASSIGN_OR_RETURN(const auto* windows, Windows(request.perplexity().text(), label, WindowOptionsOf(request.perplexity())));
    return Raw(OfModel(source_, eval::RecordPerplexity(*model.plan, pool_, *windows)));
  }
  NIBBLE_CHECK(request.has_divergence());
  return RecordDivergence(request.divergence(), label, model, baseline);
}

absl::StatusOr<eval::RawRecords> Measurer::RecordDivergence(const Divergence& request, const std::string& name, const BuiltModel& model,
                                                            const BuiltModel* baseline) {
  if (baseline == nullptr) return absl::FailedPreconditionError("divergence needs the baseline, which could not be built");
  eval::WindowOptions options;
  options.window = request.window();
  options.limit = request.limit();
  NIBBLE_ASSIGN_OR_RETURN(const auto* windows, Windows(request.text(), name, options));
  return Raw(OfModel(source_, eval::RecordDivergence(*baseline->plan, *model.plan, pool_, *windows)));
}

absl::StatusOr<eval::RawRecords> Measurer::RecordTask(const MetricRequest& request, const BuiltModel& model) {
  const std::string key = request.SerializeAsString();
  if (tasks_.find(key) == tasks_.end()) {
    NIBBLE_ASSIGN_OR_RETURN(datasets::Task task, LoadTask(request, directory_));
    tasks_.emplace(key, std::move(task));
  }
  NIBBLE_ASSIGN_OR_RETURN(const text::Tokenizer* tokenizer, Tokenizer());
  eval::TaskOptions options;
  if (source_.config.max_position_embeddings > 0) options.max_positions = source_.config.max_position_embeddings;
  options.window = request.task().window();
  if (!request.task().has_window()) options.window = std::min(options.window, options.max_positions);
  options.end_tokens = source_.config.eos_token_ids;
  return Raw(OfModel(source_, eval::RecordTask(*model.plan, pool_, *tokenizer, tasks_.at(key), options)));
}

namespace {

// Rounds of a model, alternating with those of what it is timed against (null: nothing).
absl::StatusOr<std::vector<Metric>> TimeRounds(const eval::LatencyCase& options, int count, const BuiltModel& model, const BuiltModel* against,
                                               ThreadPool& pool) {
  NIBBLE_ASSIGN_OR_RETURN(const auto probe, eval::LatencyProbe::Create(*model.plan, pool, options));
  std::unique_ptr<eval::LatencyProbe> reference;
  if (against != nullptr) {
    NIBBLE_ASSIGN_OR_RETURN(reference, eval::LatencyProbe::Create(*against->plan, pool, options));
  }
  std::vector<eval::LatencyRound> rounds, reference_rounds;
  for (int i = 0; i < count; ++i) {
    if (reference != nullptr) {
      NIBBLE_ASSIGN_OR_RETURN(const auto round, reference->Round());
      reference_rounds.push_back(round);
    }
    NIBBLE_ASSIGN_OR_RETURN(const auto round, probe->Round());
    rounds.push_back(round);
  }
  NIBBLE_ASSIGN_OR_RETURN(std::vector<Metric> metrics, probe->Metrics(rounds));
  if (reference == nullptr) return metrics;
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Metric> beside, reference->Metrics(reference_rounds));
  for (size_t i = 0; i < metrics.size(); ++i) *metrics[i].mutable_baseline_block_sum() = beside[i].block_sum();
  return metrics;
}

}  // namespace

// Peaks come when the sessions of the rounds are gone, so that their memory is not taken at once.
absl::StatusOr<std::vector<Metric>> Measurer::MeasureLatency(const Latency& request, const BuiltModel& model, const BuiltModel* baseline,
                                                             MeasuredBeside* beside) {
  ThreadPool pool(ThreadsOrAll(request.threads()));
  const eval::LatencyCase options{.prefill = request.prefill(), .decode = request.decode()};
  NIBBLE_ASSIGN_OR_RETURN(std::vector<Metric> metrics, TimeRounds(options, request.rounds(), model, baseline == &model ? nullptr : baseline, pool));
  if (beside != nullptr) {
    eval::RaisePeaks(pool.threads(), &beside->peaks.emplace());
    beside->peak_threads = pool.threads();
  }
  return metrics;
}

absl::StatusOr<std::vector<Metric>> MeasureMemory(const Memory& request, const std::string& model, int threads) {
  NIBBLE_ASSIGN_OR_RETURN(const OpenedModel opened, OpenModel(model));
  NIBBLE_ASSIGN_OR_RETURN(const auto plan, PlanOf(opened));
  ThreadPool pool(ThreadsOrAll(threads));
  SessionOptions options;
  options.max_positions = request.prefill();
  return eval::MeasureMemory(*plan, pool, options, request.prefill());
}

}  // namespace nibble
