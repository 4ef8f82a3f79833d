#include "methods/aqlm/solver.h"

#include <cmath>
#include <functional>
#include <numeric>
#include <set>

#include "core/base/rng.h"
#include "core/base/testing.h"

namespace nibble {
namespace {

using additive::AdditiveTensor;
using additive::SchemeOf;

std::vector<float> Gaussian(int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values(n);
  for (float& v : values) v = rng.Normal();
  return values;
}

// 2/n sum of x x^T of correlated inputs.
std::vector<double> Hessian(int64_t n, uint64_t seed, int64_t tokens = 400) {
  const std::vector<float> mix = Gaussian(n * n, seed + 1), noise = Gaussian(tokens * n, seed + 2);
  std::vector<double> h(n * n), x(n);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < n; ++i) {
      x[i] = noise[t * n + i];
      for (int64_t j = 0; j < 3; ++j) x[i] += 0.6 * static_cast<double>(mix[i * n + j]) * noise[t * n + j];
    }
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) h[i * n + j] += 2 * x[i] * x[j] / static_cast<double>(tokens);
    }
  }
  return h;
}

double Quadratic(const std::vector<float>& a, const std::vector<float>& b, const std::vector<double>& h, int64_t n) {
  double sum = 0;
  for (size_t first = 0; first < a.size(); first += n) {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        sum += (static_cast<double>(a[first + i]) - b[first + i]) * h[i * n + j] * (static_cast<double>(a[first + j]) - b[first + j]) / 2;
      }
    }
  }
  return sum;
}

TEST(AqlmProblem, LossIsTheQuadraticForm) {
  ThreadPool pool(2);
  const std::vector<float> w = Gaussian(35 * 20, 1);
  const std::vector<double> h = Hessian(20, 2);
  const AqlmProblem problem(35, w, h, pool);
  const AdditiveTensor tensor = *additive::ResidualKMeans(SchemeOf(2, 4, 8), 35, 20, w, 10, 0, &pool);
  const double expected = Quadratic(tensor.Decode(), w, h, 20);
  EXPECT_NEAR(problem.StateOf(tensor).loss(), expected, 1e-4 * expected);
}

// A gradient of the loss with respect to codewords and scales against differences.
TEST(AqlmProblem, GradientsAgreeWithDifferences) {
  ThreadPool pool(1);
  const std::vector<float> w = Gaussian(12 * 18, 1);
  const AqlmProblem problem(12, w, Hessian(18, 2), pool);
  AdditiveTensor tensor = *additive::ResidualKMeans(SchemeOf(2, 3, 8), 12, 18, w, 10, 0, &pool);
  std::vector<float> words, scales;
  tensor.Gradients(problem.StateOf(tensor).gradient, &pool, &words, &scales);
  const auto slope = [&](float& parameter) {
    const float at = parameter, step = 0.01f * std::max(0.1f, std::fabs(at));
    parameter = at + step;
    const double up = problem.StateOf(tensor).loss();
    parameter = at - step;
    const double down = problem.StateOf(tensor).loss();
    parameter = at;
    return (up - down) / (2 * static_cast<double>(step));
  };
  for (size_t i = 0; i < words.size(); i += 5) EXPECT_NEAR(words[i], slope(tensor.words[i]), 2e-2 + 1e-2 * std::fabs(words[i])) << i;
  for (size_t i = 0; i < scales.size(); ++i) EXPECT_NEAR(scales[i], slope(tensor.scales[i]), 2e-2 + 1e-2 * std::fabs(scales[i])) << i;
}

// The least loss over all codes of each row.
double BruteForce(const AqlmProblem& problem, AdditiveTensor tensor) {
  const int64_t places = tensor.codes_per_row(), words = tensor.words_per_codebook();
  int64_t combinations = 1;
  for (int64_t i = 0; i < places; ++i) combinations *= words;
  std::vector<double> best(tensor.rows, 1e30);
  for (int64_t c = 0; c < combinations; ++c) {
    for (int64_t r = 0; r < tensor.rows; ++r) {
      int64_t rest = c;
      for (int64_t i = 0; i < places; ++i, rest /= words) tensor.codes[r * places + i] = static_cast<uint16_t>(rest % words);
    }
    const std::vector<double> rows = problem.StateOf(tensor).row_losses;
    for (int64_t r = 0; r < tensor.rows; ++r) best[r] = std::min(best[r], rows[r]);
  }
  return std::accumulate(best.begin(), best.end(), 0.0);
}

