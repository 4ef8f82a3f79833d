#include "core/quant/formats/aqlm/kmeans.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>

#include "core/base/divide.h"
#include "core/base/rng.h"
#include "core/quant/formats/aqlm/nearest.h"

namespace nibble::additive {
namespace {

constexpr int64_t kMostPlusPlus = 1024;  // words that are worth choosing by distance
constexpr int64_t kPiece = 4096;         // vectors of a task

float Dot(const float* a, const float* b, int64_t dim) {
  float sum = 0;
  for (int64_t j = 0; j < dim; ++j) sum += a[j] * b[j];
  return sum;
}

float SquaredDistance(const float* a, const float* b, int64_t dim) {
  float sum = 0;
  for (int64_t j = 0; j < dim; ++j) sum += (a[j] - b[j]) * (a[j] - b[j]);
  return sum;
}

// `count` of n indices at random, in order.
std::vector<int64_t> Sample(int64_t n, int64_t count, Rng& rng) {
  std::vector<int64_t> indices(n);
  std::iota(indices.begin(), indices.end(), 0);
  for (int64_t i = 0; i < count; ++i) std::swap(indices[i], indices[i + static_cast<int64_t>(rng.Below(n - i))]);
  indices.resize(count);
  std::sort(indices.begin(), indices.end());
  return indices;
}

class Clustering {
 public:
  Clustering(absl::Span<const float> vectors, int64_t dim, const KMeansOptions& options, ThreadPool* pool)
      : vectors_(vectors), dim_(dim), n_(static_cast<int64_t>(vectors.size()) / dim), options_(options), pool_(pool), rng_(options.seed) {}

  std::vector<float> Run() {
    if (TakeDistinct()) return std::move(words_);
    KeepSample();
    if (options_.words <= kMostPlusPlus) StartByDistance();
    else StartAtRandom();
    double before = 0;
    for (int i = 0; i < options_.iterations; ++i) {
      const Assignment assignment = AssignNearest(vectors_, dim_, words_, pool_);
      const double loss = std::accumulate(assignment.distances.begin(), assignment.distances.end(), 0.0);
      if (i > 0 && before - loss <= options_.tolerance * before) break;
      before = loss;
      MoveWords(assignment);
    }
    return std::move(words_);
  }

 private:
  const float* vector(int64_t i) const { return vectors_.data() + i * dim_; }

  // The distinct vectors, where words are enough for them.
  bool TakeDistinct() {
    const auto less = [&](int64_t a, int64_t b) { return std::lexicographical_compare(vector(a), vector(a) + dim_, vector(b), vector(b) + dim_); };
    std::set<int64_t, decltype(less)> distinct(less);
    for (int64_t i = 0; i < n_; ++i) {
      distinct.insert(i);
      if (static_cast<int64_t>(distinct.size()) > options_.words) return false;
    }
    words_.assign(options_.words * dim_, 0.0f);
    float* out = words_.data();
    for (const int64_t i : distinct) out = std::copy_n(vector(i), dim_, out);
    return true;
  }

  void KeepSample() {
    const int64_t most = options_.vectors_per_word * options_.words;
    if (n_ <= most) return;
    for (const int64_t i : Sample(n_, most, rng_)) sample_.insert(sample_.end(), vector(i), vector(i) + dim_);
    vectors_ = sample_;
    n_ = most;
  }

  void StartAtRandom() {
    for (const int64_t i : Sample(n_, options_.words, rng_)) words_.insert(words_.end(), vector(i), vector(i) + dim_);
  }

  // From at most 32 vectors a word.
  void StartByDistance() {
    const std::vector<int64_t> candidates = Sample(n_, std::min(n_, 32 * options_.words), rng_);
    std::vector<float> distances(candidates.size(), std::numeric_limits<float>::infinity());
    size_t chosen = static_cast<size_t>(rng_.Below(candidates.size()));
    for (int64_t word = 0; word < options_.words; ++word) {
      const float* center = vector(candidates[chosen]);
      words_.insert(words_.end(), center, center + dim_);
      double sum = 0;
      for (size_t i = 0; i < candidates.size(); ++i) {
        distances[i] = std::min(distances[i], SquaredDistance(vector(candidates[i]), center, dim_));
        sum += static_cast<double>(distances[i]);
      }
      double left = rng_.Uniform() * sum;
      for (chosen = 0; chosen + 1 < candidates.size(); ++chosen) {
        left -= static_cast<double>(distances[chosen]);
        if (left < 0) break;
      }
    }
  }

  // To the means of their vectors, summed in order.
  void MoveWords(const Assignment& assignment) {
    std::vector<double> sums(options_.words * dim_);
    std::vector<int64_t> counts(options_.words);
    for (int64_t i = 0; i < n_; ++i) {
      const int64_t word = assignment.words[i];
      ++counts[word];
      for (int64_t j = 0; j < dim_; ++j) sums[word * dim_ + j] += static_cast<double>(vector(i)[j]);
    }
    std::vector<int64_t> empty;
    for (int64_t word = 0; word < options_.words; ++word) {
      if (counts[word] == 0) empty.push_back(word);
      for (int64_t j = 0; counts[word] > 0 && j < dim_; ++j) {
        words_[word * dim_ + j] = static_cast<float>(sums[word * dim_ + j] / static_cast<double>(counts[word]));
      }
    }
    if (!empty.empty()) Reseed(empty, assignment);
  }

  void Reseed(const std::vector<int64_t>& empty, const Assignment& assignment) {
    std::vector<int64_t> worst(n_);
    std::iota(worst.begin(), worst.end(), 0);
    const size_t count = std::min<size_t>(empty.size(), n_);
    std::partial_sort(worst.begin(), worst.begin() + count, worst.end(), [&](int64_t a, int64_t b) {
      return assignment.distances[a] != assignment.distances[b] ? assignment.distances[a] > assignment.distances[b] : a < b;
    });
    for (size_t i = 0; i < count; ++i) std::copy_n(vector(worst[i]), dim_, words_.begin() + empty[i] * dim_);
  }

  absl::Span<const float> vectors_;
  const int64_t dim_;
  int64_t n_;
  const KMeansOptions& options_;
  ThreadPool* const pool_;
  Rng rng_;
  std::vector<float> sample_, words_;
};

}  // namespace

std::vector<float> KMeans(absl::Span<const float> vectors, int64_t dim, const KMeansOptions& options, ThreadPool* pool) {
  return Clustering(vectors, dim, options, pool).Run();
}

Assignment AssignNearest(absl::Span<const float> vectors, int64_t dim, absl::Span<const float> words, ThreadPool* pool) {
  const int64_t n = static_cast<int64_t>(vectors.size()) / dim;
  const WordTable table(words, dim);
  const std::vector<float> bias = table.BiasOf([&](int64_t word) { return 0.5f * Dot(words.data() + word * dim, words.data() + word * dim, dim); });
  Assignment assignment{std::vector<uint16_t>(n), std::vector<float>(n)};
  ForEach(pool, CeilDiv(n, kPiece), [&](int64_t piece) {
    const int64_t first = piece * kPiece, count = std::min(kPiece, n - first);
    const std::vector<float> ones(count, 1.0f);
    std::vector<float> values(count);
    NearestWords(table, bias.data(), count, ones.data(), vectors.data() + first * dim, assignment.words.data() + first, values.data());
    for (int64_t i = first; i < first + count; ++i) {
      assignment.distances[i] = SquaredDistance(vectors.data() + i * dim, words.data() + assignment.words[i] * dim, dim);
    }
  });
  return assignment;
}

}  // namespace nibble::additive
