// The plain types of the kernel interface. Files compiled with instruction-set
// flags include this header and no other: an inline function of a shared
// header, compiled with such flags, could become the copy that the whole
// program runs.
#ifndef NIBBLE_CORE_KERNELS_KERNEL_TYPES_H_
#define NIBBLE_CORE_KERNELS_KERNEL_TYPES_H_

#include <cstdint>

namespace nibble::kernels {

// Rows in a block of packed weights.
inline constexpr int64_t kBlockRows = 16;

// Products of many tokens and float weights run on panels: at most kPanelDepth
// columns of a row block as fp32, column by column, [columns][16], beside a
// tile of at most kTileTokens tokens, kTileStride floats apart. Panels of a
// task fill half of a second-level cache, the tile a third of a first-level
// one; the stride keeps its tokens in different cache sets.
inline constexpr int64_t kPanelDepth = 256;
inline constexpr int64_t kTileTokens = 12;
inline constexpr int64_t kTileStride = kPanelDepth + 16;
inline constexpr int64_t kTileFloats = kTileTokens * kTileStride;
inline constexpr int64_t kPanelFloats = kPanelDepth * kBlockRows;

// Products of many tokens and integer weights run on panels too: up to
// kIntegerDepth columns of up to kIntegerBlocks row blocks, a byte for each
// code. Two blocks of a panel fill half of a first-level cache; those of a
// task, the panel's columns of kIntegerTokens tokens and their sums fit in a
// second-level one.
inline constexpr int64_t kIntegerDepth = 512;
inline constexpr int64_t kIntegerBlocks = 8;
inline constexpr int64_t kIntegerTokens = 512;
inline constexpr int64_t kSumStride = kIntegerBlocks * kBlockRows;

// How packed scales are stored: as the scheme keeps them, so that decoding
// reads no more bytes than the model has.
enum class ScaleType { kFp32, kFp16, kBf16 };

// Integer weights in the order in which kernels read them. Rows come in blocks
// of 16 (the last padded with zero-scale rows). In a block, groups follow each
// other; each group's columns are padded to whole chunks of 64 bytes:
//   8-bit: 4 columns,  byte[4 r + i] = u[r][k + i]
//   4-bit: 8 columns,  byte[4 r + i] = u[r][k + i] | u[r][k + 4 + i] << 4
//   2-bit: 16 columns, byte[4 r + i] = sum over j < 4 of u[r][k + 4 j + i] << 2 j
// for row r of the block, i < 4: four consecutive columns of 16 rows fill one
// vector register of 32-bit lanes, so a dot-product instruction needs no
// horizontal sum. Codes are unsigned; w = scale * (u - zero), or scale *
// values[u], which only kernels for float activations read. Offsets of groups are a
// product of their own (core/kernels/linear.cc).
struct PackedIntegers {
  int bits = 8;                // of the container: 2, 4 or 8
  int64_t rows = 0, cols = 0;
  int64_t group = 0;           // columns that share a scale
  int64_t groups = 0;          // per row
  int64_t padded_group = 0;    // columns of a whole group rounded up to chunks
  int64_t padded_cols = 0;     // of all groups together (the last group may be shorter)
  const uint8_t* codes = nullptr;      // [row blocks][padded_cols * 16 * bits / 8], 64-byte aligned
  // [row blocks][scale_groups][16], of scale_type. With scale codes, [row
  // blocks][groups][16], the scale of group g is scales[g >> scale_shift] *
  // scale_codes[g] in fp32; without, scale_groups is groups and the shift 0.
  const void* scales = nullptr;
  ScaleType scale_type = ScaleType::kFp32;
  const int8_t* scale_codes = nullptr;
  int64_t scale_groups = 0;
  int scale_shift = 0;
  const uint8_t* zeros = nullptr;      // as scales, or null: every zero is `zero`
  int32_t zero = 0;
  const float* values = nullptr;       // [2^bits]; null: u - zero. Has no zeros.
  const float* weight_sums = nullptr;  // [row blocks][16]: sum over columns of the decoded weight
};

// Activations of some tokens in 8-bit codes, x = scale * (code - zero), padded
// like the weight's columns with code 0.
struct QuantizedRows {
  int64_t tokens = 0;
  const int8_t* codes = nullptr;        // [tokens][stride], padded_cols of them used
  int64_t stride = 0;                   // elements between tokens, at least padded_cols
  const float* scales = nullptr;        // [tokens]
  const int32_t* zeros = nullptr;       // [tokens], in the signed domain of the codes
  // [groups][term_stride], one for each token: sum of codes over a weight
  // group, times -zero where the weight has one zero for all groups.
  const int32_t* group_terms = nullptr;
  int64_t term_stride = 0;  // elements between groups, at least tokens
};

// Columns of an integer product: whole groups, or a part of one group that is
// longer than a panel.
struct IntegerPanel {
  int64_t group = 0, groups = 1;     // the first of them, and how many
  int64_t first = 0, columns = 0;    // padded columns; a multiple of 4
  bool starts = true, ends = true;   // false: the group began before, or goes on after
};

// The memory of a product of many tokens, aligned to 64 bytes.
struct IntegerWork {
  uint8_t* codes;     // [blocks][kSpreadBytes * 16 * columns], the table knows how
  float* scales;      // [blocks][groups of the panel][16]
  float* sums;        // [tokens][kSumStride]: of s_g d_g over groups so far
  int32_t* products;  // as sums: of a group so far that goes on in the next panel
};

// A quantizer of activations: an integer grid of `bits` bits over each token's own
// range or a fixed one, as core/quant/integer_grid.h defines it.
struct ActivationGrid {
  int bits = 8;
  bool asymmetric = true;
  float divisor = 127;    // symmetric: scale = absmax / divisor
  float scale_floor = 0;  // kernels need at least the smallest normal number
  bool fixed = false;     // the range is min to max, whatever the token holds
  float min = 0, max = 0;
  bool operator==(const ActivationGrid&) const = default;
};

struct KernelFunctions {
  // Quantizes one token: writes codes in the signed domain (the unsigned code
  // less 2^(bits-1)), scale and zero. Equal to the bit to
  // core/quant/integer_grid.h on every table. The scale is NaN where a value is not finite.
  void (*quantize_token)(const ActivationGrid& grid, const float* x, int64_t n, int8_t* codes, float* scale, int32_t* zero);

