// Orthonormal Hadamard transforms: x <- x H for a row vector x, where H is the
// Kronecker product of a Hadamard matrix of order K and one of order 2^m
// (Sylvester), divided by sqrt(K 2^m). The first comes from Paley's
// constructions over prime fields; the second costs m additions a value (the
// fast Walsh-Hadamard transform).
//
// H is in general not symmetric: what is multiplied by H on one side of a
// product takes the same H on the other, (x H)(W H)^T = x W^T. Matrices of one
// order are not unique, and these are not the tables of Sloane's library that
// SpinQuant uses: a checkpoint whose weights hold another H needs that H.
#ifndef NIBBLE_CORE_TENSOR_HADAMARD_H_
#define NIBBLE_CORE_TENSOR_HADAMARD_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace nibble {

class Hadamard {
 public:
  // An error for a size that is no K 2^m with a K of at most 256 that Paley
  // gives; it names the largest block that divides `size`.
  static absl::StatusOr<Hadamard> Create(int64_t size);

  // The largest divisor of `size` that Create takes; at least 1.
  static int64_t LargestBlock(int64_t size);

  int64_t size() const { return order_ * fast_; }
  int64_t order() const { return order_; }  // K
  int64_t fast() const { return fast_; }    // 2^m
  // [K, K] of +1 and -1: transforming takes x[j] signs[j][i] to place i. The
  // transposed ones undo it.
  const std::vector<float>& signs(bool transposed = false) const { return transposed ? transposed_ : signs_; }
  // What a transform multiplies by.
  float scale() const { return scale_; }

  // x <- x H and x <- x H^T, of size() values.
  template <typename T>
  void Apply(T* x) const;
  template <typename T>
  void ApplyTransposed(T* x) const;

 private:
  template <typename T>
  void Transform(bool transposed, T* x) const;

  int64_t order_ = 1, fast_ = 1;
  float scale_ = 1;
  std::vector<float> signs_, transposed_;
};

}  // namespace nibble

#endif  // NIBBLE_CORE_TENSOR_HADAMARD_H_
