// The BF16 table with its two instructions emulated, on machines that lack them:
// everything but the instructions themselves.

#include <cmath>

#include "core/base/testing.h"
#include "core/kernels/instruction_sets.h"
#include "core/kernels/linear.h"
#include "core/kernels/test_tensors.h"
#include "core/tensor/half.h"

namespace nibble::kernels {
namespace {

bool HasAvx512() { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"); }

// The fastest table of this machine with emulated products.
KernelTable EmulatedTable() {
  KernelTable table = *AvailableTables().back();
  table.multiply_bf16_panels = EmulatedMultiplyBf16Panels;
  table.round_to_bf16 = EmulatedRoundToBf16;
  return table;
}

TEST(EmulatedBf16Test, RoundsAsTheFormat) {
  if (!HasAvx512()) GTEST_SKIP() << "AVX-512 is not on this machine";
  Rng rng(1);
  std::vector<float> x = RandomFloats(75, rng);
  x[3] = std::nanf(""), x[4] = INFINITY, x[5] = 1.00390625f, x[6] = 1.01171875f;  // the last two: ties
  std::vector<uint16_t> out(x.size() + 1, 7);
  EmulatedRoundToBf16(x.data(), static_cast<int64_t>(x.size()), out.data());
  EXPECT_EQ(out.back(), 7) << "wrote beyond the values";
  for (size_t i = 0; i < x.size(); ++i) {
    if (i == 3) EXPECT_TRUE(std::isnan(Bf16ToFloat(out[i])));
    else EXPECT_EQ(out[i], FloatToBf16(x[i])) << x[i];
  }
}

TEST(EmulatedBf16Test, LinearsAgreeWithTheirDefinition) {
  if (!HasAvx512()) GTEST_SKIP() << "AVX-512 is not on this machine";
  const KernelTable table = EmulatedTable();
  Rng rng(2);
  ThreadPool pool(2);
  const int64_t shapes[][3] = {{70, 64, 40}, {5, 2, 17}, {33, 1030, 29}, {64, 96, 3}, {16, 7, 20}, {300, 514, 18}};
  for (const auto& [rows, cols, tokens] : shapes) {
    const EncodedTensor weight = RandomWeight(FloatScheme("bf16"), rows, cols, rng);
    const std::vector<float> x = RandomFloats(tokens * cols, rng), w = Decode(weight);
    auto linear = Linear::Create(weight, FloatScheme("bf16"), table);
    NIBBLE_CHECK_OK(linear.status());
    EXPECT_EQ((*linear)->arithmetic(), Arithmetic::kNative);
    EXPECT_EQ((*linear)->input_form().kind == InputForm::Kind::kBf16, cols % 2 == 0);
    PreparedInput input;
    NIBBLE_CHECK_OK(input.Prepare((*linear)->input_form(), table, x.data(), tokens, pool));
    std::vector<float> y(tokens * rows);
    NIBBLE_CHECK_OK((*linear)->Multiply(input, y.data(), rows, pool));
    for (int64_t i = 0; i < tokens * rows; ++i) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < cols; ++k) {
        const double product = static_cast<double>(w[i % rows * cols + k]) * Bf16ToFloat(FloatToBf16(x[i / rows * cols + k]));
        sum += product, magnitude += std::fabs(product);
      }
      ASSERT_NEAR(y[i], sum, 3e-6 * magnitude + 1e-30) << rows << "x" << cols << ", token " << i / rows << " row " << i % rows;
    }
  }
}

TEST(EmulatedBf16Test, ProbeGivesANumber) {
  if (!HasAvx512()) GTEST_SKIP() << "AVX-512 is not on this machine";
  EXPECT_TRUE(std::isfinite(EmulatedProbeMultiplyBf16(10)));
}

}  // namespace
}  // namespace nibble::kernels
