#include "experiments/search/search.h"

#include <cmath>

#include "absl/strings/match.h"
#include "core/base/file.h"
#include "core/base/proto.h"
#include "experiments/text_config.h"
#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

constexpr char kCandidates[] = R"pb(
  model { source: "configs/models/novelist" }
  candidate { name: "int2" step { [nibble.rtn] { bits: 2 group_size: 32 } } }
  candidate { name: "int4" step { [nibble.rtn] { bits: 4 group_size: 32 } } }
  candidate { name: "int8" step { [nibble.rtn] { bits: 8 } } }
  data { text: "text.txt" window: 64 }
  samples: 2
  metric { perplexity { text: "text.txt" window: 64 limit: 2 } }
)pb";

Search Parse(const std::string& more) {
  Search search;
  EXPECT_OK(ParseText(absl::StrCat(kCandidates, more), "search", &search));
  return search;
}

class SearchTest : public ::testing::Test {
 protected:
  SearchTest() : folder_(::testing::TempDir() + "/search") {
    EXPECT_OK(MakeDirectories(folder_));
    std::string text;
    for (int i = 0; i < 60; ++i) absl::StrAppend(&text, "It was a dark evening, and the carriage number ", i, " came slowly up the road to the old house. ");
    EXPECT_OK(WriteFile(folder_ + "/text.txt", text));
  }

  std::vector<Mix> Find(const Search& search, Sensitivities* sensitivities) {
    auto model = OpenModel(search.model().source());
    NIBBLE_CHECK_OK(model.status());
    ThreadPool pool(2);
    auto searcher = Searcher::Create(search, *model, folder_, folder_ + "/out", pool);
    NIBBLE_CHECK_OK(searcher.status());
    auto measured = (*searcher)->Measure();
    NIBBLE_CHECK_OK(measured.status());
    *sensitivities = *std::move(measured);
    auto mixes = (*searcher)->FindMixes(*sensitivities);
    NIBBLE_CHECK_OK(mixes.status());
    EXPECT_OK(WriteSearchReport(search, *sensitivities, *mixes, folder_ + "/out"));
    return *std::move(mixes);
  }

  // What the costs of the candidates end with.
  std::string ErrorOfMeasure(const Search& search) {
    auto model = OpenModel(search.model().source());
    NIBBLE_CHECK_OK(model.status());
    ThreadPool pool(2);
    auto searcher = Searcher::Create(search, *model, folder_, TestTempDir() + "/out", pool);
    NIBBLE_CHECK_OK(searcher.status());
    return std::string((*searcher)->Measure().status().message());
  }

  const std::string folder_;
};

TEST_F(SearchTest, AMixIsWithinItsBudgetAndPredictsItsLoss) {
  const Search search = Parse("unit: MODULE budget_mib: 4.6");
  Sensitivities sensitivities;
  const std::vector<Mix> mixes = Find(search, &sensitivities);
  ASSERT_EQ(mixes.size(), 4u);
  const Mix &int2 = mixes[0], &int4 = mixes[1], &int8 = mixes[2], &mix = mixes[3];
  EXPECT_GT(int2.loss, int4.loss);
  EXPECT_GT(int4.loss, int8.loss);
  EXPECT_LE(mix.cost.bytes, 4.6 * (1 << 20));
  EXPECT_EQ(mix.cost.bytes, mix.predicted_cost.bytes);
  EXPECT_LE(mix.predicted_loss, int2.predicted_loss);
  // Losses of units nearly add up where they are small.
  EXPECT_NEAR(int8.loss, int8.predicted_loss, 0.5 * int8.loss);
  ASSERT_OK_AND_ASSIGN(const std::string report, ReadFile(folder_ + "/out/search.md"));
  EXPECT_THAT(report, HasSubstr("| mix_4.6mib |"));
  EXPECT_TRUE(FileExists(folder_ + "/out/mix_4.6mib.textproto"));

  // A second search takes its losses from the folder, a torn line aside.
  ASSERT_OK_AND_ASSIGN(const std::string losses, ReadFile(folder_ + "/out/sensitivity.tsv"));
  ASSERT_OK(WriteFile(folder_ + "/out/sensitivity.tsv", losses + "\nabc\t0.1"));
  Sensitivities again;
  const std::vector<Mix> same = Find(search, &again);
  for (size_t i = 0; i < mixes.size(); ++i) EXPECT_EQ(same[i].loss, mixes[i].loss);
  ASSERT_OK_AND_ASSIGN(const std::string after, ReadFile(folder_ + "/out/sensitivity.tsv"));
  EXPECT_EQ(after, losses + "\nabc\t0.1");
}

