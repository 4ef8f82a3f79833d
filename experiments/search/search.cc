#include "experiments/search/search.h"

#include <algorithm>
#include <fstream>
#include <map>
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
#include "core/kernels/machine.h"
#include "experiments/input_hashes.h"
#include "experiments/search/join_step.h"
#include "methods/baseline/baseline.pb.h"
#include "methods/method.h"
#include "methods/training/training.h"

namespace nibble {
namespace {

constexpr double kMib = 1 << 20;
constexpr char kBaseline[] = "bf16";
constexpr char kLossFile[] = "/sensitivity.tsv";
// Choices of a mix for a time.
constexpr int kAttempts = 4;

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

using Steps = google::protobuf::RepeatedPtrField<Step>;

// Some of a candidate's steps for some ops.
absl::StatusOr<std::vector<Step>> StepsFor(const Search::Candidate& candidate, const Steps& given, const std::vector<std::string>& ops) {
  std::vector<Step> steps(given.begin(), given.end());
  for (Step& step : steps) NIBBLE_RETURN_IF_ERROR(Annotate(SetLayers(ops, &step), absl::StrCat("candidate ", candidate.name())));
  return steps;
}

// What a candidate is chosen for: selectors of the embedding and the head, and of linears
// inside the blocks.
struct Chosen {
  std::vector<std::string> ends, blocks;
};

Chosen Everything(const Search& search) {
  Chosen all{{}, {"blocks"}};
  if (search.embedding_and_head()) all.ends = {"embedding", "head"};
  return all;
}

// The steps by which a choice is measured.
absl::StatusOr<std::vector<Step>> MeasuredFor(const Search::Candidate& candidate, const Chosen& chosen) {
  std::vector<std::string> ops = chosen.ends;
  ops.insert(ops.end(), chosen.blocks.begin(), chosen.blocks.end());
  return StepsFor(candidate, candidate.step(), ops);
}

// The steps that make the model for use: the ends first, so that what calibrates the blocks
// has them as they will be.
struct BuildSteps {
  std::vector<Step> ends, blocks;

  std::vector<Step> all() const {
    std::vector<Step> steps = ends;
    steps.insert(steps.end(), blocks.begin(), blocks.end());
    return steps;
  }
};

absl::Status AddBuild(const Search::Candidate& candidate, const Chosen& chosen, BuildSteps* build) {
  if (!chosen.ends.empty()) {
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<Step> ends, StepsFor(candidate, candidate.step(), chosen.ends));
    build->ends.insert(build->ends.end(), ends.begin(), ends.end());
  }
  if (chosen.blocks.empty()) return absl::OkStatus();
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Step> blocks,
                          StepsFor(candidate, candidate.build().empty() ? candidate.step() : candidate.build(), chosen.blocks));
  for (const Step& step : blocks) {
    if (build->blocks.empty() || !JoinStep(step, &build->blocks.back())) build->blocks.push_back(step);
  }
  return absl::OkStatus();
}

// A mix's pipeline around what makes its units.
Pipeline PipelineOf(const Search& search, const std::vector<Step>& build) {
  Pipeline pipeline;
  *pipeline.mutable_step() = search.first();
  for (const Step& step : build) *pipeline.add_step() = step;
  for (const Step& step : search.last()) *pipeline.add_step() = step;
  return pipeline;
}

absl::Status ApplySteps(const Workplace& workplace, const std::vector<Step>& steps, ThreadPool& pool, ir::Graph& graph) {
  Context context(pool, workplace);
  for (size_t i = 0; i < steps.size(); ++i) NIBBLE_RETURN_IF_ERROR(ApplyStep(context, steps[i], static_cast<int>(i), graph).status());
  return absl::OkStatus();
}

// `where`: "last".
absl::Status CheckUntrained(const Step& step, absl::string_view where) {
  NIBBLE_ASSIGN_OR_RETURN(const auto method, MakeMethod(step));
  if (method->Learning().copies == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": a step that trains would run for each candidate; run it on the mix that the search writes"));
}

