#include <limits>

#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

TEST(Hqq, StoresRealZerosInHalfPrecision) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.hqq] { group_size: 16 } }", graph));
  const QuantScheme scheme = WeightScheme(graph, "model.layers.0.mlp.up_proj");
  EXPECT_EQ(scheme.format(), "affine4");
  EXPECT_EQ(scheme.group_size(), 16);
  EXPECT_EQ(scheme.scale_type(), QuantScheme::FP16);
}

TEST(Hqq, MoreBitsChangeLess) {
  double last = 1e9;
  for (const int bits : {2, 4, 8}) {
    const double change = ChangeBy(absl::StrCat("step { [nibble.hqq] { bits: ", bits, " group_size: 16 } }"));
    EXPECT_LT(change, last) << bits;
    last = change;
  }
  EXPECT_LT(last, 0.02);
}

TEST(Hqq, WeightsThatNoGridHoldsAreErrors) {
  const auto error = [](float weight) {
    ir::Graph graph = TinyGraph();
    ir::Parameter& parameter = graph.mutable_parameter(*graph.FindOp("model.layers.0.mlp.up_proj")->weight);
    Tensor values = Tensor::Zeros(DType::kF32, parameter.shape());
    values.mutable_as<float>()[5] = weight;
    EXPECT_OK(parameter.Replace(WrapFloats(std::move(values)).value()));
    return std::string(ApplyText("step { [nibble.hqq] { group_size: 16 } }", graph).message());
  };
  EXPECT_THAT(error(std::numeric_limits<float>::quiet_NaN()), HasSubstr("row 0, column 5 is nan"));
  EXPECT_THAT(error(1e8f), HasSubstr("the scale does not fit the scale type"));
  EXPECT_EQ(error(1), "");
}

TEST(Hqq, OptionMistakesAreNamed) {
  EXPECT_THAT(ErrorOf("step { [nibble.hqq] { bits: 9 } }"), HasSubstr("bits: 9"));
  EXPECT_THAT(ErrorOf("step { [nibble.hqq] { group_size: -1 } }"), HasSubstr("group_size"));
  EXPECT_THAT(ErrorOf("step { [nibble.hqq] { norm: 0 } }"), HasSubstr("norm: 0"));
  EXPECT_THAT(ErrorOf("step { [nibble.hqq] { beta: 0 } }"), HasSubstr("beta"));
  EXPECT_THAT(ErrorOf("step { [nibble.hqq] { growth: 0.5 } }"), HasSubstr("growth"));
}

}  // namespace
}  // namespace nibble
