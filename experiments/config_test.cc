// Configs: parsing with places and hints, overrides, sweeps, validation before
// anything runs, the result log.

#include <fstream>

#include "core/base/file.h"
#include "core/base/testing.h"
#include "core/text/utf8.h"
#include "experiments/expand.h"
#include "experiments/model.h"
#include "experiments/result_log.h"
#include "experiments/text_config.h"
#include "methods/testing.h"

namespace nibble {
namespace {

constexpr char kConfig[] = R"(name: "t"
model { source: "synthetic:tiny" }
baseline { name: "bf16" step { [nibble.baseline] {} } }
variant {
  name: "w4"
  step { [nibble.rtn] { bits: 4 group_size: 32 } }
}
metric { size {} }
)";

absl::StatusOr<ExpandedExperiment> Load(const std::string& text, const std::vector<Override>& overrides = {}) {
  const std::string path = TestTempDir() + "/c.textproto";
  EXPECT_OK(WriteFile(path, text));
  return LoadExperiment(path, overrides);
}

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

void ExpectError(const std::string& text, const std::vector<std::string>& words) {
  const auto loaded = Load(text);
  ASSERT_FALSE(loaded.ok()) << text;
  for (const std::string& word : words) EXPECT_THAT(std::string(loaded.status().message()), ::testing::HasSubstr(word));
}

TEST(Config, Loads) {
  ASSERT_OK_AND_ASSIGN(const ExpandedExperiment experiment, Load(kConfig));
  ASSERT_EQ(experiment.variants.size(), 2u);
  EXPECT_TRUE(experiment.variants[0].is_baseline);
  EXPECT_EQ(experiment.variants[1].name, "w4");
  EXPECT_THAT(experiment.metric_names, ::testing::ElementsAre("size_mib", "bits_per_weight"));
}

TEST(Config, MistakesCarryPlaceAndHint) {
  ExpectError(Replaced(kConfig, "group_size", "grup_size"), {":6:", "grup_size", "did you mean 'group_size'"});
  ExpectError(Replaced(kConfig, "nibble.rtn", "nibble.rtm"), {":6:", "did you mean 'nibble.rtn'"});
  ExpectError(Replaced(kConfig, "bits: 4", "bits: 12"), {"c.textproto:6:", "bits: 12 is not in 2..8"});
  ExpectError(Replaced(kConfig, "bits: 4", "divisor: MAXCODE"), {":6:", "did you mean 'MAX_CODE'"});
  ExpectError(Replaced(kConfig, "name: \"w4\"", "name: \"bf16\""), {"two variants are named 'bf16'"});
  ExpectError(Replaced(kConfig, "metric { size {} }", ""), {"no metric"});
  ExpectError(Replaced(kConfig, "metric { size {} }", "metric {}"), {":8:", "exactly one of perplexity"});
  ExpectError(Replaced(kConfig, "size {}", "size {} memory {}"), {":8:", "exactly one of perplexity"});
  ExpectError(Replaced(kConfig, "size {}", "latency { prefill: 0 }"), {":8:", "prefill"});
  ExpectError(Replaced(kConfig, "size {}", "perplexity { text: \"wikitext-2-raw/tset\" }"), {":8:", "did you mean"});
  ExpectError(Replaced(kConfig, "baseline", "variant"), {"baseline { ... } is missing"});
  ExpectError(std::string(kConfig) + "metric { size {} }\n", {":9:", "a second metric is called size_mib"});
  ExpectError(std::string(kConfig) + "gate { variant: \"w5\" metric: \"size_mib\" max_ratio: 1 }\n", {":9:", "did you mean 'w4'"});
  ExpectError(std::string(kConfig) + "gate { metric: \"size_mib\" }\n", {":9:", "no bound"});
}

TEST(Config, OverridesReachStepsByIndexAndName) {
  ASSERT_OK_AND_ASSIGN(const ExpandedExperiment experiment,
                       Load(kConfig, {{"variant[w4].step[0].group_size", "64"}, {"variant[0].name", "wide"}, {"threads", "1"}}));
  EXPECT_EQ(experiment.variants[1].name, "wide");
  EXPECT_EQ(PipelineToString(experiment.variants[1].pipeline.step()), "rtn { bits: 4 group_size: 64 }");
  const auto wrong = Load(kConfig, {{"variant[w5].name", "x"}});
  EXPECT_THAT(std::string(wrong.status().message()), ::testing::HasSubstr("did you mean 'w4'"));
  EXPECT_FALSE(Load(kConfig, {{"variant[w4].step[0].bits", "four"}}).ok());
  EXPECT_FALSE(Load(kConfig, {{"nothing", "1"}}).ok());
}

TEST(Config, SweepsMultiply) {
  const std::string text = std::string(kConfig) +
                           "sweep { variant: \"w4\" field: \"step[0].group_size\" values: \"16\" values: \"32\" }\n"
                           "sweep { variant: \"w4\" field: \"step[0].bits\" values: \"3\" values: \"4\" values: \"8\" }\n";
  ASSERT_OK_AND_ASSIGN(const ExpandedExperiment experiment, Load(text));
  ASSERT_EQ(experiment.variants.size(), 7u);
  EXPECT_EQ(experiment.variants[1].name, "w4/group_size=16/bits=3");
  EXPECT_EQ(PipelineToString(experiment.variants[6].pipeline.step()), "rtn { bits: 8 group_size: 32 }");
  ExpectError(std::string(kConfig) + "sweep { variant: \"w5\" field: \"step[0].bits\" values: \"3\" }\n", {":9:", "did you mean 'w4'"});
  ExpectError(std::string(kConfig) + "sweep { field: \"threads\" values: \"3\" }\n", {":9:", "metric[0]"});
}

TEST(Config, NestingHasABound) {
  std::string deep = "step { [nibble.qat] { ";
  for (int i = 0; i < 100000; ++i) deep += "quantize { [nibble.qat] { ";
  ExpectError(std::string(kConfig) + "variant { name: \"deep\" " + deep, {"c.textproto:9:", "too deep"});
  EXPECT_FALSE(Load(kConfig, {{"variant[0].step[0]", deep}}).ok());
}

TEST(Config, SweepsMultiplyUpToABound) {
  std::string values;
  for (int i = 2; i < 102; ++i) absl::StrAppend(&values, " values: \"", i, "\"");
  const auto axis = [&](const char* field) { return absl::StrCat("sweep { variant: \"w4\" field: \"step[0].", field, "\"", values, " }\n"); };
  const std::string two = kConfig + axis("group_size") + axis("range.mse.grid");
  ASSERT_OK_AND_ASSIGN(const ExpandedExperiment experiment, Load(two));
  EXPECT_EQ(experiment.variants.size(), 10001u);
  ExpectError(two + axis("range.mse.norm"), {"the sweeps of one variant multiply to 1000000 or more; at most 10000"});
  const auto metric = [&](const char* field) { return absl::StrCat("sweep { field: \"metric[0].latency.", field, "\"", values, " }\n"); };
  ExpectError(Replaced(kConfig, "size {}", "latency {}") + metric("prefill") + metric("decode") + metric("rounds"), {"the sweeps of one metric multiply"});
}

std::string RepetitionText(const ExpandedVariant& variant) {
  if (!variant.repetition.has_value()) return "none";
  return absl::StrCat(variant.repetition->variant(), " repeats ", variant.repetition->of(), " at ", variant.repetition->label());
}

TEST(Config, RepeatingSweepsMakeRepetitions) {
  const std::string text = Replaced(kConfig, "name: \"w4\"", "name: \"w4\" untrained: \"bf16\" step { [nibble.spinquant] {} }") +
                           "sweep { variant: \"w4\" field: \"step[0].seed\" values: [\"1\", \"2\"] repeats: true }\n"
                           "sweep { variant: \"w4\" field: \"step[1].bits\" values: [\"3\", \"4\"] }\n"
                           "variant { name: \"plain\" step { [nibble.rtn] {} } }\n";
  ASSERT_OK_AND_ASSIGN(const ExpandedExperiment experiment, Load(text));
  std::vector<std::string> repetitions;
  for (const ExpandedVariant& variant : experiment.variants) repetitions.push_back(RepetitionText(variant));
  EXPECT_THAT(repetitions,
              ::testing::ElementsAre("none", "w4/seed=1/bits=3 repeats w4/bits=3 at seed=1", "w4/seed=1/bits=4 repeats w4/bits=4 at seed=1",
                                     "w4/seed=2/bits=3 repeats w4/bits=3 at seed=2", "w4/seed=2/bits=4 repeats w4/bits=4 at seed=2", "none"));
  EXPECT_EQ(experiment.variants[3].name, "w4/seed=2/bits=3");
  EXPECT_EQ(experiment.variants[3].untrained, "bf16");
  const std::string second = Replaced(text, "field: \"step[1].bits\"", "repeats: true field: \"step[1].bits\"");
  ASSERT_OK_AND_ASSIGN(const ExpandedExperiment both, Load(second));
  EXPECT_EQ(RepetitionText(both.variants[4]), "w4/seed=2/bits=4 repeats w4 at seed=2/bits=4");
}

TEST(Config, RepetitionsNeedAVariantAndTwoValues) {
  const std::string sweep = "sweep { variant: \"w4\" field: \"step[0].bits\" values: [\"3\"] repeats: true }\n";
  ExpectError(std::string(kConfig) + sweep, {":9:", "repeats: true with 1 value", "2 values or more"});
  ExpectError(Replaced(kConfig, "size {}", "memory {}") + "sweep { field: \"metric[0].memory.prefill\" values: [\"8\", \"16\"] repeats: true }\n",
              {"repeats: true needs a variant"});
  ExpectError(std::string(kConfig) + Replaced(sweep, "[\"3\"]", "[\"3\", \"3\"]"), {"two variants are named 'w4/bits=3'"});
}

TEST(Config, ContrastsNameVariants) {
  ASSERT_OK_AND_ASSIGN(const ExpandedExperiment experiment, Load(std::string(kConfig) + "contrast { variant: \"w4\" against: \"bf16\" }\n"));
  EXPECT_EQ(experiment.config.contrast_size(), 1);
  ExpectError(std::string(kConfig) + "contrast { variant: \"w5\" against: \"bf16\" }\n", {":9:", "did you mean 'w4'"});
  ExpectError(std::string(kConfig) + "contrast { variant: \"w4\" }\n", {":9:", "variant"});
}

TEST(Config, MetricSweepsGiveMetrics) {
  const std::string text = Replaced(kConfig, "size {}", "latency {}") +
                           "sweep { field: \"metric[0].latency.prefill\" values: \"64\" values: \"128\" }\n"
                           "sweep { field: \"metric[0].latency.decode\" values: \"8\" }\n";
  const auto experiment = Load(text);
  // The two requests share decode_tokens_per_s/8, which would hide one of them.
  ASSERT_FALSE(experiment.ok());
  EXPECT_THAT(std::string(experiment.status().message()), ::testing::HasSubstr("decode_tokens_per_s/8"));
}

constexpr char kTask[] = R"(# a user's own
name: "quiz"
version: "2"
kind: MULTIPLE_CHOICE
part { file: "quiz.jsonl" }
context: "{question}\nAnswer:"
choice: "{options}"
gold_index: "{right}"
category: "{topic}"
)";
constexpr char kItems[] = R"({"question": "1+1?", "options": ["2", "3"], "right": 0, "topic": "sums"}
{"question": "2*2?", "options": ["2", "4"], "right": 1, "topic": "products"}
)";

