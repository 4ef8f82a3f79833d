#include "core/kernels/pack.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <vector>

#include "core/base/check.h"
#include "core/base/divide.h"

namespace nibble::kernels {
namespace {

PackedIntegers Layout(const CodeView& weights) {
  PackedIntegers p;
  p.bits = ContainerBits(weights.bits);
  p.rows = weights.rows;
  p.cols = weights.cols;
  p.group = weights.group;
  p.groups = weights.groups;
  p.scale_groups = weights.scale_groups();
  p.scale_shift = std::countr_zero(static_cast<uint64_t>(weights.scale_run));
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

// Places the codes of row r of a block (`out`: the block). `codes` may be read
// up to a chunk beyond the row, where it holds zeros.
void PlaceCodes(const PackedIntegers& p, int64_t r, const uint8_t* codes, uint8_t* out) {
  const int64_t quads = 8 / p.bits;  // of a chunk
  for (int64_t g = 0; g < p.groups; ++g) {
    const int64_t begin = g * p.group, end = std::min(p.cols, begin + p.group);
    uint8_t* chunk = out + g * p.padded_group * kBlockRows * p.bits / 8 + 4 * r;
    for (int64_t k = begin; k < end; chunk += 64) {
      uint32_t word = 0;
      for (int64_t j = 0; j < quads && k < end; ++j, k += 4) {
        uint32_t quad;
        std::memcpy(&quad, codes + k, 4);
        if (end - k < 4) quad &= (1u << (8 * (end - k))) - 1;
        word |= quad << (p.bits * j);
      }
      std::memcpy(chunk, &word, 4);
    }
  }
}

// Scales and zero points of a row as numbers.
struct RowGrid {
  explicit RowGrid(const CodeView& weights)
      : weights(weights), stored(weights.scale_groups()), scales(weights.groups), zeros(weights.groups, weights.one_zero) {}

  void Read(int64_t row) {
    const bool one_scale = weights.scales.elements() == 1;
    ReadFloats(weights.scales, one_scale ? 0 : row * weights.scale_groups(), absl::MakeSpan(stored.data(), one_scale ? 1 : stored.size()));
    for (int64_t g = 0; g < weights.groups; ++g) {
      scales[g] = stored[one_scale ? 0 : g / weights.scale_run];
      if (weights.scale_codes.has_value()) scales[g] *= static_cast<float>(weights.scale_codes->as<int8_t>()[row * weights.groups + g]);
    }
    if (!weights.zeros.has_value()) return;
    const bool one = weights.zeros->elements() == 1;
    for (int64_t g = 0; g < weights.groups; ++g) zeros[g] = weights.zeros->bytes()[one ? 0 : row * weights.groups + g];
  }

  const CodeView& weights;
  std::vector<float> stored, scales;
  std::vector<int32_t> zeros;
};

// The stored scales of a row, and their codes, into kernel order.
void PlaceScales(const CodeView& weights, int64_t row, PackedWeights* packed) {
  const PackedIntegers& p = packed->view;
  const int64_t block = row / kBlockRows, r = row % kBlockRows;
  const bool one_scale = weights.scales.elements() == 1;
  for (int64_t g = 0; g < p.scale_groups; ++g) {
    const int64_t to = (block * p.scale_groups + g) * kBlockRows + r;
    CopyElement(weights.scales, one_scale ? 0 : row * p.scale_groups + g, to, packed->scales);
  }
  if (!weights.scale_codes.has_value()) return;
  const absl::Span<const int8_t> codes = weights.scale_codes->as<int8_t>();
  for (int64_t g = 0; g < p.groups; ++g) {
    packed->scale_codes.mutable_as<int8_t>()[(block * p.groups + g) * kBlockRows + r] = codes[row * p.groups + g];
  }
}

}  // namespace

int64_t PackedWeights::byte_size() const {
  return codes.byte_size() + scales.byte_size() + scale_codes.byte_size() + zeros.byte_size() + weight_sums.byte_size() + values.byte_size();
}

PackedIntegers BlocksFrom(const PackedIntegers& p, int64_t block) {
  PackedIntegers part = p;
  const int64_t rows = block * kBlockRows;
  part.rows -= rows;
  part.codes += rows * p.padded_cols * p.bits / 8;
  part.scales = static_cast<const uint8_t*>(p.scales) + rows * p.scale_groups * (p.scale_type == ScaleType::kFp32 ? 4 : 2);
  if (p.scale_codes != nullptr) part.scale_codes += rows * p.groups;
  if (p.zeros != nullptr) part.zeros += rows * p.groups;
  part.weight_sums += rows;
  return part;
}

int ContainerBits(int bits) { return bits <= 2 ? 2 : bits <= 4 ? 4 : 8; }

PackedWeights PackCodes(const CodeView& weights) {
  NIBBLE_CHECK(std::has_single_bit(static_cast<uint64_t>(weights.scale_run)));
  PackedWeights packed;
  PackedIntegers& p = packed.view;
  p = Layout(weights);
  const int64_t blocks = packed.blocks(), block_bytes = p.padded_cols * kBlockRows * p.bits / 8;
  const bool asymmetric = weights.zeros.has_value();
  packed.codes = Tensor::ZerosForStreaming(DType::kU8, {blocks, block_bytes});
  packed.scales = Tensor::ZerosForStreaming(weights.scales.dtype(), {blocks, p.scale_groups, kBlockRows});
  p.scale_type = ScaleTypeOf(weights.scales.dtype());
  if (weights.scale_codes.has_value()) packed.scale_codes = Tensor::ZerosForStreaming(DType::kI8, {blocks, p.groups, kBlockRows});
  packed.weight_sums = Tensor::ZerosForStreaming(DType::kF32, {blocks, kBlockRows});
  if (asymmetric) packed.zeros = Tensor::ZerosForStreaming(DType::kU8, {blocks, p.groups, kBlockRows});

  std::vector<uint8_t> codes(p.cols + kChunkColumns);
  RowGrid grid(weights);
  uint8_t* const packed_codes = packed.codes.mutable_as<uint8_t>().data();
  for (int64_t row = 0; row < p.rows; ++row) {
    const int64_t block = row / kBlockRows, r = row % kBlockRows;
    weights.UnpackCodes(row, absl::MakeSpan(codes.data(), p.cols));
    grid.Read(row);
    PlaceCodes(p, r, codes.data(), packed_codes + block * block_bytes);
    PlaceScales(weights, row, &packed);
    double weight_sum = 0;
    for (int64_t g = 0; g < p.groups; ++g) {
      const int64_t begin = g * p.group, length = std::min(p.group, p.cols - begin);
      if (asymmetric) packed.zeros.mutable_as<uint8_t>()[(block * p.groups + g) * kBlockRows + r] = static_cast<uint8_t>(grid.zeros[g]);
      const int64_t code_sum = std::accumulate(codes.begin() + begin, codes.begin() + begin + length, int64_t{0});
      weight_sum += static_cast<double>(grid.scales[g]) * static_cast<double>(code_sum - grid.zeros[g] * length);
    }
    packed.weight_sums.mutable_as<float>()[row] = static_cast<float>(weight_sum);
  }

  p.codes = packed.codes.bytes().data();
  p.scales = packed.scales.bytes().data();
  if (weights.scale_codes.has_value()) p.scale_codes = packed.scale_codes.as<int8_t>().data();
  p.zeros = asymmetric ? packed.zeros.bytes().data() : nullptr;
  p.zero = asymmetric ? 0 : weights.one_zero;
  p.weight_sums = packed.weight_sums.as<float>().data();
  if (!weights.values.empty()) {
    packed.values = Tensor::Zeros(DType::kF32, {int64_t{1} << p.bits});
    std::copy(weights.values.begin(), weights.values.end(), packed.values.mutable_as<float>().begin());
    p.values = packed.values.as<float>().data();
  }
  return packed;
}

}  // namespace nibble::kernels
