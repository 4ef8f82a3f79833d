#include "methods/autoquant/chooser.h"

#include <algorithm>
#include <map>

#include "core/base/rng.h"
#include "methods/testing.h"

namespace nibble {
namespace {

constexpr char kUp[] = "model.layers.0.mlp.up_proj", kGate[] = "model.layers.0.mlp.gate_proj";
const std::string kInt8 = "candidate { name: \"int8\" weight { format: \"int8\" per: PER_ROW } } ";
const std::string kInt4 = "candidate { name: \"int4\" weight { format: \"int4\" per: PER_ROW } } ";
// As many bytes as kInt8.
const std::string kHalf = "candidate { name: \"half\" weight { format: \"int8\" per: PER_ROW divisor: HALF_RANGE } } ";
const std::string kInt8A8 =
    "candidate { name: \"int8_a8\" weight { format: \"int8\" per: PER_ROW } activation { format: \"int8\" per: PER_TOKEN dynamic: true } } ";
// No kernel multiplies a table's values by integers.
const std::string kNf4A8 =
    "candidate { name: \"nf4_a8\" weight { format: \"nf4\" per: PER_ROW } activation { format: \"int8\" per: PER_TOKEN dynamic: true } } ";

// int8 errs by less than either, int4, with steps of a third of a deviation, by more than one.
constexpr char kLoose[] = "max_error: 0.4 ", kTight[] = "max_error: 0.04 ";

// Seconds of a prompt and of a step.
struct Seconds {
  double prompt = 0, step = 0;
};

struct Chosen {
  ir::Graph graph = TinyGraph();
  BuildRecord record;
  int timed = 0;  // products

