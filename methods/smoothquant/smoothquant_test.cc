#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

std::string Step(const std::string& options = "") {
  return absl::StrCat("step { [nibble.smoothquant] { data { text: \"text.txt\" window: 32 } ", options, " } } ");
}

TEST(Smoothquant, KeepsTheFunction) {
  for (const char* options : {"", "alpha: 0.85", "alpha: 1", "search: 0.3 search: 0.7"}) {
    ir::Graph graph = TinyGraph();
    // Stored in fp32, so that moving factors rounds next to nothing.
    ASSERT_OK(ApplyText("step { [nibble.baseline] { dtype: FP32 } }", graph));
    const std::vector<float> before = TinyLogits(graph);
    ASSERT_OK(ApplyText(Step(options), graph));
    EXPECT_LT(RelativeChange(before, TinyLogits(graph)), 1e-5) << options;
  }
}

TEST(Smoothquant, RepairsOutliers) {
  const std::string stress = "step { [nibble.baseline] { dtype: FP32 } } step { [nibble.outlier_stress] { channels: 2 factor: 64 } } ";
  const std::string w8a8 = "step { [nibble.dynamic_int8] {} }";
  const double plain = ChangeBy(stress + w8a8), smooth = ChangeBy(stress + Step() + w8a8), searched = ChangeBy(stress + Step("search: 0.25 search: 0.5 search: 0.75") + w8a8);
  EXPECT_LT(smooth, 0.5 * plain);
  EXPECT_LT(searched, 1.05 * smooth);
}

TEST(Smoothquant, ASearchOfOneValueIsThatValue) {
  ir::Graph fixed = TinyGraph(), searched = TinyGraph();
  ASSERT_OK(ApplyText(Step("alpha: 0.75"), fixed));
  ASSERT_OK(ApplyText(Step("search: 0.75"), searched));
  EXPECT_EQ(TinyLogits(fixed), TinyLogits(searched));
}

TEST(Smoothquant, OptionMistakesAreNamed) {
  EXPECT_THAT(ErrorOf("step { [nibble.smoothquant] {} }"), HasSubstr("data { text"));
  EXPECT_THAT(ErrorOf(Step("alpha: 1.5")), HasSubstr("alpha: 1.5"));
  EXPECT_THAT(ErrorOf(Step("search: -1")), HasSubstr("alpha: -1"));
  EXPECT_THAT(ErrorOf(Step("samples: 0")), HasSubstr("samples"));
  EXPECT_THAT(ErrorOf("step { [nibble.rtn] {} } " + Step()), HasSubstr("already quantized"));
}

}  // namespace
}  // namespace nibble
