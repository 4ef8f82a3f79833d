// awq: activation-aware scales and clips, block by block.

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "core/base/progress.h"
#include "core/base/status.h"
#include "core/calibration/block_runner.h"
#include "core/ir/passes.h"
#include "methods/awq/awq.pb.h"
#include "methods/awq/search.h"
#include "methods/encode_ops.h"
#include "methods/method.h"
#include "methods/options.h"
#include "methods/training/training.h"

namespace nibble {
namespace {

using calibration::Batch;
using calibration::BlockRunner;

// Tokens by which clips are chosen and errors told.
constexpr int64_t kSampleTokens = 512;

// Bytes of activations that a search keeps from one exponent to the next.
constexpr int64_t kMostKept = int64_t{512} << 20;

absl::Status Check(const AwqOptions& options) {
  NIBBLE_RETURN_IF_ERROR(CheckCalibration(options, "awq"));
  if (options.grid() >= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("grid: ", options.grid(), " must be 1 or more"));
}

// Linears that read one input, and what can take up its scales.
struct Site {
  std::vector<size_t> linears;    // those to quantize
  std::vector<size_t> readers;    // all
  std::optional<size_t> norm;     // either: the input is its output,
  std::optional<size_t> writer;   // or comes from this linear's, channel by channel
  size_t inspected = 0;           // the op whose output is to change least
  std::vector<double> mean_magnitude;
  std::vector<float> sample;      // [tokens, width]
  std::vector<double> scales;     // of the weights' columns
};

// One pass over the model.
class Pass {
 public:
  Pass(const AwqOptions& options, const QuantScheme& scheme, Context& context, train::Machine machine, ir::Graph& graph,
       std::vector<Batch> batches)
      : options_(options), scheme_(scheme), context_(context), machine_(machine), graph_(graph), batches_(std::move(batches)) {
    for (const Batch& batch : batches_) tokens_ += batch.starts.back();
  }

  absl::Status Run(const std::vector<size_t>& selected) {
    Progress progress("awq", graph_.num_layers());
    for (int layer = 0; layer < graph_.num_layers(); ++layer) {
      NIBBLE_RETURN_IF_ERROR(RunBlock(layer, selected));
      progress.Update(layer + 1);
    }
    return absl::OkStatus();
  }

 private:
  absl::Status RunBlock(int layer, const std::vector<size_t>& selected) {
    NIBBLE_ASSIGN_OR_RETURN(BlockRunner runner, BlockRunner::Create(graph_, layer, machine_));
    std::vector<Site> sites = SitesOf(runner, selected);
    std::vector<Batch> after = batches_;
    int64_t token = 0;
    for (Batch& batch : after) {
      NIBBLE_RETURN_IF_ERROR(
          runner.Run(batch.starts, &batch.hidden, [&](size_t op, absl::Span<const float> x) { Observe(op, x, token, &sites); }));
      token += batch.starts.back();
    }
    // All scales are found before any is applied, as what takes up a later site's
    // may be an earlier site's linear.
    for (Site& site : sites) {
      NIBBLE_ASSIGN_OR_RETURN(site.scales, SearchScales(runner, site));
    }
    for (const Site& site : sites) NIBBLE_RETURN_IF_ERROR(Fold(site));
    for (Site& site : sites) NIBBLE_RETURN_IF_ERROR(Quantize(&site));
    batches_ = std::move(after);
    return absl::OkStatus();
  }

  std::vector<Site> SitesOf(const BlockRunner& runner, const std::vector<size_t>& selected) const {
    const std::vector<std::vector<size_t>> groups = runner.LinearsByInput();
    std::vector<Site> sites;
    for (const std::vector<size_t>& group : groups) {
      Site site;
      site.readers = group;
      site.linears = SelectedOf(group, selected);
      if (site.linears.empty()) continue;
      site.inspected = group.back();
      FindSource(groups, &site);
      site.mean_magnitude.resize(graph_.values()[graph_.ops()[group[0]].inputs[0]].width);
      sites.push_back(std::move(site));
    }
    return sites;
  }

