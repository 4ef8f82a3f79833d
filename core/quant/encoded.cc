#include "core/quant/encoded.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/quant/format.h"

namespace nibble {
namespace {

const Format& KnownFormat(const EncodedTensor& tensor) {
  const auto format = FindFormat(tensor.scheme.format());
  NIBBLE_CHECK(format.ok());
  return **format;
}

}  // namespace

int64_t EncodedTensor::byte_size() const {
  int64_t bytes = 0;
  for (const auto& [name, buffer] : buffers) bytes += buffer.byte_size();
  return bytes;
}

void DropMappedPages(const EncodedTensor& tensor) {
  for (const auto& [name, buffer] : tensor.buffers) DropMappedPages(buffer.bytes());
}

QuantScheme IntegerScheme(int bits, int group_size, bool asymmetric) {
  QuantScheme scheme;
  scheme.set_format(absl::StrCat("int", bits));
  scheme.set_per(group_size != 0 ? QuantScheme::PER_GROUP : QuantScheme::PER_ROW);
  if (group_size != 0) scheme.set_group_size(group_size);
  if (asymmetric) scheme.set_asymmetric(true);
  return scheme;
}

QuantScheme TokenScheme(int bits, bool asymmetric) {
  QuantScheme scheme = IntegerScheme(bits, 0, asymmetric);
  scheme.set_per(QuantScheme::PER_TOKEN);
  scheme.set_dynamic(true);
  return scheme;
}

QuantScheme OutlierScheme(float threshold, bool whole_columns) {
  QuantScheme scheme = TokenScheme(8, false);
  if (threshold == 0) return scheme;
  scheme.set_outlier_threshold(threshold);
  if (whole_columns) scheme.set_outlier_columns(true);
  return scheme;
}

QuantScheme FloatScheme(const std::string& format) {
  QuantScheme scheme;
  scheme.set_format(format);
  return scheme;
}

bool IsFloatFormat(const QuantScheme& scheme) {
  return scheme.format() == "fp32" || scheme.format() == "bf16" || scheme.format() == "fp16";
}

bool SameScheme(const QuantScheme& a, const QuantScheme& b) { return a.SerializeAsString() == b.SerializeAsString(); }

absl::StatusOr<EncodedTensor> WrapFloats(Tensor tensor) {
  EncodedTensor encoded;
  encoded.shape = tensor.shape();
  switch (tensor.dtype()) {
    case DType::kF32: encoded.scheme = FloatScheme("fp32"); break;
    case DType::kBF16: encoded.scheme = FloatScheme("bf16"); break;
    case DType::kF16: encoded.scheme = FloatScheme("fp16"); break;
    case DType::kF64:
      encoded.scheme = FloatScheme("fp32");
      tensor = FloatsToDType(DType::kF32, tensor.shape(), ToFloats(tensor));
      break;
    default:
      return absl::InvalidArgumentError(absl::StrCat("expected a floating-point tensor, got ", DTypeName(tensor.dtype())));
  }
  encoded.buffers.emplace("values", std::move(tensor));
  return encoded;
}

absl::Status ValidateScheme(const QuantScheme& scheme) {
  if (scheme.format().empty()) return absl::InvalidArgumentError("a scheme needs a format, such as \"int4\" or \"bf16\"");
  NIBBLE_ASSIGN_OR_RETURN(const Format* format, FindFormat(scheme.format()));
  return Annotate(format->Validate(scheme), SchemeToString(scheme));
}

absl::Status CheckEncodable(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values) {
  NIBBLE_RETURN_IF_ERROR(ValidateScheme(scheme));
  NIBBLE_ASSIGN_OR_RETURN(const int64_t elements, CheckedElements(shape));
  if (shape.empty() || shape.size() > 2 || elements != static_cast<int64_t>(values.size())) {
    return absl::InvalidArgumentError(absl::StrCat("cannot encode ", values.size(), " values as ", ShapeToString(shape)));
  }
  NIBBLE_ASSIGN_OR_RETURN(const Format* format, FindFormat(scheme.format()));
  NIBBLE_RETURN_IF_ERROR(CheckRowLength(*format, shape));
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return absl::InvalidArgumentError(absl::StrCat("value at row ", i / shape.back(), ", column ", i % shape.back(), " is ",
                                                     values[i], ": only finite values can be encoded"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<EncodedTensor> Encode(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values, ThreadPool* pool) {
  NIBBLE_RETURN_IF_ERROR(CheckEncodable(scheme, shape, values));
  NIBBLE_ASSIGN_OR_RETURN(const Format* format, FindFormat(scheme.format()));
  return format->Encode(scheme, shape, values, pool);
}

void DecodeRows(const EncodedTensor& tensor, int64_t begin, int64_t end, float* out) {
  NIBBLE_CHECK(begin >= 0 && begin <= end && end <= tensor.rows());
  KnownFormat(tensor).DecodeRows(tensor, begin, end, out);
}

std::vector<float> Decode(const EncodedTensor& tensor) {
  std::vector<float> values(tensor.rows() * tensor.cols());
  DecodeRows(tensor, 0, tensor.rows(), values.data());
  return values;
}

absl::Status CheckEncoded(const EncodedTensor& tensor) {
  NIBBLE_RETURN_IF_ERROR(ValidateScheme(tensor.scheme));
  if (tensor.shape.empty() || tensor.shape.size() > 2) {
    return absl::InvalidArgumentError(absl::StrCat("expected one or two dimensions, got ", ShapeToString(tensor.shape)));
  }
  NIBBLE_RETURN_IF_ERROR(CheckedElements(tensor.shape).status());
  NIBBLE_RETURN_IF_ERROR(CheckRowLength(KnownFormat(tensor), tensor.shape));
  const auto layout = KnownFormat(tensor).Layout(tensor.scheme, tensor.shape);
  for (const BufferSpec& spec : layout) {
    const auto it = tensor.buffers.find(spec.name);
    if (it == tensor.buffers.end()) return absl::InvalidArgumentError(absl::StrCat("buffer '", spec.name, "' is missing"));
    if (it->second.dtype() != spec.dtype || it->second.shape() != spec.shape) {
      return absl::InvalidArgumentError(absl::StrCat("buffer '", spec.name, "' is ", DTypeName(it->second.dtype()), " ",
                                                     ShapeToString(it->second.shape()), ", expected ", DTypeName(spec.dtype), " ",
                                                     ShapeToString(spec.shape)));
    }
  }
  if (layout.size() != tensor.buffers.size()) {
    return absl::InvalidArgumentError(absl::StrCat("has ", tensor.buffers.size(), " buffers, expected ", layout.size()));
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> EncodedBytes(const QuantScheme& scheme, const Shape& shape) {
  NIBBLE_RETURN_IF_ERROR(ValidateScheme(scheme));
  NIBBLE_ASSIGN_OR_RETURN(const Format* format, FindFormat(scheme.format()));
  NIBBLE_RETURN_IF_ERROR(CheckRowLength(*format, shape));
  int64_t bytes = 0;
  for (const BufferSpec& spec : format->Layout(scheme, shape)) {
    NIBBLE_ASSIGN_OR_RETURN(const int64_t elements, CheckedElements(spec.shape));
    bytes += elements * DTypeSize(spec.dtype);
  }
  return bytes;
}

std::string SchemeToString(const QuantScheme& scheme) {
  const auto format = FindFormat(scheme.format());
  return format.ok() ? (*format)->Describe(scheme) : absl::StrCat("unknown format '", scheme.format(), "'");
}

}  // namespace nibble
