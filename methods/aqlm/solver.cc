#include "methods/aqlm/solver.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/base/check.h"
#include "core/base/clones.h"
#include "core/base/divide.h"
#include "core/base/status.h"
#include "core/quant/formats/aqlm/nearest.h"
#include "core/tensor/blas.h"

namespace nibble {

using additive::AdditiveTensor;
using additive::WordTable;

namespace {

// Rows of a task of a code search: enough to share a group's part of the Hessian, few enough to
// share out.
constexpr int64_t kStrip = 64;

// Of products with the whole Hessian, which the library packs anew for each: more where there
// are many.
int64_t ProductRows(int64_t rows) { return std::min<int64_t>(256, RoundUp(CeilDiv(rows, 8), kStrip)); }

// gradient [n] += sum over j < count of change[j] hessian[j], rows n apart.
NIBBLE_CLONES void AddRows(const float* change, int64_t count, const float* hessian, int64_t n, float* gradient) {
  int64_t j = 0;
  for (; j + 4 <= count; j += 4) {
    const float a = change[j], b = change[j + 1], c = change[j + 2], d = change[j + 3];
    const float *p = hessian + j * n, *q = p + n, *r = q + n, *s = r + n;
    for (int64_t i = 0; i < n; ++i) gradient[i] += (a * p[i] + b * q[i]) + (c * r[i] + d * s[i]);
  }
  for (; j < count; ++j) {
    for (int64_t i = 0; i < n; ++i) gradient[i] += change[j] * hessian[j * n + i];
  }
}

double Dot(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

// Adam's state of one array, with AMSGrad (Reddi et al., ICLR 2018).
class Adam {
 public:
  explicit Adam(size_t size) : first_(size), second_(size), largest_(size) {}

  void Step(const AqlmSettings& settings, int step, const std::vector<float>& gradient, std::vector<float>* values) {
    const float b1 = static_cast<float>(settings.beta1), b2 = static_cast<float>(settings.beta2);
    const float pace = static_cast<float>(settings.learning_rate / (1 - std::pow(settings.beta1, step)));
    const float correction = static_cast<float>(1 / std::sqrt(1 - std::pow(settings.beta2, step)));
    for (size_t i = 0; i < values->size(); ++i) {
      first_[i] = b1 * first_[i] + (1 - b1) * gradient[i];
      second_[i] = b2 * second_[i] + (1 - b2) * gradient[i] * gradient[i];
      largest_[i] = std::max(largest_[i], second_[i]);
      (*values)[i] -= pace * first_[i] / (std::sqrt(largest_[i]) * correction + 1e-8f);
    }
  }

 private:
  std::vector<float> first_, second_, largest_;
};

}  // namespace

AqlmProblem::AqlmProblem(int64_t rows, absl::Span<const float> weights, absl::Span<const double> hessian, ThreadPool& pool)
    : rows_(rows), n_(static_cast<int64_t>(weights.size()) / rows), weights_(weights), hessian_(hessian.begin(), hessian.end()), pool_(pool) {
  NIBBLE_CHECK(static_cast<int64_t>(hessian.size()) == n_ * n_);
}

std::vector<float> AqlmProblem::TimesHessian(const AdditiveTensor& tensor, bool scaled, bool less_weights, std::vector<float>* change) const {
  std::vector<float> product(rows_ * n_);
  change->resize(rows_ * n_);
  const int64_t piece = ProductRows(rows_);
  pool_.ParallelFor(CeilDiv(rows_, piece), [&](int64_t i, int) {
    const int64_t first = i * piece, count = std::min(piece, rows_ - first);
    float* from = change->data() + first * n_;
    tensor.DecodeRows(first, first + count, scaled, from);
    for (int64_t c = 0; less_weights && c < count * n_; ++c) from[c] -= weights_[first * n_ + c];
    blas::Sgemm(false, false, count, n_, n_, 1.0f, from, n_, hessian_.data(), n_, 0.0f, product.data() + first * n_, n_);
  });
  return product;
}

double AqlmState::loss() const { return std::accumulate(row_losses.begin(), row_losses.end(), 0.0); }

AqlmState AqlmProblem::StateOf(AdditiveTensor tensor) const {
  AqlmState state{std::move(tensor), {}, std::vector<double>(rows_)};
  std::vector<float> change;
  state.gradient = TimesHessian(state.tensor, /*scaled=*/true, /*less_weights=*/true, &change);
  pool_.ParallelFor(rows_, [&](int64_t r, int) {
    for (int64_t c = r * n_; c < (r + 1) * n_; ++c) state.row_losses[r] += static_cast<double>(change[c]) * static_cast<double>(state.gradient[c]) / 2;
  });
  return state;
}

// A beam search over the codes of a tensor. With G = D H of a row, d the change of
// group g and H_gg its part of the Hessian, exchanging the word u for v adds
//   s (v - u) . G_g + s^2/2 (v - u) H_gg (v - u)
// to the row's loss: up to a constant s v . (G_g - s H_gg u) + s^2 (v H_gg v)/2, whose
// last factor is the same for all rows.
class AqlmProblem::Search {
 public:
  Search(const AqlmProblem& problem, int beam, AdditiveTensor* tensor)
      : problem_(problem), beam_(beam), n_(problem.n_), tensor_(*tensor), dim_(tensor->in_group), groups_(tensor->groups()) {
    const int64_t size = tensor_.words_per_codebook() * dim_;
    for (int m = 0; m < tensor_.codebooks; ++m) tables_.emplace_back(absl::MakeConstSpan(tensor_.words).subspan(m * size, size), dim_);
  }

