#include "methods/gptq/solver.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/divide.h"
#include "core/base/parallel_status.h"
#include "core/base/status.h"
#include "core/quant/format.h"
#include "core/quant/integer_grid.h"
#include "core/tensor/blas.h"
#include "core/tensor/cholesky.h"

namespace nibble {
namespace {

// Rows that a task solves: many, as products with the factor pack it anew for each task, but
// few enough to share out.
int64_t StripRows(int64_t rows) { return std::min<int64_t>(128, RoundUp(CeilDiv(rows, 16), 16)); }

double MeanDiagonal(const std::vector<double>& h, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += h[i * n + i];
  return sum / static_cast<double>(n);
}

// Columns by falling diagonal, or as they come.
std::vector<int64_t> ColumnOrder(const std::vector<double>& h, int64_t n, bool by_diagonal) {
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  if (by_diagonal) std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return h[a * n + a] > h[b * n + b]; });
  return order;
}

// h[i][j] <- h[order[i]][order[j]], in place.
void Permute(const std::vector<int64_t>& order, std::vector<double>* h) {
  const int64_t n = static_cast<int64_t>(order.size());
  std::vector<double> row(n), kept(n);
  std::vector<bool> placed(n, false);
  const auto gather = [&](const double* from, double* to) {
    for (int64_t j = 0; j < n; ++j) row[j] = from[order[j]];
    std::copy(row.begin(), row.end(), to);
  };
  for (int64_t start = 0; start < n; ++start) {
    if (placed[start]) continue;
    std::copy_n(h->data() + start * n, n, kept.begin());
    int64_t at = start;
    for (; order[at] != start; at = order[at]) {
      gather(h->data() + order[at] * n, h->data() + at * n);
      placed[at] = true;
    }
    gather(kept.data(), h->data() + at * n);
    placed[at] = true;
  }
}

// rows of the factor's columns, each put at its place.
template <typename T>
std::vector<double> InOrder(const HessianFactor& factor, int64_t rows, const T* by_column) {
  const int64_t n = factor.size;
  std::vector<double> by_place(rows * n);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t place = 0; place < n; ++place) by_place[r * n + place] = static_cast<double>(by_column[r * n + factor.order[place]]);
  }
  return by_place;
}

// U from H in its order, in place. With rows and columns in reverse, H is L L^T;
// L^-1 in reverse is upper triangular and its Gram matrix is H^-1. False when H
// is not positive definite, which then is as it was.
bool UpperFactor(int64_t n, std::vector<double>* h, ThreadPool& pool) {
  std::reverse(h->begin(), h->end());
  const bool factored = InverseCholesky(n, h->data(), pool);
  std::reverse(h->begin(), h->end());
  for (int64_t i = 0; factored && i < n; ++i) std::fill_n(h->begin() + i * n, i, 0.0);
  return factored;
}

// A strip of rows at work.
class StripSolver {
 public:
  StripSolver(const QuantScheme& scheme, int bits, int64_t rows, absl::Span<const float> weights, const HessianFactor& factor, const GptqSettings& settings)
      : scheme_(scheme), bits_(bits), rows_(rows), n_(factor.size), factor_(factor), settings_(settings), group_(GroupLength(scheme, n_)),
        groups_(GroupsPerRow(scheme, n_)), given_(weights), values_(InOrder(factor, rows, weights.data())), met_(rows * n_), grids_(rows * groups_) {}

