#include "core/quant/integer_grid.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "absl/base/casts.h"
#include "absl/strings/str_cat.h"
#include "core/base/clones.h"
#include "core/base/status.h"
#include "core/quant/format.h"
#include "core/quant/scale_type.h"
#include "core/tensor/half.h"

namespace nibble {
namespace {

float SymmetricScale(const QuantScheme& scheme, int bits, float min, float max) {
  const float low = static_cast<float>(1 << (bits - 1));
  const float absmax = std::max(-min, max);
  switch (scheme.divisor()) {
    case QuantScheme::HALF_RANGE: return absmax / (low - 0.5f);
    case QuantScheme::MIN_CODE: return absmax / low;
    case QuantScheme::NO_CLIPPING: return std::max(-min / low, max / (low - 1));
    default: return absmax / (low - 1);
  }
}

struct MinMax {
  float min = 0, max = 0;
};

MinMax RangeOf(absl::Span<const float> values) {
  MinMax range;
  for (const float v : values) {
    range.min = std::min(range.min, v);
    range.max = std::max(range.max, v);
  }
  return range;
}

MinMax PercentileRange(absl::Span<const float> values, double share) {
  std::vector<float> magnitudes(values.size());
  std::transform(values.begin(), values.end(), magnitudes.begin(), [](float v) { return std::fabs(v); });
  const size_t k = static_cast<size_t>(std::ceil(share * static_cast<double>(values.size())));
  const size_t index = std::min(values.size() - 1, k == 0 ? 0 : k - 1);
  std::nth_element(magnitudes.begin(), magnitudes.begin() + index, magnitudes.end());
  const MinMax full = RangeOf(values);
  return {std::max(full.min, -magnitudes[index]), std::min(full.max, magnitudes[index])};
}

// Doubles that are computed side by side, as many at a time as the machine's vectors hold,
// with the same result in each.
constexpr size_t kLanes = 16;
using Doubles = double __attribute__((vector_size(kLanes * sizeof(double))));
using Words = uint64_t __attribute__((vector_size(kLanes * sizeof(double))));

// Adding it leaves an integer's bits at the low end; 1.5 x 2^52 for integers of both signs.
constexpr double kUnsigned = 4503599627370496.0, kSigned = 6755399441055744.0;

// 2 / ln 2 artanh((m - 1) / (m + 1)) for the mantissa m in [1 / sqrt 2, sqrt 2).
inline void Log2(const Doubles& d, Doubles* log) {
  const Words bits = (Words)d;
  const Doubles half = (Doubles)((bits & 0x000FFFFFFFFFFFFF) | 0x3FE0000000000000);  // [0.5, 1)
  const Doubles low = half < 0.70710678118654752 ? Doubles{} + 1 : Doubles{};
  const Doubles m = half + low * half;
  const Doubles exponent = (Doubles)((bits >> 52) | absl::bit_cast<uint64_t>(kUnsigned)) - (kUnsigned + 1022) - low;
  const Doubles t = (m - 1) / (m + 1), s = t * t;
  const Doubles series = t * (1 + s * (1.0 / 3 + s * (1.0 / 5 + s * (1.0 / 7 + s * (1.0 / 9 + s * (1.0 / 11))))));
  *log = exponent + 2.8853900817779268 * series;
}

// 0 below -1000, infinite above 1000.
inline void Exp2(const Doubles& y, Doubles* power) {
  constexpr double kMost = 1000;
  const Doubles above = y > -kMost ? y : Doubles{} - kMost, bounded = above < kMost ? above : Doubles{} + kMost;
  const Doubles shifted = bounded + kSigned, x = (bounded - (shifted - kSigned)) * 0.69314718055994531;
  const Doubles high = 1.0 / 120 + x * (1.0 / 720 + x * (1.0 / 5040 + x * (1.0 / 40320 + x * (1.0 / 362880))));
  const Doubles series = 1 + x * (1 + x * (1.0 / 2 + x * (1.0 / 6 + x * (1.0 / 24 + x * high))));
  const Doubles within = series * (Doubles)(((Words)shifted + 1023) << 52);
  const Doubles finite = y < -kMost ? Doubles{} : within;
  *power = y > kMost ? Doubles{} + std::numeric_limits<double>::infinity() : finite;
}

// Replaces d >= 0 by d^norm to 1e-9, 2^(norm log2 d) by series in a fixed order: the same on
// every machine. Searches of grids take millions of powers, so there is no branch and no
// call in it. No value may be a subnormal double; differences of floats are none.
NIBBLE_CLONES void Raise(double norm, Doubles* d) {
  Doubles log, power;
  Log2(*d, &log);
  Exp2(norm * log, &power);
  *d = *d == 0 ? Doubles{} : power;
}

// A sum of powers, in order.
class PowerSum {
 public:
  explicit PowerSum(double norm) : norm_(norm) {}

