#include "core/quant/code_view.h"

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
  ReadFloats(scales, scales.elements() == 1 ? 0 : row * groups + g, absl::MakeSpan(&value, 1));
  return value;
}

int32_t CodeView::zero(int64_t row, int64_t g) const {
  if (!zeros.has_value()) return one_zero;
  return zeros->bytes()[zeros->elements() == 1 ? 0 : row * groups + g];
}

void CodeView::UnpackCodes(int64_t row, absl::Span<uint8_t> out) const {
  UnpackRow(bits, codes.bytes().data() + row * PackedRowBytes(bits, cols), out);
}

}  // namespace nibble
