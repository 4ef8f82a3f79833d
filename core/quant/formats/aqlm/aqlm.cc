// aqlm: groups of weights along a row as sums of codewords, one from each of a few
// codebooks of the tensor, times a scale a row (core/quant/formats/aqlm/additive.h).
//
// Buffers: "codes" U8 [rows, ceil(groups codebooks bits / 8)], a row's codes group by
// group, codebook by codebook, least significant bit first; "codebooks" F16
// [codebooks, 2^bits, in_group]; "scales" [rows] in the scheme's scale type. Where
// in_group does not divide the columns, what lies beyond a row's end is left out.

#include <memory>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/quant/format.h"
#include "core/quant/formats/aqlm/additive.h"
#include "core/quant/formats/aqlm/aqlm.pb.h"
#include "core/quant/scale_type.h"

namespace nibble::additive {
namespace {

constexpr int kIterations = 100;  // of k-means, for encoding without data

absl::Status CheckRange(absl::string_view field, int value, int most) {
  if (value >= 1 && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("additive_codebooks.", field, ": ", value, " must be 1 to ", most));
}

class AqlmFormat : public Format {
 public:
  std::string name() const override { return kFormatName; }

  std::string Describe(const QuantScheme& scheme) const override {
    const AdditiveCodebooks& books = scheme.GetExtension(additive_codebooks);
    return absl::StrCat(kFormatName, " ", books.codebooks(), "x", books.bits(), " bits per group of ", books.in_group(), ", ",
                        ScaleTypeName(scheme.scale_type()), " scales per row");
  }

  absl::Status Validate(const QuantScheme& scheme) const override {
    if (scheme.per() != QuantScheme::PER_ROW || scheme.asymmetric() || scheme.has_divisor() || scheme.has_range() || scheme.has_rounding() ||
        scheme.dynamic()) {
      return absl::InvalidArgumentError("aqlm has one scale a row (per: PER_ROW), of weights: asymmetric, divisor, range, rounding and dynamic do not apply");
    }
    const AdditiveCodebooks& books = scheme.GetExtension(additive_codebooks);
    NIBBLE_RETURN_IF_ERROR(CheckRange("codebooks", books.codebooks(), 16));
    NIBBLE_RETURN_IF_ERROR(CheckRange("bits", books.bits(), 16));
    NIBBLE_RETURN_IF_ERROR(CheckRange("in_group", books.in_group(), kMostInGroup));
    return ValidateScales(scheme);
  }

  // All rows share the codebooks.
  bool encodes_rows_alone(const QuantScheme&) const override { return false; }

  std::vector<BufferSpec> Layout(const QuantScheme& scheme, const Shape& shape) const override {
    const AdditiveCodebooks& books = scheme.GetExtension(additive_codebooks);
    const int64_t rows = shape.size() < 2 ? 1 : shape[0], codes = CeilDiv(shape.back(), books.in_group()) * books.codebooks();
    return {{"codes", DType::kU8, {rows, CeilDiv(codes * books.bits(), 8)}},
            {"codebooks", DType::kF16, {books.codebooks(), int64_t{1} << books.bits(), books.in_group()}},
            {"scales", ScaleDType(scheme.scale_type()), {rows}}};
  }

  absl::StatusOr<EncodedTensor> Encode(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values,
                                       ThreadPool* pool) const override {
    const int64_t rows = shape.size() < 2 ? 1 : shape[0];
    NIBBLE_ASSIGN_OR_RETURN(const AdditiveTensor tensor, ResidualKMeans(scheme, rows, shape.back(), values, kIterations, /*seed=*/0, pool));
    return Pack(scheme, shape, tensor);
  }

  void DecodeRows(const EncodedTensor& tensor, int64_t begin, int64_t end, float* out) const override {
    UnpackRows(tensor, begin, end).DecodeRows(0, end - begin, true, out);
  }

  std::vector<QuantScheme> ExampleSchemes() const override {
    QuantScheme wide = SchemeOf(1, 12, 16);
    wide.set_scale_type(QuantScheme::FP32);
    QuantScheme bf16 = SchemeOf(3, 6, 4);
    bf16.set_scale_type(QuantScheme::BF16);
    return {SchemeOf(2, 8, 8), SchemeOf(2, 6, 8), SchemeOf(1, 8, 8), bf16, wide};
  }
};

const FormatRegistrar kRegistrar(std::make_unique<AqlmFormat>());

}  // namespace
}  // namespace nibble::additive
