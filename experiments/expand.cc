#include "experiments/expand.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/pattern.h"
#include "core/base/status.h"
#include "core/base/suggest.h"
#include "datasets/registry.h"
#include "eval/task.h"
#include "experiments/tasks.h"
#include "experiments/text_config.h"
#include "google/protobuf/text_format.h"
#include "methods/method.h"
#include "reports/records.h"

namespace nibble {
namespace {

using Locations = google::protobuf::TextFormat::ParseInfoTree;

// Of one variant, or of one metric.
constexpr size_t kMaxExpansions = 10'000;

absl::Status CheckExpansions(size_t before, int values, absl::string_view what) {
  if (before * static_cast<size_t>(values) <= kMaxExpansions) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the sweeps of one ", what, " multiply to ", before * static_cast<size_t>(values), " or more; at most ",
                                                 kMaxExpansions, " are expanded"));
}

// "file:line:column" of element `index` of a field, or the file alone.
std::string Place(const std::string& path, const Locations* tree, const google::protobuf::FieldDescriptor* field, int index) {
  if (tree == nullptr) return path;
  const auto location = tree->GetLocation(field, index);
  return location.line < 0 ? path : absl::StrCat(path, ":", location.line + 1, ":", location.column + 1);
}

absl::Status CheckSteps(const google::protobuf::RepeatedPtrField<Step>& steps, const std::string& path, const Locations* tree,
                        const google::protobuf::FieldDescriptor* field) {
  for (int i = 0; i < steps.size(); ++i) {
    const auto method = MakeMethod(steps[i]);
    // A repeated field's element index counts from 0; a singular one is -1.
    if (!method.ok()) return Annotate(method.status(), absl::StrCat(Place(path, tree, field, i), ": step ", i));
  }
  return absl::OkStatus();
}

const google::protobuf::FieldDescriptor* StepField(const google::protobuf::Descriptor* descriptor) {
  return descriptor->FindFieldByName("step");
}

const google::protobuf::FieldDescriptor* Field(const char* name) { return Experiment::descriptor()->FindFieldByName(name); }

// The one field that a metric request sets.
absl::StatusOr<std::string> MetricKind(const MetricRequest& request) {
  std::vector<const google::protobuf::FieldDescriptor*> set;
  request.GetReflection()->ListFields(request, &set);
  if (set.size() == 1) return set[0]->name();
  return absl::InvalidArgumentError("a metric holds exactly one of perplexity, multiple_choice, task, divergence, size, memory, latency");
}

// The name that the config gives a request's data set, or "".
std::string NameGiven(const MetricRequest& request) {
  if (request.has_perplexity()) return request.perplexity().name();
  if (request.has_multiple_choice()) return request.multiple_choice().name();
  if (request.has_task()) return request.task().name();
  return request.divergence().name();
}

// Gives a request's data set a name where it has one.
void SetName(const std::string& name, MetricRequest& request) {
  if (request.has_perplexity()) request.mutable_perplexity()->set_name(name);
  if (request.has_multiple_choice()) request.mutable_multiple_choice()->set_name(name);
  if (request.has_task()) request.mutable_task()->set_name(name);
  if (request.has_divergence()) request.mutable_divergence()->set_name(name);
}

absl::Status CheckPositive(const char* name, int64_t value, int64_t least) {
  if (value >= least) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, ": ", value, " must be ", least, " or more"));
}

absl::Status CheckData(const std::string& name, const char* field, const std::string& directory) {
  if (name.empty()) return absl::InvalidArgumentError(absl::StrCat("needs ", field, ": a path or a known set"));
  return datasets::ResolveDataset(name, directory).status();
}

class Expander {
 public:
  Expander(ExpandedExperiment& out, const Locations* tree) : out_(out), config_(out.config), tree_(tree) {}

  absl::Status Run() {
    NIBBLE_RETURN_IF_ERROR(CheckHead());
    NIBBLE_RETURN_IF_ERROR(CheckSweeps());
    NIBBLE_RETURN_IF_ERROR(AddVariants());
    NIBBLE_RETURN_IF_ERROR(CheckNames());
    NIBBLE_RETURN_IF_ERROR(AddMetrics());
    return CheckGates();
  }

 private:
  absl::Status Error(const std::string& place, const std::string& message) const {
    return absl::InvalidArgumentError(absl::StrCat(place, ": ", message));
  }