TEST_F(SearchTest, TheMixIsAPipelineThatMakesIt) {
  const Search search = Parse("unit: BLOCK budget_mib: 4.6 last { [nibble.activations] {} }");
  Sensitivities sensitivities;
  const std::vector<Mix> mixes = Find(search, &sensitivities);
  ASSERT_OK_AND_ASSIGN(OpenedModel model, OpenModel(search.model().source()));
  ThreadPool pool(2);
  Context context(pool);
  ASSERT_OK(ApplyPipeline(context, mixes.back().pipeline.step(), model.graph));
  double bytes = 0;
  for (const SearchUnit& unit : sensitivities.units) {
    for (const std::string& name : unit.ops) {
      const ir::Op& op = *model.graph.FindOp(name);
      bytes += static_cast<double>(model.graph.parameter(*op.weight).Load()->byte_size());
      EXPECT_TRUE(op.activation.has_value());
    }
  }
  EXPECT_EQ(bytes, mixes.back().cost.bytes - sensitivities.fixed.bytes);
}

// Rounding measures, GPTQ makes the model.
TEST_F(SearchTest, WhatBuildsAMixNeedNotBeWhatMeasuresIt) {
  const std::string gptq = "build { [nibble.gptq] { bits: 3 group_size: 32 data { text: \"text.txt\" window: 64 } samples: 2 } }";
  const Search search = Parse(absl::StrCat("unit: BLOCK budget_mib: 4 candidate { name: \"int3\" step { [nibble.rtn] { bits: 3 group_size: 32 } } ", gptq, " }"));
  ASSERT_OK(CheckSearch(search));
  Sensitivities sensitivities;
  const std::vector<Mix> mixes = Find(search, &sensitivities);
  const Pipeline& uniform = mixes[3].pipeline;
  ASSERT_EQ(uniform.step_size(), 1);
  EXPECT_THAT(ProtoToLine(uniform), HasSubstr("gptq"));
  OpenedModel model = *OpenModel(search.model().source());
  ThreadPool pool(2);
  Context context(pool, WorkplaceOf(model, folder_, "", ""));
  ASSERT_OK(ApplyPipeline(context, uniform.step(), model.graph));
  ASSERT_OK_AND_ASSIGN(const ModelCost cost, MeasureModelCost(model.graph, std::nullopt, pool));
  EXPECT_EQ(cost.whole.bytes, mixes[3].cost.bytes);
  ASSERT_OK_AND_ASSIGN(const std::string report, ReadFile(folder_ + "/out/search.md"));
  EXPECT_THAT(report, HasSubstr("made by its `build`"));
  ASSERT_OK_AND_ASSIGN(const std::vector<Mix> before, UniformMixes(search));
  EXPECT_THAT(ProtoToLine(before[3].pipeline), HasSubstr("gptq"));
}

TEST_F(SearchTest, TheFrontIsPredictedForTheWholeModel) {
  const Search search = Parse("unit: MODULE budget_mib: 4.6");
  Sensitivities sensitivities;
  const std::vector<Mix> mixes = Find(search, &sensitivities);
  const std::vector<Selection> front = PredictedFront(sensitivities, Budget::Kind::kMib);
  ASSERT_GT(front.size(), 10u);
  EXPECT_NEAR(front.front().cost, mixes[0].cost.bytes, 1);
  EXPECT_NEAR(front.back().loss, mixes[2].predicted_loss, 1e-9);
  EXPECT_TRUE(FileExists(folder_ + "/out/front.csv"));
}

