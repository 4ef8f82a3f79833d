#include "core/kernels/linear.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/kernels/blas.h"
#include "core/kernels/few_tokens.h"
#include "core/kernels/pack.h"
#include "core/quant/format.h"
#include "core/quant/integer_grid.h"

namespace nibble::kernels {
namespace {

// Rows of a task. Fixed, so that results do not depend on the thread count.
constexpr int64_t kMatvecRows = 32;
constexpr int64_t kTaskBlocks = 2;
constexpr int64_t kGemmRows = 256;  // at most; a small matrix still gives several tasks

// Between decoded rows, so that those of a power of two columns do not share
// cache sets.
constexpr int64_t kRowPadding = 16;

// Activation codes that stay in the second-level cache while a task's blocks
// pass over them.
constexpr int64_t kSlabBytes = 256 << 10;
constexpr int64_t kSlabUnit = 12;  // tokens that a kernel takes at once

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Scratch of the calling thread; kept between calls.
float* ThreadScratch(int64_t floats) {
  thread_local std::vector<float> scratch;
  if (static_cast<int64_t>(scratch.size()) < floats) scratch.resize(floats);
  return scratch.data();
}

// Fp32 rows of a weight matrix, ld elements apart.
struct Rows {
  const float* data;
  int64_t ld;
};

// Writes rows [begin, end) to `scratch`, or says where they already lie.
// `scratch` has room for whole blocks of rows of ScratchLd(cols) elements.
using RowDecoder = std::function<Rows(int64_t begin, int64_t end, float* scratch)>;

int64_t ScratchLd(int64_t cols) { return cols + kRowPadding; }

// Rows of a tile, whole blocks of them: an even number of tiles, four or more,
// so that few threads share the work evenly.
int64_t TileRows(int64_t rows) {
  const int64_t tiles = CeilDiv(std::max<int64_t>(4, CeilDiv(rows, kGemmRows)), 2) * 2;
  return std::max<int64_t>(1, CeilDiv(CeilDiv(rows, tiles), kBlockRows)) * kBlockRows;
}

// y = x W^T by tiles of rows of W, each decoded and multiplied by one thread.
void MultiplyByTiles(const PreparedInput& x, int64_t rows, int64_t cols, const RowDecoder& decode, float* y, int64_t ldy,
                     ThreadPool& pool) {
  const int64_t tile = TileRows(rows);
  pool.ParallelFor(CeilDiv(rows, tile), [&](int64_t i, int) {
    const int64_t begin = i * tile, end = std::min(rows, begin + tile);
    const Rows w = decode(begin, end, ThreadScratch(tile * ScratchLd(cols)));
    Sgemm(false, true, x.tokens(), end - begin, cols, 1.0f, x.floats(), x.stride(), w.data, w.ld, 0.0f, y + begin, ldy);
  });
}

// fp32, bf16 and fp16 weights, borrowed from the tensor.
class FloatLinear : public Linear {
 public:
  FloatLinear(const EncodedTensor& weight, InputForm form, const KernelTable& table)
      : values_(weight.buffer("values")), data_(values_.bytes().data()), table_(table) {
    rows_ = weight.rows();
    cols_ = weight.cols();
    weight_bytes_ = values_.byte_size();
    form_ = std::move(form);
  }

  absl::Status Multiply(const PreparedInput& x, float* y, int64_t ldy, ThreadPool& pool) const override {
    NIBBLE_CHECK(x.form() == form_);
    if (x.tokens() <= kFewTokens) {
      pool.ParallelFor(CeilDiv(rows_, kMatvecRows), [&](int64_t i, int) {
        const int64_t begin = i * kMatvecRows, n = std::min(rows_ - begin, kMatvecRows);
        for (int64_t t = 0; t < x.tokens(); ++t) Matvec(begin, n, x.floats() + t * x.stride(), y + t * ldy + begin);
      });
    } else {
      const auto convert = [this](int64_t begin, int64_t end, float* scratch) { return Convert(begin, end, scratch); };
      MultiplyByTiles(x, rows_, cols_, convert, y, ldy, pool);
    }
    return absl::OkStatus();
  }

 private:
  template <typename T>
  const T* At(int64_t row) const {
    return reinterpret_cast<const T*>(data_) + row * cols_;
  }

  void Matvec(int64_t begin, int64_t n, const float* x, float* y) const {
    switch (values_.dtype()) {
      case DType::kBF16: return table_.matvec_bf16(At<uint16_t>(begin), n, cols_, x, y);
      case DType::kF16: return table_.matvec_fp16(At<uint16_t>(begin), n, cols_, x, y);
      default: return table_.matvec_fp32(At<float>(begin), n, cols_, x, y);
    }
  }