  absl::Status CheckHead() const {
    if (config_.model().source().empty()) {
      return Error(out_.path, "model { source: ... } is missing; name a folder, a .gguf file, synthetic:<preset> or a fetched model");
    }
    if (!config_.has_baseline()) {
      return Error(out_.path, "baseline { ... } is missing; add baseline { name: \"bf16\" step { [nibble.baseline] {} } }");
    }
    if (config_.threads() < 0) return Error(out_.path, "threads must not be negative");
    return absl::OkStatus();
  }

  const Locations* VariantTree(const char* field, int index) const {
    return tree_ == nullptr ? nullptr : tree_->GetTreeForNested(Field(field), index);
  }

  absl::Status AddVariants() {
    NIBBLE_RETURN_IF_ERROR(AddVariant(config_.baseline(), "baseline", -1));
    for (int i = 0; i < config_.variant_size(); ++i) NIBBLE_RETURN_IF_ERROR(AddVariant(config_.variant(i), "variant", i));
    return absl::OkStatus();
  }

  // One of the variants that the axes of one make.
  struct Expansion {
    Variant variant;
    std::string repeated;    // its name without the axes that repeat
    std::string repetition;  // their part of the name, "seed=1"; "" without any
  };

  absl::Status AddVariant(const Variant& variant, const char* field, int index) {
    const std::string place = Place(out_.path, tree_, Field(field), index);
    if (variant.name().empty()) return Error(place, absl::StrCat(field, " needs a name"));
    std::vector<Expansion> expanded = {{variant, variant.name(), ""}};
    for (const Sweep& sweep : config_.sweep()) {
      if (sweep.variant() == variant.name()) NIBBLE_RETURN_IF_ERROR(Annotate(ExpandSweep(sweep, expanded), place));
    }
    for (const Expansion& expansion : expanded) {
      const Variant& each = expansion.variant;
      NIBBLE_RETURN_IF_ERROR(CheckSteps(each.step(), out_.path, VariantTree(field, index), StepField(Variant::descriptor())));
      ExpandedVariant planned{each.name(), {}, index < 0, each.untrained(), each.twin(), RepetitionOf(expansion)};
      if (each.has_include()) {
        const std::string path = (std::filesystem::path(out_.directory) / each.include()).string();
        auto included = LoadPipeline(path);
        if (!included.ok()) return Annotate(included.status(), place);
        planned.pipeline = *std::move(included);
      }
      for (const Step& step : each.step()) *planned.pipeline.add_step() = step;
      if (planned.pipeline.step_size() == 0) return Error(place, absl::StrCat("'", each.name(), "' has no step"));
      out_.variants.push_back(std::move(planned));
    }
    return absl::OkStatus();
  }

  static absl::Status ExpandSweep(const Sweep& sweep, std::vector<Expansion>& expansions) {
    NIBBLE_RETURN_IF_ERROR(CheckExpansions(expansions.size(), sweep.values_size(), "variant"));
    std::vector<Expansion> expanded;
    const std::string leaf = sweep.field().substr(sweep.field().rfind('.') + 1);
    for (const Expansion& expansion : expansions) {
      for (const std::string& value : sweep.values()) {
        Expansion each = expansion;
        NIBBLE_RETURN_IF_ERROR(Annotate(SetField(&each.variant, sweep.field(), value), "sweep"));
        const std::string label = absl::StrCat(leaf, "=", value);
        each.variant.set_name(absl::StrCat(expansion.variant.name(), "/", label));
        if (sweep.repeats()) {
          absl::StrAppend(&each.repetition, each.repetition.empty() ? "" : "/", label);
        } else {
          absl::StrAppend(&each.repeated, "/", label);
        }
        expanded.push_back(std::move(each));
      }
    }
    expansions = std::move(expanded);
    return absl::OkStatus();
  }

  static std::optional<Repetition> RepetitionOf(const Expansion& expansion) {
    if (expansion.repetition.empty()) return std::nullopt;
    Repetition repetition;
    repetition.set_variant(expansion.variant.name());
    repetition.set_of(expansion.repeated);
    repetition.set_label(expansion.repetition);
    return repetition;
  }

