// gptq: block by block through the model, the inputs of each linear gathered on
// calibration text while the layers before it are already quantized.

#include <map>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/progress.h"
#include "core/base/status.h"
#include "core/calibration/block_walk.h"
#include "core/calibration/second_moment.h"
#include "core/ir/passes.h"
#include "methods/encode_ops.h"
#include "methods/gptq/gptq.pb.h"
#include "methods/gptq/solver.h"
#include "methods/method.h"
#include "methods/options.h"
#include "methods/training/training.h"

namespace nibble {
namespace {

using calibration::Batch;
using calibration::BlockRunner;
using calibration::BlockWalk;
using calibration::SecondMoment;

absl::Status Check(const GptqOptions& options) {
  const auto error = [](auto... parts) { return absl::InvalidArgumentError(absl::StrCat(parts...)); };
  NIBBLE_RETURN_IF_ERROR(CheckCalibration(options, "gptq"));
  if (options.block_size() < 1) return error("block_size: ", options.block_size(), " must be 1 or more");
  if (!(options.damping() >= 0 && options.damping() <= 1)) return error("damping: ", options.damping(), " must be from 0 to 1");
  if (!(options.propagate() >= 0 && options.propagate() <= 1)) return error("propagate: ", options.propagate(), " must be from 0 to 1");
  bool grouped = options.group_size() != 0;
  for (const GptqScheme& other : options.other()) {
    if (other.layers().empty()) return error("other: layers says which linears the scheme is for");
    grouped |= other.group_size() != 0;
  }
  if (options.act_order() && !options.static_groups() && grouped) return error("act_order mixes the columns of groups; it needs static_groups: true");
  return absl::OkStatus();
}

// Options: GptqOptions or GptqScheme.
template <typename Options>
absl::StatusOr<QuantScheme> SchemeOf(Options options) {
  if (!options.has_range()) options.mutable_range()->mutable_mse();
  NIBBLE_ASSIGN_OR_RETURN(QuantScheme scheme, WeightSchemeFrom(options));
  NIBBLE_RETURN_IF_ERROR(ValidateScheme(scheme));
  return scheme;
}

// The scheme of each linear that is quantized, by op.
using Schemes = std::map<size_t, QuantScheme>;

// One pass over the model.
class Pass {
 public:
  Pass(const GptqOptions& options, Schemes schemes, Context& context, train::Machine machine, ir::Graph& graph)
      : options_(options), schemes_(std::move(schemes)), context_(context), machine_(machine), graph_(graph) {
    for (const auto& [op, scheme] : schemes_) selected_.push_back(op);
    settings_.damping = options.damping();
    settings_.act_order = options.act_order();
    settings_.static_groups = options.static_groups();
    settings_.block = options.block_size();
  }

  absl::Status Run(std::vector<Batch> batches) {
    batches_ = std::move(batches);
    if (propagates()) original_ = batches_;
    Progress progress("gptq", graph_.num_layers());
    for (int layer = 0; layer < graph_.num_layers(); ++layer) {
      NIBBLE_RETURN_IF_ERROR(RunBlock(layer));
      progress.Update(layer + 1);
    }
    return absl::OkStatus();
  }

 private:
  bool propagates() const { return options_.propagate() > 0; }

  absl::Status RunBlock(int layer) {
    NIBBLE_ASSIGN_OR_RETURN(BlockRunner runner, BlockRunner::Create(graph_, layer, machine_));
    std::optional<BlockRunner> unquantized;
    if (propagates()) unquantized.emplace(runner);
    BlockWalk walk(runner, batches_), original(propagates() ? *unquantized : runner, original_);
    const auto reload = [&](const std::vector<size_t>& group) -> absl::Status {
      for (const size_t op : group) NIBBLE_RETURN_IF_ERROR(runner.Reload(op));
      return absl::OkStatus();
    };
    const std::vector<std::vector<size_t>> groups = runner.LinearsByInput();
    for (const std::vector<size_t>& readers : groups) {
      const size_t reader = readers[0];
      const std::vector<size_t> group = SelectedOf(readers, selected_);
      if (group.empty()) continue;
      NIBBLE_RETURN_IF_ERROR(QuantizeGroup(walk, original, reader, group));
      if (options_.sequential()) NIBBLE_RETURN_IF_ERROR(reload(group));
    }
    if (!options_.sequential()) {
      for (const std::vector<size_t>& group : groups) NIBBLE_RETURN_IF_ERROR(reload(group));
      walk.StartAgain();
    }
    walk.Finish();
    original.Finish();
    return absl::OkStatus();
  }

