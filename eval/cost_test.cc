// Size, latency and memory.
#include "eval/latency.h"
#include "eval/memory.h"
#include "eval/size.h"
#include "eval/speed.h"
#include "eval/testing.h"

namespace nibble::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> PartNames(const Metric& metric) {
  std::vector<std::string> names;
  for (const auto& part : metric.part()) names.push_back(part.name());
  return names;
}

TEST(Size, CountsABf16Model) {
  const LlamaConfig config = ToyConfig();
  ASSERT_OK_AND_ASSIGN(const auto metrics, MeasureSize(ToyGraph(1)));
  ASSERT_EQ(metrics.size(), 2);
  EXPECT_EQ(metrics[0].name(), "size_mib");
  EXPECT_DOUBLE_EQ(metrics[0].value(), 2.0 * config.ParameterCount() / 1048576);
  EXPECT_EQ(metrics[0].count(), config.ParameterCount());
  EXPECT_EQ(metrics[1].name(), "bits_per_weight");
  EXPECT_DOUBLE_EQ(metrics[1].value(), 16);
  EXPECT_THAT(PartNames(metrics[0]), ElementsAre("embedding", "attention", "mlp", "norms", "head"));
  EXPECT_EQ(metrics[0].part(0).bytes(), 2 * 97 * 48);
  EXPECT_EQ(metrics[0].part(2).parameters(), 2 * 3 * 48 * 100);
}

TEST(Size, CountsATiedHeadOnce) {
  ASSERT_OK_AND_ASSIGN(const LlamaConfig config, ShapePreset("tiny"));
  ASSERT_OK_AND_ASSIGN(const ir::Graph graph, BuildLlama(config, SyntheticWeights(config, 1)));
  ASSERT_TRUE(graph.tied());
  ASSERT_OK_AND_ASSIGN(const auto metrics, MeasureSize(graph));
  EXPECT_EQ(metrics[0].count(), config.ParameterCount());
  EXPECT_THAT(PartNames(metrics[0]), ElementsAre("embedding", "attention", "mlp", "norms"));
}

TEST(Size, CountsCodesAndScales) {
  ir::Graph graph = ToyGraph(1);
  const ir::ParameterId id = *graph.FindOp("model.layers.0.mlp.up_proj")->weight;
  ASSERT_OK_AND_ASSIGN(const auto before, MeasureSize(graph));
  QuantScheme scheme;
  scheme.set_format("int4");
  scheme.set_per(QuantScheme::PER_GROUP);
  scheme.set_group_size(16);
  ASSERT_OK_AND_ASSIGN(const std::vector<float> values, graph.parameter(id).LoadFloats());
  ASSERT_OK_AND_ASSIGN(EncodedTensor packed, Encode(scheme, {100, 48}, values));
  ASSERT_OK(graph.mutable_parameter(id).Replace(std::move(packed)));
  ASSERT_OK_AND_ASSIGN(const auto after, MeasureSize(graph));
  // 16 bits a weight become 4 and a 32-bit scale for each group of 16.
  EXPECT_EQ(before[0].part(2).bytes() - after[0].part(2).bytes(), 100 * 48 * (16 - 4 - 2) / 8);
  EXPECT_EQ(before[0].count(), after[0].count());
  EXPECT_LT(after[1].value(), 16);
}

TEST(Latency, MetricsOfRounds) {
  const auto plan = MakePlan(ToyGraph(1));
  ThreadPool pool(2);
  ASSERT_OK_AND_ASSIGN(const auto probe, LatencyProbe::Create(*plan, pool, {.prefill = 20, .decode = 4}));
  for (int i = 0; i < 2; ++i) {
    ASSERT_OK_AND_ASSIGN(const LatencyRound round, probe->Round());
    EXPECT_GT(round.prefill_seconds, 0);
    EXPECT_GT(round.decode_seconds, 0);
  }
  ASSERT_OK_AND_ASSIGN(const auto metrics, probe->Metrics({{0.1, 0.2}, {0.4, 0.1}, {0.2, 0.4}}));
  ASSERT_EQ(metrics.size(), 3);
  EXPECT_EQ(metrics[0].name(), "prefill_tokens_per_s/20");
  EXPECT_DOUBLE_EQ(metrics[0].value(), 100);
  EXPECT_EQ(metrics[0].better(), HIGHER);
  EXPECT_EQ(metrics[1].name(), "decode_tokens_per_s/4");
  EXPECT_DOUBLE_EQ(metrics[1].value(), 20);
  EXPECT_EQ(metrics[1].convention(), "after=20 decode=4 threads=2");
  EXPECT_EQ(metrics[2].name(), "ttft_ms/20");
  EXPECT_DOUBLE_EQ(metrics[2].value(), 200);
  EXPECT_EQ(metrics[2].better(), LOWER);
  EXPECT_EQ(metrics[2].count(), 3);
}

