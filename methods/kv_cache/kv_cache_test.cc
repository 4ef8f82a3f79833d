#include <cmath>

#include "core/runtime/plan.h"
#include "core/runtime/session.h"
#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

TEST(KvCacheMethod, FewerBitsChangeMore) {
  const std::vector<float> before = TinyLogits(TinyGraph());
  double last = 0;
  for (const int bits : {16, 8, 4}) {
    ir::Graph graph = TinyGraph();
    ASSERT_OK(ApplyText(absl::StrCat("step { [nibble.kv_cache] { key_bits: ", bits, " value_bits: ", bits, " } }"), graph));
    const double change = RelativeChange(before, TinyLogits(graph));
    EXPECT_GT(change, last) << bits;
    last = change;
  }
}

// Chunks, single tokens and the reference see the same cache.
TEST(KvCacheMethod, DecodingAgreesWithTheReference) {
  ir::Graph graph = TinyGraph();
  ASSERT_OK(ApplyText("step { [nibble.kv_cache] { key_bits: 4 value_bits: 8 asymmetric: false } }", graph));
  const std::vector<float> expected = TinyLogits(graph);
  for (const kernels::KernelTable* table : kernels::AvailableTables()) {
    for (const int at_once : {1, 2, 6}) EXPECT_THAT(PlanLogits(graph, *table, at_once), ::testing::Pointwise(::testing::FloatNear(1e-4f), expected));
  }
}

TEST(KvCacheMethod, TheCacheShrinks) {
  const auto bytes = [](const std::string& steps) {
    ir::Graph graph = TinyGraph();
    EXPECT_OK(ApplyText(steps, graph));
    ThreadPool pool(1);
    const auto plan = Plan::Create(graph, *kernels::AvailableTables().back());
    const auto session = Session::Create(**plan, pool, {1, 64});
    return (*session)->cache_bytes();
  };
  EXPECT_LT(bytes("step { [nibble.kv_cache] {} }"), bytes("") / 2);
  EXPECT_LT(bytes("step { [nibble.kv_cache] { key_bits: 4 } }"), bytes("step { [nibble.kv_cache] {} }"));
}

TEST(KvCacheMethod, OptionMistakesAreNamed) {
  ir::Graph graph = TinyGraph();
  EXPECT_THAT(std::string(ApplyText("step { [nibble.kv_cache] { key_bits: 3 } }", graph).message()), HasSubstr("key_bits: 3"));
  EXPECT_THAT(std::string(ApplyText("step { [nibble.kv_cache] {} } step { [nibble.kv_cache] {} }", graph).message()),
              HasSubstr("scheme already"));
}

}  // namespace
}  // namespace nibble
