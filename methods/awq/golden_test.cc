// The search's losses against an independent fp64 implementation.

#include <cmath>

#include "core/golden/golden_testing.h"
#include "core/quant/format.h"
#include "methods/awq/search.h"

namespace nibble {
namespace {

class AwqGolden : public GoldenTest {
 protected:
  AwqGolden() : GoldenTest("methods.safetensors") {}
};

std::vector<float> Floats(const Tensor& tensor) { return {tensor.as<double>().begin(), tensor.as<double>().end()}; }

TEST_F(AwqGolden, LossesOfTwentyExponents) {
  const Tensor mean = Golden("awq.act_mean"), losses = Golden("awq.losses_20_ratios");
  const std::vector<float> w = Floats(Golden("gptq.W")), x = Floats(Golden("awq.X"));
  int best = 0;
  std::vector<double> ours;
  for (int i = 0; i < 20; ++i) {
    const std::vector<double> scales = AwqScales(mean.as<double>(), i / 20.0);
    ASSERT_OK_AND_ASSIGN(const std::vector<float> rounded, RoundScaled(IntegerScheme(4, 32, true), w, scales));
    ours.push_back(OutputError(w, rounded, x, 96) / (400 * 16));
    EXPECT_NEAR(ours[i], losses.as<double>()[i], 2e-3 * losses.as<double>()[i]) << i;
    if (ours[i] < ours[best]) best = i;
  }
  EXPECT_EQ(best, 8);
}

TEST(AwqScales, HandCase) {
  EXPECT_EQ(AwqScales({4, 1, 0.25}, 0.5), (std::vector<double>{2, 1, 0.5}));
  EXPECT_EQ(AwqScales({4, 1, 0.25}, 0), (std::vector<double>{1, 1, 1}));
}

// One weight of four that meets no input costs nothing when it is clipped.
TEST(ClipWeights, ClipsWhatNoInputMeets) {
  ThreadPool pool(1);
  const std::vector<float> w = {0.11f, -0.23f, 0.37f, 3.0f}, x = {1, 1, 1, 0, 1, -1, 1, 0};
  ASSERT_OK_AND_ASSIGN(const std::vector<float> clipped, ClipWeights(IntegerScheme(4, 4, false), w, x, 4, pool));
  EXPECT_LT(clipped[3], 3.0f);
  EXPECT_EQ(clipped[2], 0.37f);
  ASSERT_OK_AND_ASSIGN(const std::vector<float> rounded, RoundScaled(IntegerScheme(4, 4, false), w, {1, 1, 1, 1}));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> better, RoundScaled(IntegerScheme(4, 4, false), clipped, {1, 1, 1, 1}));
  EXPECT_LT(OutputError(w, better, x, 4), OutputError(w, rounded, x, 4));
}

}  // namespace
}  // namespace nibble
