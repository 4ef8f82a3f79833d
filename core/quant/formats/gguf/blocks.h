// The block types of GGUF files. A row is stored as blocks of 32 or 256 columns,
// each with scales of its own. Fields in file order, d, dmin and m in fp16, the rest
// little endian:
//
//   name    columns bytes  fields
//   q4_0     32      18    d, 16 bytes of nibbles
//   q4_1     32      20    d, m, 16 bytes of nibbles
//   q5_0     32      22    d, u32 fifth bits, 16 bytes of nibbles
//   q5_1     32      24    d, m, u32 fifth bits, 16 bytes of nibbles
//   q8_0     32      34    d, 32 int8
//   iq4_nl   32      18    d, 16 bytes of nibbles that index a table
//   q2_k    256      84    16 bytes (scale low nibble, min high), 64 bytes of pairs, d, dmin
//   q3_k    256     110    32 bytes of third bits, 64 bytes of pairs, 12 bytes of 6-bit scales, d
//   q4_k    256     144    d, dmin, 12 bytes of 6-bit scales and mins, 128 bytes of nibbles
//   q5_k    256     176    d, dmin, 12 bytes of 6-bit scales and mins, 32 bytes of fifth bits,
//                          128 bytes of nibbles
//   q6_k    256     210    128 bytes of nibbles, 64 bytes of top pairs, 16 int8 scales, d
//
// Every one of them decodes to
//
//   x[i] = (d * scales[s]) * value(codes[i]) - m * mins[s],   s = i / columns of a sub-block
//
// in fp32, where a code's value is code - zero, or what iq4_nl's table says. A type
// with one scale a block has scales = {1}; *_1 have m negated and mins = {1}; types
// without an offset have m = 0.
//
// Source: ggml's block structures (ggml-common.h, ggml-quants.c of llama.cpp).
#ifndef NIBBLE_CORE_QUANT_FORMATS_GGUF_BLOCKS_H_
#define NIBBLE_CORE_QUANT_FORMATS_GGUF_BLOCKS_H_

#include <array>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace nibble::gguf {

inline constexpr int64_t kLargestBlock = 256;
inline constexpr int64_t kMostSubBlocks = 16;

// A block taken apart, in the terms of the formula above.
struct BlockParts {
  float d = 0, m = 0;  // values that fp16 holds
  std::array<int8_t, kMostSubBlocks> scales;
  std::array<uint8_t, kMostSubBlocks> mins;
  std::array<uint8_t, kLargestBlock> codes;  // of each column in order
};

struct BlockType {
  absl::string_view name;     // of the number format
  int64_t columns, bytes;     // of a block
  int64_t sub;                // columns of a sub-block
  int bits;                   // of a code
  int32_t zero;               // the code whose value is 0
  bool has_mins;
  absl::Span<const float> values;  // of each code; empty: code - zero
  void (*unpack)(const uint8_t* block, BlockParts* parts);
  void (*pack)(const BlockParts& parts, uint8_t* block);

  int64_t sub_blocks() const { return columns / sub; }
};

absl::Span<const BlockType> BlockTypes();

// The type of that name, or null.
const BlockType* FindBlockType(absl::string_view name);

// x[0, type.columns).
void DecodeBlock(const BlockType& type, const uint8_t* block, float* x);

// What iq4_nl's codes stand for, rising.
inline constexpr std::array<float, 16> kNonLinear = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

}  // namespace nibble::gguf

#endif  // NIBBLE_CORE_QUANT_FORMATS_GGUF_BLOCKS_H_
