// PreparedInput: activations in the form that a Linear reads.

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/base/check.h"
#include "core/base/divide.h"
#include "core/base/parallel_status.h"
#include "core/base/status.h"
#include "core/kernels/few_tokens.h"
#include "core/kernels/linear.h"
#include "core/quant/integer_grid.h"

namespace nibble::kernels {
namespace {

// Copies a row of dense values to the columns of packed weights; `out` is zero
// where no value goes.
template <typename T>
void Spread(const InputForm& form, const T* x, T* out) {
  for (int64_t begin = 0, at = 0; begin < form.cols; begin += form.group, at += form.padded_group) {
    std::memcpy(out + at, x + begin, std::min(form.group, form.cols - begin) * sizeof(T));
  }
}

// Tokens lie this far apart: whole cache lines, and never a multiple of 1 KiB,
// so that a dozen tokens read side by side fall into different cache sets.
int64_t CodeStride(int64_t padded_cols) {
  const int64_t stride = (padded_cols + 63) / 64 * 64;
  return stride % 1024 == 0 ? stride + 64 : stride;
}

}  // namespace

void PreparedInput::Pad(const float* x, ThreadPool& pool) {
  stride_ = form_.padded_cols;
  float_storage_.assign(tokens_ * stride_, 0.0f);
  pool.ParallelFor(tokens_, [&](int64_t t, int) { Spread(form_, x + t * form_.cols, float_storage_.data() + t * stride_); });
  floats_ = float_storage_.data();
}

absl::Status PreparedInput::FakeQuantize(const float* x, bool padded, ThreadPool& pool) {
  QuantScheme scheme;
  NIBBLE_CHECK(scheme.ParseFromString(form_.scheme));
  stride_ = padded ? form_.padded_cols : form_.cols;
  float_storage_.assign(tokens_ * stride_, 0.0f);
  // Tokens that lose columns together are one piece.
  const int64_t piece = scheme.outlier_columns() ? std::max<int64_t>(tokens_, 1) : 1;
  NIBBLE_RETURN_IF_ERROR(ParallelForStatus(&pool, CeilDiv(tokens_, piece), [&](int64_t i, int) -> absl::Status {
    const int64_t first = i * piece;
    std::vector<float> rows(x + first * form_.cols, x + (first + piece) * form_.cols);
    NIBBLE_RETURN_IF_ERROR(Annotate(FakeQuantizeRows(scheme, piece, form_.cols, rows.data()), absl::StrCat("activation of token ", first)));
    for (int64_t t = 0; t < piece; ++t) {
      const float* const row = rows.data() + t * form_.cols;
      float* const out = float_storage_.data() + (first + t) * stride_;
      padded ? Spread(form_, row, out) : void(std::copy_n(row, form_.cols, out));
    }
    return absl::OkStatus();
  }));
  floats_ = float_storage_.data();
  return absl::OkStatus();
}

void PreparedInput::PrepareFrom(const KernelTable& table, RowSource source, ThreadPool& pool) {
  form_.kind == InputForm::Kind::kBf16 ? RoundToBf16(table, source, pool) : Quantize(table, source, pool);
}

void PreparedInput::Quantize(const KernelTable& table, RowSource source, ThreadPool& pool) {
  const int64_t groups = CeilDiv(form_.cols, form_.group);
  const bool dense = form_.group == form_.padded_group || groups == 1;
  stride_ = CodeStride(form_.padded_cols);
  codes_.assign(tokens_ * stride_, 0);
  scales_.resize(tokens_);
  zeros_.resize(tokens_);
  // Padded, so that the terms of one token fall into different cache sets.
  const int64_t term_stride = tokens_ > kFewTokens ? tokens_ + 16 : tokens_;
  group_terms_.resize(term_stride * groups);
  if (form_.sum_group > 0) group_sums_.resize(tokens_ * groups);
  rows_.resize(pool.threads() * form_.cols);
  if (form_.outlier_threshold > 0) token_outliers_.resize(tokens_);
  outlier_columns_.clear();  // those of an earlier form too
  if (form_.outlier_columns) MarkOutlierColumns(source, pool);
  pool.ParallelFor(tokens_, [&](int64_t t, int worker) {
    int8_t* codes = codes_.data() + t * stride_;
    float* const scratch = rows_.data() + worker * form_.cols;
    const float* row = source(t, scratch);
    if (form_.outlier_threshold > 0) row = TakeOutliers(t, row, scratch);
    if (dense) {
      table.quantize_token(form_.grid, row, form_.cols, codes, &scales_[t], &zeros_[t]);
    } else {
      std::vector<int8_t> unpadded(form_.cols);
      table.quantize_token(form_.grid, row, form_.cols, unpadded.data(), &scales_[t], &zeros_[t]);
      Spread(form_, unpadded.data(), codes);
    }
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t length = std::min(form_.group, form_.cols - g * form_.group);
      const int32_t sum = table.sum_codes(codes + g * form_.padded_group, length);
      group_terms_[g * term_stride + t] = form_.term_factor * sum;
      if (form_.sum_group > 0) group_sums_[t * groups + g] = scales_[t] * static_cast<float>(sum - static_cast<int32_t>(length) * zeros_[t]);
    }
  });
  GatherOutliers();
  quantized_ = {.tokens = tokens_,
                .codes = codes_.data(),
                .stride = stride_,
                .scales = scales_.data(),
                .zeros = zeros_.data(),
                .group_terms = group_terms_.data(),
                .term_stride = term_stride};
}

