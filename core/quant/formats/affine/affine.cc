// Buffers: "codes" U8 [rows, packed row bytes], least significant bit first; "scales"
// and "zeros" [rows, groups] (PER_TENSOR: [1, 1]) in the scheme's scale type.

#include "core/quant/formats/affine/affine.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/quant/format.h"
#include "core/quant/integer_grid.h"
#include "core/quant/scale_type.h"

namespace nibble {
namespace {

constexpr float kMostSteps = 16384;

bool Whole(const QuantScheme& scheme) { return scheme.per() == QuantScheme::PER_TENSOR; }

// The values of group i, all groups in order.
absl::Span<const float> GroupOf(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values, int64_t i) {
  if (Whole(scheme)) return values;
  const int64_t cols = shape.back(), length = GroupLength(scheme, cols), groups = GroupsPerRow(scheme, cols);
  const int64_t begin = i % groups * length;
  return values.subspan(i / groups * cols + begin, std::min(length, cols - begin));
}

class AffineFormat : public Format {
 public:
  explicit AffineFormat(int bits) : bits_(bits) {}

  std::string name() const override { return absl::StrCat("affine", bits_); }

  std::string Describe(const QuantScheme& scheme) const override {
    return absl::StrCat(Format::Describe(scheme), ", ", ScaleTypeName(scheme.scale_type()), " scales and zeros");
  }

  absl::Status Validate(const QuantScheme& scheme) const override {
    if (scheme.asymmetric() || scheme.has_divisor() || scheme.has_range() || scheme.has_rounding() || scheme.has_fixed() ||
        scheme.has_scale_floor() || scheme.has_outlier_threshold() || scheme.has_outlier_columns()) {
      return absl::InvalidArgumentError(absl::StrCat(
          name(), " is a range with a real zero: asymmetric, divisor, range, rounding, fixed, scale_floor, outlier_threshold and outlier_columns do not apply"));
    }
    return ValidateScales(scheme);
  }

  std::vector<BufferSpec> Layout(const QuantScheme& scheme, const Shape& shape) const override {
    const int64_t rows = shape.size() < 2 ? 1 : shape[0];
    const Shape grids = Whole(scheme) ? Shape{1, 1} : Shape{rows, GroupsPerRow(scheme, shape.back())};
    const DType type = ScaleDType(scheme.scale_type());
    return {{"codes", DType::kU8, {rows, PackedRowBytes(bits_, shape.back())}}, {"scales", type, grids}, {"zeros", type, grids}};
  }

  absl::StatusOr<EncodedTensor> Encode(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values,
                                       ThreadPool* pool) const override {
    const Shape grid_shape = Layout(scheme, shape)[1].shape;
    std::vector<AffineGrid> grids(grid_shape[0] * grid_shape[1]);
    for (size_t i = 0; i < grids.size(); ++i) {
      grids[i] = AffineRange(scheme, GroupOf(scheme, shape, values, static_cast<int64_t>(i)));
    }
    NIBBLE_RETURN_IF_ERROR(CheckScales(grids));
    return EncodeAffine(scheme, shape, values, grids, pool);
  }

  void DecodeRows(const EncodedTensor& tensor, int64_t begin, int64_t end, float* out) const override {
    const int64_t cols = tensor.cols(), length = GroupLength(tensor.scheme, cols), groups = GroupsPerRow(tensor.scheme, cols);
    const int64_t first = Whole(tensor.scheme) ? 0 : begin * groups, count = Whole(tensor.scheme) ? 1 : (end - begin) * groups;
    std::vector<float> scales(count), zeros(count);
    ReadFloats(tensor.buffer("scales"), first, absl::MakeSpan(scales));
    ReadFloats(tensor.buffer("zeros"), first, absl::MakeSpan(zeros));
    const uint8_t* packed = tensor.buffer("codes").bytes().data();
    std::vector<uint8_t> codes(cols);
    for (int64_t r = begin; r < end; ++r) {
      UnpackRow(bits_, packed + r * PackedRowBytes(bits_, cols), absl::MakeSpan(codes));
      for (int64_t k = 0; k < cols; ++k) {
        const int64_t i = Whole(tensor.scheme) ? 0 : (r - begin) * groups + k / length;
        *out++ = AffineGrid{scales[i], zeros[i]}.Decode(codes[k]);
      }
    }
  }