  // Grids from the weights as given; `whole` is that of a PER_TENSOR scheme.
  absl::Status ChooseStaticGrids(const std::optional<Grid>& whole) {
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t g = 0; g < groups_; ++g) {
        if (whole.has_value()) {
          grids_[r * groups_ + g] = *whole;
          continue;
        }
        NIBBLE_ASSIGN_OR_RETURN(grids_[r * groups_ + g], ChooseGrid(scheme_, bits_, given_.subspan(r * n_ + g * group_, std::min(group_, n_ - g * group_))));
      }
    }
    return absl::OkStatus();
  }

  // Codes for all columns; grids chosen on the way where `choose_grids`.
  absl::Status Run(bool choose_grids) {
    for (int64_t begin = 0; begin < n_; begin += settings_.block) {
      const int64_t end = std::min(n_, begin + settings_.block);
      std::vector<double> errors(rows_ * (end - begin));
      for (int64_t place = begin; place < end; ++place) {
        if (choose_grids && factor_.order[place] % group_ == 0) NIBBLE_RETURN_IF_ERROR(ChooseGridsAt(place));
        RoundColumn(place, begin, end, errors.data());
      }
      if (end == n_) break;
      blas::Dgemm(false, false, rows_, n_ - end, end - begin, -1, errors.data(), end - begin, factor_.upper.data() + begin * n_ + end, n_, 1,
                  values_.data() + end, n_);
    }
    return absl::OkStatus();
  }

  double loss() const { return loss_; }
  const std::vector<float>& met() const { return met_; }
  const std::vector<Grid>& grids() const { return grids_; }

 private:
  // Grids of the group that begins at a place, from the weights as they are now.
  absl::Status ChooseGridsAt(int64_t place) {
    std::vector<float> group(std::min(group_, n_ - place));
    for (int64_t r = 0; r < rows_; ++r) {
      for (size_t i = 0; i < group.size(); ++i) group[i] = static_cast<float>(values_[r * n_ + place + i]);
      NIBBLE_ASSIGN_OR_RETURN(grids_[r * groups_ + place / group_], ChooseGrid(scheme_, bits_, group));
    }
    return absl::OkStatus();
  }

  void RoundColumn(int64_t place, int64_t begin, int64_t end, double* errors) {
    const int64_t column = factor_.order[place];
    const double* u = factor_.upper.data() + place * n_;
    for (int64_t r = 0; r < rows_; ++r) {
      const Grid& grid = grids_[r * groups_ + column / group_];
      double* row = values_.data() + r * n_;
      const float met = met_[r * n_ + column] = static_cast<float>(row[place]);
      const float rounded = DecodeValue(grid, EncodeValue(grid, met, (1 << bits_) - 1));
      const double error = (row[place] - static_cast<double>(rounded)) / u[place];
      loss_ += error * error / 2;
      errors[r * (end - begin) + place - begin] = error;
      for (int64_t k = place + 1; k < end; ++k) row[k] -= error * u[k];
    }
  }

  const QuantScheme& scheme_;
  const int bits_;
  const int64_t rows_, n_;
  const HessianFactor& factor_;
  const GptqSettings& settings_;
  const int64_t group_, groups_;
  const absl::Span<const float> given_;
  std::vector<double> values_;  // [rows, n] by place: what is still to be rounded, corrected
  std::vector<float> met_;      // [rows, n] by column: what was rounded, corrected
  std::vector<Grid> grids_;     // [rows, groups]
  double loss_ = 0;
};

// Half of tr(D H D^T) over a strip's rows: with H = U^-1 U^-T the squares of
// D U^-1.
double HalfTrace(const HessianFactor& factor, int64_t rows, absl::Span<const float> a, absl::Span<const float> b) {
  const int64_t n = factor.size;
  std::vector<double> change = InOrder(factor, rows, a.data());
  const std::vector<double> from = InOrder(factor, rows, b.data());
  std::transform(change.begin(), change.end(), from.begin(), change.begin(), std::minus<>());
  blas::DtrsmRightUpper(rows, n, factor.upper.data(), n, change.data(), n);
  return std::inner_product(change.begin(), change.end(), change.begin(), 0.0) / 2;
}

std::vector<float> WithoutDeadColumns(absl::Span<const float> weights, const HessianFactor& factor) {
  std::vector<float> alive(weights.begin(), weights.end());
  for (size_t i = 0; i < alive.size(); ++i) {
    if (factor.dead[i % factor.size]) alive[i] = 0;
  }
  return alive;
}

}  // namespace

absl::StatusOr<HessianFactor> FactorHessian(std::vector<double> hessian, const GptqSettings& settings, ThreadPool& pool) {
  HessianFactor factor;
  const int64_t n = factor.size = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(hessian.size()))));
  NIBBLE_CHECK(static_cast<int64_t>(hessian.size()) == n * n);
  if (!std::all_of(hessian.begin(), hessian.end(), [](double v) { return std::isfinite(v); })) {
    return absl::InvalidArgumentError("the Hessian is not finite: an activation overflowed on the calibration text");
  }
  factor.dead.resize(n);
  for (int64_t i = 0; i < n; ++i) {
    factor.dead[i] = hessian[i * n + i] == 0;
    if (factor.dead[i]) hessian[i * n + i] = 1;
  }
  factor.order = ColumnOrder(hessian, n, settings.act_order);
  const double mean = MeanDiagonal(hessian, n);
  double added = 0;
  factor.upper = std::move(hessian);
  Permute(factor.order, &factor.upper);
  for (factor.damping = settings.damping;; factor.damping = std::min(1.0, 10 * factor.damping), ++factor.retries) {
    for (int64_t i = 0; i < n; ++i) factor.upper[i * n + i] += (factor.damping - added) * mean;
    added = factor.damping;
    if (UpperFactor(n, &factor.upper, pool)) return factor;
    if (factor.damping >= 1 || factor.damping == 0) break;
  }
  return absl::FailedPreconditionError(absl::StrCat("the Hessian cannot be factored with a damping of ", factor.damping,
                                                    "; give damping, or more calibration text"));
}

