#include "core/quant/table_format.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/base/parallel_status.h"
#include "core/base/status.h"
#include "core/quant/integer_grid.h"
#include "core/quant/scale_type.h"

namespace nibble {

std::string TableFormat::Describe(const QuantScheme& scheme) const {
  return absl::StrCat(name_, " ", GranularityToString(scheme), scheme.dynamic() ? " dynamic" : "", FixedRangeToString(scheme), ", ",
                      ScaleTypeName(scheme.scale_type()), " scales");
}

absl::Status TableFormat::Validate(const QuantScheme& scheme) const {
  if (scheme.asymmetric() || scheme.has_divisor() || scheme.has_range() || scheme.has_rounding() || scheme.has_outlier_threshold()) {
    return absl::InvalidArgumentError(absl::StrCat(name_, " maps the largest magnitude to ", largest_,
                                                   ": asymmetric, divisor, range, rounding and outlier_threshold do not apply"));
  }
  return ValidateScales(scheme);
}

std::vector<BufferSpec> TableFormat::Layout(const QuantScheme& scheme, const Shape& shape) const {
  const int64_t rows = shape.size() < 2 ? 1 : shape[0];
  const Shape scales = scheme.per() == QuantScheme::PER_TENSOR ? Shape{1, 1} : Shape{rows, GroupsPerRow(scheme, shape.back())};
  return {{"codes", DType::kU8, {rows, PackedRowBytes(bits_, shape.back())}}, {"scales", ScaleDType(scheme.scale_type()), scales}};
}

absl::StatusOr<float> TableFormat::ScaleOf(const QuantScheme& scheme, absl::Span<const float> values) const {
  float absmax = 0;
  for (const float v : values) {
    if (!std::isfinite(v)) return absl::InvalidArgumentError(absl::StrCat("a value is ", v, ", which ", name_, " cannot hold"));
    absmax = std::max(absmax, std::fabs(v));
  }
  if (scheme.has_fixed()) absmax = std::max(-scheme.fixed().min(), scheme.fixed().max());
  const float least = std::max(static_cast<float>(scheme.scale_floor()), ScaleTypeFloor(scheme.scale_type()));
  const float scale = RoundToScaleType(scheme.scale_type(), std::max(absmax / largest_, least));
  if (std::isfinite(scale)) return scale;
  return absl::OutOfRangeError(absl::StrCat("scale ", absmax / largest_, " does not fit the scale type; use BF16 or FP32 scales"));
}

absl::StatusOr<EncodedTensor> TableFormat::Encode(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values,
                                                  ThreadPool* pool) const {
  EncodedTensor tensor{scheme, shape, {}};
  for (const BufferSpec& spec : TableFormat::Layout(scheme, shape)) tensor.buffers.emplace(spec.name, Tensor::Zeros(spec.dtype, spec.shape));
  Tensor& codes = tensor.buffers.at("codes");
  Tensor& scales = tensor.buffers.at("scales");
  const int64_t cols = shape.back(), group = GroupLength(scheme, cols), groups = GroupsPerRow(scheme, cols);
  const bool whole = scheme.per() == QuantScheme::PER_TENSOR;
  if (whole) {
    NIBBLE_ASSIGN_OR_RETURN(const float scale, ScaleOf(scheme, values));
    StoreScale(scale, 0, &scales);
  }
  NIBBLE_RETURN_IF_ERROR(ParallelForStatus(pool, tensor.rows(), [&](int64_t r, int) -> absl::Status {
    std::vector<uint8_t> row(cols);
    for (int64_t g = 0; g < groups; ++g) {
      const absl::Span<const float> part = values.subspan(r * cols + g * group, std::min(group, cols - g * group));
      float scale;
      if (whole) {
        ReadFloats(scales, 0, absl::MakeSpan(&scale, 1));
      } else {
        auto own = ScaleOf(scheme, part);
        if (!own.ok()) return Annotate(own.status(), absl::StrCat("row ", r));
        StoreScale(scale = *own, r * groups + g, &scales);
      }
      for (size_t i = 0; i < part.size(); ++i) row[g * group + i] = Nearest(part[i] / scale);
    }
    PackRow(bits_, row, codes.mutable_as<uint8_t>().data() + r * PackedRowBytes(bits_, cols));
    return absl::OkStatus();
  }));
  return tensor;
}

void TableFormat::DecodeRows(const EncodedTensor& tensor, int64_t begin, int64_t end, float* out) const {
  const int64_t cols = tensor.cols(), group = GroupLength(tensor.scheme, cols), groups = GroupsPerRow(tensor.scheme, cols);
  const bool whole = tensor.scheme.per() == QuantScheme::PER_TENSOR;
  const std::vector<float> scales = whole ? ReadScales(tensor, 0, 1) : ReadScales(tensor, begin * groups, (end - begin) * groups);
  const uint8_t* packed = tensor.buffer("codes").bytes().data();
  std::vector<uint8_t> codes(cols);
  for (int64_t r = begin; r < end; ++r) {
    UnpackRow(bits_, packed + r * PackedRowBytes(bits_, cols), absl::MakeSpan(codes));
    for (int64_t g = 0; g < groups; ++g) {
      const float scale = scales[whole ? 0 : (r - begin) * groups + g];
      const int64_t last = std::min(cols, (g + 1) * group);
      for (int64_t c = g * group; c < last; ++c) *out++ = scale * values_[codes[c]];
    }
  }
}

std::vector<float> TableFormat::ReadScales(const EncodedTensor& tensor, int64_t first, int64_t count) const {
  std::vector<float> scales(count);
  ReadFloats(tensor.buffer("scales"), first, absl::MakeSpan(scales));
  return scales;
}

std::optional<CodeView> TableFormat::Codes(const EncodedTensor& tensor) const {
  CodeView view = ViewOfCodes(tensor, bits_);
  view.values = values_;
  return view;
}

}  // namespace nibble
