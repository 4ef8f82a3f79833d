#include "core/io/quantized/codes.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "core/base/divide.h"
#include "core/base/status.h"
#include "core/quant/format.h"

namespace nibble::io {

void UnpackWords(int bits, const uint32_t* words, int64_t stride, int64_t count, uint8_t* codes, int64_t code_stride) {
  const uint32_t mask = (1u << bits) - 1;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t bit = i * bits, word = bit / 32, shift = bit % 32;
    uint32_t code = words[word * stride] >> shift;
    if (shift + bits > 32) code |= words[(word + 1) * stride] << (32 - shift);
    codes[i * code_stride] = static_cast<uint8_t>(code & mask);
  }
}

void PackWords(int bits, absl::Span<const uint8_t> codes, uint32_t* words, int64_t stride) {
  for (int64_t w = 0; w < CeilDiv(static_cast<int64_t>(codes.size()) * bits, 32); ++w) words[w * stride] = 0;
  for (size_t i = 0; i < codes.size(); ++i) {
    const size_t bit = i * bits, word = bit / 32, shift = bit % 32;
    words[word * stride] |= static_cast<uint32_t>(codes[i]) << shift;
    if (shift + bits > 32) words[(word + 1) * stride] |= static_cast<uint32_t>(codes[i]) >> (32 - shift);
  }
}

Tensor SignedCodes(const CodeView& view) {
  Tensor codes = Tensor::Zeros(DType::kI8, {view.rows, view.cols});
  std::vector<uint8_t> row(view.cols);
  const int half = 1 << (view.bits - 1);
  for (int64_t r = 0; r < view.rows; ++r) {
    view.UnpackCodes(r, absl::MakeSpan(row));
    for (int64_t c = 0; c < view.cols; ++c) codes.mutable_as<int8_t>()[r * view.cols + c] = static_cast<int8_t>(row[c] - half);
  }
  return codes;
}

absl::StatusOr<std::vector<uint8_t>> UnsignedCodes(const Tensor& tensor, int bits, const std::string& where) {
  std::vector<float> values;
  if (tensor.dtype() == DType::kI8) {
    const absl::Span<const int8_t> bytes = tensor.as<int8_t>();
    values.assign(bytes.begin(), bytes.end());
  } else if (IsFloating(tensor.dtype())) {
    values = nibble::ToFloats(tensor);
  } else {
    return absl::InvalidArgumentError(absl::StrCat(where, " is ", DTypeName(tensor.dtype()), ", expected I8 or floats"));
  }
  const float half = static_cast<float>(1 << (bits - 1));
  std::vector<uint8_t> codes;
  codes.reserve(values.size());
  for (const float value : values) {
    if (!(value >= -half && value < half) || value != std::floor(value)) {
      return absl::InvalidArgumentError(absl::StrCat(where, " holds ", value, ", which is no code of ", bits, " bits"));
    }
    codes.push_back(static_cast<uint8_t>(value + half));
  }
  return codes;
}

absl::StatusOr<std::vector<int32_t>> ScatteredGroups(const TensorFiles& files, const std::string& name, int64_t inputs, int64_t group) {
  if (!files.Has(name)) return std::vector<int32_t>();
  NIBBLE_ASSIGN_OR_RETURN(const Tensor tensor, files.Get(name, DType::kI32, {inputs}));
  const absl::Span<const int32_t> groups = tensor.as<int32_t>();
  bool in_order = true, unset = true;
  for (int64_t i = 0; i < inputs; ++i) {
    in_order = in_order && groups[i] == i / group;
    unset = unset && groups[i] == -1;
  }
  if (in_order || unset) return std::vector<int32_t>();
  const int64_t count = CeilDiv(inputs, group);
  for (int64_t i = 0; i < inputs; ++i) {
    if (groups[i] >= 0 && groups[i] < count) continue;
    return absl::InvalidArgumentError(absl::StrCat(files.Where(name), ": input ", i, " is of group ", groups[i], " of ", count));
  }
  return std::vector<int32_t>(groups.begin(), groups.end());
}