TEST_F(SearchTest, TheExperimentComparesWithTheBestCandidateThatFits) {
  const Search search = Parse("unit: BLOCK budget_mib: 4.6 budget_mib: 3.4");
  Sensitivities sensitivities;
  const std::vector<Mix> mixes = Find(search, &sensitivities);
  const Experiment experiment = SearchExperiment(search, mixes, 2);
  EXPECT_EQ(experiment.variant_size(), 5);
  ASSERT_EQ(experiment.contrast_size(), 2);
  EXPECT_EQ(experiment.contrast(0).variant(), "mix_4.6mib");
  EXPECT_EQ(experiment.contrast(0).against(), "int8");
  EXPECT_EQ(experiment.contrast(1).against(), "int4");
  EXPECT_EQ(experiment.metric(0).perplexity().text(), "text.txt");
  EXPECT_TRUE(experiment.metric(1).has_size());
}

TEST_F(SearchTest, UnitsAreLinearsModulesOrBlocks) {
  ASSERT_OK_AND_ASSIGN(const OpenedModel model, OpenModel("configs/models/novelist"));
  const size_t layers = model.graph.num_layers();
  EXPECT_EQ(SearchUnits(model.graph, Search::LINEAR, false).size(), 7 * layers);
  EXPECT_EQ(SearchUnits(model.graph, Search::MODULE, false).size(), 2 * layers);
  const auto blocks = SearchUnits(model.graph, Search::BLOCK, false);
  ASSERT_EQ(blocks.size(), layers);
  EXPECT_EQ(blocks[1].name, "model.layers.1");
  EXPECT_EQ(blocks[1].ops.size(), 7u);
}

TEST_F(SearchTest, TiedEmbeddingAndHeadAreOneUnit) {
  const auto tied = SearchUnits(TinyGraph(), Search::BLOCK, true), untied = SearchUnits(TinyGraph(false), Search::BLOCK, true);
  ASSERT_EQ(tied.size(), 3u);
  EXPECT_EQ(tied[0].ops, (std::vector<std::string>{"model.embed_tokens", "lm_head"}));
  ASSERT_EQ(untied.size(), 4u);
  EXPECT_EQ(untied[0].ops, (std::vector<std::string>{"model.embed_tokens"}));
  EXPECT_EQ(untied[1].ops, (std::vector<std::string>{"lm_head"}));
  EXPECT_FALSE(untied[1].in_blocks());
  EXPECT_TRUE(untied[2].in_blocks());
}

// A quarter of the reference checkpoint is its embedding, so bf16 there would not fit.
TEST_F(SearchTest, EmbeddingAndHeadAreChosenToo) {
  const Search search = Parse("unit: BLOCK embedding_and_head: true budget_mib: 2.2");
  Sensitivities sensitivities;
  const std::vector<Mix> mixes = Find(search, &sensitivities);
  const Mix &int4 = mixes[1], &int8 = mixes[2], &mix = mixes[3];
  EXPECT_LE(mix.cost.bytes, 2.2 * (1 << 20));
  EXPECT_EQ(mix.cost.bytes, mix.predicted_cost.bytes);
  EXPECT_GT(int4.loss, int8.loss);
  EXPECT_NEAR(int8.loss, int8.predicted_loss, 0.5 * int8.loss);
  OpenedModel model = *OpenModel(search.model().source());
  ThreadPool pool(2);
  Context context(pool);
  ASSERT_OK(ApplyPipeline(context, mix.pipeline.step(), model.graph));
  EXPECT_TRUE(model.graph.tied());
  ASSERT_OK_AND_ASSIGN(const ModelCost cost, MeasureModelCost(model.graph, std::nullopt, pool));
  EXPECT_EQ(cost.whole.bytes, mix.cost.bytes);
  ASSERT_OK_AND_ASSIGN(const std::vector<Mix> before, UniformMixes(search));
  for (size_t i = 0; i < before.size(); ++i) EXPECT_EQ(before[i].pipeline.step_size(), 2);
  ASSERT_OK_AND_ASSIGN(const std::string report, ReadFile(folder_ + "/out/search.md"));
  EXPECT_THAT(report, HasSubstr("| embed_tokens | "));
  EXPECT_THAT(ErrorOfMeasure(Parse("embedding_and_head: true budget_mib: 2.2 first { [nibble.rtn] { layers: \"embedding\" } }")), HasSubstr("candidate int2"));
}

