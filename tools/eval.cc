// nibble eval: tasks on one model, without a config.

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/base/suggest.h"
#include "core/ir/passes.h"
#include "datasets/registry.h"
#include "experiments/expand.h"
#include "experiments/measure.h"
#include "reports/records.h"
#include "reports/report.h"
#include "tools/command.h"

namespace nibble::tools {
namespace {

const std::vector<std::string> kKinds = {"perplexity", "multiple_choice", "hellaswag", "task"};

absl::StatusOr<int32_t> ToInt(const std::string& name, const std::string& value, int32_t least) {
  int32_t number = 0;
  if (!absl::SimpleAtoi(value, &number) || number < least) {
    return absl::InvalidArgumentError(absl::StrCat("--set ", name, "=", value, ": expected a whole number of ", least, " or more"));
  }
  return number;
}

absl::Status SetPerplexity(const std::string& name, const std::string& value, Perplexity* request) {
  if (name == "window") {
    NIBBLE_ASSIGN_OR_RETURN(const int32_t window, ToInt(name, value, 1));
    request->set_window(window);
    return absl::OkStatus();
  }
  if (name == "convention" && (value == "gptq" || value == "llamacpp")) {
    request->set_convention(value == "gptq" ? GPTQ : LLAMACPP);
    return absl::OkStatus();
  }
  if (name == "convention") {
    return absl::InvalidArgumentError(absl::StrCat("--set convention=", value, DidYouMean(value, {"gptq", "llamacpp"}), " Expected gptq or llamacpp"));
  }
  return absl::InvalidArgumentError(absl::StrCat("--set: ", UnknownName("option", name, {"convention", "window", "dtype"})));
}

absl::Status SetTask(const std::string& name, const std::string& value, TaskScore* request) {
  if (name != "shots" && name != "window") {
    return absl::InvalidArgumentError(absl::StrCat("--set: ", UnknownName("option", name, {"shots", "window", "dtype"})));
  }
  NIBBLE_ASSIGN_OR_RETURN(const int32_t number, ToInt(name, value, name == "shots" ? 0 : 1));
  name == "shots" ? request->set_shots(number) : request->set_window(number);
  return absl::OkStatus();
}

struct Task {
  MetricRequest request;
  std::string dtype = "fp32";
};

// Kind and path of --task; a known task and a description need no kind.
absl::StatusOr<std::pair<std::string, std::string>> SplitTask(const std::string& text) {
  if (datasets::FindKnownTask(text).has_value() || (absl::EndsWith(text, ".textproto") && FileExists(text))) return std::pair<std::string, std::string>("task", text);
  const size_t colon = text.find(':');
  const std::string kind = text.substr(0, colon);
  if (std::find(kKinds.begin(), kKinds.end(), kind) == kKinds.end()) {
    std::vector<std::string> known = kKinds;
    if (colon == std::string::npos) {
      for (const TaskDescription& task : datasets::KnownTasks()) known.push_back(task.name());
    }
    return absl::InvalidArgumentError(absl::StrCat("--task ", text, ": ", UnknownName(colon == std::string::npos ? "task or kind" : "kind", kind, known)));
  }
  if (colon == std::string::npos || colon + 1 == text.size()) {
    return absl::InvalidArgumentError(absl::StrCat("--task ", text, ": expected ", kind, ":PATH, a file or a known set"));
  }
  return std::pair<std::string, std::string>(kind, text.substr(colon + 1));
}

absl::StatusOr<Task> ParseTask(const Options& options) {
  NIBBLE_ASSIGN_OR_RETURN(const auto kind_and_path, SplitTask(options.Text("task")));
  const auto& [kind, path] = kind_and_path;
  const int32_t limit = options.Has("limit") ? options.Get<int>("limit") : 0;
  if (limit < 0) return absl::InvalidArgumentError("--limit must not be negative");
  Task task;
  if (kind == "perplexity") {
    task.request.mutable_perplexity()->set_text(path);
    task.request.mutable_perplexity()->set_limit(limit);
  } else if (kind == "task") {
    task.request.mutable_task()->set_task(path);
    task.request.mutable_task()->set_limit(limit);
  } else {
    task.request.mutable_multiple_choice()->set_set(path);
    task.request.mutable_multiple_choice()->set_limit(limit);
    task.request.mutable_multiple_choice()->set_format(kind == "hellaswag" ? MultipleChoice::HELLASWAG : MultipleChoice::AUTO);
  }
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Override> overrides, OverridesOf(options));
  for (const Override& pair : overrides) {
    if (pair.first == "dtype") {
      task.dtype = pair.second;
    } else if (task.request.has_perplexity()) {
      NIBBLE_RETURN_IF_ERROR(SetPerplexity(pair.first, pair.second, task.request.mutable_perplexity()));
    } else if (task.request.has_task()) {
      NIBBLE_RETURN_IF_ERROR(SetTask(pair.first, pair.second, task.request.mutable_task()));
    } else {
      return absl::InvalidArgumentError(absl::StrCat("--set: ", UnknownName("option", pair.first, {"dtype"})));
    }
  }
  return task;
}

// The records of a run with this model as its only variant.
absl::Status WriteRecords(const std::string& path, const OpenedModel& model, std::vector<Metric> metrics) {
  RunInfo run;
  run.set_name("eval");
  run.set_model(model.source.source);
  run.set_model_note(model.source.note);
  run.add_variant("model");
  JobResult result;
  result.set_variant("model");
  result.set_is_baseline(true);
  for (Metric& metric : metrics) *result.add_metric() = std::move(metric);
  return WriteFile(path, MakeReport(run, {result}).json);
}

absl::StatusOr<int> Eval(const Options& options) {
  NIBBLE_ASSIGN_OR_RETURN(const Task task, ParseTask(options));
  NIBBLE_ASSIGN_OR_RETURN(const int threads, ThreadsOf(options));
  NIBBLE_RETURN_IF_ERROR(CheckMetric(task.request, "."));
  NIBBLE_ASSIGN_OR_RETURN(OpenedModel model, OpenModel(options.Text("model")));
  NIBBLE_RETURN_IF_ERROR(SetProductInputs(task.dtype, model.graph));
  BuiltModel built{"model", model.source.pipeline, model.graph, nullptr};
  NIBBLE_ASSIGN_OR_RETURN(built.plan, PlanOf(model));
  Measurer measurer(model.source, ".", threads);
  NIBBLE_ASSIGN_OR_RETURN(std::vector<Metric> metrics, measurer.Measure(task.request, built, nullptr));
  if (task.dtype != "fp32") {
    for (Metric& metric : metrics) metric.set_convention(absl::StrCat(metric.convention(), " dtype=", task.dtype));
  }
  for (const Metric& metric : metrics) {
    std::printf("%s %.6g", metric.name().c_str(), metric.value());
    if (metric.has_stderr()) std::printf(" +- %.2g", metric.stderr());
    std::printf(" %s (%lld, %s, %s)\n", metric.unit().c_str(), static_cast<long long>(metric.count()), metric.convention().c_str(),
                metric.arithmetic() == NATIVE ? "native" : "simulated");
  }
  if (options.Has("json")) NIBBLE_RETURN_IF_ERROR(WriteRecords(options.Text("json"), model, std::move(metrics)));
  return kDone;
}

}  // namespace

