// nf4 and fp4: the 4-bit data types of bitsandbytes, with absmax scales that may be
// quantized themselves (Dettmers et al., QLoRA, 2023, section 3).
//
// Buffers: those of TableFormat; with double quantization in place of "scales"
// "scale_codes" U8 [rows, groups], "scale_scales" F32 [blocks] over the scales in
// order and "scale_mean" F32 [1]. As in bitsandbytes a weight's code is chosen by
// the scale before that is quantized.

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/base/divide.h"
#include "core/base/status.h"
#include "core/quant/formats/nf4/nf4.pb.h"
#include "core/quant/integer_grid.h"
#include "core/quant/table_format.h"

namespace nibble {
namespace {

// Quantiles of the normal distribution, seven below and eight above an exact 0,
// scaled to +-1 (QLoRA, appendix E).
const std::vector<float> kNf4 = {-1.0f,
                                 -0.6961928009986877f,
                                 -0.5250730514526367f,
                                 -0.39491748809814453f,
                                 -0.28444138169288635f,
                                 -0.18477343022823334f,
                                 -0.09105003625154495f,
                                 0.0f,
                                 0.07958029955625534f,
                                 0.16093020141124725f,
                                 0.24611230194568634f,
                                 0.33791524171829224f,
                                 0.44070982933044434f,
                                 0.5626170039176941f,
                                 0.7229568362236023f,
                                 1.0f};

// A sign, two bits of exponent and one of fraction, in bitsandbytes' order of codes;
// the code of the least magnitude stands for 1/192.
const std::vector<float> kFp4 = {0.0f,  0.0052083333f, 0.6666667f,  1.0f,  0.33333334f,  0.5f,  0.16666667f,  0.25f,
                                 -0.0f, -0.0052083333f, -0.6666667f, -1.0f, -0.33333334f, -0.5f, -0.16666667f, -0.25f};

// A table in ascending order, for searching. Of equal values the first code counts.
class SortedTable {
 public:
  explicit SortedTable(const std::vector<float>& values) {
    for (size_t i = 0; i < values.size(); ++i) codes_.push_back(static_cast<uint8_t>(i));
    std::stable_sort(codes_.begin(), codes_.end(), [&](uint8_t a, uint8_t b) { return values[a] < values[b]; });
    const auto same = [&](uint8_t a, uint8_t b) { return values[a] == values[b]; };
    codes_.erase(std::unique(codes_.begin(), codes_.end(), same), codes_.end());
    for (size_t i = 1; i < codes_.size(); ++i) middles_.push_back((values[codes_[i - 1]] + values[codes_[i]]) / 2);
  }

  // A value in the middle goes down.
  uint8_t Nearest(float x) const { return codes_[std::lower_bound(middles_.begin(), middles_.end(), x) - middles_.begin()]; }

 private:
  std::vector<uint8_t> codes_;
  std::vector<float> middles_;
};

// The dynamic 8-bit map (Dettmers et al., 8-bit Optimizers, 2022, section 2.2): for
// each power of ten from 1e-6 to 1 twice as many fractions as for the one below, in
// the middles of equal parts of [0.1, 1], with both signs, and 0 and 1. In fp32 and
// in the order in which bitsandbytes' create_dynamic_map computes them (boundaries from
// both ends, each rounded once), so that the values are the same to the bit.
std::vector<float> DynamicMap() {
  std::vector<float> values = {0.0f, 1.0f};
  for (int i = 0; i < 7; ++i) {
    const int parts = 1 << i;
    const float step = (1.0f - 0.1f) / static_cast<float>(parts), power = static_cast<float>(std::pow(10.0, i - 6));
    const auto boundary = [&](int j) {
      return 2 * j < parts ? std::fma(step, static_cast<float>(j), 0.1f) : std::fma(-step, static_cast<float>(parts - j), 1.0f);
    };
    for (int j = 0; j < parts; ++j) {
      const float middle = (boundary(j) + boundary(j + 1)) / 2;
      for (const float sign : {-1.0f, 1.0f}) values.push_back(sign * (power * middle));
    }
  }
  std::sort(values.begin(), values.end());
  return values;
}

struct ScaleMap {
  std::vector<float> values = DynamicMap();
  SortedTable sorted{values};
};

const ScaleMap& Dynamic() {
  static const auto* map = new ScaleMap;
  return *map;
}

class FourBitFormat : public TableFormat {
 public:
  FourBitFormat(std::string name, const std::vector<float>& values) : TableFormat(std::move(name), 4, values, 1.0f), sorted_(values) {}

  std::string Describe(const QuantScheme& scheme) const override {
    if (!scheme.HasExtension(double_quantization)) return TableFormat::Describe(scheme);
    return absl::StrCat(name(), " ", GranularityToString(scheme), ", 8-bit scales in blocks of ", BlockOf(scheme));
  }

  absl::Status Validate(const QuantScheme& scheme) const override {
    NIBBLE_RETURN_IF_ERROR(TableFormat::Validate(scheme));
    if (!scheme.HasExtension(double_quantization)) return absl::OkStatus();
    if (scheme.scale_type() != QuantScheme::FP32) return absl::InvalidArgumentError("double_quantization stores scales itself; leave scale_type");
    if (BlockOf(scheme) < 1) return absl::InvalidArgumentError(absl::StrCat("double_quantization.block: ", BlockOf(scheme), " must be 1 or more"));
    return absl::OkStatus();
  }

