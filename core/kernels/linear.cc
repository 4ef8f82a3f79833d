#include "core/kernels/linear.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <new>

#include "core/base/check.h"
#include "core/base/divide.h"
#include "core/base/status.h"
#include "core/kernels/few_tokens.h"
#include "core/kernels/integer_product.h"
#include "core/kernels/pack.h"
#include "core/quant/format.h"
#include "core/quant/integer_grid.h"

namespace nibble::kernels {
namespace {

// Rows of a task. Fixed, so that results do not depend on the thread count.
constexpr int64_t kMatvecRows = 32;
constexpr int64_t kFewBlocks = 2;

// Reading row after row reads x as often: it should fit in half of a first-level cache.
constexpr int64_t kInOrderCols = 4096;

constexpr int64_t kPanelRows = 256;  // at most; a small matrix still gives several tasks

// Scratch of the calling thread, aligned to 64 bytes; kept between calls.
void* ThreadScratch(int64_t bytes) {
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  thread_local std::unique_ptr<void, Free> scratch;
  thread_local int64_t size = 0;
  if (size < bytes) {
    size = RoundUp(bytes, 4096);
    scratch.reset(std::aligned_alloc(64, size));
    if (scratch == nullptr) throw std::bad_alloc();  // as operator new does
  }
  return scratch.get();
}

// Columns [begin, end) of a weight matrix that make one panel of each block.
struct ColumnRange {
  int64_t begin, end;
};

// Fills a range's panel of the block that starts at `row`.
using PanelFiller = std::function<void(int64_t row, size_t range, float* panel)>;

// Rows of a task, whole blocks of them: an even number of tasks, four or more,
// so that few threads share the work evenly.
int64_t TaskRows(int64_t rows, int64_t most) {
  const int64_t tasks = RoundUp(std::max<int64_t>(4, CeilDiv(rows, most)), 2);
  return std::max<int64_t>(1, CeilDiv(CeilDiv(rows, tasks), kBlockRows)) * kBlockRows;
}

// Activations for products with panels: rows of fp32, or tiles with two bf16
// columns in a float's place.
struct PanelInput {
  const float* rows;
  const float* tiles;
  int64_t stride, tokens;
  decltype(KernelFunctions::multiply_panels) multiply;
};

PanelInput FloatsOf(const PreparedInput& x, const KernelTable& table) {
  return {x.floats(), nullptr, x.stride(), x.tokens(), table.multiply_panels};
}

PanelInput PairsOf(const PreparedInput& x, const KernelTable& table) {
  return {nullptr, x.bf16_tiles(), 0, x.tokens(), table.multiply_bf16_panels};
}

// The tile of tokens from t and a range of columns, copied to `room` where x is
// rows.
const float* TileOf(const PanelInput& x, int64_t t, const std::vector<ColumnRange>& ranges, size_t range, float* room) {
  if (x.tiles != nullptr) return x.tiles + (t / kTileTokens * ranges.size() + range) * kTileFloats;
  const ColumnRange& columns = ranges[range];
  for (int64_t j = 0; j < std::min(kTileTokens, x.tokens - t); ++j) {
    std::memcpy(room + j * kTileStride, x.rows + (t + j) * x.stride + columns.begin, (columns.end - columns.begin) * sizeof(float));
  }
  return room;
}

// Where products of float activations go: over what `y` holds, or added to it.
struct Output {
  float* y;
  int64_t ldy;  // elements between tokens
  bool add = false;
};

// y = x W^T for rows [begin, end): panel by panel along the columns, tile by
// tile along the tokens.
void MultiplyRows(const PanelInput& x, int64_t begin, int64_t end, const std::vector<ColumnRange>& ranges, const PanelFiller& fill,
                  const Output& out) {
  // A kernel may read one panel beyond an odd number of them.
  const int64_t panels = RoundUp(CeilDiv(end - begin, kBlockRows), 2);
  float* room = static_cast<float*>(ThreadScratch((panels * kPanelFloats + kTileFloats) * sizeof(float)));
  float* panel = room + kTileFloats;
  for (size_t i = 0; i < ranges.size(); ++i) {
    const ColumnRange& columns = ranges[i];
    const int64_t depth = columns.end - columns.begin;
    for (int64_t row = begin; row < end; row += kBlockRows) fill(row, i, panel + (row - begin) / kBlockRows * kPanelFloats);
    for (int64_t t = 0; t < x.tokens; t += kTileTokens) {
      const float* tile = TileOf(x, t, ranges, i, room);
      x.multiply(panel, kPanelFloats, end - begin, depth, tile, std::min(kTileTokens, x.tokens - t), out.add || columns.begin > 0,
                 out.y + t * out.ldy + begin, out.ldy);
    }
  }
}

// y = x W^T for many tokens and float operands.
void MultiplyByPanels(const PanelInput& x, int64_t rows, const std::vector<ColumnRange>& ranges, const PanelFiller& fill,
                      const Output& out, ThreadPool& pool) {
  const int64_t task = TaskRows(rows, kPanelRows);
  pool.ParallelFor(CeilDiv(rows, task), [&](int64_t i, int) {
    MultiplyRows(x, i * task, std::min(rows, (i + 1) * task), ranges, fill, out);
  });
}

// Whole panels of a matrix whose columns need no grouping.
std::vector<ColumnRange> PlainRanges(int64_t cols) {
  std::vector<ColumnRange> ranges;
  for (int64_t k = 0; k < cols; k += kPanelDepth) ranges.push_back({k, std::min(cols, k + kPanelDepth)});
  return ranges;
}

// A part of a group, which decode_panel decodes at once.
struct GroupPart {
  int64_t group, first, count;
};

// Panels of a grouped matrix, each of parts that begin at a chunk of codes.
struct GroupedRanges {
  GroupedRanges(int64_t cols, int64_t group_size) {
    for (int64_t begin = 0; begin < cols; begin += group_size) {
      const int64_t length = std::min(group_size, cols - begin);
      for (int64_t first = 0; first < length;) {
        int64_t room = ranges.empty() ? 0 : kPanelDepth - (ranges.back().end - ranges.back().begin);
        if (room < length - first) room = room / kChunkColumns * kChunkColumns;
        if (room == 0) {
          ranges.push_back({begin + first, begin + first});
          parts.emplace_back();
          continue;
        }
        const int64_t count = std::min(room, length - first);
        parts.back().push_back({begin / group_size, first, count});
        ranges.back().end += count;
        first += count;
      }
    }
  }

