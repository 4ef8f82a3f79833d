#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

std::string SchemeOf(const std::string& options) {
  ir::Graph graph = TinyGraph();
  EXPECT_OK(ApplyText(absl::StrCat("step { [nibble.quanto] { ", options, " } }"), graph));
  return SchemeToString(WeightScheme(graph, "model.layers.0.mlp.up_proj"));
}

TEST(Quanto, PresetsChooseFormats) {
  EXPECT_EQ(SchemeOf(""), "affine4 per group of 128, bf16 scales and zeros");
  EXPECT_EQ(SchemeOf("weights: QINT2 group_size: 32"), "affine2 per group of 32, bf16 scales and zeros");
  EXPECT_EQ(SchemeOf("weights: QINT4 group_size: 0"), "affine4 per row, bf16 scales and zeros");
  EXPECT_THAT(SchemeOf("weights: QINT8"), HasSubstr("int8 per row, symmetric"));
  EXPECT_THAT(SchemeOf("weights: QFLOAT8"), HasSubstr("fp8_e4m3 per row"));
}

TEST(Quanto, EveryTypeTakesEveryGranularity) {
  for (const auto& [type, format] : {std::pair("QINT2", "affine2"), {"QINT4", "affine4"}, {"QINT8", "int8"}, {"QFLOAT8", "fp8_e4m3"}}) {
    const auto of = [type = type](const std::string& rest) { return SchemeOf(absl::StrCat("weights: ", type, " ", rest)); };
    EXPECT_THAT(of("per: PER_TENSOR"), HasSubstr(absl::StrCat(format, " per tensor")));
    EXPECT_THAT(of("per: PER_ROW"), HasSubstr(absl::StrCat(format, " per row")));
    EXPECT_THAT(of("per: PER_GROUP"), HasSubstr(absl::StrCat(format, " per group of 128")));
    EXPECT_EQ(of("group_size: 16"), of("per: PER_GROUP group_size: 16"));
    EXPECT_THAT(of("group_size: 16"), HasSubstr(absl::StrCat(format, " per group of 16")));
    EXPECT_THAT(of("group_size: 0"), HasSubstr(absl::StrCat(format, " per row")));
  }
}

TEST(Quanto, SmallerPartsLoseLess) {
  const auto change = [](const std::string& per) { return ChangeBy(absl::StrCat("step { [nibble.quanto] { weights: QINT8 ", per, " } }")); };
  EXPECT_LT(change("group_size: 8"), change(""));
  EXPECT_LT(change(""), change("per: PER_TENSOR"));
}

// The static ranges of a model's inputs, from a text of several batches that differ.
std::vector<float> RangesOf(const std::string& options, const std::string& calibration) {
  std::string text;
  for (int i = 0; i < 600; ++i) absl::StrAppend(&text, "line ", i * i, " of the text; ");
  EXPECT_OK(WriteFile(TestWorkplace().directory + "/batches.txt", text));
  ir::Graph graph = TinyGraph();
  EXPECT_OK(ApplyText(absl::StrCat("step { [nibble.quanto] { weights: QINT8 activations: INT8 ", options,
                                   " calibration { data { text: \"batches.txt\" window: 32 } samples: 256 ", calibration, " } } }"),
                      graph));
  std::vector<float> ranges;
  for (const ir::Op& op : graph.ops()) {
    if (!op.activation.has_value()) continue;
    ranges.push_back(-op.activation->fixed().min());
    ranges.push_back(op.activation->fixed().max());
  }
  return ranges;
}

TEST(Quanto, RangesAreAveragesWithTheirMomentumUnlessAbsMaxIsAsked) {
  const std::vector<float> average = RangesOf("", ""), all = RangesOf("ranges: ABSMAX", "");
  EXPECT_EQ(average, RangesOf("", "momentum: 0.9"));
  EXPECT_NE(average, RangesOf("", "momentum: 0.1"));
  ASSERT_EQ(average.size(), all.size());
  ASSERT_FALSE(all.empty());
  EXPECT_NE(average, all);
  for (size_t i = 0; i < all.size(); ++i) EXPECT_LE(average[i], all[i]);
}

TEST(Quanto, ActivationsAreStatic) {
  for (const char* type : {"INT8", "FLOAT8"}) {
    ir::Graph graph = TinyGraph();
    const std::string calibration = "calibration { data { text: \"text.txt\" window: 32 } }";
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
  EXPECT_THAT(ErrorOf("step { [nibble.quanto] { ranges: ABSMAX } }"), HasSubstr("activations: INT8"));
  EXPECT_THAT(ErrorOf("step { [nibble.quanto] { per: PER_TOKEN } }"), HasSubstr("per: PER_TOKEN is not for weights"));
  EXPECT_THAT(ErrorOf("step { [nibble.quanto] { weights: QINT8 per: PER_ROW group_size: 32 } }"),
              HasSubstr("group_size: 32 is for per: PER_GROUP, got per: PER_ROW"));
  EXPECT_THAT(ErrorOf("step { [nibble.quanto] { weights: QFLOAT8 per: PER_GROUP group_size: 0 } }"), HasSubstr("PER_GROUP needs group_size"));
  const std::string twice = "activations: INT8 ranges: ABSMAX calibration { data { text: \"text.txt\" window: 32 } momentum: 0.9 }";
  EXPECT_THAT(ErrorOf(absl::StrCat("step { [nibble.quanto] { ", twice, " } }")), HasSubstr("ranges: ABSMAX takes none"));
}

}  // namespace
}  // namespace nibble