// GPTQ builds the blocks, after the tables it calibrates on are as they will be.
TEST_F(SearchTest, StepMakesTheEmbeddingWhereBuildMakesTheBlocks) {
  const std::string gptq = "build { [nibble.gptq] { bits: 4 group_size: 32 data { text: \"text.txt\" window: 64 } samples: 2 } }";
  const Search search = Parse(absl::StrCat("unit: BLOCK embedding_and_head: true budget_mib: 2.2 candidate { name: \"gptq\" step { [nibble.rtn] { bits: 4 group_size: 32 } } ", gptq, " }"));
  ASSERT_OK(CheckSearch(search));
  ASSERT_OK_AND_ASSIGN(const std::vector<Mix> mixes, UniformMixes(search));
  const Pipeline& pipeline = mixes[3].pipeline;
  ASSERT_EQ(pipeline.step_size(), 2);
  EXPECT_THAT(ProtoToLine(pipeline.step(0)), HasSubstr("embedding"));
  EXPECT_THAT(ProtoToLine(pipeline.step(0)), HasSubstr("rtn"));
  EXPECT_THAT(ProtoToLine(pipeline.step(1)), HasSubstr("gptq"));
}

TEST_F(SearchTest, MistakesAreNamed) {
  const auto error = [](const std::string& more) { return std::string(CheckSearch(Parse(more)).message()); };
  EXPECT_EQ(error("budget_mib: 4"), "");
  EXPECT_THAT(error(""), HasSubstr("budget"));
  EXPECT_THAT(error("budget_mib: -1"), HasSubstr("budget_mib: -1"));
  EXPECT_THAT(error("budget_mib: 4 budget_mib: 4"), HasSubstr("given twice"));
  EXPECT_THAT(error("budget_mib: 4 candidate { name: \"int4\" step { [nibble.rtn] {} } }"), HasSubstr("int4 is taken"));
  EXPECT_THAT(error("budget_mib: 4 candidate { name: \"a\" step { [nibble.rtn] { layers: \"mlp\" } } }"), HasSubstr("leave layers out"));
  EXPECT_THAT(error("budget_mib: 4 candidate { name: \"a\" step { [nibble.baseline] {} } }"), HasSubstr("no layers"));
  EXPECT_THAT(error("budget_mib: 4 candidate { name: \"a\" step { [nibble.gptq] { data { text: \"text.txt\" } } } }"), HasSubstr("learns"));

  EXPECT_THAT(error("budget_mib: 4 last { [nibble.sft] { data { text: \"text.txt\" } } }"), HasSubstr("last: a step that trains"));
  EXPECT_THAT(error("budget_mib: 4 candidate { name: \"a\" step { [nibble.rtn] {} } build { [nibble.sft] { data { text: \"text.txt\" } } } }"),
              HasSubstr("candidate a, build: a step that trains"));
  EXPECT_THAT(error("budget_mib: 4 candidate { name: \"a\" step { [nibble.rtn] {} } build { [nibble.gptq] { layers: \"mlp\" } } }"), HasSubstr("leave layers out"));
  EXPECT_THAT(error("budget_ms: -1"), HasSubstr("budget_ms: -1"));
  EXPECT_THAT(error("budget_ms: 1 depth: 0"), HasSubstr("depth: 0"));
  EXPECT_THAT(error("budget_ms: 1 rounds: 0"), HasSubstr("rounds: 0"));
}