absl::Status CheckCandidate(const Search::Candidate& candidate) {
  if (candidate.name().empty()) return absl::InvalidArgumentError("a candidate has no name");
  if (candidate.step().empty()) return absl::InvalidArgumentError(absl::StrCat("candidate ", candidate.name(), " has no step"));
  const Chosen blocks{{}, {"blocks"}};
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Step> steps, MeasuredFor(candidate, blocks));
  for (const Step& step : steps) {
    NIBBLE_ASSIGN_OR_RETURN(const auto method, MakeMethod(step));
    if (!method->learns()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("candidate ", candidate.name(), " learns from data; a search measures with methods that do not, as rtn, and builds with it: build { ... }"));
  }
  BuildSteps build;
  NIBBLE_RETURN_IF_ERROR(AddBuild(candidate, blocks, &build));
  for (const Step& step : build.all()) NIBBLE_RETURN_IF_ERROR(CheckUntrained(step, absl::StrCat("candidate ", candidate.name(), ", build")));
  return absl::OkStatus();
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

std::vector<Budget> BudgetsOf(const Search& search) {
  std::vector<Budget> budgets;
  for (const double mib : search.budget_mib()) budgets.push_back({Budget::Kind::kMib, mib});
  for (const double ms : search.budget_ms()) budgets.push_back({Budget::Kind::kDecodeMs, ms});
  return budgets;
}

bool IsTime(const Budget& budget) { return budget.kind == Budget::Kind::kDecodeMs; }
Cost Sum(const Cost& a, const Cost& b) { return {a.bytes + b.bytes, a.seconds + b.seconds}; }
double BytesOrSeconds(const Cost& cost, const Budget& budget) { return IsTime(budget) ? cost.seconds : cost.bytes; }
// The same unit.
double Limit(const Budget& budget) { return IsTime(budget) ? budget.value / 1e3 : budget.value * kMib; }

std::string MixName(const Budget& budget) { return absl::StrFormat("mix_%g%s", budget.value, IsTime(budget) ? "ms" : "mib"); }

std::optional<DecodeTiming> TimingOf(const Search& search) {
  if (search.budget_ms().empty()) return std::nullopt;
  DecodeTiming timing;
  timing.depth = search.depth();
  timing.rounds = search.rounds();
  return timing;
}

Knapsack KnapsackFor(const Budget& budget, const Sensitivities& sensitivities, int steps = 8192) {
  std::vector<std::vector<Choice>> units;
  for (size_t u = 0; u < sensitivities.units.size(); ++u) {
    std::vector<Choice>& choices = units.emplace_back();
    for (size_t c = 0; c < sensitivities.costs[u].size(); ++c) {
      choices.push_back({BytesOrSeconds(sensitivities.costs[u][c], budget), sensitivities.losses[u][c]});
    }
  }
  return Knapsack(std::move(units), steps);
}

// Losses are measured with full-precision inputs.
absl::Status CheckActivations(const ir::Graph& before, const ir::Graph& after) {
  for (const ir::Op& op : after.ops()) {
    const ir::Op* was = before.FindOp(op.name);
    if (!op.activation.has_value() || (was != nullptr && was->activation.has_value())) continue;
    return absl::InvalidArgumentError(absl::StrCat(op.name, ": the candidate quantizes activations, which its loss does not show; let a last step do that"));
  }
  return absl::OkStatus();
}

// An error where even the cheapest choices are beyond the budget.
absl::Status CheckBudget(const Budget& budget, const Sensitivities& sensitivities) {
  double least = BytesOrSeconds(sensitivities.fixed, budget);
  for (const std::vector<Cost>& costs : sensitivities.costs) {
    const auto less = [&](const Cost& a, const Cost& b) { return BytesOrSeconds(a, budget) < BytesOrSeconds(b, budget); };
    least += BytesOrSeconds(*std::min_element(costs.begin(), costs.end(), less), budget);
  }
  if (Limit(budget) >= least) return absl::OkStatus();
  if (IsTime(budget)) {
    return absl::InvalidArgumentError(absl::StrFormat("a budget of %g ms is below %.4g ms, the least that a decoded token takes here under the candidates",
                                                      budget.value, least * 1e3));
  }
  return absl::InvalidArgumentError(absl::StrFormat("a budget of %g MiB is below %.4g MiB, the least that the candidates reach", budget.value, least / kMib));
}

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
  const std::vector<Budget> budgets = BudgetsOf(search);
  if (budgets.empty()) return error("a search needs a budget: --budget 100MiB or --budget 12ms, budget_mib: 100 or budget_ms: 12");
  for (const Budget& budget : budgets) {
    const char* field = IsTime(budget) ? "budget_ms: " : "budget_mib: ";
    if (!(budget.value > 0)) return error(field, budget.value, " must be above 0");
    if (!names.insert(MixName(budget)).second) return error(field, budget.value, " is given twice, or a candidate is called ", MixName(budget));
  }
  for (const Step& step : search.last()) NIBBLE_RETURN_IF_ERROR(CheckUntrained(step, "last"));
  if (search.depth() < 1) return error("depth: ", search.depth(), " must be 1 or more");
  if (search.rounds() < 1) return error("rounds: ", search.rounds(), " must be 1 or more");
  return search.metric().empty() ? error("a search needs a metric to check its result with") : absl::OkStatus();
}