  // `gradient`: D H of the tensor as it is.
  void Run(const std::vector<float>& gradient) {
    const int64_t strips = CeilDiv(problem_.rows_, kStrip);
    std::vector<std::vector<Row>> rows(strips);
    for (int64_t r = 0; r < problem_.rows_; ++r) {
      const float* from = gradient.data() + r * n_;
      const uint16_t* codes = tensor_.codes_of(r, 0);
      rows[r / kStrip].push_back({{{0.0, {from, from + n_}, {codes, codes + tensor_.codes_per_row()}}}});
    }
    for (int64_t g = 0; g < groups_; ++g) {
      MakeForms(g);
      problem_.pool_.ParallelFor(strips, [&](int64_t strip, int) {
        const absl::Span<const float> scales = absl::MakeConstSpan(tensor_.scales).subspan(strip * kStrip, rows[strip].size());
        for (int m = 0; m < tensor_.codebooks; ++m) {
          if (beam_ == 1) {
            ExtendBest(g, m, scales, &rows[strip]);
          } else {
            for (size_t i = 0; i < scales.size(); ++i) Extend(g, m, scales[i], &rows[strip][i]);
          }
        }
      });
    }
    for (int64_t r = 0; r < problem_.rows_; ++r) {
      const std::vector<uint16_t>& codes = rows[r / kStrip][r % kStrip].beam[0].codes;
      std::copy(codes.begin(), codes.end(), tensor_.codes_of(r, 0));
    }
  }

 private:
  struct Hypothesis {
    double loss = 0;              // above that of the codes given, where beams compete
    std::vector<float> gradient;  // G
    std::vector<uint16_t> codes;
  };
  struct Row {
    std::vector<Hypothesis> beam;  // the best first
  };
  struct Choice {
    double loss;
    size_t from;
    uint16_t code;
  };

  int64_t width(int64_t g) const { return std::min(dim_, n_ - g * dim_); }
  const float* hessian(int64_t g) const { return problem_.hessian_.data() + g * dim_ * n_; }

  // v H_gg v of each word.
  void MakeForms(int64_t g) {
    forms_.clear();
    const int64_t n = width(g);
    for (int m = 0; m < tensor_.codebooks; ++m) {
      forms_.push_back(tables_[m].BiasOf([](int64_t) { return 0.0f; }));
      std::vector<float>& form = forms_.back();
      constexpr int64_t kPiece = 4096;
      problem_.pool_.ParallelFor(CeilDiv(tensor_.words_per_codebook(), kPiece), [&](int64_t piece, int) {
        for (int64_t word = piece * kPiece; word < std::min(tensor_.words_per_codebook(), (piece + 1) * kPiece); ++word) {
          const float* v = tensor_.word(m, word);
          float sum = 0;
          for (int64_t i = 0; i < n; ++i) {
            float product = 0;
            for (int64_t j = 0; j < n; ++j) product += hessian(g)[i * n_ + g * dim_ + j] * v[j];
            sum += v[i] * product;
          }
          form[word] = sum;
        }
      });
    }
  }

  // -s (G_g - s H_gg u), what NearestWords takes, zeros beyond the row's end.
  void QueryOf(int64_t g, const float* word, float scale, const Hypothesis& hypothesis, float* query) const {
    const int64_t n = width(g);
    std::fill_n(query, dim_, 0.0f);
    for (int64_t i = 0; i < n; ++i) {
      float product = 0;
      for (int64_t j = 0; j < n; ++j) product += hessian(g)[i * n_ + g * dim_ + j] * word[j];
      query[i] = -scale * (hypothesis.gradient[g * dim_ + i] - scale * product);
    }
  }

