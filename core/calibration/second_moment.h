// Second moments of activations: the Hessian of a linear layer's squared output
// error.
#ifndef NIBBLE_CORE_CALIBRATION_SECOND_MOMENT_H_
#define NIBBLE_CORE_CALIBRATION_SECOND_MOMENT_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "core/train/ops.h"

namespace nibble::calibration {

// H = 2/n sum over n tokens of a x^T for rows a, x of `width`; with a = x it is
// the Hessian of the mean of ||W x - W' x||^2 (GPTQ, section 3.1). Products of a
// batch are summed in fp32, batches in fp64.
//
// Memory is one matrix: width^2 doubles.
class SecondMoment {
 public:
  explicit SecondMoment(int64_t width) : width_(width), sum_(width * width, 0.0) {}

  // x: [tokens, width], and a = x.
  void Add(train::Machine machine, absl::Span<const float> x) { Add(machine, x, x); }
  // a, x: [tokens, width].
  void Add(train::Machine machine, absl::Span<const float> a, absl::Span<const float> x);

  int64_t width() const { return width_; }
  int64_t tokens() const { return tokens_; }
  // [width, width]; zeros without tokens. Leaves the sum empty.
  std::vector<double> TakeMean();

 private:
  int64_t width_, tokens_ = 0;
  bool symmetric_ = true;  // a = x: only what lies on and below the diagonal is summed
  std::vector<double> sum_;
};

}  // namespace nibble::calibration

#endif  // NIBBLE_CORE_CALIBRATION_SECOND_MOMENT_H_