// Before any loss is measured.
TEST_F(SearchTest, ABudgetThatNothingReachesIsAnError) {
  ASSERT_OK_AND_ASSIGN(const OpenedModel model, OpenModel("configs/models/novelist"));
  ThreadPool pool(2);
  for (const auto& [budget, message] : std::map<std::string, std::string>{{"budget_mib: 1", "1 MiB is below"}, {"budget_ms: 1e-6", "1e-06 ms is below"}}) {
    const std::string out = TestTempDir() + "/out";
    const Search search = Parse(budget);
    ASSERT_OK_AND_ASSIGN(const auto searcher, Searcher::Create(search, model, folder_, out, pool));
    EXPECT_THAT(std::string(searcher->Measure().status().message()), HasSubstr(message));
    EXPECT_FALSE(FileExists(out + "/sensitivity.tsv"));
  }
}

TEST_F(SearchTest, WhatLastStepsCostCounts) {
  const Search without = Parse("unit: BLOCK budget_mib: 4.6"), with = Parse("unit: BLOCK budget_mib: 4.6 last { [nibble.rtn] { bits: 8 layers: \"embedding\" layers: \"head\" } }");
  Sensitivities plain, small;
  Find(without, &plain);
  const std::vector<Mix> mixes = Find(with, &small);
  EXPECT_LT(small.fixed.bytes, 0.6 * plain.fixed.bytes);
  ASSERT_OK_AND_ASSIGN(OpenedModel model, OpenModel(with.model().source()));
  ThreadPool pool(2);
  Context context(pool);
  ASSERT_OK(ApplyPipeline(context, mixes.back().pipeline.step(), model.graph));
  ASSERT_OK_AND_ASSIGN(const ModelCost cost, MeasureModelCost(model.graph, std::nullopt, pool));
  EXPECT_EQ(cost.whole.bytes, mixes.back().cost.bytes);
}

TEST_F(SearchTest, ABudgetOfTimeIsOfTheDecodedToken) {
  const Search search = Parse("unit: BLOCK budget_ms: 1000 depth: 8 rounds: 2");
  Sensitivities sensitivities;
  const std::vector<Mix> mixes = Find(search, &sensitivities);
  ASSERT_EQ(mixes.size(), 4u);
  EXPECT_EQ(mixes[3].name, "mix_1000ms");
  for (const Mix& mix : mixes) {
    EXPECT_GT(mix.cost.seconds, 0);
    EXPECT_GT(mix.predicted_cost.seconds, sensitivities.fixed.seconds);
  }
  for (int c = 0; c < 3; ++c) EXPECT_NEAR(mixes[c].predicted_cost.seconds, mixes[c].cost.seconds, 1e-9);
  // A second leaves every choice open.
  EXPECT_EQ(mixes[3].choice, mixes[2].choice);
  const Experiment experiment = SearchExperiment(search, mixes, 2);
  ASSERT_EQ(experiment.metric_size(), 3);
  EXPECT_EQ(experiment.metric(2).latency().prefill(), 8);
  EXPECT_EQ(experiment.metric(2).latency().threads(), 2);
  ASSERT_OK_AND_ASSIGN(const std::string report, ReadFile(folder_ + "/out/search.md"));
  EXPECT_THAT(report, HasSubstr("measured ms a token"));
  EXPECT_TRUE(FileExists(folder_ + "/out/front_ms.svg"));
}

// Six blocks of which each costs a second in int8, 0.6 in int4 and 0.4 in int2.
TEST_F(SearchTest, AMixForATimeLosesLeastWithinIt) {
  const Search search = Parse("unit: BLOCK budget_ms: 5000 depth: 8 rounds: 1");
  ASSERT_OK_AND_ASSIGN(const OpenedModel model, OpenModel(search.model().source()));
  ThreadPool pool(2);
  ASSERT_OK_AND_ASSIGN(const auto searcher, Searcher::Create(search, model, folder_, TestTempDir() + "/out", pool));
  Sensitivities sensitivities;
  sensitivities.units = SearchUnits(model.graph, Search::BLOCK, false);
  sensitivities.candidates.resize(3);
  for (size_t u = 0; u < sensitivities.units.size(); ++u) {
    sensitivities.costs.push_back({{1, 0.4}, {2, 0.6}, {4, 1}});
    sensitivities.losses.push_back({1, 0.1 + 0.01 * static_cast<double>(u), 0});
  }
  ASSERT_OK_AND_ASSIGN(const std::vector<Mix> mixes, searcher->FindMixes(sensitivities));
  EXPECT_EQ(mixes[3].choice, (std::vector<int>{1, 1, 1, 2, 2, 2}));
  EXPECT_NEAR(mixes[3].predicted_cost.seconds, 4.8, 1e-9);
  EXPECT_NEAR(mixes[3].predicted_loss, 0.33, 1e-9);
  EXPECT_FALSE(IsBeyondBudget(mixes[3]));
}