// A config beside a task's description and items.
absl::StatusOr<ExpandedExperiment> LoadWithTask(const std::string& metric, const std::string& task = kTask, const std::string& items = kItems) {
  const std::string dir = TestTempDir();
  EXPECT_OK(WriteFile(dir + "/quiz.textproto", task));
  EXPECT_OK(WriteFile(dir + "/quiz.jsonl", items));
  EXPECT_OK(WriteFile(dir + "/c.textproto", Replaced(kConfig, "size {}", metric)));
  return LoadExperiment(dir + "/c.textproto", {});
}

void ExpectTaskError(const absl::StatusOr<ExpandedExperiment>& loaded, const std::vector<std::string>& words) {
  ASSERT_FALSE(loaded.ok());
  for (const std::string& word : words) EXPECT_THAT(std::string(loaded.status().message()), ::testing::HasSubstr(word));
}

TEST(Config, TasksGiveTheMetricsOfTheirKind) {
  ASSERT_OK_AND_ASSIGN(const auto quiz, LoadWithTask("task { task: \"quiz.textproto\" shots: 1 }"));
  EXPECT_THAT(quiz.metric_names,
              ::testing::ElementsAre("accuracy/quiz", "accuracy_norm/quiz", "accuracy/quiz_sums", "accuracy_norm/quiz_sums",
                                     "accuracy/quiz_products", "accuracy_norm/quiz_products"));
  ASSERT_OK_AND_ASSIGN(const auto named, LoadWithTask("task { task: \"quiz.textproto\" name: \"q\" limit: 1 }"));
  EXPECT_THAT(named.metric_names, ::testing::ElementsAre("accuracy/q", "accuracy_norm/q"));
  ASSERT_OK_AND_ASSIGN(const auto plain, LoadWithTask("multiple_choice { set: \"quickstart/questions\" limit: 4 }"));
  EXPECT_THAT(plain.metric_names, ::testing::ElementsAre("accuracy/quickstart/questions", "accuracy_norm/quickstart/questions"));
}

