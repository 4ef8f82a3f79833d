#include "core/quant/formats/gguf/gguf.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/base/parallel_status.h"
#include "core/base/status.h"
#include "core/quant/format.h"
#include "core/quant/formats/gguf/blocks.h"
#include "core/quant/formats/gguf/encode.h"

namespace nibble {
namespace {

using gguf::BlockParts;
using gguf::BlockType;

int64_t RowBytes(const BlockType& type, int64_t cols) { return cols / type.columns * type.bytes; }

absl::Status CheckImportance(absl::Span<const float> importance, int64_t cols) {
  if (importance.empty()) return absl::OkStatus();
  if (static_cast<int64_t>(importance.size()) != cols) {
    return absl::InvalidArgumentError(absl::StrCat("importance of ", importance.size(), " columns for ", cols));
  }
  for (size_t c = 0; c < importance.size(); ++c) {
    if (std::isfinite(importance[c]) && importance[c] >= 0) continue;
    return absl::InvalidArgumentError(absl::StrCat("importance of column ", c, " is ", importance[c], ", expected 0 or more"));
  }
  return absl::OkStatus();
}

absl::Status BeyondHalf(const BlockType& type, int64_t column, absl::Span<const float> x) {
  float largest = 0;
  for (const float v : x) largest = std::max(largest, std::fabs(v));
  return absl::OutOfRangeError(absl::StrCat("columns ", column, " to ", column + type.columns - 1, " reach ", largest, ", and ", type.name,
                                            " keeps its scale in fp16; leave this tensor in bf16 or scale it down"));
}

absl::Status EncodeRow(const BlockType& type, absl::Span<const float> row, absl::Span<const float> importance, uint8_t* out) {
  double squares = 0;
  for (const float v : row) squares += static_cast<double>(v) * v;
  const auto mean_square = static_cast<float>(squares / static_cast<double>(row.size()));
  BlockParts parts;
  for (int64_t c = 0; c < static_cast<int64_t>(row.size()); c += type.columns, out += type.bytes) {
    const absl::Span<const float> x = row.subspan(c, type.columns);
    if (std::any_of(x.begin(), x.end(), [](float v) { return std::fabs(v) >= gguf::kGreatestMagnitude; })) return BeyondHalf(type, c, x);
    EncodeBlock(type, x, importance.empty() ? importance : importance.subspan(c, type.columns), mean_square, &parts);
    if (!std::isfinite(parts.d) || !std::isfinite(parts.m)) return BeyondHalf(type, c, x);
    type.pack(parts, out);
  }
  return absl::OkStatus();
}

absl::StatusOr<EncodedTensor> EncodeRows(const BlockType& type, const QuantScheme& scheme, const Shape& shape,
                                         absl::Span<const float> values, absl::Span<const float> importance, ThreadPool* pool) {
  EncodedTensor tensor{scheme, shape, {}};
  const int64_t cols = tensor.cols(), row_bytes = RowBytes(type, cols);
  NIBBLE_RETURN_IF_ERROR(CheckImportance(importance, cols));
  Tensor blocks = Tensor::Zeros(DType::kU8, {tensor.rows(), row_bytes});
  uint8_t* out = blocks.mutable_as<uint8_t>().data();
  NIBBLE_RETURN_IF_ERROR(ParallelForStatus(pool, tensor.rows(), [&](int64_t r, int) {
    return Annotate(EncodeRow(type, values.subspan(r * cols, cols), importance, out + r * row_bytes), absl::StrCat("row ", r));
  }));
  tensor.buffers.emplace("blocks", std::move(blocks));
  return tensor;
}

// What is added to each group, -mins min_codes [rows, groups]: one number a block in
// fp16, or int8 codes with a scale a block and zeros of 0.
EncodedTensor OffsetsOf(const GgufParts& parts, int64_t rows) {
  const int64_t blocks = parts.groups / parts.groups_per_block;
  std::vector<float> scales = ToFloats(parts.mins);
  for (float& scale : scales) scale = -scale;
  Tensor stored = FloatsToDType(DType::kF16, {rows, blocks}, scales);
  if (parts.groups_per_block == 1) return *WrapFloats(std::move(stored));
  QuantScheme scheme = IntegerScheme(8, static_cast<int>(parts.groups_per_block), true);
  scheme.set_scale_type(QuantScheme::FP16);
  return {scheme, {rows, parts.groups}, {{"codes", parts.min_codes}, {"scales", std::move(stored)}, {"zeros", Tensor::Zeros(DType::kU8, {rows, blocks})}}};
}

class GgufFormat : public Format {
 public:
  explicit GgufFormat(const BlockType& type) : type_(type) {}

  std::string name() const override { return std::string(type_.name); }

  std::string Describe(const QuantScheme& scheme) const override {
    return absl::StrCat(type_.name, " blocks of ", type_.columns);
  }

  absl::Status Validate(const QuantScheme& scheme) const override {
    if (SameScheme(scheme, FloatScheme(name()))) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(name(), " fixes everything itself: leave per, group_size, range, scale_type and the rest unset"));
  }