  absl::Status CheckNames() const {
    std::set<std::string> names;
    for (const ExpandedVariant& variant : out_.variants) {
      if (!names.insert(variant.name).second) return Error(out_.path, absl::StrCat("two variants are named '", variant.name, "'"));
    }
    const std::vector<std::string> known(names.begin(), names.end());
    for (const ExpandedVariant& variant : out_.variants) {
      for (const std::string& other : {variant.untrained, variant.twin}) {
        if (other.empty() || names.count(other) > 0) continue;
        return Error(out_.path, absl::StrCat("variant '", variant.name, "': ", UnknownName("variant", other, known)));
      }
    }
    for (int i = 0; i < config_.contrast_size(); ++i) {
      for (const std::string& name : {config_.contrast(i).variant(), config_.contrast(i).against()}) {
        if (names.count(name) == 0) return Error(Place(out_.path, tree_, Field("contrast"), i), UnknownName("variant", name, known));
      }
    }
    return absl::OkStatus();
  }

  absl::Status AddMetrics() {
    if (config_.metric_size() == 0) return Error(out_.path, "no metric { ... } is asked for");
    for (int i = 0; i < config_.metric_size(); ++i) {
      const std::string place = Place(out_.path, tree_, Field("metric"), i);
      std::vector<MetricRequest> expanded = {config_.metric(i)};
      for (const Sweep& sweep : config_.sweep()) {
        if (!sweep.has_variant()) NIBBLE_RETURN_IF_ERROR(Annotate(ExpandMetricSweep(sweep, i, expanded), place));
      }
      for (MetricRequest& request : expanded) {
        NIBBLE_RETURN_IF_ERROR(Annotate(CheckMetric(request, out_.directory), place));
        NIBBLE_RETURN_IF_ERROR(AddMetricNames(request, place));
        out_.metrics.push_back(std::move(request));
      }
    }
    return absl::OkStatus();
  }

  absl::Status AddMetricNames(const MetricRequest& request, const std::string& place) {
    // A task's items are read for it, so that a mistake in them shows before anything runs.
    const auto names = MetricNames(request, out_.directory);
    if (!names.ok()) return Annotate(names.status(), place);
    for (const std::string& name : *names) {
      if (!metric_names_.insert(name).second) {
        return Error(place, absl::StrCat("a second metric is called ", name, "; give one of the two a name"));
      }
      out_.metric_names.push_back(name);
    }
    return absl::OkStatus();
  }

  // "metric[1].latency.prefill" varies metric 1; its report name carries the
  // value where the name does not already.
  static absl::Status ExpandMetricSweep(const Sweep& sweep, int index, std::vector<MetricRequest>& requests) {
    const std::string prefix = absl::StrCat("metric[", index, "].");
    if (!absl::StartsWith(sweep.field(), prefix)) return absl::OkStatus();
    NIBBLE_RETURN_IF_ERROR(CheckExpansions(requests.size(), sweep.values_size(), "metric"));
    const std::string rest = sweep.field().substr(prefix.size());
    std::vector<MetricRequest> expanded;
    for (const MetricRequest& request : requests) {
      for (const std::string& value : sweep.values()) {
        MetricRequest each = request;
        NIBBLE_RETURN_IF_ERROR(Annotate(SetField(&each, rest, value), "sweep"));
        const std::string suffix = absl::StrCat("@", rest.substr(rest.rfind('.') + 1), "=", value);
        SetName((NameGiven(request).empty() ? DataOf(request) : NameGiven(request)) + suffix, each);
        expanded.push_back(std::move(each));
      }
    }
    requests = std::move(expanded);
    return absl::OkStatus();
  }

  absl::Status CheckRepeats(const Sweep& sweep, const std::string& place) const {
    if (!sweep.has_variant()) {
      return Error(place, "repeats: true needs a variant to repeat; only a variant's axis, such as its seed, makes repetitions");
    }
    if (sweep.values_size() >= 2) return absl::OkStatus();
    return Error(place, absl::StrCat("repeats: true with ", sweep.values_size(), " value; a spread needs 2 values or more"));
  }

