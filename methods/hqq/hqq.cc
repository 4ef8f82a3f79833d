// hqq: data-free rounding on grids with a real zero, solved for group by group.

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/quant/integer_grid.h"
#include "methods/encode_ops.h"
#include "methods/hqq/hqq.pb.h"
#include "methods/hqq/solver.h"
#include "methods/method.h"
#include "methods/options.h"

namespace nibble {
namespace {

absl::Status Check(const HqqOptions& options) {
  const auto error = [](auto... parts) { return absl::InvalidArgumentError(absl::StrCat(parts...)); };
  if (options.bits() < 1 || options.bits() > 8) return error("bits: ", options.bits(), " is not in 1..8");
  if (options.group_size() < 0) return error("group_size: ", options.group_size(), " must be 0 (a row) or more");
  if (options.iterations() < 0) return error("iterations: ", options.iterations(), " must be 0 or more");
  if (!(options.norm() > 0 && options.norm() <= 1)) return error("norm: ", options.norm(), " must be above 0 and at most 1");
  if (!(options.beta() > 0)) return error("beta: ", options.beta(), " must be above 0");
  if (!(options.growth() >= 1)) return error("growth: ", options.growth(), " must be 1 or more");
  if (options.iterations() == 0 && (options.round_zero() || options.has_norm() || options.has_beta() || options.has_growth())) {
    return error("iterations: 0 keeps the plain range, so round_zero, norm, beta and growth are of no use");
  }
  return absl::OkStatus();
}

QuantScheme SchemeOf(const HqqOptions& options) {
  QuantScheme scheme;
  scheme.set_format(absl::StrCat("affine", options.bits()));
  scheme.set_per(options.group_size() > 0 ? QuantScheme::PER_GROUP : QuantScheme::PER_ROW);
  if (options.group_size() > 0) scheme.set_group_size(options.group_size());
  scheme.set_scale_type(options.scale_type());
  return scheme;
}

class HqqMethod : public Method {
 public:
  explicit HqqMethod(const HqqOptions& options)
      : options_(options),
        settings_{.iterations = options.iterations(),
                  .norm = options.norm(),
                  .beta = options.beta(),
                  .growth = options.growth(),
                  .round_zero = options.has_round_zero() ? options.round_zero() : options.bits() == 4} {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const HqqOptions& options) {
    NIBBLE_RETURN_IF_ERROR(Check(options));
    return std::make_unique<HqqMethod>(options);
  }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    const QuantScheme scheme = SchemeOf(options_);
    NIBBLE_RETURN_IF_ERROR(ValidateScheme(scheme));
    return EncodeOps(graph, LayersOrBlocks(options_.layers()),
                     [&](size_t, const Shape& shape, absl::Span<const float> values) { return Solve(context, scheme, shape, values); });
  }

 private:
  absl::StatusOr<EncodedTensor> Solve(Context& context, const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values) const {
    NIBBLE_RETURN_IF_ERROR(CheckEncodable(scheme, shape, values));
    const int64_t rows = shape[0], cols = shape[1], length = GroupLength(scheme, cols), groups = GroupsPerRow(scheme, cols);
    std::vector<AffineGrid> grids(rows * groups);
    context.pool().ParallelFor(rows, [&](int64_t r, int) {
      for (int64_t g = 0; g < groups; ++g) {
        grids[r * groups + g] = SolveHqq(scheme, settings_, values.subspan(r * cols + g * length, std::min(length, cols - g * length)));
      }
    });
    NIBBLE_RETURN_IF_ERROR(CheckScales(grids));
    return EncodeAffine(scheme, shape, values, grids, &context.pool());
  }

  const HqqOptions options_;
  const HqqSettings settings_;
};

const MethodRegistrar<HqqMethod> kRegistrar(hqq);

}  // namespace
}  // namespace nibble