  int64_t row_multiple() const override { return type_.columns; }

  std::vector<BufferSpec> Layout(const QuantScheme& scheme, const Shape& shape) const override {
    return {{"blocks", DType::kU8, {shape.size() < 2 ? 1 : shape[0], RowBytes(type_, shape.back())}}};
  }

  absl::StatusOr<EncodedTensor> Encode(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values,
                                       ThreadPool* pool) const override {
    return EncodeRows(type_, scheme, shape, values, {}, pool);
  }

  void DecodeRows(const EncodedTensor& tensor, int64_t begin, int64_t end, float* out) const override {
    const int64_t blocks = tensor.cols() / type_.columns, row_bytes = RowBytes(type_, tensor.cols());
    const uint8_t* block = tensor.buffer("blocks").bytes().data() + begin * row_bytes;
    for (int64_t b = 0; b < (end - begin) * blocks; ++b, block += type_.bytes, out += type_.columns) DecodeBlock(type_, block, out);
  }

  std::optional<CodeView> Codes(const EncodedTensor& tensor) const override {
    GgufParts parts = SplitGgufBlocks(tensor);
    CodeView view;
    view.bits = parts.bits;
    view.rows = tensor.rows();
    view.cols = tensor.cols();
    view.group = parts.group;
    view.groups = parts.groups;
    view.codes = std::move(parts.codes);
    view.scales = std::move(parts.scales);
    view.one_zero = parts.zero;
    view.values = type_.values;
    if (type_.has_mins) view.offsets = std::make_shared<EncodedTensor>(OffsetsOf(parts, view.rows));
    if (type_.sub_blocks() == 1) return view;
    view.scale_codes = std::move(parts.scale_codes);
    view.scale_run = type_.sub_blocks();
    return view;
  }

  std::vector<QuantScheme> ExampleSchemes() const override { return {FloatScheme(name())}; }

 private:
  const BlockType& type_;
};

bool RegisterAll() {
  for (const BlockType& type : gguf::BlockTypes()) FormatRegistrar(std::make_unique<GgufFormat>(type));
  return true;
}
const bool kRegistered = RegisterAll();

}  // namespace

absl::StatusOr<EncodedTensor> EncodeGgufBlocks(const std::string& type, const Shape& shape, absl::Span<const float> values,
                                               absl::Span<const float> importance, ThreadPool* pool) {
  const BlockType* found = gguf::FindBlockType(type);
  if (found == nullptr) return absl::InvalidArgumentError(absl::StrCat("'", type, "' is no GGUF block format"));
  const QuantScheme scheme = FloatScheme(type);
  NIBBLE_RETURN_IF_ERROR(CheckEncodable(scheme, shape, values));
  return EncodeRows(*found, scheme, shape, values, importance, pool);
}

GgufParts SplitGgufBlocks(const EncodedTensor& tensor) {
  const BlockType* type = gguf::FindBlockType(tensor.scheme.format());
  NIBBLE_CHECK(type != nullptr);
  const int64_t rows = tensor.rows(), cols = tensor.cols(), blocks = cols / type->columns, subs = type->sub_blocks();
  const int64_t groups = blocks * subs, packed = PackedRowBytes(type->bits, cols);
  GgufParts split{.bits = type->bits, .zero = type->zero, .group = type->sub, .groups = groups, .groups_per_block = subs, .has_mins = type->has_mins};
  split.codes = Tensor::Zeros(DType::kU8, {rows, packed});
  split.scales = Tensor::Zeros(DType::kF16, {rows, blocks});
  split.mins = Tensor::Zeros(DType::kF16, {rows, blocks});
  split.scale_codes = Tensor::Zeros(DType::kI8, {rows, groups});
  split.min_codes = Tensor::Zeros(DType::kU8, {rows, groups});
  const uint8_t* block = tensor.buffer("blocks").bytes().data();
  std::vector<uint8_t> codes(cols);
  BlockParts parts;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t b = 0; b < blocks; ++b, block += type->bytes) {
      type->unpack(block, &parts);
      std::copy_n(parts.codes.begin(), type->columns, codes.begin() + b * type->columns);
      split.scales.mutable_as<uint16_t>()[r * blocks + b] = FloatToFp16(parts.d);
      split.mins.mutable_as<uint16_t>()[r * blocks + b] = FloatToFp16(parts.m);
      std::copy_n(parts.scales.begin(), subs, split.scale_codes.mutable_as<int8_t>().begin() + r * groups + b * subs);
      std::copy_n(parts.mins.begin(), subs, split.min_codes.mutable_as<uint8_t>().begin() + r * groups + b * subs);
    }
    PackRow(type->bits, codes, split.codes.mutable_as<uint8_t>().data() + r * packed);
  }
  return split;
}

bool IsGgufFormat(const std::string& format) { return gguf::FindBlockType(format) != nullptr; }

}  // namespace nibble
