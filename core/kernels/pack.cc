#include "core/kernels/pack.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace nibble::kernels {
namespace {

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

PackedIntegers Layout(const IntegerView& weights) {
  PackedIntegers p;
  p.bits = ContainerBits(weights.bits);
  p.rows = weights.rows;
  p.cols = weights.cols;
  p.group = weights.group;
  p.groups = weights.groups;
  const int64_t chunk = 32 / p.bits;
  p.padded_group = RoundUp(p.group, chunk);
  p.padded_cols = (p.groups - 1) * p.padded_group + RoundUp(p.cols - (p.groups - 1) * p.group, chunk);
  return p;
}

ScaleType ScaleTypeOf(DType dtype) {
  return dtype == DType::kF16 ? ScaleType::kFp16 : dtype == DType::kBF16 ? ScaleType::kBf16 : ScaleType::kFp32;
}

// to[j] = from[i], for 2- and 4-byte elements; a borrowed `from` has any alignment.
void CopyElement(const Tensor& from, int64_t i, int64_t j, Tensor& to) {
  const int64_t size = DTypeSize(from.dtype());
  void* out = size == 2 ? static_cast<void*>(&to.mutable_as<uint16_t>()[j]) : &to.mutable_as<uint32_t>()[j];
  std::memcpy(out, from.bytes().data() + i * size, size);
}

// Places the codes of row r of a block (`out`: the block).
void PlaceCodes(const PackedIntegers& p, int64_t r, absl::Span<const uint8_t> codes, uint8_t* out) {
  const int64_t chunk = 32 / p.bits;
  for (int64_t g = 0; g < p.groups; ++g) {
    const int64_t length = std::min(p.group, p.cols - g * p.group);
    uint8_t* group_out = out + g * p.padded_group * kBlockRows * p.bits / 8 + 4 * r;
    for (int64_t k = 0; k < length; ++k) {
      const int64_t column = k % chunk;
      group_out[k / chunk * 64 + column % 4] |= codes[g * p.group + k] << (p.bits * (column / 4));
    }
  }
}

}  // namespace

int64_t PackedWeights::byte_size() const {
  return codes.byte_size() + scales.byte_size() + zeros.byte_size() + weight_sums.byte_size();
}

int ContainerBits(int bits) { return bits <= 2 ? 2 : bits <= 4 ? 4 : 8; }

PackedWeights PackIntegers(const IntegerView& weights) {
  PackedWeights packed;
  PackedIntegers& p = packed.view;
  p = Layout(weights);
  const int64_t blocks = packed.blocks(), block_bytes = p.padded_cols * kBlockRows * p.bits / 8;
  const bool asymmetric = weights.tensor->scheme.asymmetric();
  packed.codes = Tensor::Zeros(DType::kU8, {blocks, block_bytes});
  const Tensor& scales = weights.tensor->buffer("scales");
  packed.scales = Tensor::Zeros(scales.dtype(), {blocks, p.groups, kBlockRows});
  p.scale_type = ScaleTypeOf(scales.dtype());
  packed.weight_sums = Tensor::Zeros(DType::kF32, {blocks, kBlockRows});
  if (asymmetric) packed.zeros = Tensor::Zeros(DType::kU8, {blocks, p.groups, kBlockRows});

  std::vector<uint8_t> codes(p.cols);
  for (int64_t row = 0; row < p.rows; ++row) {
    const int64_t block = row / kBlockRows, r = row % kBlockRows;
    weights.UnpackCodes(row, absl::MakeSpan(codes));
    PlaceCodes(p, r, codes, packed.codes.mutable_as<uint8_t>().data() + block * block_bytes);
    double weight_sum = 0;
    for (int64_t g = 0; g < p.groups; ++g) {
      const int64_t begin = g * p.group, length = std::min(p.group, p.cols - begin);
      const int64_t i = (block * p.groups + g) * kBlockRows + r;
      const float scale = weights.scale(row, g);
      const int32_t zero = weights.zero(row, g);
      CopyElement(scales, scales.elements() == 1 ? 0 : row * p.groups + g, i, packed.scales);
      if (asymmetric) packed.zeros.mutable_as<uint8_t>()[i] = static_cast<uint8_t>(zero);
      int64_t code_sum = 0;
      for (int64_t k = begin; k < begin + length; ++k) code_sum += codes[k];
      weight_sum += static_cast<double>(scale) * static_cast<double>(code_sum - zero * length);
    }
    packed.weight_sums.mutable_as<float>()[row] = static_cast<float>(weight_sum);
  }

  p.codes = packed.codes.bytes().data();
  p.scales = packed.scales.bytes().data();
  p.zeros = asymmetric ? packed.zeros.bytes().data() : nullptr;
  p.zero = asymmetric ? 0 : weights.zero(0, 0);
  p.weight_sums = packed.weight_sums.as<float>().data();
  return packed;
}

}  // namespace nibble::kernels