  // A norm's linears are judged by the module that they begin (the linear after
  // them); what values or up_proj give reaches the next linear channel by channel,
  // values only where every head has its own.
  void FindSource(const std::vector<std::vector<size_t>>& groups, Site* site) const {
    const auto source = graph_.ProducerOf(graph_.ops()[site->readers[0]].inputs[0]);
    if (!source.has_value()) return;
    const ir::Op& op = graph_.ops()[*source];
    if (op.kind == ir::OpKind::kRmsNorm) {
      site->norm = source;
      for (const std::vector<size_t>& group : groups) {
        if (group[0] > site->readers.back()) {
          site->inspected = group[0];
          break;
        }
      }
    } else if (op.kind == ir::OpKind::kMul || (op.kind == ir::OpKind::kAttention && op.heads == op.kv_heads)) {
      const auto writer = graph_.ProducerOf(op.inputs[op.kind == ir::OpKind::kMul ? 1 : 2]);
      if (writer.has_value() && graph_.ops()[*writer].kind == ir::OpKind::kLinear) site->writer = writer;
    }
  }

  // `token`: the first of x among all.
  void Observe(size_t op, absl::Span<const float> x, int64_t token, std::vector<Site>* sites) const {
    const auto site = std::find_if(sites->begin(), sites->end(), [&](const Site& s) { return s.readers[0] == op; });
    if (site == sites->end()) return;
    const int64_t width = static_cast<int64_t>(site->mean_magnitude.size()), stride = std::max<int64_t>(1, tokens_ / kSampleTokens);
    for (int64_t t = 0; t < static_cast<int64_t>(x.size()) / width; ++t) {
      const float* row = x.data() + t * width;
      for (int64_t c = 0; c < width; ++c) site->mean_magnitude[c] += std::fabs(static_cast<double>(row[c])) / static_cast<double>(tokens_);
      if ((token + t) % stride == 0) site->sample.insert(site->sample.end(), x.begin() + t * width, x.begin() + (t + 1) * width);
    }
  }

  // Of all exponents the scales that change the inspected output least; ones where
  // nothing can take scales up.
  absl::StatusOr<std::vector<double>> SearchScales(BlockRunner& runner, const Site& site) {
    if (!site.norm.has_value() && !site.writer.has_value()) {
      context_.CountEvent("awq.not_scaled", static_cast<int64_t>(site.linears.size()),
                          absl::StrCat(graph_.ops()[site.linears[0]].name, ": no layer before it can take up scales"));
      return std::vector<double>(site.mean_magnitude.size(), 1.0);
    }
    Trial trial;
    trial.inspected = site.inspected;
    for (const size_t op : site.linears) {
      NIBBLE_ASSIGN_OR_RETURN(auto weight, graph_.parameter(*graph_.ops()[op].weight).LoadUnquantized(kOneMethodALayer));
      trial.weights[op] = std::move(weight.values);
    }
    std::vector<std::vector<double>> scales;
    for (int step = 0; step < options_.grid(); ++step) {
      scales.push_back(AwqScales(site.mean_magnitude, static_cast<double>(step) / options_.grid()));
    }
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<double> changes, ChangesUnder(scheme_, trial, scales, batches_, kMostKept, runner, context_.pool()));
    size_t best = scales.size();
    double least = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < changes.size(); ++i) {
      if (changes[i] < least) least = changes[i], best = i;
    }
    if (best < scales.size()) return std::move(scales[best]);
    return absl::InvalidArgumentError(absl::StrCat(graph_.ops()[site.inspected].name, ": no scales give a finite output"));
  }

  absl::Status Fold(const Site& site) {
    std::vector<double> factors(site.scales.size());
    std::transform(site.scales.begin(), site.scales.end(), factors.begin(), [](double s) { return 1 / s; });
    if (site.norm.has_value()) return ir::ScaleNorm(graph_, graph_.ops()[*site.norm], factors);
    if (site.writer.has_value()) return ir::ScaleChannels(graph_, *site.writer, site.readers, factors);
    return absl::OkStatus();
  }

