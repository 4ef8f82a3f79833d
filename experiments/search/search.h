// Finds for each linear, and for embedding and head, the scheme that lets a model keep most within a size or a time:
// measured costs and losses of single units, the best mix by dynamic programming, and an
// experiment that measures what was predicted.
#ifndef NIBBLE_EXPERIMENTS_SEARCH_SEARCH_H_
#define NIBBLE_EXPERIMENTS_SEARCH_SEARCH_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "experiments/experiment.pb.h"
#include "experiments/model.h"
#include "experiments/search/costs.h"
#include "experiments/search/knapsack.h"
#include "experiments/search/search.pb.h"
#include "experiments/search/sensitivity.h"

namespace nibble {

// Linears that are quantized alike, or the embedding, the head, or both.
struct SearchUnit {
  std::string name;  // "model.layers.3.mlp"
  ModelPart part;
  std::vector<std::string> ops;

  bool in_blocks() const { return part.first < part.end; }
};

// What a search measured, [unit][candidate]; a loss is a mean KL divergence in nats.
struct Sensitivities {
  std::vector<SearchUnit> units;
  std::vector<std::vector<Cost>> costs;
  std::vector<std::vector<double>> losses;
  // The least that everything else costs under a candidate; what it costs more under another
  // is spread over that one's units.
  Cost fixed;
  std::vector<Cost> candidates;  // of the whole model, as measured
};

// Of the whole model.
struct Budget {
  enum class Kind { kMib, kDecodeMs } kind = Kind::kMib;
  double value = 0;
};

// A candidate for all units, or the mix for a budget.
struct Mix {
  std::string name;              // "mix_100mib", "mix_12ms"
  std::optional<Budget> budget;  // none: a candidate for all
  std::vector<int> choice;       // of each unit
  // Of the whole model, as predicted from the units; measured as a whole, which a mix for a
  // time may find beyond its budget. Losses on the text on which the units were.
  Cost predicted_cost, cost;
  double predicted_loss = 0, loss = 0;
  Pipeline pipeline;
};

// Checks names, candidates, data and budgets.
absl::Status CheckSearch(const Search& search);

// configs/search_weights.textproto as the program carries it: what a search without a config
// starts from.
extern const char kDefaultSearch[];

std::vector<SearchUnit> SearchUnits(const ir::Graph& graph, Search::Unit unit, bool embedding_and_head);

class Searcher {
 public:
  // `directory`: where relative data paths start; `out`: a folder, whose
  // sensitivity.tsv keeps each measured loss, so that a search goes on after a kill.
  // Everything outlives the searcher.
  static absl::StatusOr<std::unique_ptr<Searcher>> Create(const Search& search, const OpenedModel& model, const std::string& directory,
                                                          const std::string& out, ThreadPool& pool);

  // Measures every unit under every candidate, but for losses that the folder holds already.
  // An error, before the losses, where even the cheapest choices are beyond a budget.
  absl::StatusOr<Sensitivities> Measure();

  // The best mix for each budget and, before them, each candidate for all units, with
  // the steps that make them and their costs and losses as a whole.
  absl::StatusOr<std::vector<Mix>> FindMixes(const Sensitivities& sensitivities);

  // Of the first steps and of reading the text.
  const std::map<std::string, CountedEvent>& events() const { return events_; }

 private:
  // Called only where the model is needed: quantizing it takes longer than asking for a loss.
  using GraphMaker = absl::FunctionRef<absl::StatusOr<ir::Graph>()>;

  Searcher(const Search& search, Workplace workplace, ThreadPool& pool, std::string out)
      : search_(search), workplace_(std::move(workplace)), pool_(pool), out_(std::move(out)) {}

  absl::StatusOr<double> LossOfUnit(const Search::Candidate& candidate, const SearchUnit& unit);
  absl::Status MeasureCosts(Sensitivities* result);
  // Of `changed` after the last steps.
  absl::StatusOr<ModelCost> CostOf(ir::Graph changed) const;
  // The steps by which a choice is measured, and those that make the model for use.
  struct ChoiceSteps {
    std::vector<Step> measured, build;
  };
  absl::StatusOr<ChoiceSteps> StepsOf(const std::vector<SearchUnit>& units, const std::vector<int>& choice) const;
  // The model that steps make, before the last steps.
  absl::StatusOr<ir::Graph> Quantize(const std::vector<Step>& steps) const;
  void Predict(const Sensitivities& sensitivities, Mix* mix) const;
  // The mix for a budget. Where it takes more time than that as a whole, as input
  // preparation that linears of different schemes do not share, it is chosen again for less.
  absl::StatusOr<Mix> FindMix(const Budget& budget, const Sensitivities& sensitivities);
  // Adds steps and the measured loss.
  absl::Status Finish(const ChoiceSteps& steps, GraphMaker quantize, Mix* mix);
  // What `part` under `steps` does, from the folder or measured on what `quantize` gives.
  absl::StatusOr<double> LossOf(const std::vector<Step>& steps, GraphMaker quantize, const ModelPart& part);

  const Search& search_;
  const Workplace workplace_;
  ThreadPool& pool_;
  const std::string out_;
  ir::Graph graph_;         // after the first steps
  std::string conditions_;  // what decides a loss beside its steps
  std::map<std::string, double> known_;
  std::map<std::string, CountedEvent> events_;
  std::unique_ptr<OutputProbe> probe_;
};

// Each candidate for all that is searched, without costs and losses: what a search will
// compare at least.
absl::StatusOr<std::vector<Mix>> UniformMixes(const Search& search);

// The mixes that no cheaper one beats, as predicted: costs of the whole model.
std::vector<Selection> PredictedFront(const Sensitivities& sensitivities, Budget::Kind kind);

// BF16 and the mixes, compared in the search's metrics, their size and, where a budget is of
// time, their latency; and each mix with the candidate for all that loses least within its
// budget. `threads`: of the latency; 0: all CPUs.
Experiment SearchExperiment(const Search& search, const std::vector<Mix>& mixes, int threads);

bool IsBeyondBudget(const Mix& mix);

// search.md: predicted and measured costs and loss of each mix, what it chose for which kind
// of linear and block; front.svg and front.csv: the predicted front over size, the plot with the
// measured losses, and front_ms.* over the time of a decoded token where there is a budget of
// it. Each mix's steps as <name>.textproto.
absl::Status WriteSearchReport(const Search& search, const Sensitivities& sensitivities, const std::vector<Mix>& mixes,
                               const std::string& out);

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_SEARCH_SEARCH_H_