  void Add(double value) {
    values_[count_] = value;
    if (++count_ == kLanes) Flush();
  }
  // Of what is added so far, but for the last few.
  double so_far() const { return sum_; }
  double Total() {
    if (count_ > 0) Flush();
    return sum_;
  }

 private:
  void Flush() {
    if (norm_ == 2) values_ *= values_;
    else Raise(norm_, &values_);
    for (size_t i = 0; i < kLanes; ++i) sum_ += values_[i];
    values_ = Doubles{};
    count_ = 0;
  }

  const double norm_;
  Doubles values_ = {};
  size_t count_ = 0;
  double sum_ = 0;
};

// Sum over the group of |decoded - x|^norm; gives up beyond `limit`.
double CodingError(const Grid& grid, int bits, absl::Span<const float> values, double norm, double limit) {
  const int32_t max_code = (1 << bits) - 1;
  PowerSum error(norm);
  for (const float v : values) {
    error.Add(std::fabs(static_cast<double>(DecodeValue(grid, EncodeValue(grid, v, max_code))) - v));
    if (error.so_far() >= limit) return error.so_far();
  }
  return error.Total();
}

// At least what values beyond a range lose on any narrower one: a grid reaches a
// step, and a scale's rounding, beyond its range at most.
double ClippingError(const MinMax& range, float scale, absl::Span<const float> values, double norm) {
  const double high = 1.01 * (static_cast<double>(range.max) + scale), low = 1.01 * (static_cast<double>(range.min) - scale);
  PowerSum error(norm);
  for (const float v : values) {
    if (v > high) error.Add(v - high);
    if (v < low) error.Add(low - v);
  }
  return error.Total();
}

absl::StatusOr<Grid> MseGrid(const QuantScheme& scheme, int bits, absl::Span<const float> values) {
  const RangeRule::Mse& mse = scheme.range().mse();
  const MinMax range = RangeOf(values);
  const int steps = static_cast<int>(std::lround(mse.max_shrink() * mse.grid()));
  // What a grid of the whole range covers: a symmetric one reaches as far on both sides.
  const float reach = std::max(std::fabs(range.min), std::fabs(range.max));
  const MinMax covered = scheme.asymmetric() ? range : MinMax{-reach, reach};
  Grid best;
  double best_error = std::numeric_limits<double>::infinity();
  for (int i = 0; i < std::max(1, steps); ++i) {
    const float p = 1.0f - static_cast<float>(i) / static_cast<float>(mse.grid());
    const MinMax clipped = {range.min * p, range.max * p};
    NIBBLE_ASSIGN_OR_RETURN(const Grid grid, GridForRange(scheme, bits, clipped.min, clipped.max));
    const double error = CodingError(grid, bits, values, mse.norm(), best_error);
    if (error < best_error) {
      best_error = error;
      best = grid;
    }
    if (ClippingError({covered.min * p, covered.max * p}, grid.scale, values, mse.norm()) >= best_error) break;
  }
  return best;
}

// What values are multiplied by; 0 says "divide by the scale".
float InverseOf(const QuantScheme& scheme, float scale) {
  const float inverse = RoundToScaleType(scheme.scale_type(), 1.0f / scale);
  return scheme.rounding() == QuantScheme::DIVISION || !std::isfinite(inverse) ? 0.0f : inverse;
}

}  // namespace

absl::StatusOr<Grid> GridForRange(const QuantScheme& scheme, int bits, float min, float max) {
  const float max_code = static_cast<float>((1 << bits) - 1);
  const float raw = scheme.asymmetric() ? (max - min) / max_code : SymmetricScale(scheme, bits, min, max);
  Grid grid = GridForScale(scheme, bits, std::max(raw, static_cast<float>(scheme.scale_floor())));
  if (!std::isfinite(grid.scale)) {
    return absl::OutOfRangeError(absl::StrCat("scale ", raw, " does not fit the scale type; use BF16 or FP32 scales"));
  }
  if (scheme.asymmetric()) {
    const float steps = grid.inverse != 0 ? min * grid.inverse : min / grid.scale;
    grid.zero = static_cast<int32_t>(std::min(max_code, std::max(0.0f, -RoundHalfEven(steps))));
  }
  return grid;
}

Grid GridForScale(const QuantScheme& scheme, int bits, float scale) {
  Grid grid;
  grid.scale = RoundToScaleType(scheme.scale_type(), std::max(scale, ScaleTypeFloor(scheme.scale_type())));
  grid.inverse = InverseOf(scheme, grid.scale);
  grid.zero = 1 << (bits - 1);
  return grid;
}

absl::StatusOr<Grid> ChooseGrid(const QuantScheme& scheme, int bits, absl::Span<const float> values) {
  if (scheme.has_fixed()) return GridForRange(scheme, bits, scheme.fixed().min(), scheme.fixed().max());
  if (values.empty()) return GridForRange(scheme, bits, 0, 0);
  if (scheme.range().has_mse()) return MseGrid(scheme, bits, values);
  const MinMax range =
      scheme.range().has_percentile() ? PercentileRange(values, scheme.range().percentile().share()) : RangeOf(values);
  return GridForRange(scheme, bits, range.min, range.max);
}

namespace {

// Zero, or NaN where a value is not finite.
float NanOfBadValues(absl::Span<const float> values) {
  float bad = 0;
  for (const float v : values) bad += v * 0.0f;
  return bad;
}

void FakeQuantizeGroup(Grid grid, int32_t max_code, int64_t n, const float* in, float* out, uint8_t* in_range) {
  if (in_range != nullptr) {
    for (int64_t i = 0; i < n; ++i) {
      const int32_t code = UnclampedCode(grid, in[i]);
      in_range[i] = code >= 0 && code <= max_code;
    }
  }
  if (out == nullptr) return;
  grid.scale += NanOfBadValues(absl::MakeConstSpan(in, n));
  for (int64_t i = 0; i < n; ++i) out[i] = DecodeValue(grid, EncodeValue(grid, in[i], max_code));
}

template <typename IsTaken>
std::vector<Outlier> TakeWhere(absl::Span<float> token, IsTaken is_taken) {
  std::vector<Outlier> outliers;
  for (size_t i = 0; i < token.size(); ++i) {
    if (!is_taken(i)) continue;
    outliers.push_back({static_cast<int64_t>(i), Bf16ToFloat(FloatToBf16(token[i]))});
    token[i] = 0;
  }
  return outliers;
}

// FakeQuantizeRows for a scheme with an outlier threshold: outliers pass beside the grid.
absl::Status FakeQuantizeBesideOutliers(QuantScheme scheme, int64_t rows, int64_t cols, const float* in, float* out, uint8_t* in_range) {
  const float threshold = scheme.outlier_threshold();
  const bool whole_columns = scheme.outlier_columns();
  scheme.clear_outlier_threshold();
  scheme.clear_outlier_columns();
  std::vector<uint8_t> columns(whole_columns ? cols : 0);
  for (int64_t r = 0; whole_columns && r < rows; ++r) MarkColumns(threshold, absl::MakeConstSpan(in + r * cols, cols), absl::MakeSpan(columns));
  std::vector<float> row(cols);
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(in + r * cols, cols, row.begin());
    const std::vector<Outlier> outliers = whole_columns ? TakeColumns(columns, absl::MakeSpan(row)) : TakeOutliers(threshold, absl::MakeSpan(row));
    float* to = out == nullptr ? nullptr : out + r * cols;
    NIBBLE_RETURN_IF_ERROR(FakeQuantizeRows(scheme, 1, cols, row.data(), to, in_range == nullptr ? nullptr : in_range + r * cols));
    for (const Outlier& outlier : outliers) {
      if (to != nullptr) to[outlier.column] = outlier.value;
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<Outlier> TakeOutliers(float threshold, absl::Span<float> token) {
  return TakeWhere(token, [&](size_t i) { return std::fabs(token[i]) >= threshold; });
}

std::vector<Outlier> TakeColumns(absl::Span<const uint8_t> columns, absl::Span<float> token) {
  return TakeWhere(token, [&](size_t i) { return columns[i] != 0 && token[i] != 0; });
}

void MarkColumns(float threshold, absl::Span<const float> token, absl::Span<uint8_t> columns) {
  for (size_t i = 0; i < token.size(); ++i) columns[i] |= std::fabs(token[i]) >= threshold ? 1 : 0;
}

absl::Status FakeQuantizeRows(const QuantScheme& scheme, int64_t rows, int64_t cols, const float* in, float* out, uint8_t* in_range) {
  NIBBLE_ASSIGN_OR_RETURN(const Format* format, FindFormat(scheme.format()));
  const std::optional<int> bits = format->integer_bits();
  if (!bits.has_value()) {
    if (in_range != nullptr) std::fill_n(in_range, rows * cols, uint8_t{1});
    if (out == nullptr) return absl::OkStatus();
    NIBBLE_RETURN_IF_ERROR(CheckRowLength(*format, {rows, cols}));
    QuantScheme by_row = scheme;
    if (scheme.per() == QuantScheme::PER_TOKEN) by_row.set_per(QuantScheme::PER_ROW);
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor encoded, format->Encode(by_row, {rows, cols}, absl::MakeConstSpan(in, rows * cols), nullptr));
    format->DecodeRows(encoded, 0, rows, out);
    return absl::OkStatus();
  }
  if (scheme.outlier_threshold() > 0) return FakeQuantizeBesideOutliers(scheme, rows, cols, in, out, in_range);
  const bool whole = scheme.per() == QuantScheme::PER_TENSOR;
  const int64_t row = whole ? rows * cols : cols, length = whole ? row : GroupLength(scheme, cols);
  for (int64_t begin = 0; begin < rows * cols; begin += row) {
    for (int64_t c = 0; c < row; c += length) {
      const int64_t n = std::min(length, row - c), at = begin + c;
      NIBBLE_ASSIGN_OR_RETURN(const Grid grid, ChooseGrid(scheme, *bits, absl::MakeConstSpan(in + at, n)));
      FakeQuantizeGroup(grid, (1 << *bits) - 1, n, in + at, out == nullptr ? nullptr : out + at, in_range == nullptr ? nullptr : in_range + at);
    }
  }
  return absl::OkStatus();
}

absl::Status FakeQuantizeRows(const QuantScheme& scheme, int64_t rows, int64_t cols, float* values) {
  return FakeQuantizeRows(scheme, rows, cols, values, values, nullptr);
}

int64_t GroupLength(const QuantScheme& scheme, int64_t cols) {
  if (scheme.per() != QuantScheme::PER_GROUP) return std::max<int64_t>(cols, 1);
  return std::max<int64_t>(1, std::min<int64_t>(scheme.group_size(), cols));
}

CodeView ViewOfCodes(const EncodedTensor& tensor, int bits) {
  CodeView view;
  view.bits = bits;
  view.rows = tensor.rows();
  view.cols = tensor.cols();
  view.group = GroupLength(tensor.scheme, view.cols);
  view.groups = GroupsPerRow(tensor.scheme, view.cols);
  view.codes = tensor.buffer("codes");
  view.scales = tensor.buffer("scales");
  return view;
}

absl::StatusOr<CodeView> AsIntegers(const EncodedTensor& tensor) {
  NIBBLE_ASSIGN_OR_RETURN(const Format* format, FindFormat(tensor.scheme.format()));
  if (!format->integer_bits().has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(tensor.scheme.format(), " is not an integer grid"));
  }
  return *format->Codes(tensor);
}

}  // namespace nibble
