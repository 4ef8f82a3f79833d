// fp32, bf16, fp16: values as they are. One buffer, "values", of the tensor's
// own shape. bf16 and fp16 round to nearest even; fp16 overflow is an error,
// because an infinite weight is never what was asked for.

#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/quant/format.h"

namespace nibble {
namespace {

class FloatFormat : public Format {
 public:
  FloatFormat(std::string name, DType dtype) : name_(std::move(name)), dtype_(dtype) {}

  std::string name() const override { return name_; }
  std::string Describe(const QuantScheme&) const override { return name_; }

  absl::Status Validate(const QuantScheme& scheme) const override {
    if (scheme.has_group_size() || scheme.has_range() || scheme.asymmetric() || scheme.has_scale_type() || scheme.has_outlier_threshold() ||
        scheme.has_outlier_columns()) {
      return absl::InvalidArgumentError(
          absl::StrCat(name_, " has no scale: group_size, range, asymmetric, scale_type, outlier_threshold and outlier_columns do not apply"));
    }
    return absl::OkStatus();
  }

  std::vector<BufferSpec> Layout(const QuantScheme&, const Shape& shape) const override {
    return {{"values", dtype_, shape}};
  }

  absl::StatusOr<EncodedTensor> Encode(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values,
                                       ThreadPool*) const override {
    if (dtype_ == DType::kF16) {
      for (const float v : values) {
        if (std::fabs(v) >= 65520.0f) return absl::OutOfRangeError(absl::StrCat("value ", v, " does not fit fp16 (largest 65504)"));
      }
    }
    EncodedTensor encoded;
    encoded.scheme = scheme;
    encoded.shape = shape;
    encoded.buffers.emplace("values", FloatsToDType(dtype_, shape, values));
    return encoded;
  }

  void DecodeRows(const EncodedTensor& tensor, int64_t begin, int64_t end, float* out) const override {
    const int64_t cols = tensor.cols();
    ReadFloats(tensor.buffer("values"), begin * cols, absl::MakeSpan(out, (end - begin) * cols));
  }

  std::vector<QuantScheme> ExampleSchemes() const override { return {FloatScheme(name_)}; }

 private:
  const std::string name_;
  const DType dtype_;
};

const FormatRegistrar kFp32(std::make_unique<FloatFormat>("fp32", DType::kF32));
const FormatRegistrar kBf16(std::make_unique<FloatFormat>("bf16", DType::kBF16));
const FormatRegistrar kFp16(std::make_unique<FloatFormat>("fp16", DType::kF16));

}  // namespace
}  // namespace nibble
