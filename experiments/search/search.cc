#include "experiments/search/search.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <numeric>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/base/file.h"
#include "core/base/progress.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "core/ir/passes.h"
#include "eval/size.h"
#include "core/kernels/machine.h"
#include "experiments/input_hashes.h"
#include "methods/baseline/baseline.pb.h"
#include "methods/method.h"
#include "methods/training/training.h"
#include "reports/pareto.h"

namespace nibble {
namespace {

constexpr double kMib = 1 << 20;
constexpr char kBaseline[] = "bf16";
constexpr char kLossFile[] = "/sensitivity.tsv";

// The options message that a step holds, and its list of layers; an error when the
// method has none.
absl::Status SetLayers(const std::vector<std::string>& layers, Step* step) {
  std::vector<const google::protobuf::FieldDescriptor*> set;
  step->GetReflection()->ListFields(*step, &set);
  if (set.size() != 1) return absl::InvalidArgumentError("a step holds exactly one method");
  google::protobuf::Message* options = step->GetReflection()->MutableMessage(step, set[0]);
  const auto* field = options->GetDescriptor()->FindFieldByName("layers");
  if (field == nullptr || !field->is_repeated()) {
    return absl::InvalidArgumentError(absl::StrCat(set[0]->name(), " has no layers: it cannot treat a part of a model"));
  }
  if (options->GetReflection()->FieldSize(*options, field) > 0) {
    return absl::InvalidArgumentError(absl::StrCat(set[0]->name(), ": leave layers out, the search fills them in"));
  }
  for (const std::string& layer : layers) options->GetReflection()->AddString(options, field, layer);
  return absl::OkStatus();
}

// A candidate's steps for some linears.
absl::StatusOr<std::vector<Step>> StepsFor(const Search::Candidate& candidate, const std::vector<std::string>& linears) {
  std::vector<Step> steps(candidate.step().begin(), candidate.step().end());
  for (Step& step : steps) NIBBLE_RETURN_IF_ERROR(Annotate(SetLayers(linears, &step), absl::StrCat("candidate ", candidate.name())));
  return steps;
}

absl::Status ApplySteps(const std::vector<Step>& steps, ThreadPool& pool, ir::Graph& graph) {
  Context context(pool);
  for (size_t i = 0; i < steps.size(); ++i) NIBBLE_RETURN_IF_ERROR(ApplyStep(context, steps[i], static_cast<int>(i), graph).status());
  return absl::OkStatus();
}

absl::Status CheckCandidate(const Search::Candidate& candidate) {
  if (candidate.name().empty()) return absl::InvalidArgumentError("a candidate has no name");
  if (candidate.step().empty()) return absl::InvalidArgumentError(absl::StrCat("candidate ", candidate.name(), " has no step"));
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Step> steps, StepsFor(candidate, {"blocks"}));
  for (const Step& step : steps) {
    NIBBLE_ASSIGN_OR_RETURN(const auto method, MakeMethod(step));
    if (!method->learns()) continue;
    return absl::InvalidArgumentError(absl::StrCat("candidate ", candidate.name(), " learns from data; a search takes methods that do not"));
  }
  return absl::OkStatus();
}

// Bytes of the weights of some linears.
absl::StatusOr<double> BytesOf(const ir::Graph& graph, const std::vector<std::string>& linears) {
  double bytes = 0;
  for (const std::string& name : linears) {
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor weight, graph.parameter(*graph.FindOp(name)->weight).Load());
    bytes += static_cast<double>(weight.byte_size());
  }
  return bytes;
}

// Losses that earlier searches in the same folder measured, a line each: key, loss and
// an end mark, without which a kill tore the line.
std::map<std::string, double> ReadLosses(const std::string& path) {
  std::map<std::string, double> losses;
  const auto text = ReadFile(path);
  if (!text.ok()) return losses;
  for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
    const std::vector<std::string> parts = absl::StrSplit(line, '\t');
    double loss;
    if (parts.size() == 3 && parts[2] == "." && absl::SimpleAtod(parts[1], &loss)) losses[parts[0]] = loss;
  }
  return losses;
}

absl::Status AppendLoss(const std::string& path, const std::string& key, double loss) {
  std::ofstream file(path, std::ios::app);
  file << absl::StrFormat("\n%s\t%.17g\t.", key, loss) << std::flush;
  return file.good() ? absl::OkStatus() : absl::DataLossError(absl::StrCat("cannot write ", path));
}

std::string StepsText(const std::vector<Step>& steps) {
  return absl::StrJoin(steps, " ", [](std::string* out, const Step& step) { absl::StrAppend(out, ProtoToLine(step)); });
}