  std::vector<ColumnRange> ranges;
  std::vector<std::vector<GroupPart>> parts;  // of each range
};

// Calls multiply(y, ldy) for rows [begin, end) of few tokens, y the place of row
// `begin` or, where products are added, a scratch that is added afterwards.
template <typename MultiplyRows>
void MultiplyFew(int64_t begin, int64_t end, int64_t tokens, const Output& out, const MultiplyRows& multiply) {
  float* y = out.y + begin;
  if (!out.add) return multiply(y, out.ldy);
  const int64_t n = end - begin;
  float* part = static_cast<float*>(ThreadScratch(tokens * n * sizeof(float)));
  multiply(part, n);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < n; ++r) y[t * out.ldy + r] += part[t * n + r];
  }
}

// Weights for float activations, whose products can also be added to others.
class FloatInputLinear : public Linear {
 public:
  absl::Status Multiply(const PreparedInput& x, float* y, int64_t ldy, ThreadPool& pool) const override {
    MultiplyTo(x, {y, ldy}, pool);
    return absl::OkStatus();
  }

  virtual void MultiplyTo(const PreparedInput& x, const Output& out, ThreadPool& pool) const = 0;
};

// fp32, bf16 and fp16 weights, borrowed from the tensor.
class FloatLinear : public FloatInputLinear {
 public:
  FloatLinear(const EncodedTensor& weight, InputForm form, const KernelTable& table)
      : values_(weight.buffer("values")), data_(values_.bytes().data()), table_(table) {
    rows_ = weight.rows();
    cols_ = weight.cols();
    weight_bytes_ = values_.byte_size();
    form_ = std::move(form);
    pairs_ = form_.kind == InputForm::Kind::kBf16;
    in_order_ = table.reads_in_order && cols_ <= kInOrderCols;
    ranges_ = PlainRanges(pairs_ ? cols_ / 2 : cols_);
  }

