// A matrix as sums of codewords, open to change: what the format aqlm stores, its
// encoders solve for and its kernels read.
//
//   w[r][g I + j] = scale[r] sum over m of codebook[m][code[r][g][m]][j],  I = in_group
//
// (Egiazarian et al., "Extreme Compression of Large Language Models via Additive
// Quantization", ICML 2024, section 3.)
#ifndef NIBBLE_CORE_QUANT_FORMATS_AQLM_ADDITIVE_H_
#define NIBBLE_CORE_QUANT_FORMATS_AQLM_ADDITIVE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/divide.h"
#include "core/base/thread_pool.h"
#include "core/quant/encoded.h"

namespace nibble::additive {

inline constexpr char kFormatName[] = "aqlm";
inline constexpr int kMostInGroup = 64;

// The scheme of aqlm tensors with fp16 scales.
QuantScheme SchemeOf(int codebooks, int bits, int in_group);

struct AdditiveTensor {
  int64_t rows = 0, cols = 0;
  int codebooks = 0, bits = 0;
  int64_t in_group = 0;
  std::vector<uint16_t> codes;  // [rows, groups, codebooks]
  std::vector<float> words;     // [codebooks, 2^bits, in_group]
  std::vector<float> scales;    // [rows]

  int64_t groups() const { return CeilDiv(cols, in_group); }
  int64_t words_per_codebook() const { return int64_t{1} << bits; }
  int64_t codes_per_row() const { return groups() * codebooks; }
  const float* word(int codebook, int64_t code) const { return words.data() + (codebook * words_per_codebook() + code) * in_group; }
  const uint16_t* codes_of(int64_t row, int64_t group) const { return codes.data() + (row * groups() + group) * codebooks; }
  uint16_t* codes_of(int64_t row, int64_t group) { return codes.data() + (row * groups() + group) * codebooks; }

  // Rows [begin, end), with or without their scales.
  void DecodeRows(int64_t begin, int64_t end, bool scaled, float* out) const;
  std::vector<float> Decode(bool scaled = true, ThreadPool* pool = nullptr) const;

  // Given the gradient of a loss with respect to the decoded weights [rows, cols], that
  // with respect to the codewords, like `words`, and the scales; `scale_gradient` may
  // be null. Sums are taken in an order that the shape alone decides.
  void Gradients(absl::Span<const float> gradient, ThreadPool* pool, std::vector<float>* word_gradient, std::vector<float>* scale_gradient) const;
};

// An empty tensor under the scheme.
AdditiveTensor EmptyOf(const QuantScheme& scheme, int64_t rows, int64_t cols);

// Codes, codebooks in fp16 and scales in their type. An error where a number leaves
// its type.
absl::StatusOr<EncodedTensor> Pack(const QuantScheme& scheme, const Shape& shape, const AdditiveTensor& tensor);
AdditiveTensor Unpack(const EncodedTensor& tensor);
// Rows [begin, end) alone.
AdditiveTensor UnpackRows(const EncodedTensor& tensor, int64_t begin, int64_t end);

// Codewords and scales as they are stored.
absl::Status RoundToStored(const QuantScheme& scheme, AdditiveTensor* tensor);

// Without data: a row's scale is its Euclidean norm, and each codebook the k-means
// centroids of what those before leave of the groups of normalised rows (AQLM,
// section 3.2, initialization).
absl::StatusOr<AdditiveTensor> ResidualKMeans(const QuantScheme& scheme, int64_t rows, int64_t cols, absl::Span<const float> values, int iterations,
                                              uint64_t seed, ThreadPool* pool);

}  // namespace nibble::additive

#endif  // NIBBLE_CORE_QUANT_FORMATS_AQLM_ADDITIVE_H_