  // A beam of one: only the nearest word counts, and rows look for theirs together.
  void ExtendBest(int64_t g, int m, absl::Span<const float> scales, std::vector<Row>* rows) const {
    const int64_t place = g * tensor_.codebooks + m, count = static_cast<int64_t>(scales.size());
    std::vector<float> queries(count * dim_), factors(count), values(count);
    std::vector<uint16_t> codes(count);
    for (int64_t i = 0; i < count; ++i) {
      const Hypothesis& hypothesis = (*rows)[i].beam[0];
      QueryOf(g, tensor_.word(m, hypothesis.codes[place]), scales[i], hypothesis, queries.data() + i * dim_);
      factors[i] = scales[i] * scales[i] / 2;
    }
    additive::NearestWords(tables_[m], forms_[m].data(), count, factors.data(), queries.data(), codes.data(), values.data());
    for (int64_t i = 0; i < count; ++i) Exchange(g, m, scales[i], codes[i], &(*rows)[i].beam[0]);
  }

  void Extend(int64_t g, int m, float scale, Row* row) const {
    std::vector<Choice> choices;
    const int64_t place = g * tensor_.codebooks + m;
    std::vector<float> query(dim_), values(tables_[m].words());
    const float factor = scale * scale / 2;
    for (size_t i = 0; i < row->beam.size(); ++i) {
      const Hypothesis& hypothesis = row->beam[i];
      const uint16_t old = hypothesis.codes[place];
      QueryOf(g, tensor_.word(m, old), scale, hypothesis, query.data());
      additive::WordValues(tables_[m], forms_[m].data(), factor, query.data(), values.data());
      const double before = static_cast<double>(values[old]);
      for (size_t code = 0; code < values.size(); ++code) {
        choices.push_back({hypothesis.loss + static_cast<double>(values[code]) - before, i, static_cast<uint16_t>(code)});
      }
    }
    KeepBest(&choices);
    std::vector<Hypothesis> next;
    for (const Choice& choice : choices) {
      next.push_back(row->beam[choice.from]);
      next.back().loss = choice.loss;
      Exchange(g, m, scale, choice.code, &next.back());
    }
    row->beam = std::move(next);
  }

  void KeepBest(std::vector<Choice>* choices) const {
    const size_t kept = std::min<size_t>(beam_, choices->size());
    std::partial_sort(choices->begin(), choices->begin() + kept, choices->end(), [](const Choice& a, const Choice& b) {
      return a.loss != b.loss ? a.loss < b.loss : a.from != b.from ? a.from < b.from : a.code < b.code;
    });
    choices->resize(kept);
  }

  // Gives group g the word `code` of codebook m.
  void Exchange(int64_t g, int m, float scale, uint16_t code, Hypothesis* hypothesis) const {
    const uint16_t old = std::exchange(hypothesis->codes[g * tensor_.codebooks + m], code);
    if (old == code) return;
    const int64_t n = width(g);
    float change[additive::kMostInGroup];
    for (int64_t j = 0; j < n; ++j) change[j] = scale * (tensor_.word(m, code)[j] - tensor_.word(m, old)[j]);
    AddRows(change, n, hessian(g), n_, hypothesis->gradient.data());
  }

