// From another library's codes to Nibble's: bit streams in 32-bit words, and
// integer tensors made of codes, scales and zero points that are given.
#ifndef NIBBLE_CORE_IO_QUANTIZED_CODES_H_
#define NIBBLE_CORE_IO_QUANTIZED_CODES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/io/tensor_files.h"
#include "core/quant/code_view.h"
#include "core/quant/encoded.h"
#include "core/tensor/tensor.h"

namespace nibble::io {

// `count` codes of `bits` bits (1 to 8), least significant bit first, codes may span
// words; word i is words[i * stride], code i becomes codes[i * code_stride].
void UnpackWords(int bits, const uint32_t* words, int64_t stride, int64_t count, uint8_t* codes, int64_t code_stride = 1);

// The words of `codes`, least significant bit first, CeilDiv(codes * bits, 32) of them.
void PackWords(int bits, absl::Span<const uint8_t> codes, uint32_t* words, int64_t stride);

// Unsigned codes as the signed ones that others store, u - 2^(bits - 1), and back: I8,
// or floats that hold such numbers. An error, which names `where`, for one that does
// not fit.
Tensor SignedCodes(const CodeView& view);
absl::StatusOr<std::vector<uint8_t>> UnsignedCodes(const Tensor& tensor, int bits, const std::string& where);

// The group of each of a linear's `inputs` by its tensor `name`, I32 [inputs], where
// groups do not lie side by side; empty where they do, or where every entry is -1.
absl::StatusOr<std::vector<int32_t>> ScatteredGroups(const TensorFiles& files, const std::string& name, int64_t inputs, int64_t group);

// Codes u and what they stand for, scale * (u - zero), before they are one of
// Nibble's tensors.
struct Codes {
  int bits = 0;
  int64_t rows = 0, cols = 0;
  int64_t group = 0;            // columns that share a scale; cols: all of a row
  std::vector<uint8_t> codes;   // [rows, cols], unsigned
  Tensor scales;                // [rows, groups], fp32, fp16 or bf16
  std::vector<uint8_t> zeros;   // like scales; empty: 2^(bits - 1) everywhere
  bool whole = false;           // one scale for the tensor: scales are [1, 1]

  int64_t groups() const { return (cols + group - 1) / group; }
};

// The tensor of format "int<bits>"; symmetric where every zero is 2^(bits - 1).
absl::StatusOr<EncodedTensor> ToIntegers(const Codes& codes);

// The values, rounded to the scales' type, where column c belongs to group
// group_of[c]: for columns whose groups do not lie side by side. What the library
// that wrote the codes computes, product rounded once.
absl::StatusOr<EncodedTensor> ToFloats(const Codes& codes, absl::Span<const int32_t> group_of);

// A scheme of `format` with a scale for each `group` of `cols` columns, of dtype
// `scales`.
absl::StatusOr<QuantScheme> SchemeWithScales(const std::string& format, int64_t group, int64_t cols, DType scales);

// The transpose of a [rows, cols] float tensor, bits as they are.
Tensor Transposed(const Tensor& tensor);

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_QUANTIZED_CODES_H_