void PreparedInput::MarkOutlierColumns(RowSource source, ThreadPool& pool) {
  std::vector<uint8_t> marks(pool.threads() * form_.cols);  // of each worker
  pool.ParallelFor(tokens_, [&](int64_t t, int worker) {
    const float* const row = source(t, rows_.data() + worker * form_.cols);
    MarkColumns(form_.outlier_threshold, absl::MakeConstSpan(row, form_.cols), absl::MakeSpan(marks).subspan(worker * form_.cols, form_.cols));
  });
  outlier_columns_.assign(form_.cols, 0);
  for (size_t i = 0; i < marks.size(); ++i) outlier_columns_[i % form_.cols] |= marks[i];
}

const float* PreparedInput::TakeOutliers(int64_t t, const float* row, float* scratch) {
  if (row != scratch) std::copy_n(row, form_.cols, scratch);
  token_outliers_[t] = nibble::TakeOutliers(form_.outlier_threshold, outlier_columns_, absl::MakeSpan(scratch, form_.cols));
  return scratch;
}

void PreparedInput::GatherOutliers() {
  outliers_.clear();  // those of an earlier form too
  if (form_.outlier_threshold == 0) return;
  const int64_t groups = form_.sum_group > 0 ? CeilDiv(form_.cols, form_.sum_group) : 0;
  for (int64_t t = 0; t < tokens_; ++t) {
    for (const Outlier& outlier : token_outliers_[t]) {
      outliers_.push_back({outlier.column, t, outlier.value});
      if (groups > 0) group_sums_[t * groups + outlier.column / form_.sum_group] += outlier.value;
    }
  }
  std::stable_sort(outliers_.begin(), outliers_.end(), [](const InputOutlier& a, const InputOutlier& b) { return a.column < b.column; });
}

void PreparedInput::RoundToBf16(const KernelTable& table, RowSource source, ThreadPool& pool) {
  if (tokens_ > kFewTokens) return RoundToTiles(table, source, pool);
  stride_ = form_.cols;
  rows_.resize((tokens_ * form_.cols + 1) / 2);
  float_storage_.resize(tokens_ * form_.cols);
  uint16_t* rounded = reinterpret_cast<uint16_t*>(rows_.data());
  pool.ParallelFor(tokens_, [&](int64_t t, int) {
    const int64_t at = t * form_.cols;
    float* const floats = float_storage_.data() + at;
    table.round_to_bf16(source(t, floats), form_.cols, rounded + at);
    table.convert_bf16(rounded + at, form_.cols, floats);
  });
  floats_ = float_storage_.data();
}