TEST(Config, MistakesInTasksAreFoundBeforeTheRun) {
  const std::string metric = "task { task: \"quiz.textproto\" }";
  ExpectTaskError(LoadWithTask("task { task: \"quizz.textproto\" }"), {"c.textproto:8:", "task 'quizz.textproto': no such file"});
  ExpectTaskError(LoadWithTask("task { task: \"arc_eazy\" }"), {"c.textproto:8:", "did you mean 'arc_easy'?"});
  ExpectTaskError(LoadWithTask("task {}"), {"c.textproto:8:", "needs task"});
  ExpectTaskError(LoadWithTask("task { task: \"quiz.textproto\" shots: 2 }"), {"quiz.jsonl has 2 rows; 2 examples before each item need 3"});
  ExpectTaskError(LoadWithTask(metric, Replaced(kTask, "context", "contxt")), {"quiz.textproto:6:", "did you mean 'context'?"});
  ExpectTaskError(LoadWithTask(metric, Replaced(kTask, "MULTIPLE_CHOICE", "MULTIPLE_CHOISE")), {"quiz.textproto:5:", "did you mean 'MULTIPLE_CHOICE'?"});
  ExpectTaskError(LoadWithTask(metric, Replaced(kTask, "gold_index", "gold_text")), {"quiz.jsonl:1: field 'right' is '0', none of 2, 3"});
  ExpectTaskError(LoadWithTask(metric, Replaced(kTask, "version: \"2\"", "")), {"quiz.textproto: task 'quiz': needs a version"});
  ExpectTaskError(LoadWithTask(metric, Replaced(kTask, "quiz.jsonl", "other.jsonl")), {"data set 'quiz' is not on this machine", "other.jsonl"});
  ExpectTaskError(LoadWithTask(metric, kTask, Replaced(kItems, "\"right\": 1", "\"right\": 2")), {"quiz.jsonl:2: field 'right' is 2; there are 2 choices"});
}

