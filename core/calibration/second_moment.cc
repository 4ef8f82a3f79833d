#include "core/calibration/second_moment.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/divide.h"
#include "core/tensor/blas.h"

namespace nibble::calibration {
namespace {

// Rows of the sum that a task adds to: enough for its operands to be packed for
// a product, few enough to share out.
constexpr int64_t kStrip = 128;

}  // namespace

void SecondMoment::Add(train::Machine machine, absl::Span<const float> a, absl::Span<const float> x) {
  NIBBLE_CHECK(a.size() == x.size() && static_cast<int64_t>(x.size()) % width_ == 0);
  const int64_t tokens = static_cast<int64_t>(x.size()) / width_;
  const bool symmetric = a.data() == x.data();
  NIBBLE_CHECK(tokens_ == 0 || symmetric == symmetric_);
  symmetric_ = symmetric;
  const int64_t strips = CeilDiv(width_, kStrip);
  machine.pool.ParallelFor(strips, [&](int64_t task, int) {
    // The longest rows first.
    const int64_t first = (strips - 1 - task) * kStrip, rows = std::min(kStrip, width_ - first);
    const int64_t cols = symmetric ? first + rows : width_;
    std::vector<float> product(rows * cols);
    blas::Sgemm(true, false, rows, cols, tokens, 1.0f, a.data() + first, width_, x.data(), width_, 0.0f, product.data(), cols);
    for (int64_t r = 0; r < rows; ++r) {
      double* sum = sum_.data() + (first + r) * width_;
      for (int64_t c = 0; c < cols; ++c) sum[c] += static_cast<double>(product[r * cols + c]);
    }
  });
  tokens_ += tokens;
}

std::vector<double> SecondMoment::TakeMean() {
  const double share = tokens_ > 0 ? 2.0 / static_cast<double>(tokens_) : 0.0;
  for (double& v : sum_) v *= share;
  for (int64_t r = 0; symmetric_ && r < width_; ++r) {
    for (int64_t c = 0; c < r; ++c) sum_[c * width_ + r] = sum_[r * width_ + c];
  }
  return std::move(sum_);
}

}  // namespace nibble::calibration