  std::optional<CodeView> Codes(const EncodedTensor& tensor) const override {
    CodeView view = ViewOfCodes(tensor, bits_);
    std::vector<float> offsets(view.rows * view.groups);
    const std::vector<float> scales = ToFloats(tensor.buffer("scales")), zeros = ToFloats(tensor.buffer("zeros"));
    for (size_t i = 0; i < offsets.size(); ++i) {
      const size_t grid = Whole(tensor.scheme) ? 0 : i;
      offsets[i] = -scales[grid] * zeros[grid];
    }
    view.offsets = std::make_shared<EncodedTensor>(*WrapFloats(Tensor::FromFloats({view.rows, view.groups}, std::move(offsets))));
    return view;
  }

  std::vector<QuantScheme> ExampleSchemes() const override {
    std::vector<QuantScheme> schemes(4);
    for (QuantScheme& scheme : schemes) scheme.set_format(name());
    schemes[0].set_per(QuantScheme::PER_TENSOR);
    schemes[1].set_per(QuantScheme::PER_ROW);
    schemes[2].set_per(QuantScheme::PER_GROUP);
    schemes[2].set_group_size(32);
    schemes[3] = schemes[2];
    schemes[3].set_scale_type(QuantScheme::FP16);
    return schemes;
  }

 private:
  const int bits_;
};

struct Registrar {
  Registrar() {
    for (int bits = 1; bits <= 8; ++bits) FormatRegistrar(std::make_unique<AffineFormat>(bits));
  }
};
const Registrar kRegistrar;

}  // namespace

int AffineBits(const QuantScheme& scheme) { return scheme.format().back() - '0'; }

AffineGrid AffineGridFrom(const QuantScheme& scheme, float least, float scale) {
  const auto round = [&](float x) { return RoundToScaleType(scheme.scale_type(), x); };
  AffineGrid grid;
  grid.scale = round(std::max({scale, std::fabs(least) / kMostSteps, ScaleTypeFloor(scheme.scale_type())}));
  grid.zero = round(-least / grid.scale);
  return grid;
}

AffineGrid AffineRange(const QuantScheme& scheme, absl::Span<const float> values) {
  if (values.empty()) return {};
  const auto [least, largest] = std::minmax_element(values.begin(), values.end());
  if (*least < *largest) return AffineGridFrom(scheme, *least, (*largest - *least) / static_cast<float>((1 << AffineBits(scheme)) - 1));
  return AffineGridFrom(scheme, *least, *least == 0 ? 1.0f : std::fabs(*least));
}

uint8_t AffineCode(const AffineGrid& grid, int bits, float x) {
  const float most = static_cast<float>((1 << bits) - 1);
  return static_cast<uint8_t>(RoundHalfEven(std::min(most, std::max(0.0f, x / grid.scale + grid.zero))));
}

absl::Status CheckScales(absl::Span<const AffineGrid> grids) {
  for (size_t i = 0; i < grids.size(); ++i) {
    if (!std::isfinite(grids[i].scale)) {
      return absl::OutOfRangeError(absl::StrCat("group ", i, ": the scale does not fit the scale type; use BF16 or FP32 scales"));
    }
  }
  return absl::OkStatus();
}

EncodedTensor EncodeAffine(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values, absl::Span<const AffineGrid> grids,
                           ThreadPool* pool) {
  const Format& format = **FindFormat(scheme.format());
  EncodedTensor tensor{scheme, shape, {}};
  for (const BufferSpec& spec : format.Layout(scheme, shape)) tensor.buffers.emplace(spec.name, Tensor::Zeros(spec.dtype, spec.shape));
  Tensor &codes = tensor.buffers.at("codes"), &scales = tensor.buffers.at("scales"), &zeros = tensor.buffers.at("zeros");
  NIBBLE_CHECK(static_cast<int64_t>(grids.size()) == scales.elements());
  for (size_t i = 0; i < grids.size(); ++i) {
    StoreScale(grids[i].scale, static_cast<int64_t>(i), &scales);
    StoreScale(grids[i].zero, static_cast<int64_t>(i), &zeros);
  }
  const int bits = AffineBits(scheme);
  const int64_t cols = tensor.cols(), length = GroupLength(scheme, cols), groups = GroupsPerRow(scheme, cols);
  uint8_t* const packed = codes.mutable_as<uint8_t>().data();
  ForEach(pool, tensor.rows(), [&](int64_t r) {
    std::vector<uint8_t> row(cols);
    for (int64_t k = 0; k < cols; ++k) row[k] = AffineCode(grids[Whole(scheme) ? 0 : r * groups + k / length], bits, values[r * cols + k]);
    PackRow(bits, row, packed + r * PackedRowBytes(bits, cols));
  });
  return tensor;
}

}  // namespace nibble