TEST(Config, IncludedPipelinesComeFirst) {
  const std::string recipe = TestTempDir() + "/r.textproto";
  const std::string config = TestTempDir() + "/c.textproto";
  ASSERT_OK(WriteFile(recipe, "step { [nibble.rtn] { bits: 8 layers: \"head\" } }"));
  ASSERT_OK(WriteFile(config, Replaced(kConfig, "name: \"w4\"", "name: \"w4\" include: \"r.textproto\"")));
  // TestTempDir empties the folder: write both after the last call.
  ASSERT_OK(WriteFile(recipe, "step { [nibble.rtn] { bits: 8 layers: \"head\" } }"));
  ASSERT_OK_AND_ASSIGN(const ExpandedExperiment experiment, LoadExperiment(config, {}));
  EXPECT_EQ(PipelineToString(experiment.variants[1].pipeline.step()), "rtn { bits: 8 layers: \"head\" } -> rtn { bits: 4 group_size: 32 }");
}

TEST(ResultLog, KeepsWhatIsDoneAndIgnoresTornLines) {
  const std::string dir = TestTempDir();
  ASSERT_OK_AND_ASSIGN(ResultLog log, ResultLog::Open(dir));
  JobResult done, failed;
  done.set_key("a");
  failed.set_key("b");
  failed.set_error("no");
  ASSERT_OK(log.Append(done));
  ASSERT_OK(log.Append(failed));
  std::ofstream(dir + "/results.jsonl", std::ios::app) << "{\"key\":\"c\", \"vari";
  ASSERT_OK_AND_ASSIGN(ResultLog again, ResultLog::Open(dir));
  EXPECT_TRUE(again.Finished("a"));
  EXPECT_FALSE(again.Finished("b"));
  EXPECT_FALSE(again.Finished("c"));
  JobResult next;
  next.set_key("d");
  ASSERT_OK(again.Append(next));
  ASSERT_OK_AND_ASSIGN(const ResultLog last, ResultLog::Open(dir));
  EXPECT_TRUE(last.Finished("a"));
  EXPECT_TRUE(last.Finished("d"));
}