absl::StatusOr<QuantScheme> SchemeWithScales(const std::string& format, int64_t group, int64_t cols, DType scales) {
  QuantScheme scheme;
  scheme.set_format(format);
  scheme.set_per(group >= cols ? QuantScheme::PER_ROW : QuantScheme::PER_GROUP);
  if (group < cols) scheme.set_group_size(static_cast<int32_t>(group));
  switch (scales) {
    case DType::kF32: break;
    case DType::kF16: scheme.set_scale_type(QuantScheme::FP16); break;
    case DType::kBF16: scheme.set_scale_type(QuantScheme::BF16); break;
    default: return absl::InvalidArgumentError(absl::StrCat("scales are ", DTypeName(scales), ", expected F32, F16 or BF16"));
  }
  return scheme;
}

absl::StatusOr<EncodedTensor> ToIntegers(const Codes& codes) {
  NIBBLE_ASSIGN_OR_RETURN(QuantScheme scheme, SchemeWithScales(absl::StrCat("int", codes.bits), codes.group, codes.cols, codes.scales.dtype()));
  if (codes.whole) scheme.set_per(QuantScheme::PER_TENSOR);
  const uint8_t middle = static_cast<uint8_t>(1 << (codes.bits - 1));
  const bool symmetric = std::all_of(codes.zeros.begin(), codes.zeros.end(), [&](uint8_t zero) { return zero == middle; });
  if (!symmetric) scheme.set_asymmetric(true);
  const int64_t row_bytes = PackedRowBytes(codes.bits, codes.cols);
  Tensor packed = Tensor::Zeros(DType::kU8, {codes.rows, row_bytes});
  uint8_t* out = packed.mutable_as<uint8_t>().data();
  for (int64_t r = 0; r < codes.rows; ++r) {
    PackRow(codes.bits, absl::MakeConstSpan(codes.codes).subspan(r * codes.cols, codes.cols), out + r * row_bytes);
  }
  EncodedTensor tensor{scheme, {codes.rows, codes.cols}, {{"codes", std::move(packed)}, {"scales", codes.scales}}};
  if (!symmetric) {
    Tensor zeros = Tensor::Zeros(DType::kU8, codes.scales.shape());
    std::copy(codes.zeros.begin(), codes.zeros.end(), zeros.mutable_as<uint8_t>().begin());
    tensor.buffers.emplace("zeros", std::move(zeros));
  }
  NIBBLE_RETURN_IF_ERROR(CheckEncoded(tensor));
  return tensor;
}

absl::StatusOr<EncodedTensor> ToFloats(const Codes& codes, absl::Span<const int32_t> group_of) {
  const std::vector<float> scales = nibble::ToFloats(codes.scales);
  const int64_t groups = codes.scales.elements() / std::max<int64_t>(1, codes.rows);
  std::vector<float> values(codes.rows * codes.cols);
  for (int64_t r = 0; r < codes.rows; ++r) {
    for (int64_t c = 0; c < codes.cols; ++c) {
      const int64_t g = r * groups + group_of[c], i = r * codes.cols + c;
      const int zero = codes.zeros.empty() ? 1 << (codes.bits - 1) : codes.zeros[g];
      values[i] = scales[g] * static_cast<float>(codes.codes[i] - zero);
    }
  }
  return WrapFloats(FloatsToDType(codes.scales.dtype(), {codes.rows, codes.cols}, values));
}

Tensor Transposed(const Tensor& tensor) {
  const int64_t rows = tensor.dim(0), cols = tensor.dim(1), size = DTypeSize(tensor.dtype());
  Tensor out = Tensor::Zeros(tensor.dtype(), {cols, rows});
  const uint8_t* from = tensor.bytes().data();
  uint8_t* to = size == 4 ? reinterpret_cast<uint8_t*>(out.mutable_as<uint32_t>().data()) : reinterpret_cast<uint8_t*>(out.mutable_as<uint16_t>().data());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) std::memcpy(to + (c * rows + r) * size, from + (r * cols + c) * size, size);
  }
  return out;
}

}  // namespace nibble::io