  void MultiplyTo(const PreparedInput& x, const Output& out, ThreadPool& pool) const override {
    NIBBLE_CHECK(x.form() == form_);
    if (x.tokens() <= kFewTokens) {
      pool.ParallelFor(CeilDiv(rows_, kMatvecRows), [&](int64_t i, int) {
        const int64_t begin = i * kMatvecRows, n = std::min(rows_ - begin, kMatvecRows);
        MultiplyFew(begin, begin + n, x.tokens(), out, [&](float* y, int64_t ldy) {
          for (int64_t t = 0; t < x.tokens(); ++t) Matvec(begin, n, x.floats() + t * x.stride(), y + t * ldy);
        });
      });
    } else {
      const auto fill = [this](int64_t row, size_t range, float* panel) { FillPanel(row, range, panel); };
      MultiplyByPanels(pairs_ ? PairsOf(x, table_) : FloatsOf(x, table_), rows_, ranges_, fill, out, pool);
    }
  }

 private:
  template <typename T>
  const T* At(int64_t row, int64_t col = 0) const {
    return reinterpret_cast<const T*>(data_) + row * cols_ + col;
  }

  void Matvec(int64_t begin, int64_t n, const float* x, float* y) const {
    switch (values_.dtype()) {
      case DType::kBF16: return table_.matvec_bf16(At<uint16_t>(begin), n, cols_, x, in_order_, y);
      case DType::kF16: return table_.matvec_fp16(At<uint16_t>(begin), n, cols_, x, in_order_, y);
      default: return table_.matvec_fp32(At<float>(begin), n, cols_, x, in_order_, y);
    }
  }

  void FillPanel(int64_t row, size_t range, float* panel) const {
    const int64_t n = std::min(rows_ - row, kBlockRows), k = ranges_[range].begin, depth = ranges_[range].end - k;
    if (pairs_) return table_.panel_from_fp32(reinterpret_cast<const float*>(At<uint16_t>(row, 2 * k)), cols_ / 2, n, depth, panel);
    switch (values_.dtype()) {
      case DType::kBF16: return table_.panel_from_bf16(At<uint16_t>(row, k), cols_, n, depth, panel);
      case DType::kF16: return table_.panel_from_fp16(At<uint16_t>(row, k), cols_, n, depth, panel);
      default: return table_.panel_from_fp32(At<float>(row, k), cols_, n, depth, panel);
    }
  }

  const Tensor values_;
  const uint8_t* const data_;
  const KernelTable& table_;
  bool pairs_ = false;  // bf16 times bf16, two columns at a time
  bool in_order_ = false;
  std::vector<ColumnRange> ranges_;
};

// Weights that are packed in kernel order.
template <typename Base>
class PackedLinear : public Base {
 public:
  PackedLinear(const CodeView& weight, InputForm form, const KernelTable& table)
      : packed_(PackCodes(weight)), table_(table) {
    this->rows_ = weight.rows;
    this->cols_ = weight.cols;
    this->weight_bytes_ = packed_.byte_size();
    InputForm& form_ = this->form_;
    form_ = std::move(form);
    form_.group = packed_.view.group;
    form_.padded_group = packed_.view.padded_group;
    form_.padded_cols = packed_.view.padded_cols;
  }

 protected:
  // Calls task(first block, number of blocks) for runs of `most` blocks.
  template <typename Task>
  void ForBlocks(ThreadPool& pool, int64_t most, const Task& task) const {
    const int64_t blocks = packed_.blocks();
    pool.ParallelFor(CeilDiv(blocks, most), [&](int64_t i, int) { task(i * most, std::min(most, blocks - i * most)); });
  }

  const PackedWeights packed_;
  const KernelTable& table_;
};

// Weights in codes, float activations.
class WeightOnlyLinear : public PackedLinear<FloatInputLinear> {
 public:
  WeightOnlyLinear(const CodeView& weight, InputForm form, const KernelTable& table)
      : PackedLinear(weight, std::move(form), table), panels_(cols_, packed_.view.group) {
    // Nothing to pad: the input of any other float linear will do.
    if (form_.padded_cols == form_.cols) {
      form_.group = form_.padded_group = form_.padded_cols = 0;
      if (form_.kind == InputForm::Kind::kPaddedFloat) form_.kind = InputForm::Kind::kFloat;
    }
  }

