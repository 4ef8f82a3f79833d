// The solver against an independent fp64 implementation of GPTQ, on a Hessian
// with a dead column and an outlier.

#include "core/golden/golden_testing.h"
#include "core/quant/format.h"
#include "core/quant/integer_grid.h"
#include "methods/gptq/solver.h"

namespace nibble {
namespace {

struct GoldenCase {
  const char* name;
  int bits, group;
  bool act_order;
};

class GptqGolden : public GoldenTest, public ::testing::WithParamInterface<GoldenCase> {
 protected:
  GptqGolden() : GoldenTest("methods.safetensors") {}
};

TEST_P(GptqGolden, CodesScalesAndLoss) {
  const GoldenCase& golden = GetParam();
  const std::string prefix = absl::StrCat("gptq.", golden.name, ".");
  const Tensor h = Golden("gptq.H"), w = Golden("gptq.W");
  const GptqSettings settings = {0.01, golden.act_order, false, 128};
  ThreadPool pool(1);
  ASSERT_OK_AND_ASSIGN(const HessianFactor factor, FactorHessian({h.as<double>().begin(), h.as<double>().end()}, settings, pool));
  EXPECT_TRUE(factor.dead[40]);
  QuantScheme scheme;
  scheme.set_format(absl::StrCat("int", golden.bits));
  scheme.set_per(golden.group > 0 ? QuantScheme::PER_GROUP : QuantScheme::PER_ROW);
  if (golden.group > 0) scheme.set_group_size(golden.group);
  const std::vector<float> weights(w.as<double>().begin(), w.as<double>().end());
  ASSERT_OK_AND_ASSIGN(const GptqSolution solution, SolveGptq(scheme, 16, weights, factor, settings, pool));
  ASSERT_OK_AND_ASSIGN(const CodeView view, AsIntegers(solution.encoded));
  const Tensor codes = Golden(prefix + "codes"), scales = Golden(prefix + "scales");
  for (int64_t r = 0; r < 16; ++r) {
    std::vector<uint8_t> row(96);
    view.UnpackCodes(r, absl::MakeSpan(row));
    for (int64_t c = 0; c < 96; ++c) EXPECT_EQ(row[c] - view.zero(r, c / view.group), codes.as<int32_t>()[r * 96 + c]) << r << ", " << c;
    for (int64_t g = 0; g < view.groups; ++g) EXPECT_NEAR(view.scale(r, g), scales.as<double>()[r * view.groups + g], 1e-6);
  }
  EXPECT_LT(MaxError(Decode(solution.encoded), Golden(prefix + "decoded").as<double>()), 1e-5);
  EXPECT_NEAR(solution.loss, Golden(prefix + "loss").as<double>()[0], 1e-5);
  if (golden.group == 0 && golden.bits == 4) EXPECT_NEAR(solution.rounding_loss, 0.7178, 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Settings, GptqGolden,
                         ::testing::Values(GoldenCase{"w4_channel", 4, 0, false}, GoldenCase{"w4_channel_actorder", 4, 0, true},
                                           GoldenCase{"w4_g32", 4, 32, false}, GoldenCase{"w3_g32", 3, 32, false}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace nibble
