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

// What of a scheme decides a grid, read once for searches that make many.
class GridRule {
 public:
  GridRule(const QuantScheme& scheme, int bits)
      : max_code_(static_cast<float>((1 << bits) - 1)), low_(static_cast<float>(1 << (bits - 1))), asymmetric_(scheme.asymmetric()),
        divides_(scheme.rounding() == QuantScheme::DIVISION), divisor_(scheme.divisor()), type_(scheme.scale_type()),
        floor_(static_cast<float>(scheme.scale_floor())), type_floor_(ScaleTypeFloor(type_)) {}

  // For min <= 0 <= max; the scale may be infinite.
  Grid ForRange(float min, float max) const {
    Grid grid = ForScale(std::max(ScaleFor(min, max), floor_));
    if (asymmetric_) {
      const float steps = grid.inverse != 0 ? min * grid.inverse : min / grid.scale;
      grid.zero = static_cast<int32_t>(std::min(max_code_, std::max(0.0f, -RoundHalfEven(steps))));
    }
    return grid;
  }

  Grid ForScale(float scale) const {
    Grid grid;
    grid.scale = RoundToScaleType(type_, std::max(scale, type_floor_));
    const float inverse = RoundToScaleType(type_, 1.0f / grid.scale);
    grid.inverse = divides_ || !std::isfinite(inverse) ? 0.0f : inverse;
    grid.zero = static_cast<int32_t>(low_);
    return grid;
  }

  // Before it is rounded.
  float ScaleFor(float min, float max) const {
    if (asymmetric_) return (max - min) / max_code_;
    const float absmax = std::max(-min, max);
    switch (divisor_) {
      case QuantScheme::HALF_RANGE: return absmax / (low_ - 0.5f);
      case QuantScheme::MIN_CODE: return absmax / low_;
      case QuantScheme::NO_CLIPPING: return std::max(-min / low_, max / (low_ - 1));
      default: return absmax / (low_ - 1);
    }
  }

 private:
  const float max_code_, low_;
  const bool asymmetric_, divides_;
  const QuantScheme::Divisor divisor_;
  const QuantScheme::ScaleType type_;
  const float floor_, type_floor_;
};

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

// Sum over the group of |decoded - x|^norm.
double CodingError(const Grid& grid, int bits, absl::Span<const float> values, double norm) {
  const int32_t max_code = (1 << bits) - 1;
  PowerSum error(norm);
  for (const float v : values) error.Add(std::fabs(static_cast<double>(DecodeValue(grid, EncodeValue(grid, v, max_code))) - v));
  return error.Total();
}

// log2 d for a normal d > 0, and 2^y for y >= -126, 2^100 from 100 on: Log2 and Exp2 with fewer
// terms, 1e-6 off. They and what uses them have no branch that a compiler cannot turn into
// vectors, for which it needs conditions that do not follow from each other.
inline float RoughLog2(float d) {
  const int32_t bits = absl::bit_cast<int32_t>(d), exponent = (bits - 0x3F3504F3) >> 23;  // 1 / sqrt 2
  const float m = absl::bit_cast<float>(bits - (exponent << 23)), t = (m - 1) / (m + 1), s = t * t;
  return static_cast<float>(exponent) + 2.88539008f * t * (1 + s * (1.0f / 3 + s * (1.0f / 5 + s * (1.0f / 7))));
}

inline float RoughExp2(float y) {
  constexpr float kRounding = 12582912.0f;  // 1.5 x 2^23
  const float bounded = y < 100 ? y : 100.0f, shifted = bounded + kRounding, x = (bounded - (shifted - kRounding)) * 0.69314718f;
  const float series = 1 + x * (1 + x * (1.0f / 2 + x * (1.0f / 6 + x * (1.0f / 24 + x * (1.0f / 120)))));
  return series * absl::bit_cast<float>((absl::bit_cast<uint32_t>(shifted) - 0x4B400000u + 127u) << 23);
}