TEST(BeamSearch, AWideBeamFindsTheBestCodes) {
  ThreadPool pool(2);
  for (const auto& [codebooks, bits, cols] : {std::tuple{1, 2, 24}, {2, 1, 24}, {2, 2, 11}}) {
    const std::vector<float> w = Gaussian(5 * cols, 4);
    const AqlmProblem problem(5, w, Hessian(cols, 5), pool);
    const AdditiveTensor start = *additive::ResidualKMeans(SchemeOf(codebooks, bits, 8), 5, cols, w, 10, 0, &pool);
    const double best = BruteForce(problem, start);
    const AqlmState before = problem.StateOf(start);
    AqlmState wide = before, narrow = before;
    problem.SearchCodes(256, &wide);
    problem.SearchCodes(1, &narrow);
    EXPECT_NEAR(wide.loss(), best, 1e-4 * best);
    EXPECT_GE(narrow.loss(), best * (1 - 1e-6));
    EXPECT_LE(narrow.loss(), before.loss());
  }
}

// Exchanging a code by hand changes the loss as the search says.
TEST(BeamSearch, NoSingleCodeIsBetterOnceItIsDone) {
  ThreadPool pool(1);
  const std::vector<float> w = Gaussian(3 * 16, 6);
  const AqlmProblem problem(3, w, Hessian(16, 7), pool);
  AqlmState state = problem.StateOf(*additive::ResidualKMeans(SchemeOf(2, 3, 8), 3, 16, w, 10, 0, &pool));
  for (int i = 0; i < 30; ++i) problem.SearchCodes(1, &state);
  AdditiveTensor tensor = state.tensor;
  const std::vector<double> settled = state.row_losses;
  for (size_t i = 0; i < tensor.codes.size(); ++i) {
    const uint16_t kept = tensor.codes[i];
    for (uint16_t code = 0; code < 8; ++code) {
      tensor.codes[i] = code;
      const std::vector<double> rows = problem.StateOf(tensor).row_losses;
      const size_t row = i / tensor.codes_per_row();
      EXPECT_GE(rows[row], settled[row] * (1 - 1e-5));
    }
    tensor.codes[i] = kept;
  }
}

// Every step hands on the state of its tensor, and none makes the loss larger.
TEST(AqlmProblem, StepsLeaveTheStateOfTheirTensor) {
  ThreadPool pool(2);
  const std::vector<float> w = Gaussian(300 * 40, 8);
  const AqlmProblem problem(300, w, Hessian(40, 9), pool);
  AqlmState state = problem.StateOf(*additive::ResidualKMeans(SchemeOf(2, 4, 8), 300, 40, w, 10, 0, &pool));
  AqlmSettings settings;
  settings.adam_steps = 5;
  const std::vector<std::function<void()>> steps = {[&] { problem.FitByLeastSquares(10, &state); }, [&] { problem.SearchCodes(1, &state); },
                                                    [&] { problem.FitByAdam(settings, &state); }, [&] { problem.SearchCodes(3, &state); }};
  for (size_t i = 0; i < steps.size(); ++i) {
    const double before = state.loss();
    steps[i]();
    EXPECT_LT(state.loss(), before) << "step " << i;
    const AqlmState anew = problem.StateOf(state.tensor);
    EXPECT_EQ(state.gradient, anew.gradient) << "step " << i;
    EXPECT_EQ(state.row_losses, anew.row_losses) << "step " << i;
  }
}

TEST(SolveAqlm, LossNeverGrowsAndFallsFarBelowTheStart) {
  const std::vector<float> w = Gaussian(64 * 40, 8);
  const std::vector<double> h = Hessian(40, 9);
  for (const auto fit : {AqlmSettings::Fit::kAdam, AqlmSettings::Fit::kLeastSquares}) {
    ThreadPool pool(2);
    AqlmSettings settings;
    settings.fit = fit;
    settings.tolerance = 1e-3;
    std::vector<double> losses;
    ASSERT_OK_AND_ASSIGN(const AqlmSolution solution,
                         SolveAqlm(SchemeOf(2, 4, 8), 64, w, h, settings, pool, [&](double loss) { losses.push_back(loss); }));
    EXPECT_GT(losses.size(), 4u);
    double before = solution.initial_loss;
    for (const double loss : losses) {
      EXPECT_LE(loss, before);
      before = loss;
    }
    EXPECT_LT(solution.loss, 0.8 * solution.initial_loss);
    EXPECT_NEAR(solution.loss, Quadratic(solution.tensor.Decode(), w, h, 40), 1e-3 * solution.loss);
  }
}