std::string MixName(double budget_mib) { return absl::StrFormat("mix_%gmib", budget_mib); }

}  // namespace

absl::Status CheckSearch(const Search& search) {
  const auto error = [](auto... parts) { return absl::InvalidArgumentError(absl::StrCat(parts...)); };
  if (search.candidate_size() < 2) return error("a search needs two candidates or more, this one has ", search.candidate_size());
  std::set<std::string> names = {kBaseline};
  for (const Search::Candidate& candidate : search.candidate()) {
    NIBBLE_RETURN_IF_ERROR(CheckCandidate(candidate));
    if (!names.insert(candidate.name()).second) return error("the name ", candidate.name(), " is taken");
  }
  NIBBLE_RETURN_IF_ERROR(CheckCalibration(search, "a search"));
  if (search.budget_mib().empty()) return error("a search needs a budget: --budget 100MiB, or budget_mib: 100");
  for (const double budget : search.budget_mib()) {
    if (!(budget > 0)) return error("budget_mib: ", budget, " must be above 0");
    if (!names.insert(MixName(budget)).second) return error("budget_mib: ", budget, " is given twice, or a candidate is called ", MixName(budget));
  }
  return search.metric().empty() ? error("a search needs a metric to check its result with") : absl::OkStatus();
}

std::vector<SearchUnit> SearchUnits(const ir::Graph& graph, Search::Unit unit) {
  std::vector<SearchUnit> units;
  for (const ir::Op& op : graph.ops()) {
    if (op.kind != ir::OpKind::kLinear || op.adapter || op.layer < 0) continue;
    std::string name = op.name;
    if (unit != Search::LINEAR) name = name.substr(0, name.rfind('.'));
    if (unit == Search::BLOCK) name = name.substr(0, name.rfind('.'));
    if (units.empty() || units.back().name != name) units.push_back({name, op.layer, {}});
    units.back().linears.push_back(op.name);
  }
  return units;
}

namespace {

// What decides a loss beside the steps that make it: the model, the first steps, their
// files and the calibration text, this program and its kernels.
absl::StatusOr<std::string> ConditionsOf(const Search& search, const std::string& model_hash, const std::string& directory) {
  InputHashes hashes(directory);
  NIBBLE_ASSIGN_OR_RETURN(const std::string program, Sha256OfFile("/proc/self/exe"));
  NIBBLE_ASSIGN_OR_RETURN(const std::string text, hashes.OfOptions(search.data()));
  std::string parts = absl::StrCat(model_hash, "\n", program, "\n", kernels::DescribeMachine().kernel_table, "\n", text, "\n",
                                   ProtoToLine(search.data()), "\n", search.samples(), "\n", search.seed());
  for (const Step& step : search.first()) {
    NIBBLE_ASSIGN_OR_RETURN(const std::string files, hashes.OfOptions(step));
    absl::StrAppend(&parts, "\n", ProtoToLine(step), "\n", files);
  }
  return Sha256(parts);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Searcher>> Searcher::Create(const Search& search, const OpenedModel& model, const std::string& directory,
                                                          const std::string& out, ThreadPool& pool) {
  std::unique_ptr<Searcher> searcher(new Searcher(search, pool, out));
  NIBBLE_ASSIGN_OR_RETURN(const std::string hash, model.source.Hash());
  Context context(pool, WorkplaceOf(model, directory, "", hash));
  searcher->graph_ = model.graph;
  NIBBLE_RETURN_IF_ERROR(ApplyPipeline(context, search.first(), searcher->graph_));
  NIBBLE_ASSIGN_OR_RETURN(const train::Machine machine, TrainingMachine(context));
  NIBBLE_ASSIGN_OR_RETURN(auto batches, CalibrationBatches(context, searcher->graph_, search.data(), search.samples(), search.seed()));
  searcher->events_ = context.events();
  NIBBLE_ASSIGN_OR_RETURN(searcher->probe_, OutputProbe::Create(searcher->graph_, machine, std::move(batches)));
  NIBBLE_RETURN_IF_ERROR(MakeDirectories(out));
  searcher->known_ = ReadLosses(out + kLossFile);
  NIBBLE_ASSIGN_OR_RETURN(searcher->conditions_, ConditionsOf(search, hash, directory));
  return searcher;
}

absl::StatusOr<double> Searcher::LossOf(const std::vector<Step>& steps, const ir::Graph& changed, int first, int end) {
  const std::string key = Sha256(absl::StrCat(conditions_, StepsText(steps)));
  const auto known = known_.find(key);
  if (known != known_.end()) return known->second;
  NIBBLE_ASSIGN_OR_RETURN(const double loss, probe_->Divergence(changed, first, end));
  NIBBLE_RETURN_IF_ERROR(AppendLoss(out_ + kLossFile, key, loss));
  return loss;
}

absl::StatusOr<Choice> Searcher::MeasureChoice(const Search::Candidate& candidate, const SearchUnit& unit) {
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Step> steps, StepsFor(candidate, unit.linears));
  ir::Graph changed = graph_;
  NIBBLE_RETURN_IF_ERROR(Annotate(ApplySteps(steps, pool_, changed), unit.name));
  Choice choice;
  NIBBLE_ASSIGN_OR_RETURN(choice.cost, BytesOf(changed, unit.linears));
  const auto loss = LossOf(steps, changed, unit.layer, unit.layer + 1);
  if (!loss.ok()) return Annotate(loss.status(), absl::StrCat(unit.name, ", candidate ", candidate.name()));
  choice.loss = *loss;
  return choice;
}

absl::StatusOr<Sensitivities> Searcher::Measure() {
  Sensitivities result;
  result.units = SearchUnits(graph_, search_.unit());
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Metric> size, eval::MeasureSize(graph_));
  result.fixed_bytes = size[0].value() * kMib;
  Progress progress("units", static_cast<int64_t>(result.units.size()));
  for (size_t u = 0; u < result.units.size(); ++u) {
    const SearchUnit& unit = result.units[u];
    std::vector<Choice>& choices = result.choices.emplace_back();
    for (const Search::Candidate& candidate : search_.candidate()) {
      NIBBLE_ASSIGN_OR_RETURN(const Choice choice, MeasureChoice(candidate, unit));
      choices.push_back(choice);
    }
    NIBBLE_ASSIGN_OR_RETURN(const double bytes, BytesOf(graph_, unit.linears));
    result.fixed_bytes -= bytes;
    progress.Update(static_cast<int64_t>(u) + 1, unit.name);
  }
  return result;
}