TEST(Latency, WithoutDecode) {
  const auto plan = MakePlan(ToyGraph(1));
  ThreadPool pool(1);
  ASSERT_OK_AND_ASSIGN(const auto probe, LatencyProbe::Create(*plan, pool, {.prefill = 3, .decode = 0}));
  ASSERT_OK_AND_ASSIGN(const LatencyRound round, probe->Round());
  ASSERT_OK_AND_ASSIGN(const auto metrics, probe->Metrics({round}));
  EXPECT_EQ(metrics.size(), 2);
  EXPECT_FALSE(LatencyProbe::Create(*plan, pool, {.prefill = 0, .decode = 3}).ok());
  EXPECT_FALSE(probe->Metrics({}).ok());
}

TEST(Memory, ReadsThePeakField) {
  ASSERT_OK_AND_ASSIGN(const double mib,
                       ParsePeakResidentMiB("Name:\tx\nVmPeak:\t 9000 kB\nVmHWM:\t    2560 kB\nVmRSS:\t 1 kB\n"));
  EXPECT_EQ(mib, 2.5);
  EXPECT_FALSE(ParsePeakResidentMiB("VmHWM:\t many\n").ok());
  EXPECT_THAT(std::string(ParsePeakResidentMiB("").status().message()), HasSubstr("VmHWM"));
  ASSERT_OK_AND_ASSIGN(const double own, PeakResidentMiB());
  EXPECT_GT(own, 1);
}

TEST(SpeedTest, EveryCaseAndOpIsThere) {
  const auto plan = MakePlan(ToyGraph(1));
  ThreadPool pool(1);
  const SpeedOptions options{.prefill = {3, 8}, .depth = {5}, .streams = {1, 3}, .decode = 2, .rounds = 2};
  ASSERT_OK_AND_ASSIGN(const SpeedReport report, MeasureSpeed(*plan, pool, options));
  std::vector<std::string> names;
  for (const Speed& speed : report.speeds) {
    names.push_back(speed.name);
    EXPECT_GT(speed.tokens_per_s, 0);
  }
  EXPECT_THAT(names, ElementsAre("prefill/3", "prefill/8", "decode/5", "batch_decode/1", "batch_decode/3"));
  const auto find = [](const std::vector<OpSpeed>& ops, const std::string& name) {
    const auto it = std::find_if(ops.begin(), ops.end(), [&](const OpSpeed& op) { return op.name == name; });
    NIBBLE_CHECK(it != ops.end());
    return *it;
  };
  // A pass of prefill multiplies 8 tokens with both layers, of decode one.
  const kernels::Linear& first = *plan->linears()[0];
  EXPECT_DOUBLE_EQ(find(report.prefill_ops, "q_proj").ops, 2.0 * 2 * 8 * static_cast<double>(first.rows() * first.cols()));
  EXPECT_DOUBLE_EQ(find(report.decode_ops, "q_proj").ops, 2.0 * 2 * static_cast<double>(first.rows() * first.cols()));
  EXPECT_DOUBLE_EQ(find(report.decode_ops, "q_proj").bytes, 2.0 * static_cast<double>(first.weight_bytes()));
  EXPECT_GT(find(report.decode_ops, "head").seconds, 0);
  EXPECT_GT(report.peaks.byte_gop_s, 0);
  EXPECT_FALSE(MeasureSpeed(*plan, pool, {.rounds = 1}).ok());
}

TEST(Memory, PartsAreThePlansAndTheSessions) {
  const auto plan = MakePlan(ToyGraph(1));
  ThreadPool pool(1);
  ASSERT_OK_AND_ASSIGN(const auto metrics, MeasureMemory(*plan, pool, {.streams = 1, .max_positions = 64}, 16));
  ASSERT_EQ(metrics.size(), 1);
  EXPECT_EQ(metrics[0].name(), "peak_rss_mib");
  EXPECT_GT(metrics[0].value(), 1);
  EXPECT_THAT(PartNames(metrics[0]), ElementsAre("weights", "kv_cache", "arena"));
  EXPECT_EQ(metrics[0].part(0).bytes(), plan->weight_bytes());
  // Two layers of two KV heads of width 12 in fp32: keys, and values in panels
  // of 16 channels, with a panel to spare for each.
  EXPECT_EQ(metrics[0].part(1).bytes(), 2 * 4 * ((2 * 64 + 16) * 12 + (2 * 64 + 64) * 16));
  EXPECT_FALSE(MeasureMemory(*plan, pool, {.streams = 1, .max_positions = 8}, 9).ok());
}

}  // namespace
}  // namespace nibble::eval
