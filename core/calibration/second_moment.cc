#include "core/calibration/second_moment.h"

#include "core/base/check.h"

namespace nibble::calibration {

void SecondMoment::Add(train::Machine machine, absl::Span<const float> a, absl::Span<const float> x) {
  NIBBLE_CHECK(a.size() == x.size() && static_cast<int64_t>(x.size()) % width_ == 0);
  const int64_t tokens = static_cast<int64_t>(x.size()) / width_;
  std::vector<float> product(sum_.size());
  train::Multiply(machine, {true, false, width_, width_, tokens}, a.data(), x.data(), false, product.data());
  for (size_t i = 0; i < sum_.size(); ++i) sum_[i] += static_cast<double>(product[i]);
  tokens_ += tokens;
}

std::vector<double> SecondMoment::Mean() const {
  std::vector<double> mean = sum_;
  for (double& v : mean) v *= tokens_ > 0 ? 2.0 / static_cast<double>(tokens_) : 0.0;
  return mean;
}

}  // namespace nibble::calibration
