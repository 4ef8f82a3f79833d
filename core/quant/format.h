// Format: what codes mean. A number format is one subclass in its own folder
// under core/quant/formats, made known by a registrar object; every format
// must pass the conformance suite in core/quant/format_conformance_test.cc.
#ifndef NIBBLE_CORE_QUANT_FORMAT_H_
#define NIBBLE_CORE_QUANT_FORMAT_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/quant/code_view.h"
#include "core/quant/encoded.h"
#include "core/quant/integer_grid.h"

namespace nibble {

// One stored buffer of a tensor under some scheme.
struct BufferSpec {
  std::string name;
  DType dtype;
  Shape shape;
};

class Format {
 public:
  virtual ~Format() = default;

  // The persistent name, as QuantScheme.format and stored checkpoints spell
  // it. Never change or reuse one: change the name if the bytes change.
  virtual std::string name() const = 0;

  // Refuses scheme fields that the format cannot honour.
  virtual absl::Status Validate(const QuantScheme& scheme) const = 0;

  // What the length of a row must be a multiple of, for formats that pack columns in
  // blocks.
  virtual int64_t row_multiple() const { return 1; }

  // Whether a row's encoding does not depend on other rows.
  virtual bool encodes_rows_alone(const QuantScheme& scheme) const { return scheme.per() != QuantScheme::PER_TENSOR && !scheme.outlier_columns(); }

  // The buffers of a tensor of `shape`, whose rows have a length that row_multiple()
  // divides; fixes the stored size.
  virtual std::vector<BufferSpec> Layout(const QuantScheme& scheme, const Shape& shape) const = 0;

  // Encodes finite values; scheme and shape have been validated.
  virtual absl::StatusOr<EncodedTensor> Encode(const QuantScheme& scheme, const Shape& shape,
                                               absl::Span<const float> values, ThreadPool* pool) const = 0;

  // Encodes on grids that are already chosen, [rows, groups] in order (one for
  // PER_TENSOR): learned scales and solved codes come this way. Only integer
  // grids can.
  virtual absl::StatusOr<EncodedTensor> EncodeOnGrids(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values,
                                                      absl::Span<const Grid> grids, ThreadPool* pool) const {
    return absl::UnimplementedError(name() + " takes no given grids");
  }

  virtual void DecodeRows(const EncodedTensor& tensor, int64_t begin, int64_t end, float* out) const = 0;

  // The codes of a tensor whose buffers fit, for kernels; nullopt where the format
  // is no scale times codes.
  virtual std::optional<CodeView> Codes(const EncodedTensor& tensor) const { return std::nullopt; }

  // What a scheme says, for people: "int4 per group of 32, symmetric ...".
  virtual std::string Describe(const QuantScheme& scheme) const;

  // Bits of an integer grid w = scale * (code - zero) with unsigned codes,
  // which integer kernels can run; nullopt for every other kind of format.
  virtual std::optional<int> integer_bits() const { return std::nullopt; }

  // A scheme that uses the format with its usual settings; the conformance
  // suite and the documentation start from it.
  virtual std::vector<QuantScheme> ExampleSchemes() const = 0;
};

// Refuses a group_size that is missing, not positive or for another granularity,
// a negative scale_floor and a fixed range that is none: what every format with
// scales refuses.
absl::Status ValidateScales(const QuantScheme& scheme);

// Refuses rows of `shape` whose length row_multiple() does not divide.
absl::Status CheckRowLength(const Format& format, const Shape& shape);

// " static [-3, 5]"; "" without a fixed range.
std::string FixedRangeToString(const QuantScheme& scheme);

// "per row", "per group of 32".
std::string GranularityToString(const QuantScheme& scheme);

// The format of that name, or NotFound with "did you mean".
absl::StatusOr<const Format*> FindFormat(const std::string& name);
std::vector<std::string> FormatNames();

// Registers at start-up; a duplicate name ends the process.
struct FormatRegistrar {
  explicit FormatRegistrar(std::unique_ptr<Format> format);
};

}  // namespace nibble

#endif  // NIBBLE_CORE_QUANT_FORMAT_H_
