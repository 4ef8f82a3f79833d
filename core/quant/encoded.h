// EncodedTensor: what a Parameter holds. A scheme and the buffers that it
// needs; a plain bf16 weight is the special case with one buffer "values".
#ifndef NIBBLE_CORE_QUANT_ENCODED_H_
#define NIBBLE_CORE_QUANT_ENCODED_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/thread_pool.h"
#include "core/quant/scheme.pb.h"
#include "core/tensor/tensor.h"

namespace nibble {

struct EncodedTensor {
  QuantScheme scheme;
  Shape shape;  // of the decoded tensor; one or two dimensions
  std::map<std::string, Tensor> buffers;

  // A vector counts as one row.
  int64_t rows() const { return shape.size() < 2 ? 1 : shape[0]; }
  int64_t cols() const { return shape.empty() ? 1 : shape.back(); }

  // Bytes of all buffers: what a file or memory must hold.
  int64_t byte_size() const;
  const Tensor& buffer(const std::string& name) const { return buffers.at(name); }
};

// A floating-point tensor as an EncodedTensor of format fp32, bf16 or fp16,
// sharing its bytes. F64 is rounded to fp32.
absl::StatusOr<EncodedTensor> WrapFloats(Tensor tensor);

// Encodes row-major `values` of `shape`. Errors: an unknown format, a scheme
// that the format refuses, a row that its blocks do not divide, a value that is not
// finite, a scale that leaves its type. `pool` may be null.
absl::StatusOr<EncodedTensor> Encode(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values,
                                     ThreadPool* pool = nullptr);

// The errors of Encode but for the last, which need no encoding.
absl::Status CheckEncodable(const QuantScheme& scheme, const Shape& shape, absl::Span<const float> values);

// Decodes rows [begin, end) to fp32, (end - begin) * cols() values.
void DecodeRows(const EncodedTensor& tensor, int64_t begin, int64_t end, float* out);
std::vector<float> Decode(const EncodedTensor& tensor);

// Gives back the pages of mapped files that its buffers were read from.
void DropMappedPages(const EncodedTensor& tensor);

// Buffers that do not fit scheme and shape (a file's fault) are an error.
absl::Status CheckEncoded(const EncodedTensor& tensor);

// Bytes that a tensor of `shape` takes under `scheme`, without encoding it.
absl::StatusOr<int64_t> EncodedBytes(const QuantScheme& scheme, const Shape& shape);

absl::Status ValidateScheme(const QuantScheme& scheme);

// "int4 per group of 32, symmetric, absmax/7, fp32 scales".
std::string SchemeToString(const QuantScheme& scheme);

// A scheme of a float format by name: "fp32", "bf16", "fp16".
QuantScheme FloatScheme(const std::string& format);

// "int<bits>" with a scale per group of `group_size`, or per row where that is 0.
QuantScheme IntegerScheme(int bits, int group_size, bool asymmetric);

// "int<bits>" activations with a scale per token, from the token itself.
QuantScheme TokenScheme(int bits, bool asymmetric);
// The symmetric int8 one with values beyond `threshold`, or with `whole_columns` the columns
// that hold one, left out and multiplied as they are (LLM.int8()); 0: nothing is left out.
QuantScheme OutlierScheme(float threshold, bool whole_columns);
bool IsFloatFormat(const QuantScheme& scheme);
bool SameScheme(const QuantScheme& a, const QuantScheme& b);

}  // namespace nibble

#endif  // NIBBLE_CORE_QUANT_ENCODED_H_