  const AqlmProblem& problem_;
  const int beam_;
  const int64_t n_;
  AdditiveTensor& tensor_;
  const int64_t dim_, groups_;
  std::vector<WordTable> tables_;           // of each codebook
  std::vector<std::vector<float>> forms_;   // of each codebook, for the group at hand
};

void AqlmProblem::SearchCodes(int beam, AqlmState* state) const {
  AdditiveTensor found = state->tensor;
  Search(*this, beam, &found).Run(state->gradient);
  const AqlmState after = StateOf(std::move(found));
  const int64_t codes = after.tensor.codes_per_row();
  for (int64_t r = 0; r < rows_; ++r) {
    if (!(after.row_losses[r] < state->row_losses[r])) continue;
    std::copy_n(after.tensor.codes_of(r, 0), codes, state->tensor.codes_of(r, 0));
    std::copy_n(after.gradient.begin() + r * n_, n_, state->gradient.begin() + r * n_);
    state->row_losses[r] = after.row_losses[r];
  }
}

void AqlmProblem::FitByAdam(const AqlmSettings& settings, AqlmState* state) const {
  Adam words(state->tensor.words.size()), scales(state->tensor.scales.size());
  AqlmState at = *state;
  std::vector<float> word_gradient, scale_gradient;
  for (int step = 1; step <= settings.adam_steps; ++step) {
    at.tensor.Gradients(at.gradient, &pool_, &word_gradient, &scale_gradient);
    words.Step(settings, step, word_gradient, &at.tensor.words);
    scales.Step(settings, step, scale_gradient, &at.tensor.scales);
    at = StateOf(std::move(at.tensor));
    if (at.loss() < state->loss()) *state = at;
  }
}

void AqlmProblem::FitByLeastSquares(int steps, AqlmState* state) const {
  std::vector<float> residual, product, decoded;
  state->tensor.Gradients(state->gradient, &pool_, &residual, nullptr);
  for (float& r : residual) r = -r;
  AdditiveTensor fitted = state->tensor, direction = state->tensor;
  direction.words = residual;
  double length = Dot(residual, residual);
  for (int step = 0; step < steps && length > 0; ++step) {
    direction.Gradients(TimesHessian(direction, /*scaled=*/true, /*less_weights=*/false, &decoded), &pool_, &product, nullptr);
    const double curvature = Dot(direction.words, product);
    if (!(curvature > 0)) break;
    const float pace = static_cast<float>(length / curvature);
    for (size_t i = 0; i < residual.size(); ++i) {
      fitted.words[i] += pace * direction.words[i];
      residual[i] -= pace * product[i];
    }
    const double next = Dot(residual, residual);
    for (size_t i = 0; i < residual.size(); ++i) direction.words[i] = residual[i] + static_cast<float>(next / length) * direction.words[i];
    length = next;
  }
  FitScales(&fitted);
  AqlmState after = StateOf(std::move(fitted));
  if (after.loss() < state->loss()) *state = std::move(after);
}

// The scale s of a row with weights w and words v: v H w / v H v.
void AqlmProblem::FitScales(AdditiveTensor* tensor) const {
  std::vector<float> words;
  const std::vector<float> product = TimesHessian(*tensor, /*scaled=*/false, /*less_weights=*/false, &words);
  for (int64_t r = 0; r < rows_; ++r) {
    double with_weights = 0, with_words = 0;
    for (int64_t c = r * n_; c < (r + 1) * n_; ++c) {
      with_weights += static_cast<double>(product[c]) * static_cast<double>(weights_[c]);
      with_words += static_cast<double>(product[c]) * static_cast<double>(words[c]);
    }
    if (with_words > 0 && with_weights > 0) tensor->scales[r] = static_cast<float>(with_weights / with_words);
  }
}

absl::StatusOr<AqlmSolution> SolveAqlm(const QuantScheme& scheme, int64_t rows, absl::Span<const float> weights, absl::Span<const double> hessian,
                                       const AqlmSettings& settings, ThreadPool& pool, absl::FunctionRef<void(double)> seen) {
  if (!std::all_of(hessian.begin(), hessian.end(), [](double v) { return std::isfinite(v); })) {
    return absl::InvalidArgumentError("the Hessian is not finite: an activation overflowed on the calibration text");
  }
  const int64_t n = static_cast<int64_t>(weights.size()) / rows;
  const AqlmProblem problem(rows, weights, hessian, pool);
  AqlmSolution solution;
  NIBBLE_ASSIGN_OR_RETURN(AdditiveTensor tensor, additive::ResidualKMeans(scheme, rows, n, weights, settings.kmeans_iterations, settings.seed, &pool));
  solution.tensor = tensor;
  AqlmState state = problem.StateOf(std::move(tensor));
  solution.initial_loss = state.loss();
  while (solution.rounds < settings.rounds) {
    const double before = state.loss();
    ++solution.rounds;
    if (settings.fit == AqlmSettings::Fit::kAdam) problem.FitByAdam(settings, &state);
    else problem.FitByLeastSquares(settings.least_squares_steps, &state);
    seen(state.loss());
    problem.SearchCodes(settings.beam, &state);
    seen(state.loss());
    if (before - state.loss() <= settings.tolerance * before) break;
  }
  NIBBLE_RETURN_IF_ERROR(additive::RoundToStored(scheme, &state.tensor));
  state = problem.StateOf(std::move(state.tensor));
  solution.loss = state.loss();
  // Rounding may take back what a last round gained.
  if (solution.loss < solution.initial_loss) solution.tensor = std::move(state.tensor);
  else solution.loss = solution.initial_loss;
  return solution;
}

}  // namespace nibble
