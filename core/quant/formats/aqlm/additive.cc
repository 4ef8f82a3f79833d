#include "core/quant/formats/aqlm/additive.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status.h"
#include "core/quant/formats/aqlm/aqlm.pb.h"
#include "core/quant/formats/aqlm/kmeans.h"
#include "core/quant/format.h"
#include "core/quant/scale_type.h"
#include "core/tensor/half.h"

namespace nibble::additive {
namespace {

// Rows of a task. Gradients are summed in at most kMostParts parts.
constexpr int64_t kTaskRows = 64;
constexpr int64_t kMostParts = 16;

// Codes of up to 16 bits, least significant bit first.
void PackCodes(int bits, absl::Span<const uint16_t> codes, uint8_t* out) {
  uint32_t held = 0;
  int count = 0;
  for (const uint16_t code : codes) {
    held |= static_cast<uint32_t>(code) << count;
    for (count += bits; count >= 8; count -= 8, held >>= 8) *out++ = static_cast<uint8_t>(held);
  }
  if (count > 0) *out = static_cast<uint8_t>(held);
}

void UnpackCodes(int bits, const uint8_t* packed, absl::Span<uint16_t> codes) {
  uint32_t held = 0;
  int count = 0;
  for (uint16_t& code : codes) {
    for (; count < bits; count += 8) held |= static_cast<uint32_t>(*packed++) << count;
    code = static_cast<uint16_t>(held & ((1u << bits) - 1));
    held >>= bits;
    count -= bits;
  }
}

double Norm(const float* row, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(row[i]) * static_cast<double>(row[i]);
  return std::sqrt(sum);
}

}  // namespace

QuantScheme SchemeOf(int codebooks, int bits, int in_group) {
  QuantScheme scheme;
  scheme.set_format(kFormatName);
  scheme.set_per(QuantScheme::PER_ROW);
  scheme.set_scale_type(QuantScheme::FP16);
  AdditiveCodebooks* books = scheme.MutableExtension(additive_codebooks);
  books->set_codebooks(codebooks);
  books->set_bits(bits);
  books->set_in_group(in_group);
  return scheme;
}

AdditiveTensor EmptyOf(const QuantScheme& scheme, int64_t rows, int64_t cols) {
  const AdditiveCodebooks& books = scheme.GetExtension(additive_codebooks);
  AdditiveTensor tensor{rows, cols, books.codebooks(), books.bits(), books.in_group(), {}, {}, {}};
  tensor.codes.resize(rows * tensor.codes_per_row());
  tensor.words.resize(tensor.codebooks * tensor.words_per_codebook() * tensor.in_group);
  tensor.scales.resize(rows);
  return tensor;
}

void AdditiveTensor::DecodeRows(int64_t begin, int64_t end, bool scaled, float* out) const {
  const int64_t group_count = groups();
  std::vector<float> sum(in_group);
  for (int64_t r = begin; r < end; ++r) {
    const float scale = scaled ? scales[r] : 1.0f;
    for (int64_t g = 0; g < group_count; ++g) {
      const uint16_t* code = codes_of(r, g);
      std::copy_n(word(0, code[0]), in_group, sum.begin());
      for (int m = 1; m < codebooks; ++m) {
        const float* w = word(m, code[m]);
        for (int64_t j = 0; j < in_group; ++j) sum[j] += w[j];
      }
      const int64_t n = std::min(in_group, cols - g * in_group);
      for (int64_t j = 0; j < n; ++j) *out++ = scale * sum[j];
    }
  }
}

std::vector<float> AdditiveTensor::Decode(bool scaled, ThreadPool* pool) const {
  std::vector<float> out(rows * cols);
  ForEach(pool, CeilDiv(rows, kTaskRows), [&](int64_t task) {
    DecodeRows(task * kTaskRows, std::min(rows, (task + 1) * kTaskRows), scaled, out.data() + task * kTaskRows * cols);
  });
  return out;
}

void AdditiveTensor::Gradients(absl::Span<const float> gradient, ThreadPool* pool, std::vector<float>* word_gradient,
                               std::vector<float>* scale_gradient) const {
  const int64_t part_rows = std::max(kTaskRows, CeilDiv(rows, kMostParts)), parts = CeilDiv(rows, part_rows), group_count = groups();
  std::vector<std::vector<float>> sums(parts);
  if (scale_gradient != nullptr) scale_gradient->assign(rows, 0.0f);
  ForEach(pool, parts, [&](int64_t part) {
    std::vector<float>& sum = sums[part];
    sum.resize(words.size());
    for (int64_t r = part * part_rows; r < std::min(rows, (part + 1) * part_rows); ++r) {
      double of_scale = 0;
      for (int64_t g = 0; g < group_count; ++g) {
        const float* from = gradient.data() + r * cols + g * in_group;
        const int64_t n = std::min(in_group, cols - g * in_group);
        for (int m = 0; m < codebooks; ++m) {
          const int64_t at = (m * words_per_codebook() + codes_of(r, g)[m]) * in_group;
          for (int64_t j = 0; j < n; ++j) {
            sum[at + j] += scales[r] * from[j];
            of_scale += static_cast<double>(words[at + j] * from[j]);
          }
        }
      }
      if (scale_gradient != nullptr) (*scale_gradient)[r] = static_cast<float>(of_scale);
    }
  });
  word_gradient->assign(words.size(), 0.0f);
  for (const std::vector<float>& sum : sums) {
    for (size_t i = 0; i < sum.size(); ++i) (*word_gradient)[i] += sum[i];
  }
}

absl::Status RoundToStored(const QuantScheme& scheme, AdditiveTensor* tensor) {
  for (float& w : tensor->words) {
    w = Fp16ToFloat(FloatToFp16(w));
    if (!std::isfinite(w)) return absl::OutOfRangeError("a codeword does not fit fp16 (largest 65504)");
  }
  for (float& s : tensor->scales) {
    const float given = s;
    s = RoundToScaleType(scheme.scale_type(), s);
    if (std::isfinite(s)) continue;
    return absl::OutOfRangeError(absl::StrCat("scale ", given, " of row ", &s - tensor->scales.data(), " does not fit the scale type; use BF16 or FP32 scales"));
  }
  return absl::OkStatus();
}

absl::StatusOr<EncodedTensor> Pack(const QuantScheme& scheme, const Shape& shape, const AdditiveTensor& tensor) {
  AdditiveTensor stored = tensor;
  NIBBLE_RETURN_IF_ERROR(RoundToStored(scheme, &stored));
  NIBBLE_ASSIGN_OR_RETURN(const Format* format, FindFormat(scheme.format()));
  EncodedTensor encoded{scheme, shape, {}};
  for (const BufferSpec& spec : format->Layout(scheme, shape)) encoded.buffers.emplace(spec.name, Tensor::Zeros(spec.dtype, spec.shape));
  NIBBLE_CHECK(encoded.rows() == tensor.rows && encoded.cols() == tensor.cols);
  Tensor& codes = encoded.buffers.at("codes");
  const int64_t row_bytes = codes.dim(1), row_codes = tensor.codes_per_row();
  for (int64_t r = 0; r < tensor.rows; ++r) {
    PackCodes(tensor.bits, absl::MakeConstSpan(stored.codes).subspan(r * row_codes, row_codes), codes.mutable_as<uint8_t>().data() + r * row_bytes);
  }
  Tensor& books = encoded.buffers.at("codebooks");
  books = FloatsToDType(DType::kF16, books.shape(), stored.words);
  Tensor& scales = encoded.buffers.at("scales");
  for (int64_t r = 0; r < tensor.rows; ++r) StoreScale(stored.scales[r], r, &scales);
  return encoded;
}

AdditiveTensor UnpackRows(const EncodedTensor& encoded, int64_t begin, int64_t end) {
  AdditiveTensor tensor = EmptyOf(encoded.scheme, end - begin, encoded.cols());
  const Tensor& codes = encoded.buffer("codes");
  const int64_t row_codes = tensor.codes_per_row();
  for (int64_t r = begin; r < end; ++r) {
    UnpackCodes(tensor.bits, codes.bytes().data() + r * codes.dim(1), absl::MakeSpan(tensor.codes).subspan((r - begin) * row_codes, row_codes));
  }
  tensor.words = ToFloats(encoded.buffer("codebooks"));
  ReadFloats(encoded.buffer("scales"), begin, absl::MakeSpan(tensor.scales));
  return tensor;
}

AdditiveTensor Unpack(const EncodedTensor& encoded) { return UnpackRows(encoded, 0, encoded.rows()); }

absl::StatusOr<AdditiveTensor> ResidualKMeans(const QuantScheme& scheme, int64_t rows, int64_t cols, absl::Span<const float> values, int iterations,
                                              uint64_t seed, ThreadPool* pool) {
  AdditiveTensor tensor = EmptyOf(scheme, rows, cols);
  const int64_t groups = tensor.groups(), dim = tensor.in_group, count = tensor.words_per_codebook();
  const float least = std::max(static_cast<float>(scheme.scale_floor()), ScaleTypeFloor(scheme.scale_type()));
  for (int64_t r = 0; r < rows; ++r) tensor.scales[r] = std::max(static_cast<float>(Norm(values.data() + r * cols, cols)), least);
  NIBBLE_RETURN_IF_ERROR(RoundToStored(scheme, &tensor));
  std::vector<float> left(rows * groups * dim, 0.0f);  // of the normalised groups, padded with zeros
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) left[r * groups * dim + c] = values[r * cols + c] / tensor.scales[r];
  }
  for (int m = 0; m < tensor.codebooks; ++m) {
    std::vector<float> words = KMeans(left, dim, {.words = count, .iterations = iterations, .seed = seed + static_cast<uint64_t>(m)}, pool);
    for (float& w : words) w = Fp16ToFloat(FloatToFp16(w));
    const Assignment nearest = AssignNearest(left, dim, words, pool);
    for (int64_t i = 0; i < rows * groups; ++i) {
      const int64_t code = nearest.words[i];
      tensor.codes[i * tensor.codebooks + m] = static_cast<uint16_t>(code);
      for (int64_t j = 0; j < dim; ++j) left[i * dim + j] -= words[code * dim + j];
    }
    std::copy(words.begin(), words.end(), tensor.words.begin() + m * count * dim);
  }
  return tensor;
}

}  // namespace nibble::additive
