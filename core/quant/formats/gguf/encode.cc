#include "core/quant/formats/gguf/encode.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "core/base/check.h"
#include "core/quant/formats/gguf/fit.h"
#include "core/quant/integer_grid.h"
#include "core/tensor/half.h"

namespace nibble::gguf {
namespace {

using Values = std::array<float, kLargestBlock>;

constexpr AffineSearch kWide{-0.9f, 0.05f, 36};

float InHalf(float value) { return Fp16ToFloat(FloatToFp16(value)); }

// 1 / x; 0 where that is no number that values can be multiplied with.
float InverseOrZero(float x) {
  const float inverse = 1 / x;
  return std::isfinite(inverse) ? inverse : 0.0f;
}

float MeanSquare(absl::Span<const float> x) {
  float sum = 0;
  for (const float v : x) sum += v * v;
  return sum / static_cast<float>(x.size());
}

void WeighByImportance(absl::Span<const float> x, absl::Span<const float> importance, float mean_square, float* weights) {
  for (size_t i = 0; i < x.size(); ++i) weights[i] = importance[i] * std::sqrt(mean_square + x[i] * x[i]);
}

void Squares(absl::Span<const float> x, float* weights) {
  for (size_t i = 0; i < x.size(); ++i) weights[i] = x[i] * x[i];
}

// Types of 32 columns with scales from the extremes. Codes come from the scale before
// it is rounded to fp16.

// The value of the largest magnitude gets code 0. q4_0, q5_0.
void EncodeByAbsMax(const BlockType& type, absl::Span<const float> x, BlockParts* parts) {
  const float d = SignedAbsMax(x) / static_cast<float>(-type.zero), inverse = InverseOrZero(d);
  parts->d = InHalf(d);
  for (size_t i = 0; i < x.size(); ++i) {
    const int code = static_cast<int>(x[i] * inverse + (static_cast<float>(type.zero) + 0.5f));
    parts->codes[i] = static_cast<uint8_t>(std::min(code, 2 * type.zero - 1));
  }
}

// The least value gets code 0, the greatest the last. q4_1, q5_1.
void EncodeByRange(const BlockType& type, absl::Span<const float> x, BlockParts* parts) {
  const int max_code = (1 << type.bits) - 1;
  const auto [min, max] = std::minmax_element(x.begin(), x.end());
  const float d = (*max - *min) / static_cast<float>(max_code), inverse = InverseOrZero(d);
  parts->d = InHalf(d);
  parts->m = -InHalf(*min);
  for (size_t i = 0; i < x.size(); ++i) {
    parts->codes[i] = static_cast<uint8_t>(std::min(static_cast<int>((x[i] - *min) * inverse + 0.5f), max_code));
  }
}

// Half-way cases go away from zero.
void EncodeQ8_0(const BlockType& type, absl::Span<const float> x, BlockParts* parts) {
  const float d = std::fabs(SignedAbsMax(x)) / 127.0f, inverse = InverseOrZero(d);
  parts->d = InHalf(d);
  for (size_t i = 0; i < x.size(); ++i) parts->codes[i] = static_cast<uint8_t>(static_cast<int>(std::round(x[i] * inverse)) + type.zero);
}

void EncodeIq4Nl(absl::Span<const float> x, absl::Span<const float> importance, BlockParts* parts) {
  Values weights;
  if (importance.empty()) {
    Squares(x, weights.data());
  } else {
    WeighByImportance(x, importance, 2 * MeanSquare(x), weights.data());
  }
  const float d = FitNonLinear(x, absl::MakeConstSpan(weights.data(), x.size())), inverse = InverseOrZero(d);
  parts->d = InHalf(d);
  for (size_t i = 0; i < x.size(); ++i) parts->codes[i] = NearestNonLinear(x[i] * inverse);
}

// A group that is fitted alone, in every lane.
struct OneGroup {
  OneGroup(absl::Span<const float> values, absl::Span<const float> errors_weights) : groups{static_cast<int64_t>(values.size()), x.data(), weights.data()} {
    for (size_t i = 0; i < values.size(); ++i) {
      x[i] = Lanes{} + values[i];
      weights[i] = Lanes{} + errors_weights[i];
    }
  }
  template <typename Code>
  void PutCodes(int zero, Code* out) const {
    for (int64_t i = 0; i < groups.n; ++i) out[i] = static_cast<Code>(static_cast<int>(codes[i][0]) + zero);
  }