  Rows Convert(int64_t begin, int64_t end, float* scratch) const {
    const int64_t ld = ScratchLd(cols_);
    if (values_.dtype() == DType::kF32 && reinterpret_cast<uintptr_t>(data_) % alignof(float) == 0) {
      return {At<float>(begin), cols_};
    }
    for (int64_t r = begin; r < end; ++r) {
      float* out = scratch + (r - begin) * ld;
      switch (values_.dtype()) {
        case DType::kBF16: table_.convert_bf16(At<uint16_t>(r), cols_, out); break;
        case DType::kF16: table_.convert_fp16(At<uint16_t>(r), cols_, out); break;
        default: std::memcpy(out, At<float>(r), cols_ * sizeof(float));
      }
    }
    return {scratch, ld};
  }

  const Tensor values_;
  const uint8_t* const data_;
  const KernelTable& table_;
};

// Weights that are packed in kernel order.
class PackedLinear : public Linear {
 public:
  PackedLinear(const IntegerView& weight, InputForm form, const KernelTable& table)
      : packed_(PackIntegers(weight)), table_(table) {
    rows_ = weight.rows;
    cols_ = weight.cols;
    weight_bytes_ = packed_.byte_size();
    form_ = std::move(form);
    form_.group = packed_.view.group;
    form_.padded_group = packed_.view.padded_group;
    form_.padded_cols = packed_.view.padded_cols;
  }

 protected:

  // Calls task(first block, end block) for runs of kTaskBlocks blocks.
  template <typename Task>
  void ForBlocks(ThreadPool& pool, const Task& task) const {
    const int64_t blocks = packed_.blocks();
    pool.ParallelFor(CeilDiv(blocks, kTaskBlocks), [&](int64_t i, int) {
      task(i * kTaskBlocks, std::min(blocks, (i + 1) * kTaskBlocks));
    });
  }

  const PackedWeights packed_;
  const KernelTable& table_;
};

// Integer weights, float activations.
class WeightOnlyLinear : public PackedLinear {
 public:
  WeightOnlyLinear(const IntegerView& weight, InputForm form, const KernelTable& table)
      : PackedLinear(weight, std::move(form), table) {
    // Nothing to pad: the input of any other float linear will do.
    if (form_.padded_cols == form_.cols) {
      form_.group = form_.padded_group = form_.padded_cols = 0;
      if (form_.kind == InputForm::Kind::kPaddedFloat) form_.kind = InputForm::Kind::kFloat;
    }
  }

  absl::Status Multiply(const PreparedInput& x, float* y, int64_t ldy, ThreadPool& pool) const override {
    NIBBLE_CHECK(x.form() == form_);
    if (x.tokens() <= kFewTokens) {
      ForBlocks(pool, [&](int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; ++b) {
          table_.multiply_weight_only(packed_.view, b, x.floats(), x.stride(), x.tokens(), y, ldy);
        }
      });
    } else {
      const auto decode = [this](int64_t begin, int64_t end, float* scratch) {
        const int64_t ld = ScratchLd(cols_);
        for (int64_t r = begin; r < end; r += kBlockRows) {
          table_.decode_block(packed_.view, r / kBlockRows, scratch + (r - begin) * ld, ld);
        }
        return Rows{scratch, ld};
      };
      MultiplyByTiles(x, rows_, cols_, decode, y, ldy, pool);
    }
    return absl::OkStatus();
  }
};

// Integer weights and activations.
class IntegerLinear : public PackedLinear {
 public:
  using PackedLinear::PackedLinear;

  absl::Status Multiply(const PreparedInput& x, float* y, int64_t ldy, ThreadPool& pool) const override {
    NIBBLE_CHECK(x.form() == form_);
    const QuantizedRows& all = x.quantized();
    const int64_t slab = std::max<int64_t>(1, kSlabBytes / all.stride / kSlabUnit) * kSlabUnit;
    ForBlocks(pool, [&](int64_t begin, int64_t end) {
      for (int64_t t = 0; t < all.tokens; t += slab) {
        const QuantizedRows part = Slice(all, t, std::min(slab, all.tokens - t));
        for (int64_t b = begin; b < end; ++b) table_.multiply_integers(packed_.view, b, part, y + t * ldy, ldy);
      }
    });
    return absl::OkStatus();
  }

