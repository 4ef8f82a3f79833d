// outlier_stress: activation outliers of a chosen size, with the same function.

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "core/base/rng.h"
#include "core/base/status.h"
#include "core/ir/passes.h"
#include "methods/method.h"
#include "methods/outlier_stress/outlier_stress.pb.h"

namespace nibble {
namespace {

// Distinct channels, by a shuffle that stops early.
std::vector<int64_t> ChooseChannels(int64_t width, int64_t count, uint64_t seed) {
  std::vector<int64_t> channels(width);
  std::iota(channels.begin(), channels.end(), 0);
  Rng rng(seed);
  for (int64_t i = 0; i < count; ++i) std::swap(channels[i], channels[i + static_cast<int64_t>(rng.Below(width - i))]);
  channels.resize(count);
  return channels;
}

class OutlierStressMethod : public Method {
 public:
  explicit OutlierStressMethod(OutlierStressOptions options) : options_(std::move(options)) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const OutlierStressOptions& options) {
    if (options.channels() < 1) return absl::InvalidArgumentError(absl::StrCat("channels: ", options.channels(), " must be 1 or more"));
    if (!(options.factor() > 0 && options.factor() <= 65536)) {
      return absl::InvalidArgumentError(absl::StrCat("factor: ", options.factor(), " must be above 0 and at most 65536"));
    }
    return std::make_unique<OutlierStressMethod>(options);
  }

  absl::Status Apply(Context&, ir::Graph& graph) const override {
    const int64_t width = graph.hidden_size();
    if (options_.channels() > width) {
      return absl::InvalidArgumentError(absl::StrCat("channels: ", options_.channels(), ", the model has ", width));
    }
    std::vector<double> factors(width, 1.0);
    for (const int64_t channel : ChooseChannels(width, options_.channels(), options_.seed())) factors[channel] = options_.factor();
    for (const ir::Op& op : graph.ops()) {
      if (op.kind == ir::OpKind::kRmsNorm && op.layer >= 0) NIBBLE_RETURN_IF_ERROR(ir::ScaleNorm(graph, op, factors));
    }
    return absl::OkStatus();
  }

 private:
  const OutlierStressOptions options_;
};

const MethodRegistrar<OutlierStressMethod> kRegistrar(outlier_stress);

}  // namespace
}  // namespace nibble
