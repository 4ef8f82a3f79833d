#include "core/quant/formats/aqlm/nearest.h"

#include <cstring>
#include <limits>

#include "core/base/clones.h"
#include "core/base/divide.h"

namespace nibble::additive {
namespace {

constexpr int64_t kLanes = WordTable::kLanes;
constexpr int64_t kQueries = 4;  // that read a word together

typedef float FloatLanes __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t IntLanes __attribute__((vector_size(kLanes * sizeof(int32_t))));

// The least of each lane, and the place of its word.
struct Best {
  FloatLanes value;
  IntLanes place;
};

// kQueries queries, x [kQueries, dim], over all words.
NIBBLE_CLONES void Search(const float* words, int64_t stride, int64_t dim, const float* bias, const float* factor, const float* x, Best* best) {
  FloatLanes low[kQueries];
  IntLanes place[kQueries], at;
  for (int64_t l = 0; l < kLanes; ++l) at[l] = static_cast<int32_t>(l);
  for (int64_t q = 0; q < kQueries; ++q) {
    low[q] = FloatLanes{} + std::numeric_limits<float>::infinity();
    place[q] = at;
  }
  for (int64_t first = 0; first < stride; first += kLanes, at += kLanes) {
    FloatLanes b, sum[kQueries];
    std::memcpy(&b, bias + first, sizeof(b));
    for (int64_t q = 0; q < kQueries; ++q) sum[q] = factor[q] * b;
    for (int64_t j = 0; j < dim; ++j) {
      FloatLanes word;
      std::memcpy(&word, words + j * stride + first, sizeof(word));
      for (int64_t q = 0; q < kQueries; ++q) sum[q] -= x[q * dim + j] * word;
    }
    for (int64_t q = 0; q < kQueries; ++q) {
      const auto less = sum[q] < low[q];
      low[q] = less ? sum[q] : low[q];
      place[q] = less ? at : place[q];
    }
  }
  for (int64_t q = 0; q < kQueries; ++q) best[q] = {low[q], place[q]};
}

NIBBLE_CLONES void Values(const float* words, int64_t stride, int64_t dim, const float* bias, float factor, const float* x, float* values) {
  for (int64_t i = 0; i < stride; ++i) values[i] = factor * bias[i];
  for (int64_t j = 0; j < dim; ++j) {
    const float xj = x[j];
    const float* row = words + j * stride;
    for (int64_t i = 0; i < stride; ++i) values[i] -= xj * row[i];
  }
}

void Choose(const Best& best, uint16_t* word, float* value) {
  int64_t lane = 0;
  for (int64_t l = 1; l < kLanes; ++l) {
    if (best.value[l] < best.value[lane] || (best.value[l] == best.value[lane] && best.place[l] < best.place[lane])) lane = l;
  }
  *word = static_cast<uint16_t>(best.place[lane]);
  *value = best.value[lane];
}

}  // namespace

WordTable::WordTable(absl::Span<const float> words, int64_t dim)
    : words_(static_cast<int64_t>(words.size()) / dim), dim_(dim), stride_(RoundUp(words_, kLanes)), values_(dim * stride_) {
  for (int64_t word = 0; word < words_; ++word) {
    for (int64_t j = 0; j < dim; ++j) values_[j * stride_ + word] = words[word * dim + j];
  }
}

std::vector<float> WordTable::NoBias() const { return std::vector<float>(stride_, std::numeric_limits<float>::infinity()); }

void NearestWords(const WordTable& table, const float* bias, int64_t count, const float* factor, const float* x, uint16_t* words, float* values) {
  const int64_t dim = table.dim();
  std::vector<float> last(kQueries * dim);
  float last_factor[kQueries] = {};
  Best best[kQueries];
  for (int64_t i = 0; i < count; i += kQueries) {
    const int64_t n = count - i < kQueries ? count - i : kQueries;
    const float *queries = x + i * dim, *factors = factor + i;
    if (n < kQueries) {
      std::memcpy(last.data(), queries, n * dim * sizeof(float));
      std::memcpy(last_factor, factors, n * sizeof(float));
      queries = last.data();
      factors = last_factor;
    }
    Search(table.data(), table.stride(), dim, bias, factors, queries, best);
    for (int64_t q = 0; q < n; ++q) Choose(best[q], words + i + q, values + i + q);
  }
}

void WordValues(const WordTable& table, const float* bias, float factor, const float* x, float* values) {
  std::vector<float> all(table.stride());
  Values(table.data(), table.stride(), table.dim(), bias, factor, x, all.data());
  std::memcpy(values, all.data(), table.words() * sizeof(float));
}

}  // namespace nibble::additive