namespace {

// The embedding and the head, which are one unit where they are tied.
std::vector<SearchUnit> EndUnits(const ir::Graph& graph) {
  const std::string &embedding = graph.embedding().name, &head = graph.head().name;
  const int layers = graph.num_layers();
  if (graph.tied()) return {{"embedding and head", {.embedding = true, .head = true}, {embedding, head}}};
  return {{embedding, {.embedding = true}, {embedding}}, {head, {.first = layers, .end = layers, .head = true}, {head}}};
}

}  // namespace

std::vector<SearchUnit> SearchUnits(const ir::Graph& graph, Search::Unit unit, bool embedding_and_head) {
  std::vector<SearchUnit> units;
  if (embedding_and_head) units = EndUnits(graph);
  for (const ir::Op& op : graph.ops()) {
    if (op.kind != ir::OpKind::kLinear || op.adapter || op.layer < 0) continue;
    std::string name = op.name;
    if (unit != Search::LINEAR) name = name.substr(0, name.rfind('.'));
    if (unit == Search::BLOCK) name = name.substr(0, name.rfind('.'));
    if (units.empty() || units.back().name != name) units.push_back({name, {.first = op.layer, .end = op.layer + 1}, {}});
    units.back().ops.push_back(op.name);
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
  NIBBLE_ASSIGN_OR_RETURN(const std::string hash, model.source.Hash());
  std::unique_ptr<Searcher> searcher(new Searcher(search, WorkplaceOf(model, directory, "", hash), pool, out));
  Context context(pool, searcher->workplace_);
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

absl::StatusOr<double> Searcher::LossOf(const std::vector<Step>& steps, GraphMaker quantize, const ModelPart& part) {
  const std::string key = Sha256(absl::StrCat(conditions_, StepsText(steps)));
  const auto known = known_.find(key);
  if (known != known_.end()) return known->second;
  NIBBLE_ASSIGN_OR_RETURN(const ir::Graph changed, quantize());
  NIBBLE_ASSIGN_OR_RETURN(const double loss, probe_->Divergence(changed, part));
  NIBBLE_RETURN_IF_ERROR(AppendLoss(out_ + kLossFile, key, loss));
  return loss;
}

absl::StatusOr<double> Searcher::LossOfUnit(const Search::Candidate& candidate, const SearchUnit& unit) {
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Step> steps, StepsFor(candidate, candidate.step(), unit.ops));
  const auto loss = LossOf(steps, [&] { return Quantize(steps); }, unit.part);
  return loss.ok() ? loss : Annotate(loss.status(), absl::StrCat(unit.name, ", candidate ", candidate.name()));
}

absl::StatusOr<ModelCost> Searcher::CostOf(ir::Graph changed) const {
  NIBBLE_RETURN_IF_ERROR(Annotate(ApplySteps(workplace_, {search_.last().begin(), search_.last().end()}, pool_, changed), "last"));
  return MeasureModelCost(changed, TimingOf(search_), pool_);
}

absl::Status Searcher::MeasureCosts(Sensitivities* result) {
  const size_t units = result->units.size();
  result->costs.assign(units, {});
  std::vector<Cost> rests;  // of each candidate, beside its units
  for (int c = 0; c < search_.candidate_size(); ++c) {
    const std::string candidate = absl::StrCat("candidate ", search_.candidate(c).name());
    NIBBLE_ASSIGN_OR_RETURN(const ChoiceSteps steps, StepsOf(result->units, std::vector<int>(units, c)));
    auto quantized = Quantize(steps.measured);
    if (!quantized.ok()) return Annotate(quantized.status(), candidate);
    NIBBLE_RETURN_IF_ERROR(Annotate(CheckActivations(graph_, *quantized), candidate));
    const auto model = CostOf(*std::move(quantized));
    if (!model.ok()) return Annotate(model.status(), candidate);
    result->candidates.push_back(model->whole);
    Cost& rest = rests.emplace_back(model->whole);
    for (size_t u = 0; u < units; ++u) {
      Cost& cost = result->costs[u].emplace_back();
      for (const std::string& op : result->units[u].ops) cost = Sum(cost, model->ops.at(op));
      rest = {rest.bytes - cost.bytes, rest.seconds - cost.seconds};
    }
  }
  result->fixed = rests[0];
  for (const Cost& rest : rests) result->fixed = {std::min(result->fixed.bytes, rest.bytes), std::min(result->fixed.seconds, rest.seconds)};
  for (size_t c = 0; c < rests.size(); ++c) {
    const auto count = static_cast<double>(units);
    const Cost excess = {(rests[c].bytes - result->fixed.bytes) / count, (rests[c].seconds - result->fixed.seconds) / count};
    for (std::vector<Cost>& costs : result->costs) costs[c] = Sum(costs[c], excess);
  }
  return absl::OkStatus();
}

absl::StatusOr<Sensitivities> Searcher::Measure() {
  Sensitivities result;
  result.units = SearchUnits(graph_, search_.unit(), search_.embedding_and_head());
  NIBBLE_RETURN_IF_ERROR(MeasureCosts(&result));
  for (const Budget& budget : BudgetsOf(search_)) NIBBLE_RETURN_IF_ERROR(CheckBudget(budget, result));
  Progress progress("units", static_cast<int64_t>(result.units.size()));
  for (size_t u = 0; u < result.units.size(); ++u) {
    std::vector<double>& losses = result.losses.emplace_back();
    for (const Search::Candidate& candidate : search_.candidate()) {
      NIBBLE_ASSIGN_OR_RETURN(const double loss, LossOfUnit(candidate, result.units[u]));
      losses.push_back(loss);
    }
    progress.Update(static_cast<int64_t>(u) + 1, result.units[u].name);
  }
  return result;
}

absl::StatusOr<Searcher::ChoiceSteps> Searcher::StepsOf(const std::vector<SearchUnit>& units, const std::vector<int>& choice) const {
  ChoiceSteps all;
  BuildSteps build;
  for (int c = 0; c < search_.candidate_size(); ++c) {
    Chosen chosen;
    for (size_t u = 0; u < units.size(); ++u) {
      if (choice[u] != c) continue;
      std::vector<std::string>& ops = units[u].in_blocks() ? chosen.blocks : chosen.ends;
      ops.insert(ops.end(), units[u].ops.begin(), units[u].ops.end());
    }
    if (chosen.ends.empty() && chosen.blocks.empty()) continue;
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<Step> measured, MeasuredFor(search_.candidate(c), chosen));
    all.measured.insert(all.measured.end(), measured.begin(), measured.end());
    NIBBLE_RETURN_IF_ERROR(AddBuild(search_.candidate(c), chosen, &build));
  }
  all.build = build.all();
  return all;
}