TEST(ResultLog, RecordsAreFilesThatAResultCanDoWithout) {
  const std::string dir = TestTempDir();
  ASSERT_OK_AND_ASSIGN(ResultLog log, ResultLog::Open(dir));
  JobResult result;
  result.set_key("a");
  ASSERT_OK(log.Append(result, "some bytes"));
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile(dir + "/records/a.safetensors"));
  EXPECT_EQ(bytes, "some bytes");
  std::filesystem::remove_all(dir + "/records");
  ASSERT_OK(WriteFile(dir + "/records", "no folder"));
  result.set_key("b");
  ASSERT_OK(log.Append(result, "other bytes"));
  ASSERT_OK_AND_ASSIGN(const std::string lines, ReadFile(dir + "/results.jsonl"));
  EXPECT_THAT(lines, ::testing::HasSubstr(absl::StrCat(R"("records":{"name":"records/a.safetensors","sha256":")", Sha256("some bytes"), "\"}")));
  EXPECT_THAT(lines, ::testing::HasSubstr(absl::StrCat(R"("sha256":")", Sha256("other bytes"), R"(","missing":"cannot create folder )")));
  ASSERT_OK_AND_ASSIGN(const ResultLog again, ResultLog::Open(dir));
  EXPECT_TRUE(again.Finished("a") && again.Finished("b"));
}

TEST(ResultLog, ErrorsThatQuoteBytesReadBack) {
  const std::string dir = TestTempDir();
  ASSERT_OK_AND_ASSIGN(ResultLog log, ResultLog::Open(dir));
  JobResult failed;
  failed.set_key("a");
  failed.set_error(text::WellFormed("tensor '\xFF\xC3' of caf\u00e9"));
  ASSERT_OK(log.Append(failed));
  ASSERT_OK_AND_ASSIGN(const std::string lines, ReadFile(dir + "/results.jsonl"));
  EXPECT_THAT(lines, ::testing::HasSubstr("tensor '\uFFFD\uFFFD' of caf\u00e9"));
}

TEST(Checkpoint, QuantizedModelsReadBackEqual) {
  for (const char* steps : {"step { [nibble.llama32_ptq] {} }", "step { [nibble.rtn] { bits: 3 group_size: 16 asymmetric: true } }",
                            "step { [nibble.dynamic_int8] {} }", "step { [nibble.baseline] {} }"}) {
    ASSERT_OK_AND_ASSIGN(OpenedModel model, OpenModel("synthetic:tiny"));
    ASSERT_OK(ApplyText(steps, model.graph));
    const std::string folder = TestTempDir() + "/model";
    ASSERT_OK(SaveModel(model.source, model.graph, "steps", folder));
    ASSERT_OK_AND_ASSIGN(const OpenedModel back, OpenModel(folder));
    EXPECT_EQ(back.source.pipeline, "steps");
    EXPECT_EQ(back.graph.tied(), model.graph.tied());
    EXPECT_EQ(TinyLogits(back.graph), TinyLogits(model.graph)) << steps;
  }
}

}  // namespace
}  // namespace nibble