TEST(SolveAqlm, WiderBeamsAreNoWorse) {
  ThreadPool pool(2);
  const std::vector<float> w = Gaussian(48 * 32, 8);
  const std::vector<double> h = Hessian(32, 9);
  AqlmSettings narrow, wide;
  narrow.fit = wide.fit = AqlmSettings::Fit::kLeastSquares;
  wide.beam = 4;
  ASSERT_OK_AND_ASSIGN(const AqlmSolution one, SolveAqlm(SchemeOf(2, 4, 8), 48, w, h, narrow, pool, [](double) {}));
  ASSERT_OK_AND_ASSIGN(const AqlmSolution four, SolveAqlm(SchemeOf(2, 4, 8), 48, w, h, wide, pool, [](double) {}));
  EXPECT_LT(four.loss, 1.02 * one.loss);
}

TEST(SolveAqlm, WordsEnoughForEveryGroupLoseNothing) {
  ThreadPool pool(2);
  const std::vector<float> w = Gaussian(6 * 32, 3);  // 24 groups
  ASSERT_OK_AND_ASSIGN(const AqlmSolution solution, SolveAqlm(SchemeOf(1, 5, 8), 6, w, Hessian(32, 2), {}, pool, [](double) {}));
  EXPECT_LT(solution.loss, 1e-5 * Quadratic(std::vector<float>(w.size()), w, Hessian(32, 2), 32));
}

// 4,096 words and half as many groups again: more than can be chosen by their distances,
// and no word for every group.
TEST(SolveAqlm, TwelveBitsForMoreGroupsThanWords) {
  ThreadPool pool(2);
  const int64_t rows = 512, n = 96;  // 6,144 groups
  const std::vector<float> w = Gaussian(rows * n, 10);
  const std::vector<double> h = Hessian(n, 11);
  AqlmSettings settings;
  settings.kmeans_iterations = 10;
  settings.rounds = 2;
  settings.fit = AqlmSettings::Fit::kLeastSquares;
  std::vector<double> losses;
  const QuantScheme scheme = SchemeOf(1, 12, 8);
  ASSERT_OK_AND_ASSIGN(const AqlmSolution solution, SolveAqlm(scheme, rows, w, h, settings, pool, [&](double loss) { losses.push_back(loss); }));
  const double nothing = Quadratic(std::vector<float>(w.size()), w, h, n);
  EXPECT_GT(solution.initial_loss, 1e-3 * nothing);
  EXPECT_LT(solution.initial_loss, 0.3 * nothing);
  double before = solution.initial_loss;
  for (const double loss : losses) {
    EXPECT_LE(loss, before);
    before = loss;
  }
  EXPECT_LT(solution.loss, 0.9 * solution.initial_loss);
  EXPECT_NEAR(solution.loss, Quadratic(solution.tensor.Decode(), w, h, n), 1e-3 * solution.loss);
  // Most words are used, and codes of 12 bits come back as they were stored.
  const std::set<uint16_t> used(solution.tensor.codes.begin(), solution.tensor.codes.end());
  EXPECT_GT(used.size(), 2048u);
  EXPECT_LT(*used.rbegin(), 4096);
  ASSERT_OK_AND_ASSIGN(const EncodedTensor packed, additive::Pack(scheme, {rows, n}, solution.tensor));
  EXPECT_EQ(additive::Unpack(packed).codes, solution.tensor.codes);
}

TEST(SolveAqlm, SameForAnyThreadCount) {
  const std::vector<float> w = Gaussian(130 * 24, 8);
  const std::vector<double> h = Hessian(24, 9);
  for (const int beam : {1, 3}) {
    AqlmSettings settings;
    settings.beam = beam;
    settings.rounds = 2;
    settings.adam_steps = 5;
    ThreadPool one(1), three(3);
    ASSERT_OK_AND_ASSIGN(const AqlmSolution a, SolveAqlm(SchemeOf(2, 4, 8), 130, w, h, settings, one, [](double) {}));
    ASSERT_OK_AND_ASSIGN(const AqlmSolution b, SolveAqlm(SchemeOf(2, 4, 8), 130, w, h, settings, three, [](double) {}));
    EXPECT_EQ(a.tensor.codes, b.tensor.codes);
    EXPECT_EQ(a.tensor.words, b.tensor.words);
    EXPECT_EQ(a.tensor.scales, b.tensor.scales);
    EXPECT_EQ(a.loss, b.loss);
  }
}

TEST(SolveAqlm, AHessianThatIsNotFiniteIsAnError) {
  ThreadPool pool(1);
  std::vector<double> h = Hessian(8, 1);
  h[3] = std::nan("");
  EXPECT_THAT(std::string(SolveAqlm(SchemeOf(1, 2, 8), 2, Gaussian(16, 1), h, {}, pool, [](double) {}).status().message()),
              ::testing::HasSubstr("not finite"));
}

}  // namespace
}  // namespace nibble