absl::StatusOr<ir::Graph> Searcher::Quantize(const std::vector<Step>& steps) const {
  ir::Graph quantized = graph_;
  NIBBLE_RETURN_IF_ERROR(ApplySteps(workplace_, steps, pool_, quantized));
  return quantized;
}

void Searcher::Predict(const Sensitivities& sensitivities, Mix* mix) const {
  mix->predicted_cost = sensitivities.fixed;
  mix->predicted_loss = 0;
  for (size_t u = 0; u < sensitivities.units.size(); ++u) {
    mix->predicted_cost = Sum(mix->predicted_cost, sensitivities.costs[u][mix->choice[u]]);
    mix->predicted_loss += sensitivities.losses[u][mix->choice[u]];
  }
}

absl::StatusOr<Mix> Searcher::FindMix(const Budget& budget, const Sensitivities& sensitivities) {
  const Knapsack knapsack = KnapsackFor(budget, sensitivities);
  double left = Limit(budget) - BytesOrSeconds(sensitivities.fixed, budget);
  Mix mix{.name = MixName(budget), .budget = budget};
  ChoiceSteps steps;
  ir::Graph quantized;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const auto selection = knapsack.Best(left);
    if (!selection.ok() && attempt > 0) break;
    if (!selection.ok()) return selection.status();
    mix.choice = selection->choice;
    Predict(sensitivities, &mix);
    NIBBLE_ASSIGN_OR_RETURN(steps, StepsOf(sensitivities.units, mix.choice));
    NIBBLE_ASSIGN_OR_RETURN(quantized, Quantize(steps.measured));
    NIBBLE_ASSIGN_OR_RETURN(const ModelCost cost, CostOf(quantized));
    mix.cost = cost.whole;
    if (!IsBeyondBudget(mix)) break;
    left -= BytesOrSeconds(mix.cost, budget) - Limit(budget);
  }
  NIBBLE_RETURN_IF_ERROR(Finish(steps, [&]() -> absl::StatusOr<ir::Graph> { return quantized; }, &mix));
  return mix;
}