  void MultiplyTo(const PreparedInput& x, const Output& out, ThreadPool& pool) const override {
    NIBBLE_CHECK(x.form() == form_);
    if (x.tokens() <= kFewTokens) {
      ForBlocks(pool, kFewBlocks, [&](int64_t begin, int64_t blocks) {
        const PackedIntegers part = BlocksFrom(packed_.view, begin);
        const int64_t first = begin * kBlockRows, end = std::min(rows_, first + blocks * kBlockRows);
        MultiplyFew(first, end, x.tokens(), out, [&](float* y, int64_t ldy) {
          for (int64_t b = 0; b < blocks; ++b) table_.multiply_weight_only(part, b, x.floats(), x.stride(), x.tokens(), y, ldy);
        });
      });
    } else {
      const auto fill = [this](int64_t row, size_t range, float* panel) { FillPanel(row, range, panel); };
      MultiplyByPanels(FloatsOf(x, table_), rows_, panels_.ranges, fill, out, pool);
    }
  }

 private:
  void FillPanel(int64_t row, size_t range, float* panel) const {
    for (const GroupPart& part : panels_.parts[range]) {
      table_.decode_panel(packed_.view, row / kBlockRows, part.group, part.first, part.count, panel);
      panel += part.count * kBlockRows;
    }
  }

  const GroupedRanges panels_;
};

// Integer weights and activations.
class IntegerLinear : public PackedLinear<Linear> {
 public:
  IntegerLinear(const CodeView& weight, InputForm form, const KernelTable& table) : PackedLinear(weight, std::move(form), table) {
    form_.term_factor = packed_.view.zeros == nullptr ? -packed_.view.zero : 1;
    panels_ = IntegerPanels(packed_.view);
  }

  absl::Status Multiply(const PreparedInput& x, float* y, int64_t ldy, ThreadPool& pool) const override {
    NIBBLE_CHECK(x.form() == form_);
    if (x.tokens() <= kFewIntegerTokens) {
      ForBlocks(pool, kFewBlocks, [&](int64_t begin, int64_t blocks) {
        for (int64_t b = begin; b < begin + blocks; ++b) table_.multiply_integers(packed_.view, b, x.quantized(), y, ldy);
        AddOutliers(begin, blocks, x.outliers(), y, ldy);
      });
    } else {
      ForBlocks(pool, TaskRows(rows_, kSumStride) / kBlockRows, [&](int64_t begin, int64_t blocks) {
        void* scratch = ThreadScratch(IntegerScratchBytes(panels_, x.tokens()));
        MultiplyManyTokens(table_, packed_.view, panels_, begin, blocks, x.quantized(), scratch, y, ldy);
        AddOutliers(begin, blocks, x.outliers(), y, ldy);
      });
    }
    return absl::OkStatus();
  }

 private:
  // y += the weights of each outlier's column times it; a column is decoded once for
  // all tokens.
  void AddOutliers(int64_t begin, int64_t blocks, const std::vector<InputOutlier>& outliers, float* y, int64_t ldy) const {
    float panel[kChunkColumns * kBlockRows];
    for (int64_t b = begin; b < begin + blocks; ++b) {
      const int64_t first = b * kBlockRows, rows = std::min(kBlockRows, rows_ - first);
      for (size_t i = 0; i < outliers.size(); ++i) {
        const InputOutlier& outlier = outliers[i];
        const int64_t in_group = outlier.column % packed_.view.group, in_chunk = in_group % kChunkColumns;
        if (i == 0 || outliers[i - 1].column != outlier.column) {
          table_.decode_panel(packed_.view, b, outlier.column / packed_.view.group, in_group - in_chunk, in_chunk + 1, panel);
        }
        const float* const column = panel + in_chunk * kBlockRows;
        float* const out = y + outlier.token * ldy + first;
        for (int64_t r = 0; r < rows; ++r) out[r] += outlier.value * column[r];
      }
    }
  }

  std::vector<IntegerPanel> panels_;
};

// Weights whose groups have offsets: y = (scale * value) x + offset (sums of x over
// groups).
class OffsetLinear : public Linear {
 public:
  OffsetLinear(std::unique_ptr<Linear> scaled, std::unique_ptr<FloatInputLinear> offsets)
      : scaled_(std::move(scaled)), offsets_(std::move(offsets)) {
    rows_ = scaled_->rows();
    cols_ = scaled_->cols();
    weight_bytes_ = scaled_->weight_bytes() + offsets_->weight_bytes();
    form_ = scaled_->input_form();
  }