void PreparedInput::RoundToTiles(const KernelTable& table, RowSource source, ThreadPool& pool) {
  constexpr int64_t kColumns = 2 * kPanelDepth;
  const int64_t ranges = CeilDiv(form_.cols, kColumns);
  rows_.resize(CeilDiv(tokens_, kTileTokens) * ranges * kTileFloats);
  float_storage_.resize(pool.threads() * form_.cols);
  pool.ParallelFor(tokens_, [&](int64_t t, int worker) {
    const float* x = source(t, float_storage_.data() + worker * form_.cols);
    float* out = rows_.data() + t / kTileTokens * ranges * kTileFloats + t % kTileTokens * kTileStride;
    for (int64_t k = 0; k < form_.cols; k += kColumns, out += kTileFloats) {
      table.round_to_bf16(x + k, std::min(kColumns, form_.cols - k), reinterpret_cast<uint16_t*>(out));
    }
  });
  bf16_tiles_ = rows_.data();
}

void PreparedInput::SumFloats(ThreadPool& pool) {
  const int64_t groups = CeilDiv(form_.cols, form_.sum_group), step = stride_ == form_.cols ? form_.sum_group : form_.padded_group;
  group_sums_.resize(tokens_ * groups);
  pool.ParallelFor(tokens_, [&](int64_t t, int) {
    for (int64_t g = 0; g < groups; ++g) {
      const float* x = floats_ + t * stride_ + g * step;
      group_sums_[t * groups + g] = std::accumulate(x, x + std::min(form_.sum_group, form_.cols - g * form_.sum_group), 0.0f);
    }
  });
}

void PreparedInput::PrepareSums(const KernelTable& table, ThreadPool& pool) {
  if (form_.sum_group == 0) return;
  if (form_.kind != InputForm::Kind::kQuantized) SumFloats(pool);
  if (sums_ == nullptr) sums_ = std::make_unique<PreparedInput>();
  NIBBLE_CHECK(sums_->Prepare(form_.sums.front(), table, group_sums_.data(), tokens_, pool).ok());
}

absl::Status PreparedInput::Prepare(const InputForm& form, const KernelTable& table, const float* x, int64_t tokens,
                                    ThreadPool& pool) {
  form_ = form;
  tokens_ = tokens;
  floats_ = bf16_tiles_ = nullptr;
  quantized_ = {};
  // Padding only serves the kernels for few tokens; more go through panels.
  const bool padded = tokens <= kFewTokens && form.padded_cols > form.cols;
  switch (form.kind) {
    case InputForm::Kind::kQuantized:
    case InputForm::Kind::kBf16:
      PrepareFrom(table, [&](int64_t t, float*) { return x + t * form_.cols; }, pool);
      break;
    case InputForm::Kind::kFakeQuantized: NIBBLE_RETURN_IF_ERROR(FakeQuantize(x, padded, pool)); break;
    case InputForm::Kind::kFloat:
    case InputForm::Kind::kPaddedFloat:
      if (padded) {
        Pad(x, pool);
      } else {
        floats_ = x;
        stride_ = form.cols;
      }
  }
  PrepareSums(table, pool);
  return absl::OkStatus();
}

void PreparedInput::PrepareRows(const InputForm& form, const KernelTable& table, absl::FunctionRef<void(int64_t, float*)> make,
                                int64_t tokens, ThreadPool& pool) {
  NIBBLE_CHECK(TakesRows(form));
  form_ = form;
  tokens_ = tokens;
  floats_ = bf16_tiles_ = nullptr;
  PrepareFrom(
      table,
      [&](int64_t t, float* scratch) {
        make(t, scratch);
        return static_cast<const float*>(scratch);
      },
      pool);
  PrepareSums(table, pool);
}

}  // namespace nibble::kernels
