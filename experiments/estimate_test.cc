#include "experiments/estimate.h"

#include <optional>

#include "core/base/testing.h"
#include "core/kernels/machine.h"
#include "methods/testing.h"

namespace nibble {
namespace {

double MemoryOf(const OpenedModel& model, const std::string& steps) { return BuildMemory(model, ParsePipeline(steps)); }

class EstimateTest : public ::testing::Test {
 protected:
  // Weights are made when they are asked for.
  void SetUp() override {
    auto model = OpenModel("synthetic:llama-3.2-1b");
    ASSERT_OK(model);
    model_.emplace(*std::move(model));
  }

  std::optional<OpenedModel> model_;
};

TEST_F(EstimateTest, ABuildHoldsItsResultAndALayer) {
  const auto source = static_cast<double>(model_->source.weight_bytes);
  const double rounding = MemoryOf(*model_, "step { [nibble.rtn] { bits: 4 } }");
  EXPECT_GT(rounding, source);
  EXPECT_LT(rounding, 1.6 * source);  // the source is mapped, not held beside it
}

TEST_F(EstimateTest, WhatLearnsTakesMore) {
  const double rounding = MemoryOf(*model_, "step { [nibble.rtn] { bits: 4 } }");
  const auto calibrating = [&](int samples) {
    return MemoryOf(*model_, absl::StrCat("step { [nibble.gptq] { bits: 4 samples: ", samples, " data { text: \"t.txt\" window: 2048 } } }"));
  };
  // Second moments of 8192 inputs and their factors, in fp64.
  EXPECT_GT(calibrating(1), rounding + 2.0 * 8 * 8192 * 8192);
  // Hidden states of 2048 values.
  EXPECT_GT(calibrating(128), calibrating(1) + 4.0 * 127 * 2048 * 2048);
  EXPECT_GT(MemoryOf(*model_, "step { [nibble.sft] { data { text: \"t.txt\" } training { steps: 500 learning_rate: 1e-4 } } }"), calibrating(128) + 1e10);
}

// AWQ's text passes 21 times through a model, an importance matrix's once.
TEST_F(EstimateTest, WhatPassesManyTimesIsHeldOnce) {
  const std::string data = "samples: 16 data { text: \"t.txt\" window: 2048 }";
  const double awq = MemoryOf(*model_, absl::StrCat("step { [nibble.awq] { ", data, " } }"));
  EXPECT_EQ(awq, MemoryOf(*model_, absl::StrCat("step { [nibble.kquants] { ", data, " } }")));
  EXPECT_GT(awq, MemoryOf(*model_, "step { [nibble.awq] { samples: 1 data { text: \"t.txt\" window: 2048 } } }") + 4.0 * 15 * 2048 * 2048);
}

TEST(MeasurementMemoryTest, TimingsReadABufferForTheBandwidth) {
  MetricRequest size, latency;
  size.mutable_size();
  latency.mutable_latency();
  EXPECT_GT(MeasurementMemory(size, 1e9), 1e9);
  EXPECT_EQ(MeasurementMemory(latency, 1e9), MeasurementMemory(size, 1e9) + kernels::kBandwidthMegabytes * 1e6);
}

TEST(CheckJobMemory, ALimitCountsInPlaceOfWhatIsFree) {
  EXPECT_OK(CheckJobMemory(1 << 20, 0));
  EXPECT_OK(CheckJobMemory(1e15, int64_t{1} << 50));
  const absl::Status free = CheckJobMemory(1e15, 0), limited = CheckJobMemory(3 << 20, 2 << 20);
  EXPECT_EQ(free.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(free.message()), ::testing::HasSubstr("MiB that are free on its machine; close other programs"));
  EXPECT_EQ(std::string(limited.message()), "it is thought to need 3 MiB, more than the 2 MiB of --memory-limit; raise the limit");
}

}  // namespace
}  // namespace nibble