Command EvalCommand() {
  namespace po = boost::program_options;
  Command command;
  command.name = "eval";
  command.summary = "Evaluates one model on one task.";
  command.usage = "eval --model M --task TASK [--set OPTION=VALUE] [--limit N] [--json FILE] [--threads N]";
  command.examples =
      "  nibble eval --model smollm2-135m --task perplexity:quickstart/passages --set window=1024\n"
      "  nibble eval --model smollm2-135m --task perplexity:wiki.test.raw --set convention=llamacpp --limit 40\n"
      "  nibble eval --model smollm2-135m --task hellaswag:validation.txt --limit 200 --json out.json\n"
      "  nibble eval --model out/smollm2-w4a8 --task multiple_choice:quickstart/questions\n"
      "  nibble eval --model smollm2-135m --task mmlu_anatomy --set shots=5\n"
      "  nibble eval --model smollm2-135m --task my_task.textproto\n";
  command.options.add_options()("model", po::value<std::string>(),
                                "a folder, a .gguf or llama2.c .bin file, synthetic:<preset>, or a fetched name; decoded: before it for floats")(
      "task", po::value<std::string>(),
      "a known task (nibble datasets lists them), the .textproto of one of your own (docs/tasks.md), or KIND:PATH; kinds perplexity, "
      "multiple_choice, hellaswag, task; PATH a file or a known set")(
      "set", po::value<std::vector<std::string>>()->composing(),
      "perplexity: convention=gptq|llamacpp, window=N; tasks: shots=N, window=N (rolling perplexity); all: dtype=fp32|bf16 (bf16 rounds "
      "what is multiplied, and the KV cache, to it)")(
      "limit", po::value<int>(), "windows, or items of each file, from the start (default: all)")(
      "json", po::value<std::string>(), "write the records here")("threads", po::value<int>(), "threads (default: all CPUs)");
  command.required = {"model", "task"};
  command.run = Eval;
  return command;
}

}  // namespace nibble::tools
