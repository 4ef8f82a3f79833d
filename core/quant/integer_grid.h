// The arithmetic of integer grids, in one place: range rules, scale and zero
// point, rounding, packing. The integer formats, activation quantizers and
// learned methods all call these, so that they agree to the bit.
//
// Codes are stored unsigned, u in [0, 2^bits - 1]; x = scale * (u - zero).
// A symmetric grid has zero = 2^(bits-1), so u - zero is the signed code
// q in [-2^(bits-1), 2^(bits-1) - 1] of the literature.
#ifndef NIBBLE_CORE_QUANT_INTEGER_GRID_H_
#define NIBBLE_CORE_QUANT_INTEGER_GRID_H_

#include <cmath>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/divide.h"
#include "core/quant/code_view.h"
#include "core/quant/encoded.h"

namespace nibble {

// Rounds to the nearest integer, ties to even. |x| must be below 2^22; adding
// 1.5 * 2^23 leaves no room for a fraction.
inline float RoundHalfEven(float x) {
  const float magic = 12582912.0f;
  return (x + magic) - magic;
}

struct Grid {
  float scale = 1;
  float inverse = 1;  // the reciprocal rounded to the scale's type; 0 says "divide by scale"
  int32_t zero = 0;   // in the unsigned domain
};

// round(x * inverse) + zero, within +-2^21 of the zero point; NaN is the lower bound.
inline int32_t UnclampedCode(const Grid& grid, float x) {
  float v = grid.inverse != 0 ? x * grid.inverse : x / grid.scale;
  v = v > -2097152.0f ? (v < 2097152.0f ? v : 2097152.0f) : -2097152.0f;
  return static_cast<int32_t>(RoundHalfEven(v)) + grid.zero;
}

// The code of x: clamp(round(x * inverse) + zero, 0, max_code).
inline int32_t EncodeValue(const Grid& grid, float x, int32_t max_code) {
  const int32_t code = UnclampedCode(grid, x);
  return code < 0 ? 0 : (code > max_code ? max_code : code);
}

inline float DecodeValue(const Grid& grid, int32_t code) { return grid.scale * static_cast<float>(code - grid.zero); }

// The grid for the elements of one group by the scheme's range rule. An error
// when the scale overflows its stored type.
absl::StatusOr<Grid> ChooseGrid(const QuantScheme& scheme, int bits, absl::Span<const float> values);

// The grid for a range that is already known (calibrated activations, clip
// searches): min <= 0 <= max.
absl::StatusOr<Grid> GridForRange(const QuantScheme& scheme, int bits, float min, float max);

// The grid of a symmetric scheme with a given scale, rounded to its type.
Grid GridForScale(const QuantScheme& scheme, int bits, float scale);

// An outlier of a token (QuantScheme.outlier_threshold), rounded to bf16.
struct Outlier {
  int64_t column;
  float value;
};

// Replaces by 0, and returns by column, the values of a token that are at least `threshold`
// in magnitude; where `columns` are given (outlier_columns), what is not 0 in those marked.
std::vector<Outlier> TakeOutliers(float threshold, absl::Span<const uint8_t> columns, absl::Span<float> token);

// columns[c] = 1 for each column in which a token is at least `threshold` in magnitude.
void MarkColumns(float threshold, absl::Span<const float> token, absl::Span<uint8_t> columns);

// Replaces each row of `values` [rows, cols] by its decoded encoding under an
// integer or float scheme; rows of PER_TENSOR share one grid. Values that share a grid
// with one that is not finite become NaN.
absl::Status FakeQuantizeRows(const QuantScheme& scheme, int64_t rows, int64_t cols, float* values);

// The same from `in` to `out`, and where a gradient passes straight through:
// in_range[i] is 1 where the code was inside the grid before it was cut off,
// 0 elsewhere; always 1 for formats that are no integer grid. Either result
// may be null; `in` and `out` may be the same.
absl::Status FakeQuantizeRows(const QuantScheme& scheme, int64_t rows, int64_t cols, const float* in, float* out, uint8_t* in_range);

// Number of groups in a row and the length of a group under the scheme.
int64_t GroupLength(const QuantScheme& scheme, int64_t cols);
inline int64_t GroupsPerRow(const QuantScheme& scheme, int64_t cols) {
  const int64_t length = GroupLength(scheme, cols);
  return length == 0 ? 0 : CeilDiv(cols, length);
}

// The view of a tensor that has buffers "codes", of `bits` bits, and "scales", with
// neither zeros nor values.
CodeView ViewOfCodes(const EncodedTensor& tensor, int bits);

// The codes of a tensor whose format has integer_bits().
absl::StatusOr<CodeView> AsIntegers(const EncodedTensor& tensor);

}  // namespace nibble

#endif  // NIBBLE_CORE_QUANT_INTEGER_GRID_H_