  absl::Status CheckSweeps() const {
    for (int i = 0; i < config_.sweep_size(); ++i) {
      const Sweep& sweep = config_.sweep(i);
      const std::string place = Place(out_.path, tree_, Field("sweep"), i);
      if (sweep.values_size() == 0) return Error(place, "sweep has no values");
      if (sweep.repeats()) NIBBLE_RETURN_IF_ERROR(CheckRepeats(sweep, place));
      if (sweep.has_variant()) {
        std::vector<std::string> names;
        for (const Variant& variant : config_.variant()) names.push_back(variant.name());
        if (std::find(names.begin(), names.end(), sweep.variant()) == names.end()) {
          return Error(place, UnknownName("variant", sweep.variant(), names));
        }
      } else {
        const size_t close = sweep.field().find("].");
        int index = -1;
        if (!absl::StartsWith(sweep.field(), "metric[") || close == std::string::npos ||
            !absl::SimpleAtoi(sweep.field().substr(7, close - 7), &index) || index < 0 || index >= config_.metric_size()) {
          return Error(place, absl::StrCat("field '", sweep.field(), "' of a sweep without variant must start with metric[0] to metric[",
                                           config_.metric_size() - 1, "]"));
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckGates() {
    std::set<std::string> files;
    for (int i = 0; i < config_.gate_size(); ++i) {
      const Gate& gate = config_.gate(i);
      const std::string place = Place(out_.path, tree_, Field("gate"), i);
      if (gate.metric().empty()) return Error(place, "gate needs a metric, such as \"perplexity/*\"");
      if (!gate.has_max_ratio() && !gate.has_min_ratio() && !gate.has_max_difference() && !gate.has_min_difference() &&
          !gate.has_max_value() && !gate.has_min_value()) {
        return Error(place, "gate has no bound; give max_ratio, min_ratio, max_difference, min_difference, max_value or min_value");
      }
      std::vector<std::string> names;
      bool known = gate.variant().empty();
      for (const ExpandedVariant& variant : out_.variants) {
        names.push_back(variant.name);
        known = known || MatchesPattern(gate.variant(), variant.name);
      }
      if (!known) return Error(place, UnknownName("variant", gate.variant(), names));
      const auto is_gated = [&](const std::string& name) { return MatchesPattern(gate.metric(), name); };
      if (std::none_of(metric_names_.begin(), metric_names_.end(), is_gated)) {
        return Error(place, UnknownName("metric", gate.metric(), {metric_names_.begin(), metric_names_.end()}));
      }
      if (gate.has_against() && files.insert(gate.against()).second) NIBBLE_RETURN_IF_ERROR(AddEarlier(gate.against(), place));
    }
    return absl::OkStatus();
  }

  absl::Status AddEarlier(const std::string& file, const std::string& place) {
    const auto results = ReadEarlierResults((std::filesystem::path(out_.directory) / file).string(), file);
    if (!results.ok()) {
      return Annotate(results.status(), absl::StrCat(place, ": against (copy a run's results.json there; the first run goes without the gate)"));
    }
    out_.earlier.insert(out_.earlier.end(), results->begin(), results->end());
    return absl::OkStatus();
  }

  ExpandedExperiment& out_;
  const Experiment& config_;
  const Locations* const tree_;
  std::set<std::string> metric_names_;
};

// `locations` may be null.
absl::StatusOr<ExpandedExperiment> Expand(Experiment config, const std::string& path, const std::string& directory, const Locations* locations) {
  ExpandedExperiment experiment;
  experiment.path = path;
  experiment.directory = directory;
  experiment.config = std::move(config);
  NIBBLE_RETURN_IF_ERROR(Expander(experiment, locations).Run());
  return experiment;
}

}  // namespace

absl::Status CheckMetric(const MetricRequest& request, const std::string& directory) {
  NIBBLE_RETURN_IF_ERROR(MetricKind(request).status());
  if (request.has_perplexity()) {
    const Perplexity& p = request.perplexity();
    NIBBLE_RETURN_IF_ERROR(CheckPositive("limit", p.limit(), 0));
    if (p.has_window()) NIBBLE_RETURN_IF_ERROR(CheckPositive("window", p.window(), 4));
    return CheckData(p.text(), "text", directory);
  }
  if (request.has_multiple_choice()) {
    NIBBLE_RETURN_IF_ERROR(CheckPositive("limit", request.multiple_choice().limit(), 0));
    if (request.multiple_choice().set().empty()) return absl::InvalidArgumentError("needs set: a path or a known set");
  }
  if (request.has_task()) {
    NIBBLE_RETURN_IF_ERROR(CheckPositive("limit", request.task().limit(), 0));
    NIBBLE_RETURN_IF_ERROR(CheckPositive("shots", request.task().shots(), 0));
    NIBBLE_RETURN_IF_ERROR(CheckPositive("window", request.task().window(), 1));
    if (request.task().task().empty()) return absl::InvalidArgumentError("needs task: a known task, or a .textproto that describes one");
    if (request.task().has_window()) {
      NIBBLE_ASSIGN_OR_RETURN(const datasets::ResolvedTask task, FindTask(request, directory));
      if (task.description.kind() != TaskDescription::ROLLING) {
        return absl::InvalidArgumentError(absl::StrCat("window: of use to rolling perplexity only, which ", request.task().task(), " is not"));
      }
    }
  }
  if (request.has_divergence()) {
    NIBBLE_RETURN_IF_ERROR(CheckPositive("window", request.divergence().window(), 4));
    NIBBLE_RETURN_IF_ERROR(CheckPositive("limit", request.divergence().limit(), 0));
    return CheckData(request.divergence().text(), "text", directory);
  }
  if (request.has_memory()) return CheckPositive("prefill", request.memory().prefill(), 1);
  if (request.has_latency()) {
    NIBBLE_RETURN_IF_ERROR(CheckPositive("prefill", request.latency().prefill(), 1));
    NIBBLE_RETURN_IF_ERROR(CheckPositive("decode", request.latency().decode(), 1));
    NIBBLE_RETURN_IF_ERROR(CheckPositive("rounds", request.latency().rounds(), 2));
    NIBBLE_RETURN_IF_ERROR(CheckPositive("threads", request.latency().threads(), 0));
  }
  return absl::OkStatus();
}

absl::StatusOr<ExpandedExperiment> LoadExperiment(const std::string& path, const std::vector<Override>& overrides) {
  Experiment config;
  Locations locations;
  NIBBLE_RETURN_IF_ERROR(ReadTextFile(path, &config, &locations));
  for (const auto& [field, value] : overrides) NIBBLE_RETURN_IF_ERROR(Annotate(SetField(&config, field, value), "--set"));
  NIBBLE_RETURN_IF_ERROR(Annotate(ResolveIncludedData(&config, DirectoryOf(path)), path));
  return Expand(std::move(config), path, DirectoryOf(path), &locations);
}

absl::StatusOr<ExpandedExperiment> ExpandExperiment(Experiment config, const std::string& path, const std::string& directory) {
  return Expand(std::move(config), path, directory, nullptr);
}

absl::StatusOr<Pipeline> LoadPipeline(const std::string& path) {
  Pipeline pipeline;
  Locations locations;
  NIBBLE_RETURN_IF_ERROR(ReadTextFile(path, &pipeline, &locations));
  if (pipeline.step_size() == 0) return absl::InvalidArgumentError(absl::StrCat(path, ": has no step"));
  NIBBLE_RETURN_IF_ERROR(Annotate(ResolveIncludedData(&pipeline, DirectoryOf(path)), path));
  NIBBLE_RETURN_IF_ERROR(CheckSteps(pipeline.step(), path, &locations, StepField(Pipeline::descriptor())));
  return pipeline;
}

std::string DataOf(const MetricRequest& request) {
  if (request.has_perplexity()) return request.perplexity().text();
  if (request.has_multiple_choice()) return request.multiple_choice().set();
  if (request.has_task()) return request.task().task();
  if (request.has_divergence()) return request.divergence().text();
  return "";
}

absl::StatusOr<std::string> SetLabel(const MetricRequest& request, const std::string& directory) {
  if (!NameGiven(request).empty()) return NameGiven(request);
  const std::string data = DataOf(request);
  if (data.empty()) return data;
  NIBBLE_ASSIGN_OR_RETURN(const auto resolved, datasets::ResolveDataset(data, directory));
  return resolved.label;
}

absl::StatusOr<std::vector<std::string>> MetricNames(const MetricRequest& request, const std::string& directory) {
  if (IsTask(request)) {
    NIBBLE_ASSIGN_OR_RETURN(const datasets::Task task, LoadTask(request, directory));
    return eval::TaskMetricNames(task);
  }
  NIBBLE_ASSIGN_OR_RETURN(const std::string label, SetLabel(request, directory));
  if (request.has_perplexity()) return std::vector<std::string>{"perplexity/" + label};
  if (request.has_divergence()) return std::vector<std::string>{"kl/" + label, "top1_agreement/" + label};
  if (request.has_size()) return std::vector<std::string>{"size_mib", "bits_per_weight"};
  if (request.has_memory()) return std::vector<std::string>{"peak_rss_mib"};
  const Latency& latency = request.latency();
  return std::vector<std::string>{absl::StrCat("ttft_ms/", latency.prefill()), absl::StrCat("prefill_tokens_per_s/", latency.prefill()),
                                  absl::StrCat("decode_tokens_per_s/", latency.decode())};
}

}  // namespace nibble
