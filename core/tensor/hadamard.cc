#include "core/tensor/hadamard.h"

#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

// A dense K x K product costs K additions a value; larger orders are not worth it.
constexpr int64_t kLargestOrder = 256;

bool IsPrime(int64_t n) {
  if (n < 2) return false;
  for (int64_t d = 2; d * d <= n; ++d) {
    if (n % d == 0) return false;
  }
  return true;
}

// The quadratic character of the field of q elements, q an odd prime.
std::vector<int> Character(int64_t q) {
  std::vector<int> character(q, -1);
  character[0] = 0;
  for (int64_t i = 1; i < q; ++i) character[i * i % q] = 1;
  return character;
}

// Jacobsthal's matrix with a border: 0 in the corner, 1 above, `left` beside.
std::vector<int> Bordered(int64_t q, int left) {
  const std::vector<int> character = Character(q);
  const int64_t n = q + 1;
  std::vector<int> matrix(n * n, 0);
  for (int64_t i = 1; i < n; ++i) {
    matrix[i] = 1;
    matrix[i * n] = left;
    for (int64_t j = 1; j < n; ++j) matrix[i * n + j] = character[(i - j + q) % q];
  }
  return matrix;
}

// Paley I: order q + 1 for q = 3 (mod 4), I + S with S skew.
std::vector<float> PaleyOne(int64_t q) {
  const std::vector<int> skew = Bordered(q, -1);
  std::vector<float> signs(skew.begin(), skew.end());
  for (int64_t i = 0; i <= q; ++i) signs[i * (q + 2)] += 1;
  return signs;
}

// Paley II: order 2 (q + 1) for q = 1 (mod 4): each 0 of the symmetric conference
// matrix becomes [[1, -1], [-1, -1]], each +-1 becomes +-[[1, 1], [1, -1]].
std::vector<float> PaleyTwo(int64_t q) {
  const std::vector<int> conference = Bordered(q, 1);
  const int64_t n = q + 1, order = 2 * n;
  std::vector<float> signs(order * order);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      const int c = conference[i * n + j];
      float* at = signs.data() + 2 * i * order + 2 * j;
      at[0] = c == 0 ? 1 : c;
      at[1] = at[order] = c == 0 ? -1 : c;
      at[order + 1] = c == 0 ? -1 : -c;
    }
  }
  return signs;
}

bool IsPaleyOne(int64_t order) { return order % 4 == 0 && IsPrime(order - 1); }
bool IsPaleyTwo(int64_t order) { return order % 4 == 0 && order / 2 % 4 == 2 && IsPrime(order / 2 - 1); }

// The smallest K of size = K 2^m that a construction gives, or 0.
int64_t SmallestOrder(int64_t size) {
  int64_t odd = size;
  while (odd > 1 && odd % 2 == 0) odd /= 2;
  if (odd == 1) return 1;
  for (int64_t order = 4 * odd; order <= kLargestOrder && size % order == 0; order *= 2) {
    if (IsPaleyOne(order) || IsPaleyTwo(order)) return order;
  }
  return 0;
}

}  // namespace

absl::StatusOr<Hadamard> Hadamard::Create(int64_t size) {
  const int64_t order = size < 1 ? 0 : SmallestOrder(size);
  if (order == 0) {
    return absl::InvalidArgumentError(absl::StrCat("no Hadamard matrix of order ", size, " is known here (powers of two, and those times an "
                                                   "order of Paley's constructions up to ", kLargestOrder, ")",
                                                   size < 1 ? "" : absl::StrCat("; the largest block that divides it is ", LargestBlock(size))));
  }
  Hadamard hadamard;
  hadamard.order_ = order;
  hadamard.fast_ = size / order;
  hadamard.signs_ = order == 1 ? std::vector<float>{1} : IsPaleyOne(order) ? PaleyOne(order - 1) : PaleyTwo(order / 2 - 1);
  hadamard.scale_ = 1 / std::sqrt(static_cast<float>(size));
  for (int64_t i = 0; i < order * order; ++i) hadamard.transposed_.push_back(hadamard.signs_[i % order * order + i / order]);
  return hadamard;
}

int64_t Hadamard::LargestBlock(int64_t size) {
  for (int64_t block = size; block > 1; --block) {
    if (size % block == 0 && SmallestOrder(block) != 0) return block;
  }
  return 1;
}

template <typename T>
void Hadamard::Transform(bool transposed, T* x) const {
  const T scale = T(1) / std::sqrt(static_cast<T>(size()));
  for (int64_t i = 0; i < size(); ++i) x[i] *= scale;
  for (int64_t half = 1; half < fast_; half *= 2) {
    for (int64_t i = 0; i < size(); ++i) {
      if (i & half) continue;
      const T a = x[i], b = x[i + half];
      x[i] = a + b;
      x[i + half] = a - b;
    }
  }
  if (order_ == 1) return;
  std::vector<T> column(order_);
  for (int64_t c = 0; c < fast_; ++c) {
    for (int64_t j = 0; j < order_; ++j) column[j] = x[j * fast_ + c];
    for (int64_t i = 0; i < order_; ++i) {
      T sum = 0;
      for (int64_t j = 0; j < order_; ++j) sum += column[j] * static_cast<T>(signs(transposed)[j * order_ + i]);
      x[i * fast_ + c] = sum;
    }
  }
}

template <typename T>
void Hadamard::Apply(T* x) const {
  Transform(false, x);
}

template <typename T>
void Hadamard::ApplyTransposed(T* x) const {
  Transform(true, x);
}

template void Hadamard::Apply(float*) const;
template void Hadamard::Apply(double*) const;
template void Hadamard::ApplyTransposed(float*) const;
template void Hadamard::ApplyTransposed(double*) const;

}  // namespace nibble