absl::StatusOr<GptqSolution> SolveGptq(const QuantScheme& scheme, int64_t rows, absl::Span<const float> weights, const HessianFactor& factor,
                               const GptqSettings& settings, ThreadPool& pool) {
  const int64_t n = factor.size;
  NIBBLE_CHECK(static_cast<int64_t>(weights.size()) == rows * n);
  NIBBLE_ASSIGN_OR_RETURN(const Format* format, FindFormat(scheme.format()));
  if (!format->integer_bits().has_value()) return absl::InvalidArgumentError(absl::StrCat("gptq needs an integer grid, not ", SchemeToString(scheme)));
  const bool per_group = scheme.per() == QuantScheme::PER_GROUP;
  if (per_group && settings.act_order && !settings.static_groups) {
    return absl::InvalidArgumentError("act_order mixes the columns of groups; it needs static_groups: true");
  }
  const std::vector<float> alive = WithoutDeadColumns(weights, factor);
  std::optional<Grid> whole;
  if (scheme.per() == QuantScheme::PER_TENSOR) {
    NIBBLE_ASSIGN_OR_RETURN(whole, ChooseGrid(scheme, *format->integer_bits(), alive));
  }
  NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor rounded, Encode(scheme, {rows, n}, alive, &pool));
  const bool choose_grids = per_group && !settings.static_groups;
  const int64_t groups = GroupsPerRow(scheme, n), strip_rows = StripRows(rows), strips = CeilDiv(rows, strip_rows);
  std::vector<float> met(rows * n);
  std::vector<Grid> grids(rows * groups);
  std::vector<double> losses(strips), rounding_losses(strips);
  NIBBLE_RETURN_IF_ERROR(ParallelForStatus(&pool, strips, [&](int64_t strip, int) -> absl::Status {
    const int64_t first = strip * strip_rows, count = std::min(strip_rows, rows - first);
    const auto strip_weights = absl::MakeConstSpan(alive).subspan(first * n, count * n);
    StripSolver solver(scheme, *format->integer_bits(), count, strip_weights, factor, settings);
    if (!choose_grids) NIBBLE_RETURN_IF_ERROR(solver.ChooseStaticGrids(whole));
    NIBBLE_RETURN_IF_ERROR(solver.Run(choose_grids));
    std::copy(solver.met().begin(), solver.met().end(), met.begin() + first * n);
    std::copy(solver.grids().begin(), solver.grids().end(), grids.begin() + first * groups);
    losses[strip] = solver.loss();
    std::vector<float> nearest(count * n);
    DecodeRows(rounded, first, first + count, nearest.data());
    rounding_losses[strip] = HalfTrace(factor, count, nearest, strip_weights);
    return absl::OkStatus();
  }));
  GptqSolution solution;
  if (whole.has_value()) grids.resize(1);
  NIBBLE_ASSIGN_OR_RETURN(solution.encoded, format->EncodeOnGrids(scheme, {rows, n}, met, grids, &pool));
  solution.loss = std::accumulate(losses.begin(), losses.end(), 0.0);
  solution.rounding_loss = std::accumulate(rounding_losses.begin(), rounding_losses.end(), 0.0);
  return solution;
}

std::vector<float> PropagateError(absl::Span<const float> weights, int64_t rows, absl::Span<const double> change, double share,
                                  const HessianFactor& factor, ThreadPool& pool) {
  const int64_t n = factor.size;
  std::vector<float> result(weights.begin(), weights.end());
  const int64_t strip_rows = StripRows(rows);
  pool.ParallelFor(CeilDiv(rows, strip_rows), [&](int64_t strip, int) {
    const int64_t first = strip * strip_rows, count = std::min(strip_rows, rows - first);
    float* at = result.data() + first * n;
    const std::vector<double> w(at, at + count * n);
    std::vector<double> y(count * n);
    blas::Dgemm(false, false, count, n, n, 1, w.data(), n, change.data(), n, 0, y.data(), n);
    std::vector<double> x = InOrder(factor, count, y.data());
    blas::Dgemm(false, true, count, n, n, 1, x.data(), n, factor.upper.data(), n, 0, y.data(), n);
    blas::Dgemm(false, false, count, n, n, 1, y.data(), n, factor.upper.data(), n, 0, x.data(), n);
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t place = 0; place < n; ++place) at[r * n + factor.order[place]] += static_cast<float>(share * x[r * n + place]);
    }
  });
  return result;
}

}  // namespace nibble
