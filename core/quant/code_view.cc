#include "core/quant/code_view.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/quant/encoded.h"

namespace nibble {

int64_t PackedRowBytes(int bits, int64_t cols) { return (cols * bits + 7) / 8; }

void PackRow(int bits, absl::Span<const uint8_t> codes, uint8_t* out) {
  std::memset(out, 0, PackedRowBytes(bits, codes.size()));
  for (size_t i = 0; i < codes.size(); ++i) {
    const size_t bit = i * bits;
    const uint32_t shifted = static_cast<uint32_t>(codes[i]) << (bit % 8);
    out[bit / 8] |= static_cast<uint8_t>(shifted);
    if (shifted > 0xFF) out[bit / 8 + 1] |= static_cast<uint8_t>(shifted >> 8);
  }
}

void UnpackRow(int bits, const uint8_t* packed, absl::Span<uint8_t> codes) {
  const uint32_t mask = (1u << bits) - 1;
  for (size_t i = 0; i < codes.size(); ++i) {
    const size_t bit = i * bits;
    uint32_t word = packed[bit / 8];
    if (bit % 8 + bits > 8) word |= static_cast<uint32_t>(packed[bit / 8 + 1]) << 8;
    codes[i] = static_cast<uint8_t>((word >> (bit % 8)) & mask);
  }
}

float CodeView::scale(int64_t row, int64_t g) const {
  float value;
  ReadFloats(scales, scales.elements() == 1 ? 0 : row * scale_groups() + g / scale_run, absl::MakeSpan(&value, 1));
  return scale_codes.has_value() ? value * static_cast<float>(scale_codes->as<int8_t>()[row * groups + g]) : value;
}

int32_t CodeView::zero(int64_t row, int64_t g) const {
  if (!zeros.has_value()) return one_zero;
  return zeros->bytes()[zeros->elements() == 1 ? 0 : row * groups + g];
}

void CodeView::UnpackCodes(int64_t row, absl::Span<uint8_t> out) const {
  UnpackRow(bits, codes.bytes().data() + row * PackedRowBytes(bits, cols), out);
}

void CodeView::DecodeRows(int64_t begin, int64_t end, float* out) const {
  std::vector<uint8_t> row_codes(cols);
  std::vector<float> row_offsets(groups, 0.0f);
  for (int64_t row = begin; row < end; ++row, out += cols) {
    UnpackCodes(row, absl::MakeSpan(row_codes));
    if (offsets != nullptr) nibble::DecodeRows(*offsets, row, row + 1, row_offsets.data());
    for (int64_t g = 0; g < groups; ++g) {
      const float s = scale(row, g), offset = row_offsets[g];
      const int32_t z = zero(row, g);
      for (int64_t k = g * group; k < std::min(cols, (g + 1) * group); ++k) {
        const float value = s * (values.empty() ? static_cast<float>(row_codes[k] - z) : values[row_codes[k]]);
        out[k] = offsets == nullptr ? value : value + offset;
      }
    }
  }
}

}  // namespace nibble
