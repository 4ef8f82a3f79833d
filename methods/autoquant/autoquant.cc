// autoquant: for each linear the fastest scheme on this machine whose error stays
// within a bound. As torchao's autoquant, which compares kernels per shape, but with a
// bound on what the choice costs.

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"
#include "core/base/progress.h"
#include "core/base/rng.h"
#include "core/base/status.h"
#include "core/calibration/block_runner.h"
#include "methods/autoquant/autoquant.pb.h"
#include "methods/autoquant/chooser.h"
#include "methods/method.h"
#include "methods/options.h"
#include "methods/training/training.h"

namespace nibble {
namespace {

using Candidate = AutoquantOptions::Candidate;
using calibration::Batch;
using calibration::BlockRunner;

absl::Status Check(const AutoquantOptions& options) {
  const auto error = [](auto... parts) { return absl::InvalidArgumentError(absl::StrCat(parts...)); };
  NIBBLE_RETURN_IF_ERROR(CheckCalibration(options, "autoquant"));
  if (!(options.max_error() > 0)) return error("max_error: ", options.max_error(), " must be above 0");
  if (options.positions() < 1) return error("positions: ", options.positions(), " must be 1 or more");
  if (options.prompt() < 0 || options.reply() < 0 || options.prompt() + options.reply() < 1) {
    return error("prompt: ", options.prompt(), ", reply: ", options.reply(), " are no mix of tokens");
  }
  if (options.batch() < 1) return error("batch: ", options.batch(), " must be 1 or more");
  if (options.rounds() < 1) return error("rounds: ", options.rounds(), " must be 1 or more");
  std::set<std::string> names = {SchemeChooser::kUnchanged};
  for (const Candidate& candidate : options.candidate()) {
    if (!names.insert(candidate.name()).second || candidate.name().empty()) {
      return error("candidate: the name '", candidate.name(), "' is empty or taken");
    }
    NIBBLE_RETURN_IF_ERROR(Annotate(ValidateScheme(candidate.weight()), absl::StrCat("candidate ", candidate.name())));
    if (!candidate.has_activation()) continue;
    NIBBLE_RETURN_IF_ERROR(Annotate(ValidateScheme(candidate.activation()), absl::StrCat("candidate ", candidate.name(), " activation")));
    // Others run simulated, so that they would never be chosen.
    if (candidate.activation().per() != QuantScheme::PER_TOKEN) {
      return error("candidate ", candidate.name(), " activation: per: ", QuantScheme::Granularity_Name(candidate.activation().per()), ", expected PER_TOKEN");
    }
  }
  return absl::OkStatus();
}

// At most `count` rows of what each linear of a block reads, in the order of positions.
class InputSamples {
 public:
  // `total`: tokens of all batches, of which positions are drawn, no one twice.
  InputSamples(int64_t count, int64_t total, uint64_t seed) {
    Rng rng(seed);
    // Each token with the probability that leaves `count` of them.
    for (int64_t t = 0; t < total; ++t) {
      const int64_t wanted = count - static_cast<int64_t>(positions_.size());
      if (static_cast<int64_t>(rng.Below(total - t)) < wanted) positions_.push_back(t);
    }
  }

  // `begin`: the place of x's first token among those of all batches.
  void Add(size_t op, int64_t begin, absl::Span<const float> x, int64_t width) {
    std::vector<float>& rows = rows_[op];
    const int64_t end = begin + static_cast<int64_t>(x.size()) / width;
    for (auto t = std::lower_bound(positions_.begin(), positions_.end(), begin); t != positions_.end() && *t < end; ++t) {
      rows.insert(rows.end(), x.begin() + (*t - begin) * width, x.begin() + (*t - begin + 1) * width);
    }
  }

  const std::vector<float>& Of(size_t op) const { return rows_.at(op); }

 private:
  std::vector<int64_t> positions_;
  std::map<size_t, std::vector<float>> rows_;
};

class AutoquantMethod : public Method {
 public:
  explicit AutoquantMethod(const AutoquantOptions& options) : options_(options) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const AutoquantOptions& options) {
    NIBBLE_RETURN_IF_ERROR(Check(options));
    return std::make_unique<AutoquantMethod>(options);
  }

  LearningCost Learning() const override { return CalibrationCost(options_, 2); }
  bool depends_on_machine() const override { return true; }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<size_t> selected, SelectBlockLinears(graph, options_.layers()));
    for (const size_t op : selected) {
      if (!graph.ops()[op].activation.has_value()) continue;
      return absl::FailedPreconditionError(absl::StrCat(graph.ops()[op].name, ": an earlier step quantized what it reads (",
                                                     SchemeToString(*graph.ops()[op].activation),
                                                     "); autoquant chooses that itself, by its candidates' activation"));
    }
    NIBBLE_ASSIGN_OR_RETURN(std::vector<Batch> batches, CalibrationBatches(context, graph, options_.data(), options_.samples(), options_.seed()));
    NIBBLE_ASSIGN_OR_RETURN(const train::Machine machine, TrainingMachine(context));
    NIBBLE_ASSIGN_OR_RETURN(SchemeChooser chooser, SchemeChooser::Create(options_, context, machine, MeasuringTimer(options_.rounds(), machine)));
    Progress progress("autoquant", static_cast<int64_t>(selected.size()));
    int64_t done = 0;
    for (int layer = 0; layer < graph.num_layers(); ++layer) {
      NIBBLE_ASSIGN_OR_RETURN(BlockRunner runner, BlockRunner::Create(graph, layer, machine));
      NIBBLE_ASSIGN_OR_RETURN(const InputSamples samples, Sample(graph, runner, &batches));
      for (const std::vector<size_t>& readers : runner.LinearsByInput()) {
        for (const size_t op : SelectedOf(readers, selected)) {
          NIBBLE_RETURN_IF_ERROR(chooser.ChooseLinear(op, samples.Of(readers[0]), graph));
          progress.Update(++done);
        }
      }
    }
    chooser.Report();
    return absl::OkStatus();
  }

 private:
  // What the block's linears read, by the first reader of each input; the batches go on
  // to what the block gives in full precision.
  absl::StatusOr<InputSamples> Sample(const ir::Graph& graph, BlockRunner& runner, std::vector<Batch>* batches) const {
    const int64_t total = std::accumulate(batches->begin(), batches->end(), int64_t{0},
                                          [](int64_t tokens, const Batch& batch) { return tokens + batch.starts.back(); });
    InputSamples samples(options_.positions(), total, options_.seed());  // the same positions for every block
    const std::vector<std::vector<size_t>> groups = runner.LinearsByInput();
    int64_t begin = 0;
    for (Batch& batch : *batches) {
      NIBBLE_RETURN_IF_ERROR(runner.Run(batch.starts, &batch.hidden, [&](size_t op, absl::Span<const float> x) {
        const bool first = std::any_of(groups.begin(), groups.end(), [&](const auto& group) { return group[0] == op; });
        if (first) samples.Add(op, begin, x, graph.values()[graph.ops()[op].inputs[0]].width);
      }));
      begin += batch.starts.back();
    }
    return samples;
  }

  const AutoquantOptions options_;
};

const MethodRegistrar<AutoquantMethod> kRegistrar(autoquant);

}  // namespace
}  // namespace nibble
