// Factors against an independent fp64 implementation, and what they do to maxima.

#include <algorithm>
#include <cmath>

#include "core/golden/golden_testing.h"
#include "methods/smoothquant/scales.h"

namespace nibble {
namespace {

class SmoothquantGolden : public GoldenTest {
 protected:
  SmoothquantGolden() : GoldenTest("methods.safetensors") {}
};

TEST_F(SmoothquantGolden, Scales) {
  const Tensor activation = Golden("smoothquant.act_absmax"), w = Golden("gptq.W");
  std::vector<double> weight_max(96);
  for (int64_t i = 0; i < w.elements(); ++i) weight_max[i % 96] = std::max(weight_max[i % 96], std::fabs(w.as<double>()[i]));
  for (const double alpha : {0.5, 0.85}) {
    const Tensor expected = Golden(absl::StrCat("smoothquant.alpha", alpha, ".scales"));
    const std::vector<double> scales = SmoothingScales(activation.as<double>(), weight_max, alpha);
    for (int j = 0; j < 96; ++j) EXPECT_NEAR(scales[j], expected.as<double>()[j], 1e-12 * scales[j]) << alpha;
  }
}

TEST(SmoothingScales, HandCase) {
  EXPECT_EQ(SmoothingScales({8, 0.5}, {0.5, 2}, 0.5), (std::vector<double>{4, 0.5}));
}

TEST(SmoothingScales, ProductsOfMaximaStay) {
  const std::vector<double> a = {8, 0.5, 3}, w = {0.5, 2, 0.01};
  for (const double alpha : {0.0, 0.3, 0.5, 1.0}) {
    const std::vector<double> s = SmoothingScales(a, w, alpha);
    for (int j = 0; j < 3; ++j) {
      EXPECT_NEAR(a[j] / s[j], std::pow(a[j] * w[j], 1 - alpha), 1e-12);
      EXPECT_NEAR(w[j] * s[j], std::pow(a[j] * w[j], alpha), 1e-12);
    }
  }
}

}  // namespace
}  // namespace nibble
