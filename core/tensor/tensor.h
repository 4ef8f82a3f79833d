// Tensor: typed, shaped, read-only bytes that are owned or borrowed from a
// mapped file. Row-major, dense. Copies share the bytes.
#ifndef NIBBLE_CORE_TENSOR_TENSOR_H_
#define NIBBLE_CORE_TENSOR_TENSOR_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/check.h"
#include "core/tensor/dtype.h"

namespace nibble {

using Shape = std::vector<int64_t>;

// "[2048, 512]".
std::string ShapeToString(const Shape& shape);

// More than any tensor has; bytes, bits and codes of as many elements fit int64.
inline constexpr int64_t kMaxElements = int64_t{1} << 50;

// The number of elements, or an error for a negative dimension, or where the dimensions
// other than 0 multiply to more than kMaxElements.
absl::StatusOr<int64_t> CheckedElements(const Shape& shape);

class Tensor {
 public:
  Tensor() = default;

  // Zero-filled, 64-byte aligned memory of its own.
  static Tensor Zeros(DType dtype, Shape shape);

  // The same for weights that every token streams: one after the other in large
  // mappings, so that small tensors share 2 MiB pages too. A mapping goes with the
  // last of its tensors.
  static Tensor ZerosForStreaming(DType dtype, Shape shape);

  static Tensor FromFloats(Shape shape, absl::Span<const float> values);

  // Borrows `bytes`, which live as long as `owner`. An error when the byte
  // count is not what dtype and shape need.
  static absl::StatusOr<Tensor> Borrow(DType dtype, Shape shape, absl::Span<const uint8_t> bytes,
                                       std::shared_ptr<const void> owner);

  bool empty() const { return data_ == nullptr; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t dim(int i) const { return shape_[i]; }
  int64_t elements() const { return elements_; }
  int64_t byte_size() const { return elements_ * DTypeSize(dtype_); }
  absl::Span<const uint8_t> bytes() const { return {data_, static_cast<size_t>(byte_size())}; }

  // Typed view; the element size must match (a check).
  template <typename T>
  absl::Span<const T> as() const {
    NIBBLE_CHECK(sizeof(T) == static_cast<size_t>(DTypeSize(dtype_)));
    return {reinterpret_cast<const T*>(data_), static_cast<size_t>(elements_)};
  }

  // Writable view of a tensor made by Zeros or FromFloats and not yet shared.
  template <typename T>
  absl::Span<T> mutable_as() {
    NIBBLE_CHECK(sizeof(T) == static_cast<size_t>(DTypeSize(dtype_)) && writable_ != nullptr);
    return {reinterpret_cast<T*>(writable_), static_cast<size_t>(elements_)};
  }

 private:
  // Without bytes. A shape that is impossible is a check.
  Tensor(DType dtype, Shape shape);

  DType dtype_ = DType::kF32;
  Shape shape_;
  int64_t elements_ = 0;
  const uint8_t* data_ = nullptr;
  uint8_t* writable_ = nullptr;
  std::shared_ptr<const void> owner_;
};

// Elements [begin, begin + out.size()) of a floating-point tensor as fp32.
void ReadFloats(const Tensor& tensor, int64_t begin, absl::Span<float> out);
std::vector<float> ToFloats(const Tensor& tensor);

// `values` rounded into a new tensor of a floating-point `dtype`.
Tensor FloatsToDType(DType dtype, Shape shape, absl::Span<const float> values);

bool IsFloating(DType dtype);

}  // namespace nibble

#endif  // NIBBLE_CORE_TENSOR_TENSOR_H_