  // Sum of n codes.
  int32_t (*sum_codes)(const int8_t* codes, int64_t n);

  // y[t][16 b + r] for row block b and few tokens: integer products accumulated
  // in int32 per group, exactly. ldy: elements between tokens. Rows beyond
  // w.rows are not written. With d_g the int32 sum of (u - zero) * code over
  // group g:
  //   sum = fma(s_g, d_g, sum) for each group in order,
  //   y = x_scale * (sum - x_zero * weight_sum)
  // in fp32, each operation rounded: the same bits on every table. A group has
  // at most kMaxIntegerGroup columns.
  void (*multiply_integers)(const PackedIntegers& w, int64_t block, const QuantizedRows& x, float* y, int64_t ldy);

  // The same for many tokens, in three steps (MultiplyManyTokens calls them).
  // Codes and scales of a row block's panel, as multiply_integer_panel reads them.
  void (*spread_integers)(const PackedIntegers& w, int64_t block, const IntegerPanel& panel, uint8_t* codes, float* scales);
  // Adds the panel's products of `blocks` row blocks from b to work.sums and
  // work.products; panel.first == 0 starts from zero.
  void (*multiply_integer_panel)(const PackedIntegers& w, int64_t block, int64_t blocks, const IntegerPanel& panel,
                                 const QuantizedRows& x, const IntegerWork& work);
  // y of `blocks` row blocks from their sums.
  void (*finish_integers)(const PackedIntegers& w, int64_t block, int64_t blocks, const QuantizedRows& x, const float* sums, float* y,
                          int64_t ldy);

  // y[t][16 b + r] = sum_k w[r][k] x[t][k] for fp32 activations padded like the
  // weight's columns (few tokens: decode).
  void (*multiply_weight_only)(const PackedIntegers& w, int64_t block, const float* x, int64_t ldx, int64_t tokens, float* y,
                               int64_t ldy);

  // Decodes columns [first, first + n) of group g of a row block to a panel
  // [n][16]. `first` is a multiple of kChunkColumns.
  void (*decode_panel)(const PackedIntegers& w, int64_t block, int64_t group, int64_t first, int64_t n, float* panel);

  // Writes `cols` columns of `rows` (1 to 16) rows, ldw elements apart, as a
  // panel [cols][16]; missing rows are 0.
  void (*panel_from_bf16)(const uint16_t* w, int64_t ldw, int64_t rows, int64_t cols, float* panel);
  void (*panel_from_fp16)(const uint16_t* w, int64_t ldw, int64_t rows, int64_t cols, float* panel);
  void (*panel_from_fp32)(const float* w, int64_t ldw, int64_t rows, int64_t cols, float* panel);

  // y[t][r] = sum over k < depth of x[t][k] panel[r / 16][k][r % 16] for a tile
  // of tokens and rows r < rows of consecutive panels, `panel_step` elements
  // apart; added to y where `accumulate`. ldy: elements between tokens. For an
  // odd number of panels one more may be read.
  void (*multiply_panels)(const float* panels, int64_t panel_step, int64_t rows, int64_t depth, const float* tile, int64_t tokens,
                          bool accumulate, float* y, int64_t ldy);

  // bf16 operands, two columns in a float's place: what multiply_panels is for
  // fp32, the products exact and summed in fp32. Null in tables of instruction
  // sets without such a product; fp32 panels of the same values then serve.
  void (*multiply_bf16_panels)(const float* panels, int64_t panel_step, int64_t rows, int64_t pairs, const float* tile, int64_t tokens,
                               bool accumulate, float* y, int64_t ldy) = nullptr;
  // To nearest, ties to even (numbers below 2^-126 may become 0); null with the above.
  void (*round_to_bf16)(const float* x, int64_t n, uint16_t* out) = nullptr;

