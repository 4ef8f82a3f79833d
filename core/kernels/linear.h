// Linear: one weight matrix packed for this machine, and the product
// y = x W^T that its scheme defines. Work is cut into fixed tiles of output
// rows, so the result does not depend on the number of threads.
#ifndef NIBBLE_CORE_KERNELS_LINEAR_H_
#define NIBBLE_CORE_KERNELS_LINEAR_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "core/base/thread_pool.h"
#include "core/kernels/kernel_table.h"
#include "core/quant/encoded.h"
#include "core/quant/integer_grid.h"

namespace nibble::kernels {

// NATIVE: the product runs on the packed codes. SIMULATED: no kernel exists
// for the pair of schemes; weights are decoded tile by tile and activations
// pass through encode and decode, so the numbers are right and the speed is not.
enum class Arithmetic { kNative, kSimulated };

// One input in the form that its consumers need: padded, quantized. Linears
// with equal InputForm share it (q, k, v; gate, up).
struct InputForm {
  enum class Kind { kFloat, kPaddedFloat, kBf16, kQuantized, kFakeQuantized } kind = Kind::kFloat;
  ActivationGrid grid;
  std::string scheme;  // the activation scheme, serialized; "" for none
  int64_t cols = 0;
  // Columns as packed weights need them; 0 when nothing is padded.
  int64_t group = 0, padded_group = 0, padded_cols = 0;
  int32_t term_factor = 1;  // of the sums of codes (QuantizedRows::group_terms)
  // Weights with offsets: the sums over groups of this many columns are an input of
  // their own, in the only form of `sums`.
  int64_t sum_group = 0;
  std::vector<InputForm> sums;
  // kQuantized: values of at least this magnitude are not among the codes but in
  // PreparedInput::outliers(); 0: none.
  float outlier_threshold = 0;
  bool outlier_columns = false;  // nor are others of the same column
  bool operator==(const InputForm& other) const = default;
};

// A value of `token` that is multiplied in floating point.
struct InputOutlier {
  int64_t column, token;
  float value;
};

class PreparedInput {
 public:
  // Reuses its memory between calls. x: [tokens, cols], row-major, dense; it
  // must stay valid while the PreparedInput is used. An error when an
  // activation leaves its format (simulated schemes).
  absl::Status Prepare(const InputForm& form, const KernelTable& table, const float* x, int64_t tokens, ThreadPool& pool);

  // The same for rows that make(t, row) computes one by one, so that what a
  // norm or SwiGLU gives is quantized or rounded from the cache and never stored. A form
  // that TakesRows does not name is a check.
  void PrepareRows(const InputForm& form, const KernelTable& table, absl::FunctionRef<void(int64_t, float*)> make, int64_t tokens,
                   ThreadPool& pool);

  static bool TakesRows(const InputForm& form) { return form.kind == InputForm::Kind::kQuantized || form.kind == InputForm::Kind::kBf16; }

  int64_t tokens() const { return tokens_; }
  const InputForm& form() const { return form_; }
  const float* floats() const { return floats_; }
  // kBf16, where tokens are many (few have floats()): tiles of panels, with two
  // columns in a float's place, by tokens, then columns.
  const float* bf16_tiles() const { return bf16_tiles_; }
  int64_t stride() const { return stride_; }
  const QuantizedRows& quantized() const { return quantized_; }
  // The sums over groups of columns, where the form wants them.
  const PreparedInput& sums() const { return *sums_; }
  // By column, then token.
  const std::vector<InputOutlier>& outliers() const { return outliers_; }

 private:
  // source(t, scratch) gives a token's values, which may lie in the scratch.
  using RowSource = absl::FunctionRef<const float*(int64_t, float*)>;
  // A form that TakesRows names.
  void PrepareFrom(const KernelTable& table, RowSource source, ThreadPool& pool);
  void Quantize(const KernelTable& table, RowSource source, ThreadPool& pool);
  absl::Status FakeQuantize(const float* x, bool padded, ThreadPool& pool);
  void Pad(const float* x, ThreadPool& pool);
  void RoundToBf16(const KernelTable& table, RowSource source, ThreadPool& pool);
  void RoundToTiles(const KernelTable& table, RowSource source, ThreadPool& pool);
  // Of all tokens, for TakeOutliers.
  void MarkOutlierColumns(RowSource source, ThreadPool& pool);
  // The row without its outliers, which go to token_outliers_[t].
  const float* TakeOutliers(int64_t t, const float* row, float* scratch);
  void GatherOutliers();
  void SumFloats(ThreadPool& pool);
  // Prepares sums(), of floats() or as Quantize left them.
  void PrepareSums(const KernelTable& table, ThreadPool& pool);

  InputForm form_;
  int64_t tokens_ = 0, stride_ = 0;
  const float* floats_ = nullptr;
  const float* bf16_tiles_ = nullptr;
  QuantizedRows quantized_;
  std::vector<float> float_storage_, scales_, rows_, group_sums_;
  std::vector<int8_t> codes_;
  std::vector<int32_t> zeros_, group_terms_;
  std::unique_ptr<PreparedInput> sums_;
  std::vector<std::vector<Outlier>> token_outliers_;
  std::vector<uint8_t> outlier_columns_;  // of all tokens; none where values are taken alone
  std::vector<InputOutlier> outliers_;
};

class Linear {
 public:
  virtual ~Linear() = default;

  // Packs `weight` [rows, cols] for products with activations under
  // `activation` (nullopt: fp32 activations). A scheme pair without a kernel
  // gives a SIMULATED linear. Float weights are borrowed, not copied; integer
  // ones are copied into kernel order. `table` must outlive the Linear.
  static absl::StatusOr<std::unique_ptr<Linear>> Create(const EncodedTensor& weight,
                                                        const std::optional<QuantScheme>& activation,
                                                        const KernelTable& table);

  // y[t][r] for t < x.tokens(), r < rows(); ldy: elements between tokens. An
  // input that was prepared for another form is a check.
  virtual absl::Status Multiply(const PreparedInput& x, float* y, int64_t ldy, ThreadPool& pool) const = 0;

  const InputForm& input_form() const { return form_; }
  Arithmetic arithmetic() const { return arithmetic_; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  // Bytes that this linear keeps (borrowed weights included).
  int64_t weight_bytes() const { return weight_bytes_; }

 protected:
  InputForm form_;
  Arithmetic arithmetic_ = Arithmetic::kNative;
  int64_t rows_ = 0, cols_ = 0, weight_bytes_ = 0;
};

// y = x W^T for floats of a weight [rows, cols] whose rows [begin, end) `decode`
// writes as fp32: a task's rows at once, then a product of panels.
void MultiplyDecoded(const PreparedInput& x, int64_t rows, int64_t cols, const KernelTable& table,
                     absl::FunctionRef<void(int64_t begin, int64_t end, float* out)> decode, float* y, int64_t ldy, ThreadPool& pool);

// The product of a number format that brings its own: Linear::Create asks it, with
// buffers that fit, before an ordinary one is chosen, where activations are floats. `form`
// is of floats, without padding. Null: the format has none for this weight.
using LinearFactory = std::unique_ptr<Linear> (*)(const EncodedTensor& weight, const InputForm& form, const KernelTable& table);

// Registers at start-up, in the format's folder; a second one for a name ends the
// process.
struct LinearRegistrar {
  LinearRegistrar(const std::string& format, LinearFactory factory);
};

}  // namespace nibble::kernels

#endif  // NIBBLE_CORE_KERNELS_LINEAR_H_
