#include "core/ir/weight_errors.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "core/base/divide.h"
#include "core/base/status.h"

namespace nibble::ir {
namespace {

// Values that a task decodes.
constexpr int64_t kStripValues = 1 << 16;

struct Squares {
  double change = 0, size = 0;
};

Squares SquaresOfRows(const EncodedTensor& source, const EncodedTensor& made, int64_t begin, int64_t end) {
  std::vector<float> before((end - begin) * source.cols()), after(before.size());
  DecodeRows(source, begin, end, before.data());
  DecodeRows(made, begin, end, after.data());
  Squares squares;
  for (size_t i = 0; i < before.size(); ++i) {
    const double w = before[i], change = after[i] - w;
    squares.change += change * change;
    squares.size += w * w;
  }
  return squares;
}

double RelativeError(const EncodedTensor& source, const EncodedTensor& made, ThreadPool& pool) {
  const int64_t rows = source.rows(), height = std::max<int64_t>(1, kStripValues / std::max<int64_t>(1, source.cols()));
  std::vector<Squares> strips(CeilDiv(rows, height));
  pool.ParallelFor(static_cast<int64_t>(strips.size()),
                   [&](int64_t i, int) { strips[i] = SquaresOfRows(source, made, i * height, std::min(rows, (i + 1) * height)); });
  Squares sum;
  for (const Squares& strip : strips) sum.change += strip.change, sum.size += strip.size;
  if (sum.size == 0) return sum.change == 0 ? 0 : std::numeric_limits<double>::infinity();
  return std::sqrt(sum.change / sum.size);
}

// The linears' weights by their ops' names.
std::map<std::string, const Parameter*> LinearWeights(const Graph& graph) {
  std::map<std::string, const Parameter*> weights;
  for (const Op& op : graph.ops()) {
    if (op.is_linear()) weights[op.name] = &graph.parameter(*op.weight);
  }
  return weights;
}

// None where quantizing did not change the scheme.
absl::StatusOr<std::optional<WeightError>> ErrorOf(const std::string& linear, const Parameter& source, const Parameter& made, ThreadPool& pool) {
  NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor after, made.Load());
  if (IsFloatFormat(after.scheme)) return std::nullopt;
  NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor before, source.Load());
  if (SameScheme(before.scheme, after.scheme)) return std::nullopt;
  WeightError error{linear, std::nullopt};
  if (!made.rewritten() && before.shape == after.shape) error.error = RelativeError(before, after, pool);
  DropMappedPages(before);
  DropMappedPages(after);
  return error;
}

}  // namespace

absl::StatusOr<std::vector<WeightError>> WeightErrors(const Graph& source, const Graph& made, ThreadPool& pool) {
  const std::map<std::string, const Parameter*> weights = LinearWeights(source);
  std::vector<WeightError> errors;
  for (const Op& op : made.ops()) {
    const auto weight = op.is_linear() ? weights.find(op.name) : weights.end();
    if (weight == weights.end()) continue;
    NIBBLE_ASSIGN_OR_RETURN(std::optional<WeightError> error, ErrorOf(op.name, *weight->second, made.parameter(*op.weight), pool));
    if (error.has_value()) errors.push_back(*std::move(error));
  }
  return errors;
}

}  // namespace nibble::ir