  absl::Status QuantizeGroup(BlockWalk& walk, BlockWalk& original, size_t reader, const std::vector<size_t>& group) {
    const int64_t width = graph_.values()[graph_.ops()[reader].inputs[0]].width;
    SecondMoment moment(width), change(propagates() ? width : 0);
    for (size_t b = 0; b < batches_.size(); ++b) {
      const absl::Span<const float> x = walk.InputOf(reader, b);
      moment.Add(machine_, x);
      if (!propagates()) continue;
      const absl::Span<const float> full = original.InputOf(reader, b);
      std::vector<float> moved(full.begin(), full.end());
      for (size_t i = 0; i < moved.size(); ++i) moved[i] -= x[i];
      change.Add(machine_, moved, x);
    }
    auto factor = FactorHessian(moment.TakeMean(), settings_, machine_.pool);
    if (!factor.ok()) return Annotate(factor.status(), graph_.ops()[reader].name);
    if (factor->retries > 0) {
      context_.CountEvent("gptq.more_damping", 1, absl::StrFormat("%s: %g", graph_.ops()[reader].name, factor->damping));
    }
    const std::vector<double> mean_change = change.TakeMean();
    for (const size_t op : group) {
      NIBBLE_RETURN_IF_ERROR(Annotate(QuantizeLinear(graph_.ops()[op], schemes_.at(op), *factor, mean_change), graph_.ops()[op].name));
    }
    return absl::OkStatus();
  }

  absl::Status QuantizeLinear(const ir::Op& op, const QuantScheme& scheme, const HessianFactor& factor, const std::vector<double>& change) {
    ir::Parameter& weight = graph_.mutable_parameter(*op.weight);
    const int64_t rows = weight.shape()[0];
    NIBBLE_ASSIGN_OR_RETURN(auto given, weight.LoadUnquantized(kOneMethodALayer));
    std::vector<float> values = std::move(given.values);
    if (propagates()) values = PropagateError(values, rows, change, options_.propagate(), factor, context_.pool());
    NIBBLE_ASSIGN_OR_RETURN(GptqSolution solution, SolveGptq(scheme, rows, values, factor, settings_, context_.pool()));
    context_.AddLayerError({"gptq", op.name, solution.loss, solution.rounding_loss});
    if (solution.loss > solution.rounding_loss) {
      context_.CountEvent("gptq.worse_than_rounding", 1,
                          absl::StrFormat("%s: %.4g against %.4g", op.name, solution.loss, solution.rounding_loss));
    }
    return weight.Replace(std::move(solution.encoded));
  }

  const GptqOptions& options_;
  const Schemes schemes_;
  std::vector<size_t> selected_;
  Context& context_;
  const train::Machine machine_;
  ir::Graph& graph_;
  GptqSettings settings_;
  std::vector<Batch> batches_;
  std::vector<Batch> original_;  // as the full-precision model gives them; empty unless errors propagate
};

class GptqMethod : public Method {
 public:
  // `others`: of options.other.
  GptqMethod(GptqOptions options, QuantScheme scheme, std::vector<QuantScheme> others)
      : options_(std::move(options)), scheme_(std::move(scheme)), others_(std::move(others)) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const GptqOptions& options) {
    NIBBLE_RETURN_IF_ERROR(Check(options));
    NIBBLE_ASSIGN_OR_RETURN(QuantScheme scheme, SchemeOf(options));
    std::vector<QuantScheme> others;
    for (const GptqScheme& other : options.other()) {
      auto its = SchemeOf(other);
      if (!its.ok()) return Annotate(its.status(), "other");
      others.push_back(*std::move(its));
    }
    return std::make_unique<GptqMethod>(options, std::move(scheme), std::move(others));
  }

  LearningCost Learning() const override { return CalibrationCost(options_, 6); }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    NIBBLE_ASSIGN_OR_RETURN(Schemes schemes, SchemesFor(graph));
    NIBBLE_ASSIGN_OR_RETURN(std::vector<Batch> batches, CalibrationBatches(context, graph, options_.data(), options_.samples(), options_.seed()));
    NIBBLE_ASSIGN_OR_RETURN(const train::Machine machine, TrainingMachine(context));
    return Pass(options_, std::move(schemes), context, machine, graph).Run(std::move(batches));
  }

 private:
  absl::StatusOr<Schemes> SchemesFor(const ir::Graph& graph) const {
    Schemes schemes;
    for (size_t i = 0; i < others_.size(); ++i) {
      NIBBLE_ASSIGN_OR_RETURN(const std::vector<size_t> selected, SelectBlockLinears(graph, options_.other(static_cast<int>(i)).layers()));
      for (const size_t op : selected) schemes.emplace(op, others_[i]);
    }
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<size_t> selected, SelectBlockLinears(graph, options_.layers()));
    for (const size_t op : selected) schemes.emplace(op, scheme_);
    return schemes;
  }

  const GptqOptions options_;
  const QuantScheme scheme_;
  const std::vector<QuantScheme> others_;
};

const MethodRegistrar<GptqMethod> kRegistrar(gptq);

}  // namespace
}  // namespace nibble