absl::Status Searcher::Finish(const ChoiceSteps& steps, GraphMaker quantize, Mix* mix) {
  const ModelPart whole{search_.embedding_and_head(), 0, graph_.num_layers(), search_.embedding_and_head()};
  NIBBLE_ASSIGN_OR_RETURN(mix->loss, LossOf(steps.measured, quantize, whole));
  mix->pipeline = PipelineOf(search_, steps.build);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Mix>> Searcher::FindMixes(const Sensitivities& sensitivities) {
  std::vector<Mix> mixes;
  for (int c = 0; c < search_.candidate_size(); ++c) {
    Mix& mix = mixes.emplace_back(Mix{.name = search_.candidate(c).name(), .choice = std::vector<int>(sensitivities.units.size(), c)});
    mix.cost = sensitivities.candidates[c];
    Predict(sensitivities, &mix);
    NIBBLE_ASSIGN_OR_RETURN(const ChoiceSteps steps, StepsOf(sensitivities.units, mix.choice));
    NIBBLE_RETURN_IF_ERROR(Annotate(Finish(steps, [&] { return Quantize(steps.measured); }, &mix), mix.name));
  }
  for (const Budget& budget : BudgetsOf(search_)) {
    auto mix = FindMix(budget, sensitivities);
    if (!mix.ok()) return Annotate(mix.status(), MixName(budget));
    mixes.push_back(*std::move(mix));
  }
  return mixes;
}

absl::StatusOr<std::vector<Mix>> UniformMixes(const Search& search) {
  std::vector<Mix> mixes;
  for (const Search::Candidate& candidate : search.candidate()) {
    BuildSteps build;
    NIBBLE_RETURN_IF_ERROR(AddBuild(candidate, Everything(search), &build));
    mixes.push_back({.name = candidate.name(), .pipeline = PipelineOf(search, build.all())});
  }
  return mixes;
}

std::vector<Selection> PredictedFront(const Sensitivities& sensitivities, Budget::Kind kind) {
  constexpr int kPoints = 256;
  const Budget budget{kind, 0};
  std::vector<Selection> front = KnapsackFor(budget, sensitivities, kPoints).Front();
  for (Selection& selection : front) selection.cost += BytesOrSeconds(sensitivities.fixed, budget);
  return front;
}

bool IsBeyondBudget(const Mix& mix) { return mix.budget.has_value() && BytesOrSeconds(mix.cost, *mix.budget) > Limit(*mix.budget) * (1 + 1e-9); }

namespace {

// The candidate for all units that loses least within the mix's budget; null where none
// fits, and for a candidate.
const Mix* RivalOf(const Mix& mix, const std::vector<Mix>& mixes) {
  const Mix* rival = nullptr;
  for (const Mix& other : mixes) {
    if (other.budget.has_value() || !mix.budget.has_value() || BytesOrSeconds(other.cost, *mix.budget) > Limit(*mix.budget)) continue;
    if (rival == nullptr || other.loss < rival->loss) rival = &other;
  }
  return rival;
}

}  // namespace

Experiment SearchExperiment(const Search& search, const std::vector<Mix>& mixes, int threads) {
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
  for (const Mix& mix : mixes) {
    const Mix* rival = RivalOf(mix, mixes);
    if (rival == nullptr) continue;
    Contrast& contrast = *experiment.add_contrast();
    contrast.set_variant(mix.name);
    contrast.set_against(rival->name);
  }
  *experiment.mutable_metric() = search.metric();
  const auto asks = [&](bool (MetricRequest::*has)() const) {
    return std::any_of(search.metric().begin(), search.metric().end(), [&](const MetricRequest& metric) { return (metric.*has)(); });
  };
  if (!asks(&MetricRequest::has_size)) experiment.add_metric()->mutable_size();
  if (search.budget_ms().empty() || asks(&MetricRequest::has_latency)) return experiment;
  Latency& latency = *experiment.add_metric()->mutable_latency();
  latency.set_prefill(search.depth());
  latency.set_decode(static_cast<int>(DecodeTiming().tokens));
  if (threads > 0) latency.set_threads(threads);
  return experiment;
}

}  // namespace nibble