  // The mean of all scales is taken from each before they are quantized.
  bool encodes_rows_alone(const QuantScheme& scheme) const override {
    return TableFormat::encodes_rows_alone(scheme) && !scheme.HasExtension(double_quantization);
  }

  std::vector<BufferSpec> Layout(const QuantScheme& scheme, const Shape& shape) const override {
    std::vector<BufferSpec> layout = TableFormat::Layout(scheme, shape);
    if (!scheme.HasExtension(double_quantization)) return layout;
    const Shape scales = layout[1].shape;
    layout.pop_back();
    layout.push_back({"scale_codes", DType::kU8, scales});
    layout.push_back({"scale_scales", DType::kF32, {CeilDiv(scales[0] * scales[1], BlockOf(scheme))}});
    layout.push_back({"scale_mean", DType::kF32, {1}});
    return layout;
  }

  absl::StatusOr<EncodedTensor> Encode(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values,
                                       ThreadPool* pool) const override {
    NIBBLE_ASSIGN_OR_RETURN(EncodedTensor tensor, TableFormat::Encode(scheme, shape, values, pool));
    if (scheme.HasExtension(double_quantization)) EncodeScales(&tensor);
    return tensor;
  }

  std::optional<CodeView> Codes(const EncodedTensor& tensor) const override {
    if (!tensor.scheme.HasExtension(double_quantization)) return TableFormat::Codes(tensor);
    const Tensor& codes = tensor.buffer("scale_codes");
    Tensor scales = Tensor::FromFloats(codes.shape(), ReadScales(tensor, 0, codes.elements()));
    EncodedTensor plain{tensor.scheme, tensor.shape, {{"codes", tensor.buffer("codes")}, {"scales", std::move(scales)}}};
    return TableFormat::Codes(plain);
  }

  std::vector<QuantScheme> ExampleSchemes() const override {
    QuantScheme blocks;
    blocks.set_format(name());
    blocks.set_per(QuantScheme::PER_GROUP);
    blocks.set_group_size(64);
    QuantScheme twice = blocks;
    twice.MutableExtension(double_quantization);
    QuantScheme halves = blocks;
    halves.set_scale_type(QuantScheme::BF16);
    QuantScheme rows;
    rows.set_format(name());
    rows.set_per(QuantScheme::PER_ROW);
    return {blocks, twice, halves, rows};
  }

 protected:
  uint8_t Nearest(float x) const override { return sorted_.Nearest(x); }

  std::vector<float> ReadScales(const EncodedTensor& tensor, int64_t first, int64_t count) const override {
    if (!tensor.scheme.HasExtension(double_quantization)) return TableFormat::ReadScales(tensor, first, count);
    const uint8_t* codes = tensor.buffer("scale_codes").bytes().data() + first;
    const int64_t block = BlockOf(tensor.scheme), first_block = first / block;
    float mean;
    ReadFloats(tensor.buffer("scale_mean"), 0, absl::MakeSpan(&mean, 1));
    std::vector<float> seconds(CeilDiv(first + count, block) - first_block), scales(count);
    ReadFloats(tensor.buffer("scale_scales"), first_block, absl::MakeSpan(seconds));
    for (int64_t i = 0; i < count; ++i) scales[i] = Dynamic().values[codes[i]] * seconds[(first + i) / block - first_block] + mean;
    return scales;
  }

 private:
  static int64_t BlockOf(const QuantScheme& scheme) { return scheme.GetExtension(double_quantization).block(); }

  // Replaces "scales" by their encoding.
  static void EncodeScales(EncodedTensor* tensor) {
    const Tensor scales = tensor->buffer("scales");
    const absl::Span<const float> values = scales.as<float>();
    const int64_t count = static_cast<int64_t>(values.size()), block = BlockOf(tensor->scheme);
    double sum = 0;
    for (const float v : values) sum += v;
    const float mean = static_cast<float>(sum / static_cast<double>(count));
    Tensor codes = Tensor::Zeros(DType::kU8, scales.shape()), seconds = Tensor::Zeros(DType::kF32, {CeilDiv(count, block)});
    for (int64_t begin = 0; begin < count; begin += block) {
      const int64_t end = std::min(count, begin + block);
      float largest = 0;
      for (int64_t i = begin; i < end; ++i) largest = std::max(largest, std::fabs(values[i] - mean));
      seconds.mutable_as<float>()[begin / block] = largest;
      const float divisor = std::max(largest, std::numeric_limits<float>::min());
      for (int64_t i = begin; i < end; ++i) codes.mutable_as<uint8_t>()[i] = Dynamic().sorted.Nearest((values[i] - mean) / divisor);
    }
    tensor->buffers.erase("scales");
    tensor->buffers.emplace("scale_codes", std::move(codes));
    tensor->buffers.emplace("scale_scales", std::move(seconds));
    tensor->buffers.emplace("scale_mean", Tensor::FromFloats({1}, {mean}));
  }

  const SortedTable sorted_;
};

const FormatRegistrar kNf4Format(std::make_unique<FourBitFormat>("nf4", kNf4));
const FormatRegistrar kFp4Format(std::make_unique<FourBitFormat>("fp4", kFp4));

}  // namespace
}  // namespace nibble
