#include "core/train/fake_quantize.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/base/parallel_status.h"
#include "core/base/status.h"
#include "core/quant/integer_grid.h"

namespace nibble::train {
namespace {

constexpr int64_t kRowsOfPiece = 16;

// task(first row, rows) over pieces of rows; one piece where all rows share a
// scale.
template <typename Task>
absl::Status ForRows(Machine machine, const QuantScheme& scheme, int64_t rows, const Task& task) {
  const int64_t piece = scheme.per() == QuantScheme::PER_TENSOR ? std::max<int64_t>(rows, 1) : kRowsOfPiece;
  return ParallelForStatus(&machine.pool, (rows + piece - 1) / piece,
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
    std::vector<float> decoded(rows * width);
    std::vector<uint8_t> in_range(rows * width);
    NIBBLE_RETURN_IF_ERROR(FakeQuantizeRows(scheme, rows, width, x + first * width, decoded.data(), in_range.data()));
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

}  // namespace nibble::train
