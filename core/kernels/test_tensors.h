// Random schemes, tensors and inputs for the tests of this room.
#ifndef NIBBLE_CORE_KERNELS_TEST_TENSORS_H_
#define NIBBLE_CORE_KERNELS_TEST_TENSORS_H_

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/rng.h"
#include "core/quant/encoded.h"

namespace nibble::kernels {

inline std::vector<float> RandomFloats(int64_t n, Rng& rng, float scale = 1) {
  std::vector<float> values(n);
  for (float& v : values) v = rng.Normal() * scale;
  return values;
}

// group: elements, 0 for a scale per row, -1 for one per tensor.
inline QuantScheme WeightScheme(int bits, bool asymmetric, int64_t group) {
  QuantScheme scheme;
  scheme.set_format(absl::StrCat("int", bits));
  scheme.set_asymmetric(asymmetric);
  scheme.set_per(group > 0 ? QuantScheme::PER_GROUP : group == 0 ? QuantScheme::PER_ROW : QuantScheme::PER_TENSOR);
  if (group > 0) scheme.set_group_size(static_cast<int32_t>(group));
  return scheme;
}

inline EncodedTensor RandomWeight(const QuantScheme& scheme, int64_t rows, int64_t cols, Rng& rng) {
  auto encoded = Encode(scheme, {rows, cols}, RandomFloats(rows * cols, rng, 0.1f));
  NIBBLE_CHECK(encoded.ok());
  return *std::move(encoded);
}

// A product in double precision and the sum of its terms' magnitudes, which
// bounds rounding.
struct Reference {
  std::vector<double> y, magnitude;  // [tokens, rows]
};

inline Reference ReferenceProduct(const std::vector<float>& w, const std::vector<float>& x, int64_t rows, int64_t cols,
                                  int64_t tokens) {
  Reference reference;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < cols; ++k) {
        const double product = static_cast<double>(w[r * cols + k]) * x[t * cols + k];
        sum += product;
        magnitude += product < 0 ? -product : product;
      }
      reference.y.push_back(sum);
      reference.magnitude.push_back(magnitude);
    }
  }
  return reference;
}

}  // namespace nibble::kernels

#endif  // NIBBLE_CORE_KERNELS_TEST_TENSORS_H_
