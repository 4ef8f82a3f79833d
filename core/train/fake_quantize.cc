#include "core/train/fake_quantize.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/base/divide.h"
#include "core/base/parallel_status.h"
#include "core/base/status.h"
#include "core/quant/format.h"
#include "core/quant/integer_grid.h"

namespace nibble::train {
namespace {

constexpr int64_t kRowsOfPiece = 16;

// task(first row, rows) over pieces of rows; one piece where rows share a scale or
// anything else.
template <typename Task>
absl::Status ForRows(Machine machine, const QuantScheme& scheme, int64_t rows, const Task& task) {
  NIBBLE_ASSIGN_OR_RETURN(const Format* format, FindFormat(scheme.format()));
  const int64_t piece = format->encodes_rows_alone(scheme) ? kRowsOfPiece : std::max<int64_t>(rows, 1);
  return ParallelForStatus(&machine.pool, CeilDiv(rows, piece),
                           [&](int64_t i, int) { return task(i * piece, std::min(piece, rows - i * piece)); });
}

absl::Status CheckFinite(const float* x, int64_t first, int64_t rows, int64_t width) {
  for (int64_t i = 0; i < rows * width; ++i) {
    if (!std::isfinite(x[i])) return absl::InvalidArgumentError(absl::StrCat("activation of token ", first + i / width, " is not finite"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status FakeQuantizeActivations(Machine machine, const QuantScheme& scheme, int64_t tokens, int64_t width, const float* x, float* y) {
  return ForRows(machine, scheme, tokens, [&](int64_t first, int64_t rows) -> absl::Status {
    NIBBLE_RETURN_IF_ERROR(CheckFinite(x + first * width, first, rows, width));
    return FakeQuantizeRows(scheme, rows, width, x + first * width, y + first * width, nullptr);
  });
}

absl::Status StraightThroughActivations(Machine machine, const QuantScheme& scheme, int64_t tokens, int64_t width, const float* x,
                                        const float* dy, float* dx) {
  return ForRows(machine, scheme, tokens, [&](int64_t first, int64_t rows) -> absl::Status {
    std::vector<uint8_t> in_range(rows * width);
    NIBBLE_RETURN_IF_ERROR(FakeQuantizeRows(scheme, rows, width, x + first * width, nullptr, in_range.data()));
    for (int64_t i = 0; i < rows * width; ++i) dx[first * width + i] += in_range[i] != 0 ? dy[first * width + i] : 0.0f;
    return absl::OkStatus();
  });
}

absl::Status FakeQuantizeWeights(Machine machine, const QuantScheme& scheme, int64_t rows, int64_t cols, const float* master,
                                 float* decoded, std::vector<uint8_t>* in_range) {
  in_range->resize(rows * cols);
  std::atomic<bool> all{true};
  NIBBLE_RETURN_IF_ERROR(ForRows(machine, scheme, rows, [&](int64_t first, int64_t count) -> absl::Status {
    const int64_t at = first * cols, n = count * cols;
    NIBBLE_RETURN_IF_ERROR(FakeQuantizeRows(scheme, count, cols, master + at, decoded + at, in_range->data() + at));
    if (std::find(in_range->begin() + at, in_range->begin() + at + n, uint8_t{0}) != in_range->begin() + at + n) all = false;
    return absl::OkStatus();
  }));
  if (all) {
    in_range->clear();
    in_range->shrink_to_fit();
  }
  return absl::OkStatus();
}

void MaskGradients(Machine machine, absl::Span<const uint8_t> in_range, absl::Span<float> gradient) {
  ForPieces(machine.pool, static_cast<int64_t>(in_range.size()), 65536, [&](int64_t first, int64_t last, int) {
    for (int64_t i = first; i < last; ++i) gradient[i] = in_range[i] != 0 ? gradient[i] : 0.0f;
  });
}

bool CanLearnScales(const QuantScheme& scheme) {
  if (scheme.asymmetric() || scheme.per() == QuantScheme::PER_TENSOR) return false;
  const auto format = FindFormat(scheme.format());
  return format.ok() && (*format)->integer_bits().has_value();
}

namespace {

int BitsOf(const QuantScheme& scheme) { return *(*FindFormat(scheme.format()))->integer_bits(); }

}  // namespace

absl::StatusOr<std::vector<float>> FirstScales(const QuantScheme& scheme, int64_t rows, int64_t cols, absl::Span<const float> master) {
  if (!CanLearnScales(scheme)) {
    return absl::InvalidArgumentError(absl::StrCat("scales can be learned for symmetric integers per row or group, not for ", SchemeToString(scheme)));
  }
  std::vector<float> scales;
  const int64_t length = GroupLength(scheme, cols);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; c += length) {
      NIBBLE_ASSIGN_OR_RETURN(const Grid grid, ChooseGrid(scheme, BitsOf(scheme), master.subspan(r * cols + c, std::min(length, cols - c))));
      scales.push_back(grid.scale);
    }
  }
  return scales;
}

namespace {

// task(first element, elements, index of the scale, grid) over the groups of
// rows with given scales.
template <typename Task>
void ForScaledGroups(Machine machine, const QuantScheme& scheme, int64_t rows, int64_t cols, absl::Span<const float> scales, int bits,
                     const Task& task) {
  const int64_t length = GroupLength(scheme, cols), groups = GroupsPerRow(scheme, cols);
  ForPieces(machine.pool, rows, kRowsOfPiece, [&](int64_t first, int64_t last, int) {
    for (int64_t r = first; r < last; ++r) {
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t begin = g * length;
        task(r * cols + begin, std::min(length, cols - begin), r * groups + g, GridForScale(scheme, bits, scales[r * groups + g]));
      }
    }
  });
}

}  // namespace

void FakeQuantizeWithScales(Machine machine, const QuantScheme& scheme, int64_t rows, int64_t cols, const float* master,
                            absl::Span<const float> scales, float* decoded) {
  const int bits = BitsOf(scheme);
  ForScaledGroups(machine, scheme, rows, cols, scales, bits, [&](int64_t at, int64_t n, int64_t, const Grid& grid) {
    for (int64_t i = at; i < at + n; ++i) decoded[i] = DecodeValue(grid, EncodeValue(grid, master[i], (1 << bits) - 1));
  });
}

void LearnedScaleGradients(Machine machine, const QuantScheme& scheme, int64_t rows, int64_t cols, const float* master,
                           absl::Span<const float> scales, float* gradient, absl::Span<float> scale_gradient) {
  const int bits = BitsOf(scheme);
  const int32_t max_code = (1 << bits) - 1;
  ForScaledGroups(machine, scheme, rows, cols, scales, bits, [&](int64_t at, int64_t n, int64_t index, const Grid& grid) {
    double sum = 0;
    for (int64_t i = at; i < at + n; ++i) {
      const int32_t code = UnclampedCode(grid, master[i]);
      const bool inside = code >= 0 && code <= max_code;
      const double q = static_cast<double>(std::clamp(code, 0, max_code) - grid.zero);
      sum += static_cast<double>(gradient[i]) * (inside ? q - static_cast<double>(master[i]) / static_cast<double>(grid.scale) : q);
      if (!inside) gradient[i] = 0;
    }
    const double normalizer = std::sqrt(static_cast<double>(n) * static_cast<double>(max_code - grid.zero));
    scale_gradient[index] += static_cast<float>(sum * static_cast<double>(grid.scale) / normalizer);
  });
}

}  // namespace nibble::train