// The distance of x from its code's value, less what rounding adds to it.
inline float LeastDifference(float scale, float inverse, float low, float high, float x) {
  const float steps = inverse != 0 ? x * inverse : x / scale;
  const float above = steps > low ? steps : low, code = RoundHalfEven(above < high ? above : high);
  const float difference = std::fabs(x - code * scale) - (std::fabs(x) + scale) * (1.0f / (1 << 22));
  return difference > 0 ? difference : 0.0f;
}

// A lower bound of CodingError, some ten-thousandths below it, in a fraction of the time: what a
// search looks at first. `values` are multiples of kLanes, with zeros for what is missing.
NIBBLE_CLONES double LeastCodingError(const Grid& grid, int bits, const float* values, size_t count, float norm) {
  const float scale = grid.scale, inverse = grid.inverse;
  const float low = static_cast<float>(-grid.zero), high = static_cast<float>((1 << bits) - 1 - grid.zero);
  constexpr float kLeastDifference = 1e-30f, kMostDifference = 1e15f;
  double total = 0;
  for (size_t begin = 0; begin < count; begin += 64 * kLanes) {
    float sums[kLanes] = {};
    for (const float* x = values + begin; x < values + std::min(count, begin + 64 * kLanes); x += kLanes) {
      float differences[kLanes];
      if (inverse != 0) {
        for (size_t i = 0; i < kLanes; ++i) differences[i] = LeastDifference(scale, inverse, low, high, x[i]);
      } else {
        for (size_t i = 0; i < kLanes; ++i) differences[i] = LeastDifference(scale, 0, low, high, x[i]);
      }
      if (norm == 2) {
        for (size_t i = 0; i < kLanes; ++i) differences[i] = differences[i] < kMostDifference ? differences[i] : kMostDifference;
        for (size_t i = 0; i < kLanes; ++i) sums[i] += differences[i] * differences[i];
      } else {
        float powers[kLanes];
        for (size_t i = 0; i < kLanes; ++i) powers[i] = norm * RoughLog2(differences[i]);
        for (size_t i = 0; i < kLanes; ++i) powers[i] = powers[i] > -126 ? powers[i] : -126.0f;
        for (size_t i = 0; i < kLanes; ++i) powers[i] = RoughExp2(powers[i]);
        for (size_t i = 0; i < kLanes; ++i) sums[i] += differences[i] < kLeastDifference ? 0.0f : powers[i];
      }
    }
    for (size_t i = 0; i < kLanes / 2; ++i) sums[i] += sums[i + kLanes / 2];
    for (size_t i = 0; i < kLanes / 4; ++i) sums[i] += sums[i + kLanes / 4];
    total += static_cast<double>((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
  return total * (1 - 1e-4 * (1 + static_cast<double>(norm))) - 1e-37 * static_cast<double>(count);
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

// The search of RangeRule::Mse over one group: the first of the clips with the least
// CodingError. Lower bounds leave few clips for which that is computed.
class ClipSearch {
 public:
  // `range`: of the values.
  ClipSearch(const QuantScheme& scheme, int bits, absl::Span<const float> values, const MinMax& range)
      : mse_(scheme.range().mse()), rule_(scheme, bits), bits_(bits), values_(values), padded_(values.begin(), values.end()), range_(range) {
    padded_.resize(RoundUp(values.size(), kLanes));
    // What a grid of the whole range covers: a symmetric one reaches as far on both sides.
    const float reach = std::max(std::fabs(range_.min), std::fabs(range_.max));
    covered_ = scheme.asymmetric() ? range_ : MinMax{-reach, reach};
  }

  Grid Run() {
    const int steps = std::max(1, static_cast<int>(std::lround(mse_.max_shrink() * mse_.grid())));
    int likely = 0;
    for (int i = 0; i < steps; ++i) {
      grids_.push_back(rule_.ForRange(range_.min * Share(i), range_.max * Share(i)));
      bounds_.push_back(LeastCodingError(grids_[i], bits_, padded_.data(), padded_.size(), static_cast<float>(mse_.norm())));
      if (bounds_[i] < bounds_[likely]) likely = i;
      if (i % kStepsBetweenChecks != kStepsBetweenChecks - 1) continue;
      Try(likely);
      const MinMax clipped = {covered_.min * Share(i), covered_.max * Share(i)};
      if (ClippingError(clipped, grids_[i].scale, values_, mse_.norm()) >= error_) break;
    }
    Try(likely);
    for (size_t i = 0; i < grids_.size(); ++i) Try(static_cast<int>(i));
    return best_ < 0 ? Grid() : grids_[best_];  // no error is a number where a value is not
  }

 private:
  static constexpr int kStepsBetweenChecks = 16;

  float Share(int step) const { return 1.0f - static_cast<float>(step) / static_cast<float>(mse_.grid()); }

  void Try(int step) {
    if (step == best_ || bounds_[step] > error_) return;
    const double error = CodingError(grids_[step], bits_, values_, mse_.norm());
    if (!(error < error_ || (error == error_ && step < best_))) return;
    error_ = error;
    best_ = step;
  }

  const RangeRule::Mse& mse_;
  const GridRule rule_;
  const int bits_;
  const absl::Span<const float> values_;
  std::vector<float> padded_;
  const MinMax range_;
  MinMax covered_;
  std::vector<Grid> grids_;     // of each step
  std::vector<double> bounds_;  // below each step's error
  int best_ = -1;
  double error_ = std::numeric_limits<double>::infinity();
};

}  // namespace

absl::StatusOr<Grid> GridForRange(const QuantScheme& scheme, int bits, float min, float max) {
  const GridRule rule(scheme, bits);
  const Grid grid = rule.ForRange(min, max);
  if (std::isfinite(grid.scale)) return grid;
  return absl::OutOfRangeError(absl::StrCat("scale ", rule.ScaleFor(min, max), " does not fit the scale type; use BF16 or FP32 scales"));
}

Grid GridForScale(const QuantScheme& scheme, int bits, float scale) { return GridRule(scheme, bits).ForScale(scale); }

absl::StatusOr<Grid> ChooseGrid(const QuantScheme& scheme, int bits, absl::Span<const float> values) {
  if (scheme.has_fixed()) return GridForRange(scheme, bits, scheme.fixed().min(), scheme.fixed().max());
  if (values.empty()) return GridForRange(scheme, bits, 0, 0);
  const MinMax range =
      scheme.range().has_percentile() ? PercentileRange(values, scheme.range().percentile().share()) : RangeOf(values);
  NIBBLE_ASSIGN_OR_RETURN(const Grid grid, GridForRange(scheme, bits, range.min, range.max));
  // A range that fits its type does so clipped, too.
  return scheme.range().has_mse() ? ClipSearch(scheme, bits, values, range).Run() : grid;
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
    const std::vector<Outlier> outliers = TakeOutliers(threshold, columns, absl::MakeSpan(row));
    float* to = out == nullptr ? nullptr : out + r * cols;
    NIBBLE_RETURN_IF_ERROR(FakeQuantizeRows(scheme, 1, cols, row.data(), to, in_range == nullptr ? nullptr : in_range + r * cols));
    for (const Outlier& outlier : outliers) {
      if (to != nullptr) to[outlier.column] = outlier.value;
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<Outlier> TakeOutliers(float threshold, absl::Span<const uint8_t> columns, absl::Span<float> token) {
  std::vector<Outlier> outliers;
  for (size_t i = 0; i < token.size(); ++i) {
    const bool taken = columns.empty() ? std::fabs(token[i]) >= threshold : columns[i] != 0 && token[i] != 0;
    if (!taken) continue;
    outliers.push_back({static_cast<int64_t>(i), Bf16ToFloat(FloatToBf16(token[i]))});
    token[i] = 0;
  }
  return outliers;
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
