// int2 .. int8: uniform grids with a scale, and for asymmetric schemes a zero
// point, per tensor, row or group.
//
// Buffers: "codes" U8 [rows, packed row bytes], unsigned codes least
// significant bit first; "scales" [rows, groups] (PER_TENSOR: [1, 1]) in the
// scheme's scale type; "zeros" U8 like scales, asymmetric schemes only.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/parallel_status.h"
#include "core/base/status.h"
#include "core/quant/format.h"
#include "core/quant/integer_grid.h"
#include "core/quant/scale_type.h"

namespace nibble {
namespace {

constexpr int kMaxClips = 10'000;  // that a search tries

std::string DivisorToString(QuantScheme::Divisor divisor) {
  switch (divisor) {
    case QuantScheme::MAX_CODE: return "absmax/(2^(b-1)-1)";
    case QuantScheme::HALF_RANGE: return "absmax/((2^b-1)/2)";
    case QuantScheme::MIN_CODE: return "absmax/2^(b-1)";
    case QuantScheme::NO_CLIPPING: return "no clipping error";
  }
  return "";
}

std::string RangeToString(const RangeRule& range) {
  if (range.has_mse()) return absl::StrCat(", MSE clip search (norm ", range.mse().norm(), ")");
  if (range.has_percentile()) return absl::StrCat(", percentile ", range.percentile().share());
  return "";
}

class IntegerFormat : public Format {
 public:
  explicit IntegerFormat(int bits) : bits_(bits) {}

  std::string name() const override { return absl::StrCat("int", bits_); }
  std::optional<int> integer_bits() const override { return bits_; }

  std::string Describe(const QuantScheme& scheme) const override {
    std::string text = absl::StrCat(name(), " ", GranularityToString(scheme), scheme.dynamic() ? " dynamic" : "", FixedRangeToString(scheme),
                                    scheme.asymmetric() ? ", asymmetric" : ", symmetric");
    if (!scheme.asymmetric()) absl::StrAppend(&text, " ", DivisorToString(scheme.divisor()));
    absl::StrAppend(&text, RangeToString(scheme.range()));
    absl::StrAppend(&text, ", ", ScaleTypeName(scheme.scale_type()), " scales");
    if (scheme.rounding() == QuantScheme::DIVISION) absl::StrAppend(&text, ", dividing");
    if (scheme.outlier_threshold() > 0) absl::StrAppend(&text, scheme.outlier_columns() ? ", columns from " : ", from ", scheme.outlier_threshold(), " on in bf16");
    return text;
  }

  std::optional<CodeView> Codes(const EncodedTensor& tensor) const override {
    CodeView view = ViewOfCodes(tensor, bits_);
    view.one_zero = 1 << (bits_ - 1);
    if (tensor.scheme.asymmetric()) view.zeros = tensor.buffer("zeros");
    return view;
  }

  absl::Status Validate(const QuantScheme& scheme) const override {
    NIBBLE_RETURN_IF_ERROR(ValidateScales(scheme));
    if (scheme.asymmetric() && scheme.divisor() != QuantScheme::MAX_CODE) {
      return absl::InvalidArgumentError("divisor: of use to symmetric schemes only; set asymmetric: false or leave it out");
    }
    const RangeRule& range = scheme.range();
    const RangeRule::Mse& mse = range.mse();
    if (range.has_mse() && !(mse.grid() >= 1 && mse.grid() <= kMaxClips && mse.max_shrink() > 0 && mse.max_shrink() <= 1 && mse.norm() > 0)) {
      return absl::InvalidArgumentError(absl::StrCat("mse needs grid 1 to ", kMaxClips, ", 0 < max_shrink <= 1 and norm > 0"));
    }
    if (range.has_percentile() && !(range.percentile().share() > 0 && range.percentile().share() <= 1)) {
      return absl::InvalidArgumentError("percentile share must be in (0, 1]");
    }
    return absl::OkStatus();
  }

  std::vector<BufferSpec> Layout(const QuantScheme& scheme, const Shape& shape) const override {
    const int64_t rows = shape.size() < 2 ? 1 : shape[0];
    const bool whole = scheme.per() == QuantScheme::PER_TENSOR;
    const Shape scales = whole ? Shape{1, 1} : Shape{rows, GroupsPerRow(scheme, shape.back())};
    std::vector<BufferSpec> layout = {{"codes", DType::kU8, {rows, PackedRowBytes(bits_, shape.back())}},
                                      {"scales", ScaleDType(scheme.scale_type()), scales}};
    if (scheme.asymmetric()) layout.push_back({"zeros", DType::kU8, scales});
    return layout;
  }

  absl::StatusOr<EncodedTensor> Encode(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values,
                                       ThreadPool* pool) const override {
    std::optional<Grid> whole;
    if (scheme.per() == QuantScheme::PER_TENSOR) {
      NIBBLE_ASSIGN_OR_RETURN(whole, ChooseGrid(scheme, bits_, values));
    }
    return EncodeRows(scheme, shape, values, pool, [&](int64_t, absl::Span<const float> group) -> absl::StatusOr<Grid> {
      return whole.has_value() ? *whole : ChooseGrid(scheme, bits_, group);
    });
  }