absl::Status Searcher::Finish(const std::vector<SearchUnit>& units, Mix* mix) {
  std::vector<Step> chosen;
  for (int c = 0; c < search_.candidate_size(); ++c) {
    std::vector<std::string> linears;
    for (size_t u = 0; u < units.size(); ++u) {
      if (mix->selection.choice[u] == c) linears.insert(linears.end(), units[u].linears.begin(), units[u].linears.end());
    }
    if (linears.empty()) continue;
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<Step> steps, StepsFor(search_.candidate(c), linears));
    chosen.insert(chosen.end(), steps.begin(), steps.end());
  }
  ir::Graph changed = graph_;
  NIBBLE_RETURN_IF_ERROR(ApplySteps(chosen, pool_, changed));
  NIBBLE_ASSIGN_OR_RETURN(mix->loss, LossOf(chosen, changed, 0, changed.num_layers()));
  *mix->pipeline.mutable_step() = search_.first();
  for (const Step& step : chosen) *mix->pipeline.add_step() = step;
  for (const Step& step : search_.last()) *mix->pipeline.add_step() = step;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Mix>> Searcher::FindMixes(const Sensitivities& sensitivities) {
  const size_t units = sensitivities.units.size();
  std::vector<Mix> mixes;
  for (int c = 0; c < search_.candidate_size(); ++c) {
    Mix mix{.name = search_.candidate(c).name(), .selection = {.choice = std::vector<int>(units, c)}};
    for (const auto& choices : sensitivities.choices) mix.selection.cost += choices[c].cost, mix.selection.loss += choices[c].loss;
    mixes.push_back(std::move(mix));
  }
  const Knapsack knapsack(sensitivities.choices);
  for (const double budget : search_.budget_mib()) {
    Mix mix{.name = MixName(budget), .budget_mib = budget};
    mix.selection_budget = budget * kMib - sensitivities.fixed_bytes;
    auto selection = knapsack.Best(mix.selection_budget);
    if (!selection.ok()) {
      const double least = knapsack.Front().front().cost + sensitivities.fixed_bytes;
      return absl::InvalidArgumentError(
          absl::StrFormat("a budget of %g MiB is below %.4g MiB, the least that the candidates reach", budget, least / kMib));
    }
    mix.selection = *std::move(selection);
    mixes.push_back(std::move(mix));
  }
  for (Mix& mix : mixes) NIBBLE_RETURN_IF_ERROR(Annotate(Finish(sensitivities.units, &mix), mix.name));
  return mixes;
}