  // y[r] = dot(w[r], x) for `rows` rows of a row-major float matrix, which need
  // not be aligned. in_order: row after row, as memory has them; else some rows at
  // once while the next are prefetched.
  void (*matvec_bf16)(const uint16_t* w, int64_t rows, int64_t cols, const float* x, bool in_order, float* y);
  void (*matvec_fp16)(const uint16_t* w, int64_t rows, int64_t cols, const float* x, bool in_order, float* y);
  void (*matvec_fp32)(const float* w, int64_t rows, int64_t cols, const float* x, bool in_order, float* y);
  void (*convert_bf16)(const uint16_t* in, int64_t n, float* out);
  void (*convert_fp16)(const uint16_t* in, int64_t n, float* out);

  // Decodes n rows of 16 codes of 4 or 8 bits from a KV cache: out[i][r] =
  // fma(scale, code, low) with scale[r], low[r] where `by_lane`, scale[i],
  // low[i] otherwise. 8-bit: byte[r]; 4-bit: byte[r] = code[r] | code[r + 8] << 4.
  void (*decode_cache)(const uint8_t* codes, int bits, int64_t n, bool by_lane, const float* scale, const float* low, float* out);

  // out = x / sqrt(mean(x^2) + eps) * gain over n values.
  void (*rms_norm)(const float* x, const float* gain, int64_t n, float eps, float* out);
  // out = silu(gate) * up.
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* out);
  // x <- scale * x (signs (x) S) in place, of order * fast values: S is Sylvester's
  // Hadamard matrix of order `fast`, a power of two; signs [order, order] takes x[j]
  // signs[j][i] to place i, and order is 1 or a multiple of 4. scratch: order * fast
  // values, used where order > 1. core/tensor/hadamard.h.
  void (*hadamard)(const float* signs, int64_t order, int64_t fast, float scale, float* x, float* scratch);
  // A step of an online softmax: *max = max(*max, x), x = exp(x - *max) in
  // place; returns the sum of x. n > 0.
  float (*softmax_step)(float* x, int64_t n, float* max);
  // y = a * x + b * y.
  void (*scale_add)(float a, const float* x, float b, int64_t n, float* y);
};

// Decoding prefetches packed codes this far ahead: a hardware prefetcher stops at
// the end of each page, and starts anew. Scales, a slow stream beside that of the
// codes, which it loses, are prefetched by themselves.
inline constexpr int64_t kPrefetchBytes = 4096, kPrefetchScaleBytes = 512;

// Columns in the largest chunk of packed codes (2-bit).
inline constexpr int64_t kChunkColumns = 16;

// Up to this many tokens read packed codes as they are; more are worth
// spreading the codes to bytes (on AVX2: to nibbles, two for an 8-bit code).
inline constexpr int64_t kFewIntegerTokens = 16;
inline constexpr int64_t kSpreadBytes = 2;

// 255 * 128 * 65536 fits in int32.
inline constexpr int64_t kMaxIntegerGroup = 65536;

// What measures the machine with the vectors of one instruction set.
struct ProbeFunctions {
  // Sum of n floats, read as fast as memory gives them.
  float (*sum)(const float* x, int64_t n);
  // Runs `iterations` rounds of independent multiply-adds; returns a number
  // that depends on them. One round is `flops_per_round` operations.
  float (*multiply_adds)(int64_t iterations);
  int64_t flops_per_round;
  // The same for products of unsigned and signed bytes, summed as the int4
  // kernel of the table sums them (16-bit sums on AVX2, dot products into 32
  // bits with VNNI); one round is `byte_ops_per_round` operations.
  int32_t (*multiply_bytes)(int64_t iterations);
  int64_t byte_ops_per_round;
  // The same for bf16 products; null where the table has none.
  float (*multiply_bf16)(int64_t iterations) = nullptr;
  int64_t bf16_flops_per_round = 0;
};

// exp(x) = 2^n * p(r), n = round(x / ln 2), r = x - n ln 2 in two steps,
// p(r) = 1 + r + r^2 (c2 + r (c3 + r (c4 + r (c5 + r c6)))): c2.. interpolate
// (exp(r) - 1 - r) / r^2 at the Chebyshev nodes of |r| <= ln 2 / 2, relative
// error 1.1e-8 before rounding. Below kLowest (2^-126) the result is 0.
struct ExpConstants {
  static constexpr float kLowest = -87.33654f, kHighest = 89.0f;
  static constexpr float kLog2E = 1.44269504f;
  static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  static constexpr float c2 = 0.5f, c3 = 0x1.5554dcp-3f, c4 = 0x1.55551ap-5f, c5 = 0x1.120ba2p-7f, c6 = 0x1.6d113cp-10f;
};

}  // namespace nibble::kernels

#endif  // NIBBLE_CORE_KERNELS_KERNEL_TYPES_H_