  absl::StatusOr<EncodedTensor> EncodeOnGrids(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values,
                                              absl::Span<const Grid> grids, ThreadPool* pool) const override {
    const bool whole = scheme.per() == QuantScheme::PER_TENSOR;
    const int64_t rows = shape.size() < 2 ? 1 : shape[0];
    NIBBLE_CHECK(static_cast<int64_t>(grids.size()) == (whole ? 1 : rows * GroupsPerRow(scheme, shape.back())));
    return EncodeRows(scheme, shape, values, pool, [&](int64_t i, absl::Span<const float>) -> absl::StatusOr<Grid> {
      return grids[whole ? 0 : i];
    });
  }

  void DecodeRows(const EncodedTensor& tensor, int64_t begin, int64_t end, float* out) const override {
    Codes(tensor)->DecodeRows(begin, end, out);
  }

  std::vector<QuantScheme> ExampleSchemes() const override {
    std::vector<QuantScheme> schemes;
    for (const bool asymmetric : {false, true}) {
      for (const auto per : {QuantScheme::PER_TENSOR, QuantScheme::PER_ROW, QuantScheme::PER_GROUP}) {
        QuantScheme scheme;
        scheme.set_format(name());
        scheme.set_per(per);
        scheme.set_asymmetric(asymmetric);
        if (per == QuantScheme::PER_GROUP) scheme.set_group_size(32);
        schemes.push_back(scheme);
      }
    }
    schemes.push_back(schemes[2]);
    schemes.back().set_scale_type(QuantScheme::BF16);
    schemes.push_back(schemes[2]);
    schemes.back().mutable_range()->mutable_mse();
    return schemes;
  }

 private:
  // Encodes with the grid that `choose` gives for group i (all groups in order)
  // and its values.
  template <typename Choose>
  absl::StatusOr<EncodedTensor> EncodeRows(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values, ThreadPool* pool,
                                           const Choose& choose) const {
    Writer writer(*this, scheme, shape);
    const int64_t cols = shape.back();
    NIBBLE_RETURN_IF_ERROR(ParallelForStatus(pool, writer.rows(), [&](int64_t r, int) {
      return Annotate(writer.EncodeRow(r, values.subspan(r * cols, cols), choose), absl::StrCat("row ", r));
    }));
    return std::move(writer).Finish();
  }

  // Fills the buffers of one tensor, rows in any order and from any thread.
  class Writer {
   public:
    Writer(const IntegerFormat& format, const QuantScheme& scheme, const Shape& shape) : bits_(format.bits_) {
      tensor_.scheme = scheme;
      tensor_.shape = shape;
      for (const BufferSpec& spec : format.Layout(scheme, shape)) {
        tensor_.buffers.emplace(spec.name, Tensor::Zeros(spec.dtype, spec.shape));
      }
      group_ = GroupLength(scheme, shape.back());
      groups_ = GroupsPerRow(scheme, shape.back());
    }

    int64_t rows() const { return tensor_.rows(); }

    void SetGrid(int64_t i, const Grid& grid) {
      StoreScale(grid.scale, i, &tensor_.buffers.at("scales"));
      if (tensor_.scheme.asymmetric()) tensor_.buffers.at("zeros").mutable_as<uint8_t>()[i] = static_cast<uint8_t>(grid.zero);
    }

    template <typename Choose>
    absl::Status EncodeRow(int64_t r, absl::Span<const float> values, const Choose& choose) {
      std::vector<uint8_t> codes(values.size());
      const int32_t max_code = (1 << bits_) - 1;
      const bool whole = tensor_.scheme.per() == QuantScheme::PER_TENSOR;
      for (int64_t g = 0; g < groups_; ++g) {
        const absl::Span<const float> group = values.subspan(g * group_, group_);
        NIBBLE_ASSIGN_OR_RETURN(const Grid grid, choose(r * groups_ + g, group));
        if (!whole || r + g == 0) SetGrid(r * groups_ + g, grid);
        for (size_t i = 0; i < group.size(); ++i) {
          codes[g * group_ + i] = static_cast<uint8_t>(EncodeValue(grid, group[i], max_code));
        }
      }
      Tensor& packed = tensor_.buffers.at("codes");
      PackRow(bits_, codes, packed.mutable_as<uint8_t>().data() + r * PackedRowBytes(bits_, values.size()));
      return absl::OkStatus();
    }

    EncodedTensor Finish() && { return std::move(tensor_); }

   private:
    const int bits_;
    EncodedTensor tensor_;
    int64_t group_, groups_;
  };

  const int bits_;
};

const FormatRegistrar kInt2(std::make_unique<IntegerFormat>(2));
const FormatRegistrar kInt3(std::make_unique<IntegerFormat>(3));
const FormatRegistrar kInt4(std::make_unique<IntegerFormat>(4));
const FormatRegistrar kInt5(std::make_unique<IntegerFormat>(5));
const FormatRegistrar kInt6(std::make_unique<IntegerFormat>(6));
const FormatRegistrar kInt7(std::make_unique<IntegerFormat>(7));
const FormatRegistrar kInt8(std::make_unique<IntegerFormat>(8));

}  // namespace
}  // namespace nibble