  absl::Status Multiply(const PreparedInput& x, float* y, int64_t ldy, ThreadPool& pool) const override {
    NIBBLE_RETURN_IF_ERROR(scaled_->Multiply(x, y, ldy, pool));
    offsets_->MultiplyTo(x.sums(), {.y = y, .ldy = ldy, .add = true}, pool);
    return absl::OkStatus();
  }

 private:
  const std::unique_ptr<Linear> scaled_;
  const std::unique_ptr<FloatInputLinear> offsets_;
};

// Any pair of schemes, by decoding.
class SimulatedLinear : public Linear {
 public:
  SimulatedLinear(const EncodedTensor& weight, InputForm form, const KernelTable& table) : weight_(weight), table_(table) {
    rows_ = weight.rows();
    cols_ = weight.cols();
    weight_bytes_ = weight.byte_size();
    form_ = std::move(form);
    arithmetic_ = Arithmetic::kSimulated;
  }

  absl::Status Multiply(const PreparedInput& x, float* y, int64_t ldy, ThreadPool& pool) const override {
    NIBBLE_CHECK(x.form() == form_);
    const auto decode = [this](int64_t begin, int64_t end, float* out) { DecodeRows(weight_, begin, end, out); };
    MultiplyDecoded(x, rows_, cols_, table_, decode, y, ldy, pool);
    return absl::OkStatus();
  }

 private:
  const EncodedTensor weight_;
  const KernelTable& table_;
};

// The kernels' quantizer that gives the scheme's codes, or nullopt when none
// does.
std::optional<ActivationGrid> FastGrid(const QuantScheme& scheme) {
  const auto format = FindFormat(scheme.format());
  if (!format.ok() || !(*format)->integer_bits().has_value()) return std::nullopt;
  if ((scheme.per() != QuantScheme::PER_TOKEN && !scheme.has_fixed()) || scheme.scale_type() != QuantScheme::FP32) return std::nullopt;
  if (scheme.rounding() != QuantScheme::RECIPROCAL || scheme.range().has_mse() || scheme.range().has_percentile()) {
    return std::nullopt;
  }
  ActivationGrid grid;
  grid.bits = *(*format)->integer_bits();
  if (grid.bits < 2 || grid.bits > 8) return std::nullopt;
  grid.asymmetric = scheme.asymmetric();
  grid.fixed = scheme.has_fixed();
  grid.min = scheme.fixed().min();
  grid.max = scheme.fixed().max();
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

std::map<std::string, LinearFactory>& FormatLinears() {
  static auto* factories = new std::map<std::string, LinearFactory>;
  return *factories;
}

// The codes of a weight, or nullopt for a format that has none.
std::optional<CodeView> PackableWeight(const EncodedTensor& weight) {
  std::optional<CodeView> view = (*FindFormat(weight.scheme.format()))->Codes(weight);
  if (view.has_value() && (view->bits < 1 || view->bits > 8)) return std::nullopt;
  return view;
}

// The product of float activations in `form` with float weights or with codes.
std::unique_ptr<FloatInputLinear> CreateFloatInput(const EncodedTensor& weight, const std::optional<CodeView>& codes, InputForm form,
                                                   const KernelTable& table) {
  if (!codes.has_value()) return std::make_unique<FloatLinear>(weight, std::move(form), table);
  if (form.kind == InputForm::Kind::kFloat) form.kind = InputForm::Kind::kPaddedFloat;
  return std::make_unique<WeightOnlyLinear>(*codes, std::move(form), table);
}

// The product of the sums over groups with the offsets of `codes`; `form` learns to
// prepare them.
std::unique_ptr<FloatInputLinear> CreateOffsets(const CodeView& codes, InputForm* form, const KernelTable& table) {
  const EncodedTensor& offsets = *codes.offsets;
  NIBBLE_CHECK(offsets.rows() == codes.rows && offsets.cols() == codes.groups);
  const std::optional<CodeView> offset_codes = PackableWeight(offsets);
  NIBBLE_CHECK(IsFloatFormat(offsets.scheme) || (offset_codes.has_value() && offset_codes->offsets == nullptr));
  InputForm of_sums;
  of_sums.cols = codes.groups;
  std::unique_ptr<FloatInputLinear> linear = CreateFloatInput(offsets, offset_codes, of_sums, table);
  form->sum_group = codes.group;
  form->sums = {linear->input_form()};
  return linear;
}

}  // namespace

