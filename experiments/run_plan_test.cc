#include "experiments/run_plan.h"

#include "core/base/file.h"
#include "core/base/testing.h"
#include "experiments/expand.h"
#include "methods/testing.h"

namespace nibble {
namespace {

constexpr char kConfig[] = R"(name: "t"
model { source: "synthetic:tiny" }
baseline { name: "bf16" step { [nibble.baseline] {} } }
variant { name: "w4" step { [nibble.rtn] { bits: 4 group_size: 32 } } }
variant {
  name: "timed"
  step { [nibble.outlier_stress] {} }
  step { [nibble.autoquant] { data { text: "text.txt" window: 32 } } }
  step { [nibble.kv_cache] {} }
}
metric { size {} }
)";

class RunPlanTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string dir = TestTempDir();
    ASSERT_OK(WriteFile(dir + "/text.txt", "What is calibrated on, no test text."));
    ASSERT_OK(WriteFile(dir + "/c.textproto", kConfig));
    ASSERT_OK_AND_ASSIGN(experiment_, LoadExperiment(dir + "/c.textproto", {}));
  }

  absl::StatusOr<RunPlan> PlanFor(int threads) const {
    RunPlanOptions options;
    options.threads = threads;
    return RunPlan::Make(experiment_, options);
  }

  ExpandedExperiment experiment_;
};

// A model that timings chose is no other machine's; the beginning before them is.
TEST_F(RunPlanTest, KeysOfModelsThatTimingsChoseNameTheMachine) {
  ASSERT_OK_AND_ASSIGN(const RunPlan one, PlanFor(1));
  ASSERT_OK_AND_ASSIGN(const RunPlan again, PlanFor(1));
  ASSERT_OK_AND_ASSIGN(const RunPlan two, PlanFor(2));
  ASSERT_EQ(one.variants().size(), 3u);
  for (size_t v = 0; v < 3; ++v) EXPECT_EQ(one.variants()[v].keys, again.variants()[v].keys);
  for (const size_t v : {0, 1}) {
    EXPECT_EQ(one.variants()[v].keys, two.variants()[v].keys);
    EXPECT_EQ(one.variants()[v].measurements[0].key, two.variants()[v].measurements[0].key);
  }
  const PlannedVariant &of_one = one.variants()[2], &of_two = two.variants()[2];
  ASSERT_EQ(of_one.keys.size(), 3u);
  EXPECT_EQ(of_one.keys[0], of_two.keys[0]);
  EXPECT_NE(of_one.keys[1], of_two.keys[1]);
  EXPECT_NE(of_one.keys[2], of_two.keys[2]);
  EXPECT_NE(of_one.measurements[0].key, of_two.measurements[0].key);
}

}  // namespace
}  // namespace nibble
