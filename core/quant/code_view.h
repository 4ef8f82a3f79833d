// CodeView: a tensor of codes as kernels see it, whatever its format stores.
#ifndef NIBBLE_CORE_QUANT_CODE_VIEW_H_
#define NIBBLE_CORE_QUANT_CODE_VIEW_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/types/span.h"
#include "core/base/divide.h"
#include "core/tensor/tensor.h"

namespace nibble {

struct EncodedTensor;

// w = scale * value(code) + offset, a scale and an offset for each group of columns
// along a row. The value of a code is code - zero, or what a table says; offsets are 0
// where none are given.
struct CodeView {
  int bits = 0;                 // of a code, 1 to 8
  int64_t rows = 0, cols = 0;
  int64_t group = 0;            // columns that share a scale; the last group of a row may be shorter
  int64_t groups = 0;           // per row
  Tensor codes;                 // U8 [rows, PackedRowBytes(bits, cols)], least significant bit first
  Tensor scales;                // fp32, fp16 or bf16 [rows, scale_groups()], or a single one
  // I8 [rows, groups], for scales in two levels: scale of group g = scales[g / scale_run]
  // * scale_codes[g], the product in fp32. scale_run is a power of two, 1 without codes.
  std::optional<Tensor> scale_codes;
  int64_t scale_run = 1;
  std::optional<Tensor> zeros;  // U8 [rows, groups], or a single one
  int32_t one_zero = 0;         // of every group, without zeros
  absl::Span<const float> values;  // [2^bits] of each code, the format's own; empty: code - zero
  // [rows, groups] under any scheme that a kernel for float activations reads.
  std::shared_ptr<const EncodedTensor> offsets;

  int64_t scale_groups() const { return CeilDiv(groups, scale_run); }
  float scale(int64_t row, int64_t g) const;
  int32_t zero(int64_t row, int64_t g) const;
  void UnpackCodes(int64_t row, absl::Span<uint8_t> codes) const;
  // What rows [begin, end) stand for, (end - begin) * cols values.
  void DecodeRows(int64_t begin, int64_t end, float* out) const;
};

// Codes of `bits` bits, least significant bit first, each row padded to a
// whole byte: 4-bit element 2j is the low nibble of byte j.
int64_t PackedRowBytes(int bits, int64_t cols);
void PackRow(int bits, absl::Span<const uint8_t> codes, uint8_t* out);
void UnpackRow(int bits, const uint8_t* packed, absl::Span<uint8_t> codes);

}  // namespace nibble

#endif  // NIBBLE_CORE_QUANT_CODE_VIEW_H_