  QuantScheme Scheme(const std::string& op = kUp) const { return WeightScheme(graph, op); }
};

// The choice for `ops` where products take `seconds` by the scheme's name.
Chosen Choose(const std::string& text, const std::map<std::string, Seconds>& seconds, const std::vector<std::string>& ops = {kUp}) {
  Chosen chosen;
  AutoquantOptions options;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(absl::StrCat("prompt: 16 ", text), &options)) << text;
  ThreadPool pool(1);
  Context context(pool);
  const ProductTimer timer = [&](const std::string& name, const kernels::Linear&, int64_t tokens) -> absl::StatusOr<double> {
    ++chosen.timed;
    const auto found = seconds.find(name);
    if (found == seconds.end()) return absl::NotFoundError(name);
    return tokens == options.prompt() ? found->second.prompt : found->second.step;
  };
  auto chooser = SchemeChooser::Create(options, context, {pool, **kernels::ChooseTable()}, timer);
  EXPECT_OK(chooser);
  Rng rng(1);
  std::vector<float> x(20 * 48);
  for (float& v : x) v = static_cast<float>(rng.Normal());
  for (const std::string& name : ops) {
    const auto op = std::find_if(chosen.graph.ops().begin(), chosen.graph.ops().end(), [&](const ir::Op& o) { return o.name == name; });
    EXPECT_OK(chooser->ChooseLinear(op - chosen.graph.ops().begin(), x, chosen.graph));
  }
  chooser->Report();
  chosen.record = context.record();
  return chosen;
}

TEST(SchemeChooser, TakesTheFastestWithinTheBound) {
  const std::map<std::string, Seconds> seconds = {{"unchanged, bf16", {9, 9}}, {"int8", {2, 2}}, {"int4", {1, 1}}};
  EXPECT_EQ(Choose(kLoose + kInt8 + kInt4, seconds).Scheme().format(), "int4");
  // The faster one errs by more than the bound.
  EXPECT_EQ(Choose(kTight + kInt8 + kInt4, seconds).Scheme().format(), "int8");
}

TEST(SchemeChooser, LeavesWhatNoneMakesFasterWithinTheBound) {
  const std::map<std::string, Seconds> fast = {{"unchanged, bf16", {9, 9}}, {"int8", {2, 2}}, {"int4", {1, 1}}};
  const Chosen none = Choose("max_error: 1e-6 " + kInt8 + kInt4, fast);
  EXPECT_EQ(none.Scheme().format(), "bf16");
  ASSERT_EQ(none.record.tables.size(), 2u);
  EXPECT_THAT(none.record.tables[1].rows, ::testing::ElementsAre(::testing::ElementsAre("unchanged", "1", "0.0000")));
  const std::map<std::string, Seconds> no_faster = {{"unchanged, bf16", {2, 2}}, {"int8", {2, 2}}, {"int4", {3, 3}}};
  EXPECT_EQ(Choose(kLoose + kInt8 + kInt4, no_faster).Scheme().format(), "bf16");
}

TEST(SchemeChooser, TiesGoToTheSmallerThenToTheFirst) {
  const std::map<std::string, Seconds> same = {{"unchanged, bf16", {9, 9}}, {"int8", {1, 1}}, {"int4", {1, 1}}, {"half", {1, 1}}};
  EXPECT_EQ(Choose(kLoose + kInt8 + kInt4, same).Scheme().format(), "int4");
  EXPECT_EQ(Choose(kLoose + kInt8 + kHalf, same).Scheme().divisor(), QuantScheme::MAX_CODE);
  EXPECT_EQ(Choose(kLoose + kHalf + kInt8, same).Scheme().divisor(), QuantScheme::HALF_RANGE);
}

// int8: 1 s a prompt, 2 s a step; half: 3 s and 0.1 s. With one user 1 + 3 x 2 is more than
// 3 + 3 x 0.1; four users' prompts, at the same steps, make the first faster.
TEST(SchemeChooser, EveryUserHasAPrompt) {
  const std::map<std::string, Seconds> seconds = {{"unchanged, bf16", {9, 9}}, {"int8", {1, 2}}, {"half", {3, 0.1}}};
  EXPECT_EQ(Choose(kLoose + kInt8 + kHalf + "reply: 3 batch: 1", seconds).Scheme().divisor(), QuantScheme::HALF_RANGE);
  const Chosen four = Choose(kLoose + kInt8 + kHalf + "reply: 3 batch: 4", seconds);
  EXPECT_EQ(four.Scheme().divisor(), QuantScheme::MAX_CODE);
  ASSERT_EQ(four.record.tables.size(), 2u);
  EXPECT_THAT(four.record.tables[0].rows[0], ::testing::ElementsAre("100 x 48", "int8", "1000.000", "2000.000", "10000.000"));
  EXPECT_EQ(four.record.tables[0].rows[2][1], "unchanged, bf16");
}

TEST(SchemeChooser, PromptsOrRepliesAloneAreAMix) {
  const std::map<std::string, Seconds> seconds = {{"unchanged, bf16", {9, 9}}, {"int8", {1, 2}}, {"half", {3, 0.1}}};
  const Chosen prompts = Choose(kLoose + kInt8 + kHalf + "reply: 0", seconds);
  EXPECT_EQ(prompts.Scheme().divisor(), QuantScheme::MAX_CODE);
  EXPECT_EQ(prompts.timed, 3);
}

TEST(SchemeChooser, InputsBecomeWhatTheCandidateSays) {
  std::map<std::string, Seconds> seconds = {{"unchanged, bf16", {9, 9}}, {"int8", {2, 2}}, {"int8_a8", {1, 1}}};
  const Chosen chosen = Choose(kLoose + kInt8 + kInt8A8, seconds);
  ASSERT_TRUE(chosen.graph.FindOp(kUp)->activation.has_value());
  EXPECT_EQ(chosen.graph.FindOp(kUp)->activation->per(), QuantScheme::PER_TOKEN);
  seconds["int8"] = {0.5, 0.5};
  EXPECT_FALSE(Choose(kLoose + kInt8 + kInt8A8, seconds).graph.FindOp(kUp)->activation.has_value());
}

// A simulated product is not timed, so no time can recommend it.
TEST(SchemeChooser, NeverTakesWhatHasNoKernel) {
  const Chosen chosen = Choose(kLoose + kNf4A8, {{"unchanged, bf16", {9, 9}}});
  EXPECT_EQ(chosen.Scheme().format(), "bf16");
  ASSERT_EQ(chosen.record.tables[0].rows.size(), 2u);
  EXPECT_THAT(chosen.record.tables[0].rows[1], ::testing::ElementsAre("100 x 48", "nf4_a8", "simulated", "simulated", "simulated"));
}

TEST(SchemeChooser, TimesEachShapeOnce) {
  const std::map<std::string, Seconds> seconds = {{"unchanged, bf16", {9, 9}}, {"int8", {2, 2}}, {"int4", {1, 1}}};
  const Chosen chosen = Choose(kLoose + kInt8 + kInt4, seconds, {kUp, kGate});
  EXPECT_EQ(chosen.timed, 6);  // a prompt and a step of three schemes
  EXPECT_EQ(chosen.Scheme(kGate).format(), "int4");
}

// Widths of 48 columns: no groups and no blocks.
TEST(SchemeChooser, ChoosesFromAllNativeSchemesByDefault) {
  int timed = 0;
  AutoquantOptions options;
  ThreadPool pool(1);
  Context context(pool);
  const ProductTimer timer = [&](const std::string& name, const kernels::Linear& linear, int64_t) -> absl::StatusOr<double> {
    ++timed;
    EXPECT_EQ(linear.arithmetic(), kernels::Arithmetic::kNative) << name;
    return name == "affine8 per row, fp32 scales and zeros" ? 1.0 : 2.0;
  };
  ir::Graph graph = TinyGraph();
  ASSERT_OK_AND_ASSIGN(SchemeChooser chooser, SchemeChooser::Create(options, context, {pool, **kernels::ChooseTable()}, timer));
  const auto op = std::find_if(graph.ops().begin(), graph.ops().end(), [](const ir::Op& o) { return o.name == kUp; });
  ASSERT_OK(chooser.ChooseLinear(op - graph.ops().begin(), std::vector<float>(10 * 48, 1.0f), graph));
  EXPECT_EQ(WeightScheme(graph, kUp).format(), "affine8");
  EXPECT_GT(timed, 2 * 10);
}

}  // namespace
}  // namespace nibble