// A budget that no choice meets in truth.
TEST_F(SearchTest, AMixBeyondItsBudgetSaysSo) {
  const Search search = Parse("unit: BLOCK budget_ms: 1e-5 depth: 8 rounds: 1");
  ASSERT_OK_AND_ASSIGN(const OpenedModel model, OpenModel(search.model().source()));
  ThreadPool pool(2);
  ASSERT_OK_AND_ASSIGN(const auto searcher, Searcher::Create(search, model, folder_, folder_ + "/beyond", pool));
  Sensitivities sensitivities;
  sensitivities.units = SearchUnits(model.graph, Search::BLOCK, false);
  sensitivities.candidates.resize(3);
  sensitivities.costs.assign(sensitivities.units.size(), {{1, 1e-10}, {2, 1e-9}, {4, 1e-9}});
  sensitivities.losses.assign(sensitivities.units.size(), {1, 0.1, 0});
  ASSERT_OK_AND_ASSIGN(const std::vector<Mix> mixes, searcher->FindMixes(sensitivities));
  EXPECT_TRUE(IsBeyondBudget(mixes[3]));
  ASSERT_OK(WriteSearchReport(search, sensitivities, mixes, folder_ + "/beyond"));
  ASSERT_OK_AND_ASSIGN(const std::string report, ReadFile(folder_ + "/beyond/search.md"));
  EXPECT_THAT(report, HasSubstr("beyond its budget |"));
}

TEST_F(SearchTest, LinearsOfAKindShareTheirTime) {
  ASSERT_OK_AND_ASSIGN(const OpenedModel model, OpenModel("configs/models/novelist"));
  ThreadPool pool(2);
  DecodeTiming timing;
  timing.depth = 8;
  ASSERT_OK_AND_ASSIGN(const ModelCost cost, MeasureModelCost(model.graph, timing, pool));
  double sum = 0;
  for (const auto& [name, op] : cost.ops) {
    EXPECT_GT(op.seconds, 0) << name;
    sum += op.seconds;
    if (!absl::StartsWith(name, "model.layers.")) continue;
    const std::string first = absl::StrCat("model.layers.0", name.substr(name.find('.', 13)));
    EXPECT_EQ(op.seconds, cost.ops.at(first).seconds) << name;
  }
  EXPECT_EQ(cost.ops.at("lm_head").bytes, 0);  // tied
  EXPECT_GT(cost.ops.at("model.embed_tokens").bytes, 0);
  EXPECT_LT(sum, cost.whole.seconds);
}

TEST_F(SearchTest, CandidatesWithActivationsAreErrors) {
  const Search search = Parse("budget_mib: 4.6 candidate { name: \"w8a8\" step { [nibble.rtn] {} } step { [nibble.activations] {} } }");
  EXPECT_THAT(ErrorOfMeasure(search), HasSubstr("candidate w8a8: model.layers.0.self_attn.q_proj: the candidate quantizes activations"));
}

// Of a linear without a kernel a time would say nothing.
TEST_F(SearchTest, SimulatedCandidatesHaveNoTime) {
  const Search search = Parse("budget_ms: 10 candidate { name: \"nf4\" step { [nibble.nf4] {} } } last { [nibble.activations] {} }");
  const std::string error = ErrorOfMeasure(search);
  EXPECT_THAT(error, HasSubstr("candidate nf4"));
  EXPECT_THAT(error, HasSubstr("no native kernel"));
}

}  // namespace
}  // namespace nibble
