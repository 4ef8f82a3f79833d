#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

TEST(Quanto, PresetsChooseFormats) {
  const auto scheme_of = [](const std::string& options) {
    ir::Graph graph = TinyGraph();
    EXPECT_OK(ApplyText(absl::StrCat("step { [nibble.quanto] { ", options, " } }"), graph));
    return SchemeToString(WeightScheme(graph, "model.layers.0.mlp.up_proj"));
  };
  EXPECT_EQ(scheme_of(""), "affine4 per group of 128, bf16 scales and zeros");
  EXPECT_EQ(scheme_of("weights: QINT2 group_size: 32"), "affine2 per group of 32, bf16 scales and zeros");
  EXPECT_EQ(scheme_of("weights: QINT4 group_size: 0"), "affine4 per row, bf16 scales and zeros");
  EXPECT_THAT(scheme_of("weights: QINT8"), HasSubstr("int8 per row, symmetric"));
  EXPECT_THAT(scheme_of("weights: QFLOAT8"), HasSubstr("fp8_e4m3 per row"));
}

TEST(Quanto, ActivationsAreStatic) {
  for (const char* type : {"INT8", "FLOAT8"}) {
    ir::Graph graph = TinyGraph();
    const std::string calibration = "calibration { data { text: \"text.txt\" window: 32 } momentum: 0.9 }";
    ASSERT_OK(ApplyText(absl::StrCat("step { [nibble.quanto] { weights: QINT8 activations: ", type, " ", calibration, " } }"), graph));
    const auto& activation = graph.FindOp("model.layers.1.self_attn.o_proj")->activation;
    ASSERT_TRUE(activation.has_value() && activation->has_fixed()) << type;
    EXPECT_FALSE(activation->asymmetric());
  }
}

TEST(Quanto, OptionMistakesAreNamed) {
  EXPECT_THAT(ErrorOf("step { [nibble.quanto] { group_size: -4 } }"), HasSubstr("group_size"));
  EXPECT_THAT(ErrorOf("step { [nibble.quanto] { activations: INT8 } }"), HasSubstr("data { text"));
  EXPECT_THAT(ErrorOf("step { [nibble.quanto] { calibration { data { text: \"text.txt\" } } } }"), HasSubstr("activations: INT8"));
}

}  // namespace
}  // namespace nibble