  absl::Status Quantize(Site* site) {
    std::vector<float> scaled = site->sample;
    for (size_t i = 0; i < scaled.size(); ++i) scaled[i] = static_cast<float>(scaled[i] / site->scales[i % site->scales.size()]);
    for (const size_t op : site->linears) NIBBLE_RETURN_IF_ERROR(Annotate(QuantizeLinear(op, *site, scaled), graph_.ops()[op].name));
    site->sample.clear();
    return absl::OkStatus();
  }

  // `inputs`: the sample as it is after folding.
  absl::Status QuantizeLinear(size_t index, const Site& site, const std::vector<float>& inputs) {
    const ir::Op& op = graph_.ops()[index];
    ir::Parameter& parameter = graph_.mutable_parameter(*op.weight);
    const int64_t n = static_cast<int64_t>(site.scales.size());
    NIBBLE_ASSIGN_OR_RETURN(const auto folded, parameter.LoadUnquantized(kOneMethodALayer));
    std::vector<float> clipped = folded.values;
    if (options_.clip() && !IsRotated(op)) {
      NIBBLE_ASSIGN_OR_RETURN(clipped, ClipWeights(scheme_, folded.values, inputs, n, context_.pool()));
    }
    NIBBLE_RETURN_IF_ERROR(parameter.ReplaceEncoded(scheme_, clipped, &context_.pool()));
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<float> decoded, parameter.LoadFloats());
    std::vector<float> plain = folded.values;
    for (size_t i = 0; i < plain.size(); ++i) plain[i] = static_cast<float>(plain[i] / site.scales[i % n]);
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<float> rounded, RoundScaled(scheme_, plain, std::vector<double>(n, 1.0), &context_.pool()));
    context_.AddLayerError({"awq", op.name, OutputError(folded.values, decoded, inputs, n), OutputError(plain, rounded, site.sample, n)});
    return absl::OkStatus();
  }

  // Whether a linear makes queries or keys, whose products a clip would change
  // together: they are not clipped.
  bool IsRotated(const ir::Op& linear) const {
    return std::any_of(graph_.ops().begin(), graph_.ops().end(),
                       [&](const ir::Op& op) { return op.kind == ir::OpKind::kRope && op.inputs[0] == linear.output; });
  }

  const AwqOptions& options_;
  const QuantScheme& scheme_;
  Context& context_;
  const train::Machine machine_;
  ir::Graph& graph_;
  std::vector<Batch> batches_;
  int64_t tokens_ = 0;
};

class AwqMethod : public Method {
 public:
  AwqMethod(AwqOptions options, QuantScheme scheme) : options_(std::move(options)), scheme_(std::move(scheme)) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const AwqOptions& options) {
    NIBBLE_RETURN_IF_ERROR(Check(options));
    NIBBLE_RETURN_IF_ERROR(IntegerFormat(options.bits()).status());
    QuantScheme scheme = IntegerScheme(options.bits(), options.group_size(), options.asymmetric());
    if (options.has_scale_type()) scheme.set_scale_type(options.scale_type());
    NIBBLE_RETURN_IF_ERROR(ValidateScheme(scheme));
    return std::make_unique<AwqMethod>(options, std::move(scheme));
  }

  LearningCost Learning() const override { return CalibrationCost(options_, 1 + options_.grid()); }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    const auto& ops = graph.ops();
    if (std::any_of(ops.begin(), ops.end(), [](const ir::Op& op) { return op.adapter; })) {
      return absl::FailedPreconditionError("adapters read and add to what awq scales and inspects; put awq before lora");
    }
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<size_t> selected, SelectBlockLinears(graph, options_.layers()));
    NIBBLE_ASSIGN_OR_RETURN(std::vector<Batch> batches, CalibrationBatches(context, graph, options_.data(), options_.samples(), options_.seed()));
    NIBBLE_ASSIGN_OR_RETURN(const train::Machine machine, TrainingMachine(context));
    return Pass(options_, scheme_, context, machine, graph, std::move(batches)).Run(selected);
  }

 private:
  const AwqOptions options_;
  const QuantScheme scheme_;
};

const MethodRegistrar<AwqMethod> kRegistrar(awq);

}  // namespace
}  // namespace nibble
