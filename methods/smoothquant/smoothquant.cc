// smoothquant: moves outliers of activations into the weights that read them.

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "core/base/progress.h"
#include "core/base/status.h"
#include "core/calibration/block_runner.h"
#include "core/ir/passes.h"
#include "core/quant/integer_grid.h"
#include "core/tensor/blas.h"
#include "methods/method.h"
#include "methods/smoothquant/scales.h"
#include "methods/smoothquant/smoothquant.pb.h"
#include "methods/training/training.h"

namespace nibble {
namespace {

using calibration::Batch;
using calibration::BlockRunner;

// Tokens on which values of alpha are compared.
constexpr int64_t kSearchTokens = 512;

// A norm inside a block, the linears that read it and what they read.
struct Site {
  size_t norm;
  std::vector<size_t> readers;
  std::vector<double> activation_max;  // of each channel
  std::vector<float> sample;           // [tokens, width], for a search
};

// What int8 weights a row and int8 activations a token, both symmetric as in
// dynamic_int8 {}, change in x W^T when x is divided by `scales` and W multiplied: the
// sum of squares.
absl::StatusOr<double> ChangeOfProduct(absl::Span<const float> x, absl::Span<const float> w, absl::Span<const double> scales) {
  const int64_t width = static_cast<int64_t>(scales.size()), tokens = static_cast<int64_t>(x.size()) / width, rows = static_cast<int64_t>(w.size()) / width;
  std::vector<float> smooth_x(x.begin(), x.end()), smooth_w(w.begin(), w.end()), y(tokens * rows);
  for (size_t i = 0; i < smooth_x.size(); ++i) smooth_x[i] = static_cast<float>(smooth_x[i] / scales[i % width]);
  for (size_t i = 0; i < smooth_w.size(); ++i) smooth_w[i] = static_cast<float>(smooth_w[i] * scales[i % width]);
  NIBBLE_RETURN_IF_ERROR(FakeQuantizeRows(IntegerScheme(8, 0, false), rows, width, smooth_w.data()));
  NIBBLE_RETURN_IF_ERROR(FakeQuantizeRows(IntegerScheme(8, 0, false), tokens, width, smooth_x.data()));
  blas::Sgemm(false, true, tokens, rows, width, 1, x.data(), width, w.data(), width, 0, y.data(), rows);
  blas::Sgemm(false, true, tokens, rows, width, -1, smooth_x.data(), width, smooth_w.data(), width, 1, y.data(), rows);
  double sum = 0;
  for (const float v : y) sum += static_cast<double>(v) * v;
  return sum;
}

class SmoothquantMethod : public Method {
 public:
  explicit SmoothquantMethod(const SmoothquantOptions& options) : options_(options) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const SmoothquantOptions& options) {
    NIBBLE_RETURN_IF_ERROR(CheckCalibration(options, "smoothquant"));
    std::vector<double> alphas(options.search().begin(), options.search().end());
    alphas.push_back(options.alpha());
    for (const double alpha : alphas) {
      if (!(alpha >= 0 && alpha <= 1)) return absl::InvalidArgumentError(absl::StrCat("alpha: ", alpha, " must be from 0 to 1"));
    }
    return std::make_unique<SmoothquantMethod>(options);
  }

  LearningCost Learning() const override { return CalibrationCost(options_, 1 + options_.search_size()); }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    NIBBLE_ASSIGN_OR_RETURN(std::vector<Batch> batches, CalibrationBatches(context, graph, options_.data(), options_.samples(), options_.seed()));
    NIBBLE_ASSIGN_OR_RETURN(const train::Machine machine, TrainingMachine(context));
    Progress progress("smoothquant", graph.num_layers());
    for (int layer = 0; layer < graph.num_layers(); ++layer) {
      NIBBLE_ASSIGN_OR_RETURN(BlockRunner runner, BlockRunner::Create(graph, layer, machine));
      std::vector<Site> sites = SitesOf(graph, runner);
      for (Batch& batch : batches) {
        NIBBLE_RETURN_IF_ERROR(
            runner.Run(batch.starts, &batch.hidden, [&](size_t op, absl::Span<const float> x) { Observe(op, x, &sites); }));
      }
      for (const Site& site : sites) NIBBLE_RETURN_IF_ERROR(Smooth(graph, site));
      progress.Update(layer + 1);
    }
    return absl::OkStatus();
  }

 private:
  // Groups of linears that read a norm.
  static std::vector<Site> SitesOf(const ir::Graph& graph, const BlockRunner& runner) {
    std::vector<Site> sites;
    for (const std::vector<size_t>& group : runner.LinearsByInput()) {
      const ir::ValueId input = graph.ops()[group[0]].inputs[0];
      const auto norm = graph.ProducerOf(input);
      if (!norm.has_value() || graph.ops()[*norm].kind != ir::OpKind::kRmsNorm) continue;
      sites.push_back({*norm, group, std::vector<double>(graph.values()[input].width), {}});
    }
    return sites;
  }

  void Observe(size_t op, absl::Span<const float> x, std::vector<Site>* sites) const {
    for (Site& site : *sites) {
      if (site.readers[0] != op) continue;
      const size_t width = site.activation_max.size();
      for (size_t i = 0; i < x.size(); ++i) {
        double& most = site.activation_max[i % width];
        most = std::max(most, std::fabs(static_cast<double>(x[i])));
      }
      const size_t wanted = options_.search().empty() ? 0 : kSearchTokens * width;
      const size_t more = std::min(x.size(), wanted - std::min(wanted, site.sample.size()));
      site.sample.insert(site.sample.end(), x.begin(), x.begin() + static_cast<int64_t>(more));
    }
  }

  absl::Status Smooth(ir::Graph& graph, const Site& site) const {
    std::vector<double> weight_max(site.activation_max.size());
    std::vector<std::vector<float>> weights;
    for (const size_t op : site.readers) {
      NIBBLE_ASSIGN_OR_RETURN(auto weight, graph.parameter(*graph.ops()[op].weight).LoadUnquantized("smooth before quantizing"));
      for (size_t i = 0; i < weight.values.size(); ++i) {
        double& most = weight_max[i % weight_max.size()];
        most = std::max(most, std::fabs(static_cast<double>(weight.values[i])));
      }
      weights.push_back(std::move(weight.values));
    }
    NIBBLE_ASSIGN_OR_RETURN(std::vector<double> factors, ChooseScales(site, weight_max, weights));
    for (double& factor : factors) factor = 1 / factor;
    return ir::ScaleNorm(graph, graph.ops()[site.norm], factors);
  }

  absl::StatusOr<std::vector<double>> ChooseScales(const Site& site, absl::Span<const double> weight_max,
                                                   const std::vector<std::vector<float>>& weights) const {
    if (options_.search().empty()) return SmoothingScales(site.activation_max, weight_max, options_.alpha());
    std::vector<double> best;
    double least = std::numeric_limits<double>::infinity();
    for (const double alpha : options_.search()) {
      std::vector<double> scales = SmoothingScales(site.activation_max, weight_max, alpha);
      double change = 0;
      for (const std::vector<float>& weight : weights) {
        NIBBLE_ASSIGN_OR_RETURN(const double part, ChangeOfProduct(site.sample, weight, scales));
        change += part;
      }
      if (change < least) least = change, best = std::move(scales);
    }
    if (best.empty()) return absl::InvalidArgumentError("search: no alpha gives a finite change of the outputs; give alpha alone");
    return best;
  }

  const SmoothquantOptions options_;
};

const MethodRegistrar<SmoothquantMethod> kRegistrar(smoothquant);

}  // namespace
}  // namespace nibble
