#include "experiments/live_table.h"

#include "absl/strings/match.h"
#include "core/base/testing.h"

namespace nibble {
namespace {

LiveTable Table(int rows) {
  std::vector<std::string> names;
  for (int i = 0; i < rows; ++i) names.push_back(absl::StrCat("w", i));
  return LiveTable(names, {"perplexity/prose", "accuracy/questions", "size_mib"});
}

TEST(LiveTable, RowsAreVariantsAndColumnsMetrics) {
  LiveTable table = Table(2);
  table.SetCell(1, 0, "21.5");
  table.SetCell(1, 2, "64.03");
  table.SetFooter("[3/6, 0:40 left] w1: accuracy/questions", "scoring 5/20 25% 0:12 left");
  EXPECT_EQ(table.Lines({80, 24}), (std::vector<std::string>{
                                       "                 perplexity       accuracy       size_mib",
                                       "                      prose      questions               ",
                                       "w0                                                       ",
                                       "w1                     21.5                         64.03",
                                       "[3/6, 0:40 left] w1: accuracy/questions",
                                       "scoring 5/20 25% 0:12 left",
                                   }));
}

TEST(LiveTable, WhatDoesNotFitIsCounted) {
  LiveTable table = Table(30);
  table.SetCurrent(20);
  const auto lines = table.Lines({40, 16});
  ASSERT_EQ(lines.size(), 13);
  EXPECT_TRUE(absl::StartsWith(lines[0], "+2 metrics")) << lines[0];
  EXPECT_EQ(lines[2].substr(0, 3), "w15");
  EXPECT_EQ(lines[11].substr(0, 3), "w24");
  EXPECT_EQ(lines[12], "variants 16 to 25 of 30");
  for (const std::string& line : lines) EXPECT_LT(line.size(), 40);
}

TEST(LiveTable, TheLastRowsAreShownToTheEnd) {
  LiveTable table = Table(30);
  table.SetCurrent(29);
  const auto lines = table.Lines({40, 16});
  EXPECT_EQ(lines[11].substr(0, 3), "w29");
}

TEST(LiveTable, NamesAreCutBetweenCharacters) {
  LiveTable table({std::string(40, 'x') + "\xc3\xa9", "\xc3\xa9\xc3\xa9"}, {"size_mib"});
  const auto lines = table.Lines({24, 24});
  EXPECT_EQ(lines[2], std::string(23, 'x'));
  EXPECT_EQ(lines[3], "\xc3\xa9\xc3\xa9" + std::string(21, ' '));
}

TEST(LiveTable, ItIsDrawnOverItself) {
  LiveTable table = Table(1);
  const std::string path = TestTempDir() + "/terminal";
  std::FILE* file = std::fopen(path.c_str(), "wb");
  table.Draw(file, {80, 24});
  table.Draw(file, {80, 24}, "w0: built");
  std::fclose(file);
  std::FILE* back = std::fopen(path.c_str(), "rb");
  char bytes[4096];
  const std::string text(bytes, std::fread(bytes, 1, sizeof(bytes), back));
  std::fclose(back);
  EXPECT_TRUE(absl::StrContains(text, "\033[3A\r\033[Jw0: built\n")) << text;
}

}  // namespace
}  // namespace nibble
