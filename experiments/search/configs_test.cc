// Every search among the committed configs passes the checks that come before one.
// configs/configs_test.sh does the same for experiments.
#include <filesystem>

#include "absl/strings/match.h"
#include "core/base/file.h"
#include "core/base/testing.h"
#include "experiments/search/search.h"
#include "experiments/text_config.h"

namespace nibble {
namespace {

TEST(SearchConfigs, PassTheChecks) {
  int checked = 0;
  for (const auto& entry : std::filesystem::directory_iterator("configs")) {
    const std::string path = entry.path().string();
    if (!absl::EndsWith(path, ".textproto")) continue;
    ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(path));
    if (!absl::StrContains(text, "# proto-message: nibble.Search\n")) continue;
    Search search;
    ASSERT_OK(ParseText(text, path, &search));
    EXPECT_OK(ResolveIncludedData(&search, DirectoryOf(path)));
    const absl::Status status = CheckSearch(search);
    EXPECT_TRUE(status.ok()) << path << ": " << status;
    ++checked;
  }
  EXPECT_GE(checked, 3);
}

}  // namespace
}  // namespace nibble