Experiment SearchExperiment(const Search& search, const std::vector<Mix>& mixes) {
  Experiment experiment;
  experiment.set_name("search");
  *experiment.mutable_model() = search.model();
  experiment.mutable_baseline()->set_name(kBaseline);
  experiment.mutable_baseline()->add_step()->MutableExtension(baseline);
  for (const Mix& mix : mixes) {
    Variant& variant = *experiment.add_variant();
    variant.set_name(mix.name);
    *variant.mutable_step() = mix.pipeline.step();
  }
  // Each mix beside the largest candidate for all that its budget allows.
  for (const Mix& mix : mixes) {
    const Mix* rival = nullptr;
    for (const Mix& other : mixes) {
      const bool fits = other.budget_mib == 0 && mix.budget_mib > 0 && other.selection.cost <= mix.selection_budget;
      if (fits && (rival == nullptr || other.selection.cost > rival->selection.cost)) rival = &other;
    }
    if (rival == nullptr) continue;
    Contrast& contrast = *experiment.add_contrast();
    contrast.set_variant(mix.name);
    contrast.set_against(rival->name);
  }
  *experiment.mutable_metric() = search.metric();
  const auto is_size = [](const MetricRequest& metric) { return metric.has_size(); };
  if (std::none_of(search.metric().begin(), search.metric().end(), is_size)) experiment.add_metric()->mutable_size();
  return experiment;
}

namespace {

// How many weights of each kind of linear, or of each block, went to each candidate.
std::string ChoiceTable(const Search& search, const Sensitivities& sensitivities, const Mix& mix, bool by_block) {
  std::map<std::string, std::vector<int>> counts;
  std::vector<std::string> order;
  for (size_t u = 0; u < sensitivities.units.size(); ++u) {
    for (const std::string& linear : sensitivities.units[u].linears) {
      const std::string row = by_block ? absl::StrCat("block ", sensitivities.units[u].layer) : linear.substr(linear.rfind('.') + 1);
      auto [it, added] = counts.emplace(row, std::vector<int>(search.candidate_size()));
      if (added) order.push_back(row);
      ++it->second[mix.selection.choice[u]];
    }
  }
  std::string table = "| |";
  for (const auto& candidate : search.candidate()) absl::StrAppend(&table, " ", candidate.name(), " |");
  absl::StrAppend(&table, "\n|---|");
  for (int c = 0; c < search.candidate_size(); ++c) absl::StrAppend(&table, "---:|");
  for (const std::string& row : order) absl::StrAppend(&table, "\n| ", row, " | ", absl::StrJoin(counts.at(row), " | "), " |");
  return table + "\n";
}

}  // namespace

absl::Status WriteSearchReport(const Search& search, const Sensitivities& sensitivities, const std::vector<Mix>& mixes,
                               const std::string& out) {
  std::string text = absl::StrCat("# Search on ", search.model().source(), "\n\nThe loss is the mean KL divergence of the next token, in nats, on ",
                                  search.samples(), " windows of the calibration text: predicted as the sum over units, each quantized alone, and ",
                                  "measured with all of them quantized. [report.md](report.md) has what was measured on held-out text.\n\n",
                                  "| | size, MiB | predicted loss | measured loss |\n|---|---:|---:|---:|\n");
  std::vector<ParetoPoint> points;
  for (const Mix& mix : mixes) {
    const double mib = (mix.selection.cost + sensitivities.fixed_bytes) / kMib;
    absl::StrAppendFormat(&text, "| %s | %.2f | %.5f | %.5f |\n", mix.name, mib, mix.selection.loss, mix.loss);
    points.push_back({mix.name, mib, mix.loss, false});
    NIBBLE_RETURN_IF_ERROR(WriteFile(absl::StrCat(out, "/", mix.name, ".textproto"), ProtoToText(mix.pipeline)));
  }
  absl::StrAppend(&text, "\n![measured loss over size](front.svg)\n");
  for (const Mix& mix : mixes) {
    if (mix.budget_mib == 0) continue;
    absl::StrAppend(&text, "\n## ", mix.name, "\n\nLinears by candidate; `nibble quantize --pipeline ", mix.name, ".textproto` makes the model.\n\n",
                    ChoiceTable(search, sensitivities, mix, false), "\n", ChoiceTable(search, sensitivities, mix, true));
  }
  NIBBLE_RETURN_IF_ERROR(WriteFile(out + "/front.svg", ParetoSvg(points, "size, MiB", "KL divergence, nats")));
  return WriteFile(out + "/search.md", text);
}

}  // namespace nibble
