// clamp: the toy method of docs/add_a_method.md. The heart is a pure function of
// one tensor; the shell walks the graph.

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/ir/passes.h"
#include "docs/examples/clamp/clamp.pb.h"
#include "methods/method.h"

namespace nibble {
namespace {

// Moves what lies beyond `deviations` standard deviations of its row to that
// bound; the number of weights moved.
int64_t ClampRows(int64_t cols, double deviations, std::vector<float>& weights) {
  int64_t moved = 0;
  for (size_t begin = 0; begin < weights.size(); begin += cols) {
    double squares = 0;
    for (int64_t i = 0; i < cols; ++i) squares += static_cast<double>(weights[begin + i]) * weights[begin + i];
    const float bound = static_cast<float>(deviations * std::sqrt(squares / static_cast<double>(cols)));
    for (int64_t i = 0; i < cols; ++i) {
      float& w = weights[begin + i];
      moved += std::fabs(w) > bound;
      w = std::clamp(w, -bound, bound);
    }
  }
  return moved;
}

class ClampMethod : public Method {
 public:
  explicit ClampMethod(const ClampOptions& options) : options_(options) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const ClampOptions& options) {
    if (!(options.deviations() > 0)) {
      return absl::InvalidArgumentError(absl::StrCat("deviations: ", options.deviations(), " must be above 0"));
    }
    return std::make_unique<ClampMethod>(options);
  }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    std::vector<std::string> layers(options_.layers().begin(), options_.layers().end());
    if (layers.empty()) layers = {"blocks"};
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<size_t> ops, ir::SelectOps(graph, layers));
    for (const size_t i : ops) {
      ir::Parameter& parameter = graph.mutable_parameter(*graph.ops()[i].weight);
      NIBBLE_ASSIGN_OR_RETURN(auto weight, parameter.LoadUnquantized("clamp comes before rounding"));
      const int64_t moved = ClampRows(parameter.shape().back(), options_.deviations(), weight.values);
      context.CountEvent("clamp.weights_moved", moved, parameter.name());
      NIBBLE_RETURN_IF_ERROR(parameter.ReplaceEncoded(weight.scheme, weight.values, &context.pool()));
    }
    return absl::OkStatus();
  }

 private:
  const ClampOptions options_;
};

const MethodRegistrar<ClampMethod> kRegistrar(clamp);

}  // namespace
}  // namespace nibble