 private:
  QuantizedRows Slice(const QuantizedRows& x, int64_t begin, int64_t tokens) const {
    return {.tokens = tokens,
            .codes = x.codes + begin * x.stride,
            .stride = x.stride,
            .scales = x.scales + begin,
            .zeros = x.zeros + begin,
            .group_sums = x.group_sums + begin * packed_.view.groups};
  }
};

// Any pair of schemes, by decoding.
class SimulatedLinear : public Linear {
 public:
  SimulatedLinear(const EncodedTensor& weight, InputForm form) : weight_(weight) {
    rows_ = weight.rows();
    cols_ = weight.cols();
    weight_bytes_ = weight.byte_size();
    form_ = std::move(form);
    arithmetic_ = Arithmetic::kSimulated;
  }

  absl::Status Multiply(const PreparedInput& x, float* y, int64_t ldy, ThreadPool& pool) const override {
    NIBBLE_CHECK(x.form() == form_);
    const auto decode = [this](int64_t begin, int64_t end, float* scratch) {
      DecodeRows(weight_, begin, end, scratch);
      return Rows{scratch, cols_};
    };
    MultiplyByTiles(x, rows_, cols_, decode, y, ldy, pool);
    return absl::OkStatus();
  }

 private:
  const EncodedTensor weight_;
};

// The kernels' quantizer that gives the scheme's codes, or nullopt when none
// does.
std::optional<ActivationGrid> FastGrid(const QuantScheme& scheme) {
  const auto format = FindFormat(scheme.format());
  if (!format.ok() || !(*format)->integer_bits().has_value()) return std::nullopt;
  if (scheme.per() != QuantScheme::PER_TOKEN || scheme.scale_type() != QuantScheme::FP32) return std::nullopt;
  if (scheme.rounding() != QuantScheme::RECIPROCAL || scheme.range().has_mse() || scheme.range().has_percentile()) {
    return std::nullopt;
  }
  ActivationGrid grid;
  grid.bits = *(*format)->integer_bits();
  if (grid.bits < 2 || grid.bits > 8) return std::nullopt;
  grid.asymmetric = scheme.asymmetric();
  const float low = static_cast<float>(1 << (grid.bits - 1));
  switch (scheme.divisor()) {
    case QuantScheme::MAX_CODE: grid.divisor = low - 1; break;
    case QuantScheme::HALF_RANGE: grid.divisor = low - 0.5f; break;
    case QuantScheme::MIN_CODE: grid.divisor = low; break;
    default: if (!grid.asymmetric) return std::nullopt;
  }
  grid.scale_floor = std::max(static_cast<float>(scheme.scale_floor()), std::numeric_limits<float>::min());
  return grid;
}

// The integer grid of a weight, or nullopt for a format that is none.
std::optional<IntegerView> PackableWeight(const EncodedTensor& weight) {
  const auto view = AsIntegers(weight);
  if (!view.ok() || view->bits < 2 || view->bits > 8) return std::nullopt;
  return *view;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Linear>> Linear::Create(const EncodedTensor& weight,
                                                       const std::optional<QuantScheme>& activation,
                                                       const KernelTable& table) {
  NIBBLE_RETURN_IF_ERROR(CheckEncoded(weight));
  if (weight.rows() < 1 || weight.cols() < 1) {
    return absl::InvalidArgumentError(absl::StrCat("a linear needs rows and columns, got ", ShapeToString(weight.shape)));
  }
  if (activation.has_value()) NIBBLE_RETURN_IF_ERROR(Annotate(ValidateScheme(*activation), "activation"));

  // Rounding activations to a float format is part of their preparation and
  // goes with every kernel for float activations; fp32 rounds nothing.
  const bool quantized = activation.has_value() && activation->format() != "fp32";
  const bool float_activation = !activation.has_value() || IsFloatFormat(*activation);
  InputForm form;
  form.cols = weight.cols();
  if (quantized) {
    form.kind = InputForm::Kind::kFakeQuantized;
    form.scheme = activation->SerializeAsString();
  }
  if (IsFloatFormat(weight.scheme) && float_activation) {
    return std::unique_ptr<Linear>(std::make_unique<FloatLinear>(weight, form, table));
  }
  const std::optional<IntegerView> integers = PackableWeight(weight);
  if (integers.has_value() && float_activation) {
    if (!quantized) form.kind = InputForm::Kind::kPaddedFloat;
    return std::unique_ptr<Linear>(std::make_unique<WeightOnlyLinear>(*integers, form, table));
  }
  const std::optional<ActivationGrid> grid = quantized ? FastGrid(*activation) : std::nullopt;
  if (integers.has_value() && grid.has_value() && integers->group <= kMaxIntegerGroup) {
    form.kind = InputForm::Kind::kQuantized;
    form.grid = *grid;
    return std::unique_ptr<Linear>(std::make_unique<IntegerLinear>(*integers, form, table));
  }
  return std::unique_ptr<Linear>(std::make_unique<SimulatedLinear>(weight, form));
}

}  // namespace nibble::kernels