void MultiplyDecoded(const PreparedInput& x, int64_t rows, int64_t cols, const KernelTable& table,
                     absl::FunctionRef<void(int64_t, int64_t, float*)> decode, float* y, int64_t ldy, ThreadPool& pool) {
  const int64_t task = TaskRows(rows, kPanelRows);
  const std::vector<ColumnRange> ranges = PlainRanges(cols);
  pool.ParallelFor(CeilDiv(rows, task), [&](int64_t i, int) {
    const int64_t begin = i * task, end = std::min(rows, begin + task);
    std::vector<float> decoded((end - begin) * cols);
    decode(begin, end, decoded.data());
    const auto fill = [&](int64_t row, size_t range, float* panel) {
      const ColumnRange& columns = ranges[range];
      table.panel_from_fp32(decoded.data() + (row - begin) * cols + columns.begin, cols, std::min(end - row, kBlockRows),
                            columns.end - columns.begin, panel);
    };
    MultiplyRows(FloatsOf(x, table), begin, end, ranges, fill, {y, ldy});
  });
}

LinearRegistrar::LinearRegistrar(const std::string& format, LinearFactory factory) {
  if (FormatLinears().emplace(format, factory).second) return;
  std::fprintf(stderr, "number format '%s' has two linears\n", format.c_str());
  std::abort();
}

absl::StatusOr<std::unique_ptr<Linear>> Linear::Create(const EncodedTensor& weight,
                                                       const std::optional<QuantScheme>& activation,
                                                       const KernelTable& table) {
  NIBBLE_RETURN_IF_ERROR(CheckEncoded(weight));
  if (weight.rows() < 1 || weight.cols() < 1) {
    return absl::InvalidArgumentError(absl::StrCat("a linear needs rows and columns, got ", ShapeToString(weight.shape)));
  }
  if (activation.has_value()) NIBBLE_RETURN_IF_ERROR(Annotate(ValidateScheme(*activation), "activation"));

  // Rounding activations to floats, of 8 bits too, is part of their preparation
  // and goes with every kernel for float activations; fp32 rounds nothing.
  const bool quantized = activation.has_value() && activation->format() != "fp32";
  const bool float_activation = !activation.has_value() || !(*FindFormat(activation->format()))->integer_bits().has_value();
  InputForm form;
  form.cols = weight.cols();
  if (quantized) {
    form.kind = InputForm::Kind::kFakeQuantized;
    form.scheme = activation->SerializeAsString();
  }
  if (weight.scheme.format() == "bf16" && quantized && activation->format() == "bf16" && table.multiply_bf16_panels != nullptr &&
      weight.cols() % 2 == 0) {
    form.kind = InputForm::Kind::kBf16;
  }
  const auto own = FormatLinears().find(weight.scheme.format());
  if (own != FormatLinears().end() && float_activation) {
    std::unique_ptr<Linear> linear = own->second(weight, form, table);
    if (linear != nullptr) return linear;
  }
  const std::optional<CodeView> codes = PackableWeight(weight);
  const std::optional<ActivationGrid> grid = quantized ? FastGrid(*activation) : std::nullopt;
  const bool float_product = float_activation && (codes.has_value() || IsFloatFormat(weight.scheme));
  const bool integer_product = codes.has_value() && codes->values.empty() && grid.has_value() && codes->group <= kMaxIntegerGroup;
  if (!float_product && !integer_product) return std::make_unique<SimulatedLinear>(weight, form, table);
  std::unique_ptr<FloatInputLinear> offsets;
  if (codes.has_value() && codes->offsets != nullptr) offsets = CreateOffsets(*codes, &form, table);
  std::unique_ptr<Linear> linear;
  if (float_product) {
    linear = CreateFloatInput(weight, codes, std::move(form), table);
  } else {
    form.kind = InputForm::Kind::kQuantized;
    form.grid = *grid;
    form.outlier_threshold = activation->outlier_threshold();
    form.outlier_columns = activation->outlier_columns();
    linear = std::make_unique<IntegerLinear>(*codes, std::move(form), table);
  }
  if (offsets == nullptr) return linear;
  return std::make_unique<OffsetLinear>(std::move(linear), std::move(offsets));
}

}  // namespace nibble::kernels
