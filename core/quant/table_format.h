// TableFormat: number formats w = scale * table[code] with a scale for each
// tensor, row, token or group, the largest magnitude of which meets the table's.
#ifndef NIBBLE_CORE_QUANT_TABLE_FORMAT_H_
#define NIBBLE_CORE_QUANT_TABLE_FORMAT_H_

#include <string>
#include <vector>

#include "core/quant/format.h"

namespace nibble {

// Buffers: "codes" U8 [rows, packed row bytes], least significant bit first;
// "scales" [rows, groups] (PER_TENSOR: [1, 1]) in the scheme's scale type, absmax /
// largest, rounded to it before codes are chosen.
class TableFormat : public Format {
 public:
  std::string name() const override { return name_; }
  std::string Describe(const QuantScheme& scheme) const override;
  absl::Status Validate(const QuantScheme& scheme) const override;
  std::vector<BufferSpec> Layout(const QuantScheme& scheme, const Shape& shape) const override;
  absl::StatusOr<EncodedTensor> Encode(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values,
                                       ThreadPool* pool) const override;
  void DecodeRows(const EncodedTensor& tensor, int64_t begin, int64_t end, float* out) const override;
  std::optional<CodeView> Codes(const EncodedTensor& tensor) const override;

 protected:
  // values: [2^bits], what each code stands for; those that are not finite are
  // never chosen. largest: the magnitude that a scale maps absmax to.
  TableFormat(std::string name, int bits, std::vector<float> values, float largest)
      : name_(std::move(name)), bits_(bits), values_(std::move(values)), largest_(largest) {}

  // The code nearest to x, |x| at most `largest` but for rounding.
  virtual uint8_t Nearest(float x) const = 0;

  // `count` scales in order from `first`.
  virtual std::vector<float> ReadScales(const EncodedTensor& tensor, int64_t first, int64_t count) const;

  float largest() const { return largest_; }

 private:
  absl::StatusOr<float> ScaleOf(const QuantScheme& scheme, absl::Span<const float> values) const;

  const std::string name_;
  const int bits_;
  const std::vector<float> values_;
  const float largest_;
};

}  // namespace nibble

#endif  // NIBBLE_CORE_QUANT_TABLE_FORMAT_H_
