#include "methods/awq/search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/base/divide.h"
#include "core/base/parallel_status.h"
#include "core/base/status.h"
#include "core/quant/integer_grid.h"
#include "core/tensor/blas.h"

namespace nibble {
namespace {

using calibration::Batch;
using calibration::BlockRunner;

constexpr int64_t kRowsOfTask = 16;
constexpr int kClipSteps = 10;
constexpr float kClipStep = 0.05f;

// Columns [begin, begin + width) of `values` [rows, n].
std::vector<float> Columns(absl::Span<const float> values, int64_t n, int64_t begin, int64_t width) {
  const int64_t rows = static_cast<int64_t>(values.size()) / n;
  std::vector<float> part(rows * width);
  for (int64_t r = 0; r < rows; ++r) std::copy_n(values.data() + r * n + begin, width, part.data() + r * width);
  return part;
}

// The best clip of each row of one group, `weights` [rows, width], by the Gram
// matrix of its inputs.
absl::StatusOr<std::vector<float>> BestClips(const QuantScheme& scheme, absl::Span<const float> weights, absl::Span<const float> gram, int64_t width) {
  const int64_t rows = static_cast<int64_t>(weights.size()) / width;
  std::vector<float> largest(rows), best(rows), change(weights.size()), product(weights.size());
  std::vector<double> least(rows, std::numeric_limits<double>::infinity());
  for (size_t i = 0; i < weights.size(); ++i) largest[i / width] = std::max(largest[i / width], std::fabs(weights[i]));
  best = largest;
  for (int step = 0; step < kClipSteps; ++step) {
    const float share = 1 - kClipStep * static_cast<float>(step);
    for (size_t i = 0; i < weights.size(); ++i) {
      const float most = largest[i / width] * share;
      change[i] = std::clamp(weights[i], -most, most);
    }
    NIBBLE_RETURN_IF_ERROR(FakeQuantizeRows(scheme, rows, width, change.data()));
    for (size_t i = 0; i < weights.size(); ++i) change[i] -= weights[i];
    blas::Sgemm(false, false, rows, width, width, 1, change.data(), width, gram.data(), width, 0, product.data(), width);
    for (int64_t r = 0; r < rows; ++r) {
      const double error = std::inner_product(change.begin() + r * width, change.begin() + (r + 1) * width, product.begin() + r * width, 0.0);
      if (error < least[r]) least[r] = error, best[r] = largest[r] * share;
    }
  }
  return best;
}

// A batch before the linears of a trial, and what the inspected op gives of it in full
// precision.
struct Begun {
  const Batch* batch;
  BlockRunner::State state;
  std::vector<float> expected;
};

// Batches from `*next` on, until they take `most_kept` bytes.
std::vector<Begun> BeginPart(const Trial& trial, absl::Span<const Batch> batches, int64_t most_kept, BlockRunner& runner, size_t* next) {
  std::vector<Begun> part;
  int64_t kept = 0;
  do {
    const Batch& batch = batches[(*next)++];
    BlockRunner::State state = runner.Before(trial.weights.begin()->first, trial.inspected, batch.starts, batch.hidden);
    std::vector<float> expected = runner.OutputOf(trial.inspected, batch.starts, state);
    kept += state.bytes() + static_cast<int64_t>(expected.size() * sizeof(float));
    part.push_back({&batch, std::move(state), std::move(expected)});
  } while (*next < batches.size() && kept < most_kept);
  return part;
}

void AddChange(absl::Span<const float> output, absl::Span<const float> expected, double* change) {
  for (size_t i = 0; i < output.size(); ++i) *change += std::pow(static_cast<double>(output[i]) - expected[i], 2);
}

}  // namespace

std::vector<double> AwqScales(absl::Span<const double> mean_magnitude, double ratio) {
  std::vector<double> scales(mean_magnitude.size());
  std::transform(mean_magnitude.begin(), mean_magnitude.end(), scales.begin(), [&](double a) { return std::pow(std::max(a, 1e-4), ratio); });
  const double middle = std::sqrt(*std::max_element(scales.begin(), scales.end()) * *std::min_element(scales.begin(), scales.end()));
  for (double& s : scales) s /= middle;
  return scales;
}

absl::StatusOr<std::vector<float>> RoundScaled(const QuantScheme& scheme, absl::Span<const float> weights, absl::Span<const double> scales,
                                               ThreadPool* pool) {
  const int64_t n = static_cast<int64_t>(scales.size()), rows = static_cast<int64_t>(weights.size()) / n;
  std::vector<float> rounded(weights.begin(), weights.end());
  NIBBLE_RETURN_IF_ERROR(ParallelForStatus(pool, CeilDiv(rows, kRowsOfTask), [&](int64_t task, int) -> absl::Status {
    const int64_t first = task * kRowsOfTask, last = std::min(rows, first + kRowsOfTask);
    for (int64_t r = first; r < last; ++r) {
      for (int64_t c = 0; c < n; ++c) rounded[r * n + c] = static_cast<float>(rounded[r * n + c] * scales[c]);
    }
    NIBBLE_RETURN_IF_ERROR(FakeQuantizeRows(scheme, last - first, n, rounded.data() + first * n));
    for (int64_t r = first; r < last; ++r) {
      for (int64_t c = 0; c < n; ++c) rounded[r * n + c] = static_cast<float>(rounded[r * n + c] / scales[c]);
    }
    return absl::OkStatus();
  }));
  return rounded;
}

absl::StatusOr<std::vector<double>> ChangesUnder(const QuantScheme& scheme, const Trial& trial, absl::Span<const std::vector<double>> scales,
                                                 absl::Span<const Batch> batches, int64_t most_kept, BlockRunner& runner, ThreadPool& pool) {
  std::vector<double> changes(scales.size());
  for (size_t next = 0; next < batches.size();) {
    const std::vector<Begun> part = BeginPart(trial, batches, most_kept, runner, &next);
    for (size_t i = 0; i < scales.size(); ++i) {
      for (const auto& [op, weight] : trial.weights) {
        NIBBLE_ASSIGN_OR_RETURN(std::vector<float> rounded, RoundScaled(scheme, weight, scales[i], &pool));
        runner.SetWeight(op, std::move(rounded));
      }
      for (const Begun& begun : part) AddChange(runner.OutputOf(trial.inspected, begun.batch->starts, begun.state), begun.expected, &changes[i]);
    }
    for (const auto& [op, weight] : trial.weights) runner.SetWeight(op, weight);
  }
  return changes;
}

double OutputError(absl::Span<const float> weights, absl::Span<const float> changed, absl::Span<const float> x, int64_t n) {
  const int64_t rows = static_cast<int64_t>(weights.size()) / n, tokens = static_cast<int64_t>(x.size()) / n;
  std::vector<float> change(changed.begin(), changed.end()), y(tokens * rows);
  for (size_t i = 0; i < change.size(); ++i) change[i] -= weights[i];
  blas::Sgemm(false, true, tokens, rows, n, 1, x.data(), n, change.data(), n, 0, y.data(), rows);
  return std::inner_product(y.begin(), y.end(), y.begin(), 0.0);
}

absl::StatusOr<std::vector<float>> ClipWeights(const QuantScheme& scheme, absl::Span<const float> weights, absl::Span<const float> x, int64_t n,
                                               ThreadPool& pool) {
  std::vector<float> clipped(weights.begin(), weights.end());
  QuantScheme by_row = scheme;
  by_row.set_per(QuantScheme::PER_ROW);
  by_row.clear_group_size();
  const int64_t group = GroupLength(scheme, n), tokens = static_cast<int64_t>(x.size()) / n;
  NIBBLE_RETURN_IF_ERROR(ParallelForStatus(&pool, GroupsPerRow(scheme, n), [&](int64_t g, int) -> absl::Status {
    const int64_t begin = g * group, width = std::min(group, n - begin);
    const std::vector<float> inputs = Columns(x, n, begin, width), part = Columns(weights, n, begin, width);
    std::vector<float> gram(width * width);
    blas::Sgemm(true, false, width, width, tokens, 1, inputs.data(), width, inputs.data(), width, 0, gram.data(), width);
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<float> most, BestClips(by_row, part, gram, width));
    for (size_t r = 0; r < most.size(); ++r) {
      for (int64_t c = 0; c < width; ++c) {
        float& value = clipped[r * n + begin + c];
        value = std::clamp(value, -most[r], most[r]);
      }
    }
    return absl::OkStatus();
  }));
  return clipped;
}

}  // namespace nibble