  const Groups groups;
  std::array<Lanes, kLargestGroup> x, weights, codes;
  Lanes scale, min;
};

void EncodeSmallByImportance(const BlockType& type, absl::Span<const float> x, absl::Span<const float> importance, float row_mean_square,
                             BlockParts* parts) {
  Values storage;
  WeighByImportance(x, importance, row_mean_square, storage.data());
  OneGroup fit(x, absl::MakeConstSpan(storage.data(), x.size()));
  if (type.has_mins) {
    FitAffine((1 << type.bits) - 1, fit.groups, kWide, &fit.scale, &fit.min, fit.codes.data());
    parts->m = InHalf(fit.min[0]);
  } else {
    FitSymmetric(type.zero, fit.groups, &fit.scale, fit.codes.data());
  }
  parts->d = InHalf(fit.scale[0]);
  fit.PutCodes(type.zero, parts->codes.data());
}

void EncodeSmall(const BlockType& type, absl::Span<const float> x, absl::Span<const float> importance, float row_mean_square,
                 BlockParts* parts) {
  parts->d = parts->m = 0;
  parts->scales[0] = 1;
  parts->mins[0] = 1;
  if (!type.values.empty()) return EncodeIq4Nl(x, importance, parts);
  if (type.bits == 8) return EncodeQ8_0(type, x, parts);
  if (!importance.empty()) return EncodeSmallByImportance(type, x, importance, row_mean_square, parts);
  if (type.has_mins) return EncodeByRange(type, x, parts);
  EncodeByAbsMax(type, x, parts);
}

// Types of 256 columns.

// What a squared error counts without importance.
enum class Weighing { kMagnitude, kRootAndMagnitude, kSquare };

// How a type is fitted, beside its BlockType.
struct LargeType {
  absl::string_view name;
  int scale_codes;      // with mins 0 .. this, else -this .. this - 1
  Weighing weighing;
  AffineSearch search;  // of sub-blocks with mins, without importance
  bool descends;        // FitSymmetricByDescent without importance
  float block_share;    // with importance: s over the block's mean square; 0: importance itself, and scales not fitted
};

constexpr LargeType kLargeTypes[] = {
    {"q2_k", 15, Weighing::kMagnitude, {-0.5f, 0.1f, 15, true}, false, 1},
    {"q3_k", 32, Weighing::kSquare, {}, true, 2},
    {"q4_k", 63, Weighing::kRootAndMagnitude, {-1.0f, 0.1f, 20}, false, 2},
    {"q5_k", 63, Weighing::kRootAndMagnitude, {-0.5f, 0.1f, 15}, false, 2},
    {"q6_k", 128, Weighing::kSquare, {}, false, 0},
};

const LargeType& LargeTypeOf(const BlockType& type) {
  const auto found = std::find_if(std::begin(kLargeTypes), std::end(kLargeTypes), [&](const LargeType& t) { return t.name == type.name; });
  NIBBLE_CHECK(found != std::end(kLargeTypes));
  return *found;
}

// The errors' weights in a sub-block.
void WeighSubBlock(const LargeType& large, absl::Span<const float> sub, absl::Span<const float> importance, float mean_square, float* weights) {
  if (!importance.empty() && large.block_share == 0) {
    std::copy(importance.begin(), importance.end(), weights);
  } else if (!importance.empty()) {
    WeighByImportance(sub, importance, mean_square, weights);
  } else if (large.weighing == Weighing::kSquare) {
    Squares(sub, weights);
  } else {
    const float root = large.weighing == Weighing::kMagnitude ? 0.0f : std::sqrt(MeanSquare(sub));
    std::transform(sub.begin(), sub.end(), weights, [root](float v) { return root + std::fabs(v); });
  }
}

// Of each sub-block, before they are encoded.
struct SubBlocks {
  std::array<float, kMostSubBlocks> scales{}, mins{}, weights{};  // weights: sums
};

void FitGroups(const BlockType& type, const LargeType& large, bool by_importance, const Groups& groups, Lanes* scales, Lanes* mins) {
  std::array<Lanes, kLargestGroup> codes;
  if (type.has_mins) {
    FitAffine((1 << type.bits) - 1, groups, by_importance ? kWide : large.search, scales, mins, codes.data());
  } else if (!by_importance && large.descends) {
    FitSymmetricByDescent(type.zero, groups, scales, codes.data());
  } else {
    FitSymmetric(type.zero, groups, scales, codes.data());
  }
}

SubBlocks FitSubBlocks(const BlockType& type, const LargeType& large, absl::Span<const float> x, absl::Span<const float> importance) {
  const float mean_square = importance.empty() ? 0.0f : large.block_share * MeanSquare(x);
  SubBlocks fits;
  std::array<float, kLargestGroup> own_weights;
  std::array<Lanes, kLargestGroup> values, weights;
  for (int64_t first = 0; first < type.sub_blocks(); first += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const absl::Span<const float> sub = x.subspan((first + lane) * type.sub, type.sub);
      const absl::Span<const float> own = importance.empty() ? importance : importance.subspan((first + lane) * type.sub, type.sub);
      WeighSubBlock(large, sub, own, mean_square, own_weights.data());
      for (int64_t i = 0; i < type.sub; ++i) {
        fits.weights[first + lane] += own_weights[i];
        values[i][lane] = sub[i];
        weights[i][lane] = own_weights[i];
      }
    }
    Lanes scales{}, mins{};
    FitGroups(type, large, !importance.empty(), {type.sub, values.data(), weights.data()}, &scales, &mins);
    std::memcpy(fits.scales.data() + first, &scales, sizeof(scales));
    std::memcpy(fits.mins.data() + first, &mins, sizeof(mins));
  }
  return fits;
}

// Codes 0 .. max_code of non-negative scales; gives the scale of the codes.
template <typename Code>
float EncodeScales(int max_code, absl::Span<const float> scales, Code* codes) {
  const float max = std::max(0.0f, *std::max_element(scales.begin(), scales.end()));
  const float inverse = max > 0 ? static_cast<float>(max_code) / max : 0.0f;
  for (size_t s = 0; s < scales.size(); ++s) codes[s] = static_cast<Code>(NearestIn(inverse * scales[s], 0, max_code));
  return max / static_cast<float>(max_code);
}

// The same, with the least error by `weights`.
template <typename Code>
float EncodeScalesByWeight(int max_code, absl::Span<const float> scales, absl::Span<const float> weights, Code* codes) {
  OneGroup fit(scales, weights);
  FitPositive(max_code, fit.groups, &fit.scale, fit.codes.data());
  fit.PutCodes(0, codes);
  return fit.scale[0];
}

// Codes -levels .. levels - 1, the largest magnitude at -levels; gives their scale.
float EncodeSignedScales(int levels, absl::Span<const float> scales, int8_t* codes) {
  const float largest = SignedAbsMax(scales);
  if (std::fabs(largest) < kLeastMagnitude) {
    std::fill(codes, codes + scales.size(), 0);
    return 0;
  }
  const float inverse = -static_cast<float>(levels) / largest;
  for (size_t s = 0; s < scales.size(); ++s) codes[s] = static_cast<int8_t>(NearestIn(inverse * scales[s], -levels, levels - 1));
  return 1 / inverse;
}

void EncodeSubScales(const BlockType& type, const LargeType& large, const SubBlocks& fits, bool by_importance, BlockParts* parts) {
  const int64_t count = type.sub_blocks();
  const absl::Span<const float> scales(fits.scales.data(), count), mins(fits.mins.data(), count), weights(fits.weights.data(), count);
  parts->m = 0;
  if (type.has_mins) {
    const auto encode = [&](absl::Span<const float> values, auto* codes) {
      return by_importance ? EncodeScalesByWeight(large.scale_codes, values, weights, codes) : EncodeScales(large.scale_codes, values, codes);
    };
    parts->d = InHalf(encode(scales, parts->scales.data()));
    parts->m = InHalf(encode(mins, parts->mins.data()));
  } else if (by_importance && large.block_share > 0) {
    OneGroup fit(scales, weights);
    FitSymmetric(large.scale_codes, fit.groups, &fit.scale, fit.codes.data());
    parts->d = InHalf(fit.scale[0]);
    fit.PutCodes(0, parts->scales.data());
  } else {
    parts->d = InHalf(EncodeSignedScales(large.scale_codes, scales, parts->scales.data()));
  }
}

// The codes that come nearest to x with the scales as they are stored.
void EncodeCodes(const BlockType& type, absl::Span<const float> x, BlockParts* parts) {
  for (int64_t s = 0; s < type.sub_blocks(); ++s) {
    const float scale = parts->d * static_cast<float>(parts->scales[s]);
    const float offset = type.has_mins ? parts->m * static_cast<float>(parts->mins[s]) : 0.0f;
    NearestCodes(scale, offset, type.zero, (1 << type.bits) - 1, x.subspan(s * type.sub, type.sub), parts->codes.data() + s * type.sub);
  }
}

}  // namespace

void EncodeBlock(const BlockType& type, absl::Span<const float> x, absl::Span<const float> importance, float row_mean_square,
                 BlockParts* parts) {
  if (type.columns < kLargestBlock) return EncodeSmall(type, x, importance, row_mean_square, parts);
  const LargeType& large = LargeTypeOf(type);
  const SubBlocks fits = FitSubBlocks(type, large, x, importance);
  EncodeSubScales(type, large, fits, !importance.empty(), parts);
  EncodeCodes(type, x, parts);
}

}  // namespace nibble::gguf
