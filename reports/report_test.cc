#include "reports/report.h"

#include <google/protobuf/util/json_util.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/testing.h"
#include "reports/format.h"
#include "reports/axes.h"
#include "reports/contrasts.h"
#include "reports/curve.h"
#include "reports/labels.h"
#include "reports/document.h"
#include "reports/layers.h"
#include "reports/markdown.h"
#include "reports/pareto.h"
#include "reports/records.h"
#include "reports/repetitions.h"
#include "reports/run_log.h"
#include "reports/run_table.h"
#include "reports/testing.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::string ToLine(const google::protobuf::Message& message) {
  std::string line;
  EXPECT_TRUE(google::protobuf::util::MessageToJsonString(message, &line).ok());
  return line;
}

Report SmallReport() {
  SmallRun small = MakeSmallRun();
  Gate* gate = small.run.add_gate();
  gate->set_variant("ptq");
  gate->set_metric("perplexity/*");
  gate->set_max_ratio(1.1);
  return MakeReport(small.run, small.results, {"a note"});
}

nlohmann::json JsonOf(const Report& report) {
  const auto json = ParseJson(report.json, "results.json");
  EXPECT_OK(json);
  return json.value();
}

nlohmann::json SmallJson() { return JsonOf(SmallReport()); }

nlohmann::json FindRecord(const nlohmann::json& json, const std::string& variant, const std::string& metric) {
  for (const auto& record : json["records"]) {
    if (record["variant"] == variant && record["metric"] == metric) return record;
  }
  return nullptr;
}

TEST(Format, SignificantDigits) {
  EXPECT_EQ(Significant(12.3449, 4), "12.34");
  EXPECT_EQ(Significant(9.9996, 4), "10.00");
  EXPECT_EQ(Significant(0.012345, 3), "0.0123");
  EXPECT_EQ(Significant(12345.6, 4), "12346");
  EXPECT_EQ(Significant(-1.5, 2), "-1.5");
  EXPECT_EQ(Significant(0, 4), "0");
  EXPECT_EQ(Significant(1e-7, 2), "1.0e-07");
  EXPECT_EQ(Significant(1e12, 2), "1.0e+12");
  EXPECT_EQ(Significant(std::nan(""), 2), "nan");
  EXPECT_EQ(Significant(-INFINITY, 2), "-inf");
  EXPECT_EQ(Decimals(-0.04, 1), "0.0");
}

TEST(Format, EveryKindOfMetricHasItsDigits) {
  EXPECT_EQ(FormatValue(Accuracy({1}), 0.4567), "45.7");
  EXPECT_EQ(FormatDifference(Accuracy({1}), 0.012), "+1.2");
  EXPECT_EQ(FormatDifference(Accuracy({1}), 0), "0.0");
  EXPECT_EQ(FormatValue(Size(1), 72.46), "72.5");
  EXPECT_EQ(FormatValue(Decode({1}), 63.987), "64.0");
  EXPECT_EQ(FormatValue(Perplexity(1, {1}), 12.3456), "12.35");
}

TEST(Format, EscapesAndFences) {
  EXPECT_EQ(MarkdownCell("a|b <c>\nd"), "a\\|b &lt;c&gt; d");
  EXPECT_EQ(EscapeXml("a<b & \"c\""), "a&lt;b &amp; &quot;c&quot;");
  EXPECT_EQ(EscapeXml("\x1b[K\tone\n"), "\xef\xbf\xbd[K\tone\n");
  EXPECT_EQ(CodeBlock("x\n"), "```\nx\n```\n");
  EXPECT_EQ(CodeBlock("```y", "sh"), "````sh\n```y\n````\n");
}

TEST(Csv, QuotesWhatNeedsQuotes) {
  EXPECT_EQ(CsvField("plain"), "plain");
  EXPECT_EQ(CsvField("a,b"), "\"a,b\"");
  EXPECT_EQ(CsvField("say \"no\""), "\"say \"\"no\"\"\"");
  EXPECT_EQ(CsvField("two\nlines"), "\"two\nlines\"");
}

TEST(Csv, HoldsOneLinePerRecord) {
  const std::vector<std::string> lines = absl::StrSplit(SmallReport().csv, "\r\n");
  ASSERT_EQ(lines.size(), 14);  // header, 4 + 4 + 3 + 1 records, the end
  EXPECT_EQ(lines[0],
            "variant,metric,value,stderr,count,unit,better,baseline_value,arithmetic,ratio,ratio_low,ratio_high,"
            "difference,difference_low,difference_high,recovery,convention,note,gained,lost,mcnemar_p,bootstrap_low,bootstrap_high,"
            "raw_records,raw_records_missing");
  EXPECT_EQ(lines[2], "bf16,accuracy/arc,0.75,0.25,4,fraction,higher,0.75,native,,,,,,,,\"log-likelihood, \"\"raw\"\"\",,,,,,,,none were kept");
  EXPECT_EQ(lines[7], "ptq,size_mib,72.5,,0,MiB,lower,256,native,0.283203125,,,,,,,,,,,,,,,");
  EXPECT_EQ(lines[13], "");
}

TEST(Csv, AccuraciesHaveTheirTests) {
  const std::vector<std::string> lines = absl::StrSplit(SmallReport().csv, "\r\n");
  std::vector<std::string> fields = absl::StrSplit(lines[6], ',');
  fields.erase(fields.begin(), fields.end() - 7);
  // Of four items one is lost: a resample loses binomially many at 1/4, 3 or more with 0.05, none with 0.32.
  EXPECT_THAT(fields, ElementsAre("0", "1", "1", "-0.75", "0", "", "none were kept")) << lines[6];
}

// ---- Raw records

constexpr char kRawFile[] = "records/0a.safetensors";

RecordsFile* AddRawRecords(const std::string& name, JobResult* result) {
  result->mutable_records()->set_name(name);
  result->mutable_records()->set_sha256(std::string(64, 'a'));
  return result->mutable_records();
}

// The records of ptq's perplexity in a CSV: file and why it is missing.
std::string RawFields(const Report& report) {
  const std::vector<std::string> lines = absl::StrSplit(report.csv, "\r\n");
  const std::vector<std::string> fields = absl::StrSplit(lines[5], ',');
  return absl::StrCat(fields[fields.size() - 2], ",", fields.back());
}

TEST(RawRecords, ARecordLeadsToItsFile) {
  SmallRun small = MakeSmallRun();
  AddRawRecords(kRawFile, &small.results[4]);
  const Report report = MakeReport(small.run, small.results);
  EXPECT_EQ(RawFields(report), "records/0a.safetensors,");
  EXPECT_THAT(report.html, HasSubstr("<a class=\"file\" href=\"records/0a.safetensors\">records/0a.safetensors</a>"));
}

TEST(RawRecords, WhatCannotBeReadSaysWhy) {
  SmallRun small = MakeSmallRun();
  AddRawRecords(kRawFile, &small.results[4])->set_missing("the disk is full");
  Report report = MakeReport(small.run, small.results);
  EXPECT_EQ(RawFields(report), "records/0a.safetensors,the disk is full");
  EXPECT_THAT(report.html, HasSubstr("records/0a.safetensors<small>missing: the disk is full</small>"));
  EXPECT_THAT(report.html, Not(HasSubstr("href=\"records/")));
  // A name in a results.jsonl from elsewhere leads nowhere else.
  for (const char* name : {"javascript:alert(1)", "//example.org/x", "../x", ""}) {
    small = MakeSmallRun();
    AddRawRecords(name, &small.results[4]);
    report = MakeReport(small.run, small.results);
    EXPECT_EQ(RawFields(report), absl::StrCat(name, ",not a file below records/"));
    EXPECT_THAT(report.html, Not(HasSubstr(absl::StrCat("href=\"", name, "\""))));
  }
}

TEST(RawRecords, AFileThatIsGoneIsMissing) {
  const std::string dir = TestTempDir();
  SmallRun small = MakeSmallRun();
  AddRawRecords(kRawFile, &small.results[4]);
  AddRawRecords("records/0b.safetensors", &small.results[5]);
  AddRawRecords("records/0c.safetensors", &small.results[6])->set_missing("the disk is full");
  ASSERT_OK(MakeDirectories(dir + "/records"));
  ASSERT_OK(WriteFile(absl::StrCat(dir, "/", kRawFile), "tensors"));
  MarkMissingRecords(dir, &small.results);
  EXPECT_FALSE(small.results[4].records().has_missing());
  EXPECT_EQ(small.results[5].records().missing(), "no such file");
  EXPECT_EQ(small.results[6].records().missing(), "the disk is full");
  EXPECT_FALSE(small.results[7].has_records());
}

// ---- Accuracies

TEST(Accuracies, StandBesideTheBaselineWithBothIntervals) {
  const std::string report = SmallReport().markdown;
  EXPECT_THAT(report, HasSubstr("## Accuracies against the baseline\n\nThe same items answered by a variant and by `bf16`"));
  EXPECT_THAT(report, HasSubstr("| variant | metric | difference | score interval | bootstrap interval | gained | lost | p | recovery |\n"));
  EXPECT_THAT(report, HasSubstr("| ptq | accuracy/arc ↑ (%) | -25.0 pp | [-69.9, +36.2] | [-75.0, 0.0] | 0 | 1 | 1.0 | 66.7 % |\n"));
  EXPECT_THAT(report, Not(HasSubstr("| bf16 | accuracy/arc")));
}

TEST(Accuracies, WithoutPairsOfAnswersSayWhy) {
  SmallRun small = MakeSmallRun();
  *small.results[5].mutable_metric(0) = Accuracy({0.5, 1, 0, 1});
  EXPECT_THAT(MakeReport(small.run, small.results).markdown, HasSubstr("| ptq | accuracy/arc ↑ (%) | -12.5 pp¹ | – | – | – | – | – | 83.3 % |\n"));
  small.results[5].mutable_metric(0)->set_convention("another");
  const std::string report = MakeReport(small.run, small.results).markdown;
  EXPECT_THAT(report, HasSubstr("| ptq | accuracy/arc ↑ (%) | –¹ | – | – | – | – | – | – |\n"));
  EXPECT_THAT(report, HasSubstr("- ¹ measured as 'another', the baseline as 'log-likelihood, \"raw\"'\n"));
}

TEST(Accuracies, ARunWithoutThemHasNoTable) {
  SmallRun small = MakeSmallRun();
  small.run.clear_metric_order();
  for (const int i : {9, 5, 1}) small.results.erase(small.results.begin() + i);
  EXPECT_THAT(MakeReport(small.run, small.results).markdown, Not(HasSubstr("Accuracies against")));
}

TEST(Json, RecordsCarryTheComparison) {
  const nlohmann::json json = SmallJson();
  EXPECT_EQ(json["run"]["name"], "small");
  EXPECT_FALSE(json["run"].contains("machine"));
  EXPECT_EQ(json["machine"]["cpu"], "Test CPU");
  EXPECT_EQ(json["records"].size(), 12);
  const nlohmann::json perplexity = FindRecord(json, "ptq", "perplexity/wikitext");
  EXPECT_NEAR(perplexity["ratio"].get<double>(), std::exp(0.1), 1e-9);
  EXPECT_NEAR(perplexity["ratio_low"].get<double>(), std::exp(0.1), 1e-9);
  EXPECT_NEAR(perplexity["baseline_value"].get<double>(), std::exp(3.0), 1e-9);
  EXPECT_EQ(perplexity["better"], "lower");
  EXPECT_EQ(perplexity["count"], 30);
  const nlohmann::json accuracy = FindRecord(json, "ptq", "accuracy/arc");
  EXPECT_EQ(accuracy["difference"], -0.25);
  EXPECT_FALSE(accuracy.contains("ratio"));
  const nlohmann::json baseline = FindRecord(json, "bf16", "size_mib");
  EXPECT_EQ(baseline["baseline_value"], 256);
  EXPECT_TRUE(baseline["stderr"].is_null());
  EXPECT_FALSE(baseline.contains("ratio"));
}

TEST(Json, RecordsAreReadAgainAsEarlierResults) {
  const SmallRun small = MakeSmallRun();
  const std::string path = TestTempDir() + "/results.json";
  ASSERT_OK(WriteFile(path, MakeReport(small.run, small.results).json));
  ASSERT_OK_AND_ASSIGN(const std::vector<EarlierResult> earlier, ReadEarlierResults(path, "old.json"));
  const auto it = std::find_if(earlier.begin(), earlier.end(), [](const EarlierResult& result) {
    return result.variant() == "ptq" && result.metric() == "perplexity/wikitext";
  });
  ASSERT_NE(it, earlier.end());
  EXPECT_EQ(it->file(), "old.json");
  EXPECT_EQ(it->convention(), "gptq window=10");
  EXPECT_NEAR(it->value(), std::exp(3.1), 1e-9);
}

TEST(Json, EarlierResultsOfAnotherKindAreAnError) {
  const std::string path = TestTempDir() + "/results.json";
  const auto error = [&](const std::string& text) {
    EXPECT_TRUE(WriteFile(path, text).ok());
    return std::string(ReadEarlierResults(path, "old.json").status().message());
  };
  EXPECT_THAT(error("[]"), HasSubstr("no list 'records'"));
  EXPECT_THAT(error("{\"records\": [3]}"), HasSubstr("no text 'variant'"));
  EXPECT_THAT(error("{\"records\""), HasSubstr("results.json"));
}

TEST(Json, WithholdsSimulatedLatencyAndListsFailures) {
  const nlohmann::json json = SmallJson();
  EXPECT_TRUE(FindRecord(json, "w2|sim", "decode_tokens_per_s/32").is_null());
  EXPECT_FALSE(FindRecord(json, "w2|sim", "perplexity/wikitext").is_null());
  ASSERT_EQ(json["withheld"].size(), 1);
  EXPECT_EQ(json["withheld"][0]["variant"], "w2|sim");
  EXPECT_THAT(json["withheld"][0]["reason"], HasSubstr("simulated"));
  ASSERT_EQ(json["failures"].size(), 1);
  EXPECT_EQ(json["failures"][0]["job"], "perplexity wikitext");
  EXPECT_EQ(json["events"].size(), 2);
  EXPECT_EQ(json["gates"][0]["passed"], false);
  EXPECT_EQ(json["notes"][0], "a note");
}

TEST(Json, ASimulatedBaselineLatencyIsNoBaseline) {
  SmallRun small = MakeSmallRun();
  small.results[3].mutable_metric(0)->set_arithmetic(SIMULATED);
  const nlohmann::json json = JsonOf(MakeReport(small.run, small.results));
  const nlohmann::json record = FindRecord(json, "ptq", "decode_tokens_per_s/32");
  EXPECT_TRUE(record["baseline_value"].is_null());
  EXPECT_FALSE(record.contains("ratio"));
}

TEST(Json, NanBecomesNull) {
  SmallRun small = MakeSmallRun();
  small.results[4].mutable_metric(0)->set_value(std::nan(""));
  const nlohmann::json json = JsonOf(MakeReport(small.run, small.results));
  const nlohmann::json record = FindRecord(json, "ptq", "perplexity/wikitext");
  EXPECT_TRUE(record["value"].is_null());
  EXPECT_THAT(record["note"], HasSubstr("not a finite number"));
}

// As many metrics of the small run's variants as `metrics`.
Report ReportOfManyMetrics(int metrics) {
  SmallRun small = MakeSmallRun();
  small.run.clear_variant();
  for (const char* variant : {"bf16", "ptq"}) small.run.add_variant(variant);
  small.run.clear_metric_order();
  std::vector<JobResult> results;
  for (const JobResult& result : small.results) {
    if (result.variant() != "bf16" && result.variant() != "ptq") continue;
    if (result.job() != "size") continue;
    for (int i = 0; i < metrics; ++i) {
      JobResult& copy = results.emplace_back(result);
      copy.mutable_metric(0)->set_name(absl::StrCat("size", i));
      copy.set_job(absl::StrCat("size ", i));
      copy.set_key(absl::StrCat(copy.key(), i));
    }
  }
  for (int i = 0; i < metrics; ++i) small.run.add_metric_order(absl::StrCat("size", i));
  results.push_back(MakeFailure("ptq", "latency", "a reason"));
  return MakeReport(small.run, results);
}

TEST(Report, ManyMetricsOfFewVariantsAreRows) {
  const Report report = ReportOfManyMetrics(10);
  EXPECT_THAT(report.markdown, HasSubstr("| metric | bf16 (baseline) | ptq |\n| :--- | ---: | ---: |\n"
                                         "| arithmetic | native | native |\n"
                                         "| size0 ↓ (MiB) | 256.0 | 72.5<br>×0.2832 |\n"));
  EXPECT_THAT(report.markdown, HasSubstr("| size9 ↓ (MiB) | 256.0 | 72.5<br>×0.2832 |\n"));
  EXPECT_THAT(report.markdown, HasSubstr("- ¹ ptq, latency: a reason\n"));
  EXPECT_THAT(report.html, HasSubstr("<table><caption>Results by metric</caption>"));  // megabytes do not sort among percent
  EXPECT_THAT(ReportOfManyMetrics(9).html, HasSubstr("<table class=\"sortable\"><caption>Results by variant</caption>"));
}

// Timings of a baseline that was twice as slow beside the variant as in its own job.
TEST(Report, SaysThatRatiosOfTimingsAreOfAlternatingRounds) {
  SmallRun small = MakeSmallRun();
  const std::string words = "A timing's ratio is to the baseline's rounds between its own";
  EXPECT_THAT(MakeReport(small.run, small.results).markdown, Not(HasSubstr(words)));
  for (const double seconds : {2.0, 2.2, 1.8}) small.results[7].mutable_metric(0)->add_baseline_block_sum(seconds);
  const std::string report = MakeReport(small.run, small.results).markdown;
  EXPECT_THAT(report, HasSubstr(words));
  EXPECT_THAT(report, HasSubstr("| 64.0<br>×3.97 ["));  // 64 to 32 tokens/s would be ×2
}

TEST(Markdown, GoldenTable) {
  const std::string report = SmallReport().markdown;
  EXPECT_THAT(report, HasSubstr("Model `smollm2-135m` (decoded from Q8_0 blocks), SHA-256 `0123456789ab`. Machine: "
                                "Test CPU, avx2 kernels, 2 threads on 4 CPUs, measured read bandwidth 21.2 GB/s, fp32 "
                                "peak 88.8 GFLOP/s. Nibble commit `abc1234`.\n"));
  EXPECT_THAT(report, HasSubstr("| variant | arithmetic | perplexity/wikitext ↓ | accuracy/arc ↑ (%) | size_mib ↓ (MiB) "
                                "| decode_tokens_per_s/32 ↑ (tokens/s) |\n"));
  EXPECT_THAT(report, HasSubstr("| bf16 (baseline) | native | 20.09 ± 0.40 | 75.0 ± 25.0 | 256.0 | 32.0 |\n"));
  EXPECT_THAT(report, HasSubstr("| ptq | native | 22.20 ± 0.44<br>×1.105 [1.105, 1.105] | 50.0 ± 25.0<br>-25.0 pp "
                                "[-69.9, +36.2]<br>66.7 % recovered | 72.5<br>×0.2832 | 64.0<br>×1.99 [1.92, 2.05] |\n"));
  EXPECT_THAT(report, HasSubstr("| w2\\|sim | simulated | 148.4 "));
  EXPECT_THAT(report, HasSubstr("| 40.0<br>×0.1562 | simulated |\n"));
  EXPECT_THAT(report, HasSubstr("| broken | native | failed¹ | – | 72.5<br>×0.2832 | – |\n"));
  EXPECT_THAT(report, HasSubstr("- ¹ broken, perplexity wikitext: layer 3: not positive definite\n"));
}

TEST(Markdown, APipeStaysInItsCellWithinCodeToo) {
  doc::Table table{"Names", doc::Columns({"name"}, 1), {}};
  table.rows.push_back({doc::Cell{doc::Text().Code("bf16|fp32")}});
  doc::Document document;
  document.sections.push_back({"Section", {doc::Paragraph{doc::Text().Code("a|b")}, std::move(table)}});
  const std::string markdown = ToMarkdown(document);
  EXPECT_THAT(markdown, HasSubstr("| `bf16\\|fp32` |"));
  EXPECT_THAT(markdown, HasSubstr("`a|b`\n"));
}

TEST(Markdown, ModelsThatAreMadeHaveNoDigest) {
  SmallRun small = MakeSmallRun();
  small.run.set_model_hash("synthetic:llama-3.2-1b");
  EXPECT_THAT(MakeReport(small.run, small.results).markdown, ::testing::Not(HasSubstr("SHA-256")));
  small.run.set_model_hash(std::string(64, 'a'));
  EXPECT_THAT(MakeReport(small.run, small.results).markdown, HasSubstr("SHA-256 `aaaaaaaaaaaa`"));
}

TEST(Markdown, HasEverySection) {
  const std::string report = SmallReport().markdown;
  EXPECT_THAT(report, HasSubstr("![size against perplexity](pareto.svg)"));
  EXPECT_THAT(report, HasSubstr("| **FAIL** | ptq | perplexity/wikitext | ratio 1.105 &gt; max_ratio 1.1 |\n"));
  EXPECT_THAT(report, HasSubstr("| ptq | 72.5 (580.00) | 72.5 (580.00) |\n"));
  EXPECT_THAT(report, HasSubstr("**ptq**\n\n```\nptq { }\n```\n"));
  EXPECT_THAT(report, HasSubstr("| ptq | rtn.ragged_group | 3 | down_proj | perplexity wikitext, multiple_choice arc |\n"));
  EXPECT_THAT(report, HasSubstr("| perplexity/wikitext |  | 30 | gptq window=10 | exp of the mean; ratio paired by block |\n"));
  EXPECT_THAT(report, HasSubstr("```sh\nnibble sweep configs/small.textproto\n```\n"));
  EXPECT_THAT(report, HasSubstr("````textproto\nname: \"small\"\n# ``` a fence\n````\n\n</details>"));
  EXPECT_THAT(report, HasSubstr("## Notes\n\n- a note\n"));
}

TEST(Contrasts, CompareVariantsPairByPair) {
  SmallRun small = MakeSmallRun();
  small.results.push_back(MakeResult("ptq", "perplexity wikitext", {Perplexity(3.1, {10, 14, 11, 13})}));
  small.results.push_back(MakeResult("w2|sim", "perplexity wikitext", {Perplexity(5.0, {11, 15, 12, 14})}));
  const auto add = [&](const std::string& variant, const std::string& against) {
    Contrast* contrast = small.run.add_contrast();
    contrast->set_variant(variant);
    contrast->set_against(against);
  };
  add("ptq", "w2|sim");
  add("w2|sim", "ptq");
  add("ptq", "ptq");
  add("ptq", "broken");
  const RunTable table(small.run, small.results);
  std::map<std::string, std::vector<std::string>> verdicts;
  for (const ContrastedMetric& contrasted : ContrastedMetrics(table)) {
    EXPECT_EQ(contrasted.metric->name().find("tokens_per_s"), std::string::npos);
    verdicts[contrasted.metric->name()].push_back(contrasted.Verdict());
    if (contrasted.metric->name() != "perplexity/wikitext" || verdicts["perplexity/wikitext"].size() > 1) continue;
    EXPECT_NEAR(contrasted.comparison.ratio->value, std::exp(-0.1), 1e-12);  // each block a nat less in ten tokens
    EXPECT_NEAR(contrasted.comparison.ratio->interval->high, std::exp(-0.1), 1e-12);
  }
  EXPECT_THAT(verdicts["perplexity/wikitext"], ElementsAre("better", "worse", ""));
  EXPECT_EQ(verdicts["size_mib"].size(), 4u);
  const std::string text = MakeReport(small.run, small.results, {}).markdown;
  EXPECT_THAT(text, HasSubstr("## Contrasts"));
  EXPECT_THAT(text, HasSubstr("| ptq | w2\\|sim | perplexity/wikitext ↓ | ×0.9048 [0.9048, 0.9048] | better |"));
  EXPECT_THAT(text, HasSubstr("| ptq | w2\\|sim | accuracy/arc ↑ (%) | +25.0 pp [-36.2, +69.9]; 1 gained, 0 lost, p 1.0 |  |"));
}

TEST(Markdown, PipelinesSayHowLongTheyTook) {
  SmallRun small = MakeSmallRun();
  for (JobResult& result : small.results) {
    if (result.variant() == "ptq") result.set_build_seconds(12.34);
  }
  EXPECT_THAT(MakeReport(small.run, small.results).markdown, HasSubstr("**ptq**, built in 12.3 s\n\n```\nptq { }\n```\n"));
}

TEST(Markdown, MissingIntervalsAreExplained) {
  SmallRun small = MakeSmallRun();
  small.results[4].mutable_metric(0)->set_convention("strided");
  const std::string report = MakeReport(small.run, small.results).markdown;
  EXPECT_THAT(report, HasSubstr("22.20 ± 0.44¹ |"));
  EXPECT_THAT(report, HasSubstr("- ¹ no interval: measured as 'strided', the baseline as 'gptq window=10'\n"));
  EXPECT_THAT(report, HasSubstr("| perplexity/wikitext (bf16, w2\\|sim) |"));
}

TEST(Markdown, ARunWithoutResultsIsStillAReport) {
  const Report report = MakeReport(MakeSmallRunInfo(), {});
  EXPECT_THAT(report.markdown, HasSubstr("| ptq | – | – | – | – | – |\n"));
  EXPECT_EQ(report.plot, "");
  EXPECT_THAT(report.markdown, Not(HasSubstr("pareto.svg")));
  EXPECT_OK(ParseJson(MakeReport(RunInfo(), {}).json, "empty"));
}

// A run whose ptq tells of three down_proj, an up_proj, and by another method of the head.
SmallRun RunWithLayers() {
  SmallRun small = MakeSmallRun();
  JobResult* result = &small.results[7];
  AddLayer(result, "gptq", "model.layers.0.mlp.down_proj", 1, 4);
  AddLayer(result, "gptq", "model.layers.0.mlp.up_proj", 0.5, 0.5);
  AddLayer(result, "gptq", "model.layers.1.mlp.down_proj", 2, 2);
  AddLayer(result, "gptq", "model.layers.10.mlp.down_proj", 6, 3);
  AddLayer(result, "other", "lm_head", 0, 0);
  return small;
}

TEST(Layers, AreGroupedByMethodAndKind) {
  const SmallRun small = RunWithLayers();
  const RunTable table(small.run, small.results);
  const std::vector<LayerGroup> groups = LayerGroups(table);
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0].variant, "ptq");
  EXPECT_EQ(groups[0].method, "gptq");
  const std::vector<LayerKind> kinds = LayerKinds(groups[0]);
  ASSERT_EQ(kinds.size(), 2u);
  EXPECT_EQ(kinds[0].name, "mlp.down_proj");
  EXPECT_EQ(kinds[0].layers, 3);
  EXPECT_EQ(kinds[0].worse, 1);
  EXPECT_NEAR(kinds[0].mean_ratio, std::cbrt(0.25 * 1 * 2), 1e-12);
  EXPECT_EQ(kinds[0].worst->layer(), "model.layers.10.mlp.down_proj");
  EXPECT_EQ(kinds[1].worse, 0);
  EXPECT_EQ(LayerKinds(groups[1])[0].name, "lm_head");
}

TEST(Layers, ThePlaceIsTheFirstNumberInTheName) {
  QuantizedLayer layer;
  layer.set_layer("model.layers.12.mlp.experts.3.up_proj");
  EXPECT_EQ(PlaceOf(layer.layer()).block, 12);
  EXPECT_EQ(PlaceOf(layer.layer()).kind, "mlp.experts.3.up_proj");
  layer.set_layer("lm_head");
  EXPECT_EQ(PlaceOf(layer.layer()).block, std::nullopt);
  EXPECT_EQ(PlaceOf(layer.layer()).kind, "lm_head");
}

TEST(Layers, RatiosWithoutARoundingError) {
  QuantizedLayer layer;
  EXPECT_EQ(ErrorRatio(layer), 1);
  layer.set_error(1e-3);
  EXPECT_EQ(ErrorRatio(layer), INFINITY);
  EXPECT_TRUE(IsWorseThanRounding(layer));
}

TEST(Layers, StandInEveryForm) {
  SmallRun small = RunWithLayers();
  const Report report = MakeReport(small.run, small.results);
  EXPECT_THAT(report.markdown, HasSubstr("Every layer: [layers.csv](layers.csv)."));
  EXPECT_THAT(report.markdown, HasSubstr("**ptq**, gptq: 1 of 4 layers lost more than rounding to nearest would have: "
                                         "`model.layers.10.mlp.down_proj`.\n"));
  EXPECT_THAT(report.markdown, HasSubstr("| mlp.down_proj | 3 | 0.7937 | 2.000 | `model.layers.10.mlp.down_proj` | 1 |\n"));
  EXPECT_THAT(report.markdown, HasSubstr("**ptq**, other: none of 1 layer lost more"));
  const std::vector<std::string> lines = absl::StrSplit(report.layers, "\r\n");
  ASSERT_EQ(lines.size(), 7u);
  EXPECT_EQ(lines[0], "variant,method,layer,error,rounding_error,ratio");
  EXPECT_EQ(lines[1], "ptq,gptq,model.layers.0.mlp.down_proj,1,4,0.25");
  const nlohmann::json json = JsonOf(report);
  ASSERT_EQ(json["layers"].size(), 5u);
  EXPECT_EQ(json["layers"][3]["ratio"], 2);
  EXPECT_EQ(json["layers"][3]["rounding_error"], 3);
}

SmallRun RunWithWeights() {
  SmallRun small = MakeSmallRun();
  AddWeight(&small.results[7], "model.layers.0.mlp.up_proj", 0.25);
  AddWeight(&small.results[7], "model.layers.0.mlp.down_proj", std::nullopt);
  AddWeight(&small.results[7], "model.layers.1.mlp.up_proj", 0.75);
  AddWeight(&small.results[11], "model.layers.0.mlp.down_proj", std::nullopt);
  AddWeight(&small.results[11], "model.layers.1.mlp.down_proj", 0.5);
  return small;
}

TEST(Weights, AreCountedByKind) {
  const SmallRun small = RunWithWeights();
  const RunTable table(small.run, small.results);
  const std::vector<WeightGroup> groups = WeightGroups(table);
  ASSERT_EQ(groups.size(), 2u);  // and none of bf16
  const std::vector<WeightKind> kinds = WeightKinds(groups[0]);
  ASSERT_EQ(kinds.size(), 2u);
  EXPECT_EQ(kinds[0].name, "mlp.up_proj");
  EXPECT_EQ(kinds[0].compared, 2);
  EXPECT_EQ(kinds[0].left_out, 0);
  EXPECT_EQ(kinds[0].mean, 0.5);
  EXPECT_EQ(kinds[0].worst->linear(), "model.layers.1.mlp.up_proj");
  EXPECT_EQ(kinds[1].left_out, 1);
  EXPECT_EQ(kinds[1].worst, nullptr);
}

TEST(Weights, StandInEveryForm) {
  const SmallRun small = RunWithWeights();
  const Report report = MakeReport(small.run, small.results);
  EXPECT_THAT(report.markdown, HasSubstr("| variant | mlp.up_proj | mlp.down_proj |\n"));
  EXPECT_THAT(report.markdown, HasSubstr("| ptq | 0.500 (0.750) | left out |\n"));
  EXPECT_THAT(report.markdown, HasSubstr(" | – | 0.500 (0.500), 1 left out |\n"));
  EXPECT_THAT(report.markdown, HasSubstr("then no longer compares with the source's: **ptq** 1 of 3, "));
  const std::vector<std::string> lines = absl::StrSplit(report.layers, "\r\n");
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_EQ(lines[0], "variant,method,layer,error,rounding_error,ratio");
  EXPECT_EQ(lines[1], "ptq,weights,model.layers.0.mlp.up_proj,0.25,,");
  const nlohmann::json json = JsonOf(report);
  ASSERT_EQ(json["weights"].size(), 5u);
  EXPECT_EQ(json["weights"][0]["error"], 0.25);
  EXPECT_TRUE(json["weights"][1]["error"].is_null());
  EXPECT_THAT(SmallReport().markdown, Not(HasSubstr("Errors of weights")));
}

TEST(MethodTables, StandAsTheMethodWroteThem) {
  SmallRun small = MakeSmallRun();
  EXPECT_THAT(MakeReport(small.run, small.results).markdown, Not(HasSubstr("What methods measured")));
  MethodTable* table = small.results[7].add_table();
  table->set_title("times in ms");
  table->add_column("shape");
  table->add_column("prompt");
  MethodTable::Row* row = table->add_row();
  row->add_cell("48 x 100 | a");
  row->add_cell("0.125");
  const std::string report = MakeReport(small.run, small.results).markdown;
  EXPECT_THAT(report, HasSubstr("## What methods measured\n\n**ptq**: times in ms.\n\n| shape | prompt |\n"));
  EXPECT_THAT(report, HasSubstr("| 48 x 100 \\| a | 0.125 |\n"));
}

TEST(Layers, OfManyBadOnesFiveAreNamed) {
  SmallRun small = MakeSmallRun();
  for (int i = 0; i < 8; ++i) AddLayer(&small.results[7], "gptq", absl::StrCat("model.layers.", i, ".mlp.up_proj"), 2, 1);
  const std::string report = MakeReport(small.run, small.results).markdown;
  EXPECT_THAT(report, HasSubstr("8 of 8 layers lost more"));
  EXPECT_THAT(report, HasSubstr("`model.layers.4.mlp.up_proj` and 3 more.\n"));
}

TEST(Layers, ARunWithoutThemHasNoTable) {
  const Report report = SmallReport();
  EXPECT_EQ(report.layers, "");
  EXPECT_THAT(report.markdown, Not(HasSubstr("Errors by layer")));
}

void AddRepetition(RunInfo* run, const std::string& of, const std::string& label) {
  Repetition* repetition = run->add_repetition();
  repetition->set_of(of);
  repetition->set_label(label);
  repetition->set_variant(absl::StrCat(of, "/", label));
  run->add_variant(repetition->variant());
}

// A baseline of perplexity exp(3), and three repetitions of "rot" with exp(3.1), exp(3.2), exp(3.3); the last one's size fails.
SmallRun RunWithSeeds() {
  SmallRun small = MakeSmallRun();
  for (const int seed : {1, 2, 3}) {
    AddRepetition(&small.run, "rot", absl::StrCat("seed=", seed));
    const std::string name = absl::StrCat("rot/seed=", seed);
    const double s = 30 + seed;
    small.results.push_back(MakeResult(name, "perplexity wikitext", {Perplexity(std::exp(s / 10), {s - 1, s, s + 1})}));
    small.results.push_back(seed == 3 ? MakeFailure(name, "size", "disk|full") : MakeResult(name, "size", {Size(64.0 * seed)}));
  }
  return small;
}

const RepeatedMetric* FindRepeated(const std::vector<RepeatedMetric>& metrics, const std::string& name) {
  for (const RepeatedMetric& metric : metrics) {
    if (metric.metric == name) return &metric;
  }
  return nullptr;
}

TEST(Repetitions, MeanSpreadAndRatioOverSeeds) {
  const SmallRun small = RunWithSeeds();
  const RunTable table(small.run, small.results);
  const std::vector<RepeatedMetric> metrics = RepeatedMetrics(table);
  ASSERT_EQ(metrics.size(), 2u);  // of the two other metrics nothing was tried
  const RepeatedMetric* perplexity = FindRepeated(metrics, "perplexity/wikitext");
  ASSERT_NE(perplexity, nullptr);
  EXPECT_EQ(perplexity->counted, 3u);
  const double a = std::exp(3.1), b = std::exp(3.2), c = std::exp(3.3), mean = (a + b + c) / 3;
  EXPECT_NEAR(perplexity->spread->mean, mean, 1e-9);
  EXPECT_NEAR(*perplexity->spread->deviation, std::sqrt((std::pow(a - mean, 2) + std::pow(b - mean, 2) + std::pow(c - mean, 2)) / 2), 1e-9);
  // Logarithms of the ratios 0.1, 0.2, 0.3: deviation 0.1, and t over three is 4.30265.
  EXPECT_NEAR(perplexity->comparison.ratio->value, std::exp(0.2), 1e-9);
  EXPECT_NEAR(perplexity->comparison.ratio->interval->low, std::exp(0.2 - 4.30265 * 0.1 / std::sqrt(3)), 1e-5);
  EXPECT_NEAR(perplexity->comparison.ratio->interval->high, std::exp(0.2 + 4.30265 * 0.1 / std::sqrt(3)), 1e-5);
}

TEST(Repetitions, AFailureIsNamedAndNotCounted) {
  const SmallRun small = RunWithSeeds();
  const RunTable table(small.run, small.results);
  const std::vector<RepeatedMetric> metrics = RepeatedMetrics(table);
  const RepeatedMetric* size = FindRepeated(metrics, "size_mib");
  ASSERT_NE(size, nullptr);
  EXPECT_EQ(size->counted, 2u);
  EXPECT_EQ(size->spread->mean, 96);
  EXPECT_EQ(size->values[2].missing, "failed");
  EXPECT_EQ(size->values[2].failure->error(), "disk|full");
}

TEST(Repetitions, ValuesThatCannotCountSayWhy) {
  SmallRun small = RunWithSeeds();
  AddRepetition(&small.run, "rot", "seed=4");
  small.results[14].mutable_metric(0)->set_value(std::nan(""));
  small.results.push_back(MakeResult("rot/seed=2", "latency", {Decode({1, 2}, SIMULATED)}));
  const RunTable table(small.run, small.results);
  const std::vector<RepeatedMetric> metrics = RepeatedMetrics(table);
  const RepeatedMetric* perplexity = FindRepeated(metrics, "perplexity/wikitext");
  EXPECT_EQ(perplexity->counted, 2u);
  EXPECT_EQ(perplexity->values[0].missing, "not finite");
  EXPECT_EQ(perplexity->values[3].missing, "not run");
  const RepeatedMetric* decode = FindRepeated(metrics, "decode_tokens_per_s/32");
  EXPECT_EQ(decode->counted, 0u);
  EXPECT_EQ(decode->values[1].missing, "simulated");
  EXPECT_FALSE(decode->spread.has_value());
  EXPECT_THAT(MakeReport(small.run, small.results).markdown, HasSubstr("| 0 of 4 | – | – | – | seed=1: not run, seed=2: simulated, "));
}

TEST(Repetitions, StandInTheReportAndInJson) {
  const SmallRun small = RunWithSeeds();
  const Report report = MakeReport(small.run, small.results);
  EXPECT_THAT(report.markdown, HasSubstr("## Seeds\n"));
  EXPECT_THAT(report.markdown, HasSubstr("| rot | perplexity/wikitext ↓ | 3 of 3 | 24.61 ± 2.5 | 22.20 to 27.11 | ×1.221 [0.9527, 1.566] | "
                                         "seed=1: 22.20, seed=2: 24.53, seed=3: 27.11 |\n"));
  EXPECT_THAT(report.markdown, HasSubstr("| rot | size_mib ↓ (MiB) | 2 of 3 | 96.0 ± 45 | 64.0 to 128.0 | "));
  EXPECT_THAT(report.markdown, HasSubstr("| seed=1: 64.0, seed=2: 128.0, seed=3: failed¹ |\n\n- ¹ rot/seed=3, size: disk\\|full\n"));
  const nlohmann::json json = JsonOf(report);
  const nlohmann::json& repetitions = json["repetitions"];
  ASSERT_EQ(repetitions.size(), 2u);
  EXPECT_EQ(repetitions[0]["of"], "rot");
  EXPECT_EQ(repetitions[0]["counted"], 3);
  EXPECT_NEAR(repetitions[0]["ratio"].get<double>(), std::exp(0.2), 1e-9);
  EXPECT_NEAR(repetitions[0]["ratio_high"].get<double>(), 1.566, 1e-3);
  EXPECT_EQ(repetitions[0]["values"][1]["label"], "seed=2");
  EXPECT_NEAR(repetitions[0]["values"][1]["value"].get<double>(), std::exp(3.2), 1e-9);
  EXPECT_EQ(repetitions[1]["repetitions"], 3);
  EXPECT_EQ(repetitions[1]["mean"], 96);
  EXPECT_EQ(repetitions[1]["values"][2]["missing"], "failed: disk|full");
  EXPECT_TRUE(repetitions[1]["values"][2]["value"].is_null());
  EXPECT_THAT(SmallReport().markdown, Not(HasSubstr("## Seeds")));
}

TEST(RunTable, LaterResultsReplaceEarlierOnes) {
  SmallRun small = MakeSmallRun();
  small.results.push_back(MakeResult("broken", "perplexity wikitext", {Perplexity(20, {1, 2, 3})}));
  small.results.push_back(MakeFailure("ptq", "size", "disk full"));
  small.results.push_back(MakeResult("forgotten", "size", {Size(1)}));
  const RunTable table(small.run, small.results);
  EXPECT_THAT(table.Failures("broken"), IsEmpty());
  EXPECT_NE(table.Find("broken", "perplexity/wikitext"), nullptr);
  EXPECT_EQ(table.Find("ptq", "size_mib"), nullptr);
  EXPECT_EQ(table.FailureBehind("ptq", "size_mib")->error(), "disk full");
  EXPECT_THAT(table.notes(), ElementsAre("left out, since the run no longer names them: forgotten"));
}

// A config changed and changed back: the log's last results, and a failure that was
// corrected, are of the wrong one.
TEST(RunTable, ResultsThatTheRunNoLongerPlansAreLeftOut) {
  SmallRun small = MakeSmallRun();
  for (const JobResult& result : small.results) small.run.add_key(result.key());
  JobResult other = MakeResult("ptq", "size", {Size(77)});
  other.set_key("other");
  JobResult failure = MakeFailure("ptq", "perplexity with a window of a million", "too long");
  failure.set_key("wrong");
  small.results.insert(small.results.end(), {other, failure});
  const RunInfo unaware = MakeSmallRun().run;
  EXPECT_EQ(RunTable(unaware, small.results).Find("ptq", "size_mib")->value(), 77);
  EXPECT_THAT(RunTable(unaware, small.results).Failures("ptq"), ::testing::SizeIs(1));
  const RunTable table(small.run, small.results);
  EXPECT_NE(table.Find("ptq", "size_mib")->value(), 77);
  EXPECT_THAT(table.Failures("ptq"), IsEmpty());
  EXPECT_THAT(table.notes(), ElementsAre("earlier results left out, since steps, settings, data or program have changed: of ptq"));
}

TEST(RunTable, TheMachineIsThatOfTheResults) {
  SmallRun small = MakeSmallRun();
  EXPECT_EQ(RunTable(small.run, small.results).machine().cpu(), "Test CPU");
  Machine same = small.run.machine();
  same.clear_read_bandwidth_gb_s();
  for (JobResult& result : small.results) *result.mutable_machine() = same;
  EXPECT_EQ(RunTable(small.run, small.results).machine().read_bandwidth_gb_s(), 21.25);
  for (JobResult& result : small.results) result.mutable_machine()->set_cpu("Another CPU");
  EXPECT_EQ(RunTable(small.run, small.results).machine().cpu(), "Another CPU");
  EXPECT_FALSE(RunTable(small.run, small.results).machine().has_read_bandwidth_gb_s());
}

// The small run with peaks beside the timings of bf16 and ptq, and other ones in its head.
SmallRun RunWithPeaks(double first_bandwidth, double second_bandwidth) {
  SmallRun small = MakeSmallRun();
  Machine plain = small.run.machine();
  plain.clear_read_bandwidth_gb_s();
  plain.clear_fma_peak_gflop_s();
  for (JobResult& result : small.results) *result.mutable_machine() = plain;
  Machine* first = small.results[3].mutable_machine();
  first->set_read_bandwidth_gb_s(first_bandwidth);
  first->set_fma_peak_gflop_s(100);
  first->set_bf16_peak_gflop_s(200);
  first->set_int8_peak_gop_s(400);
  first->set_peak_threads(4);
  *small.results[7].mutable_machine() = *first;
  small.results[7].mutable_machine()->set_read_bandwidth_gb_s(second_bandwidth);
  return small;
}

TEST(Peaks, AreThoseOfTheTimings) {
  const SmallRun small = RunWithPeaks(10, 10.5);
  const RunTable table(small.run, small.results);
  ASSERT_EQ(table.timed().size(), 2u);
  EXPECT_EQ(table.machine().read_bandwidth_gb_s(), 10);  // and not the head's 21.25
  const Report report = MakeReport(small.run, small.results);
  EXPECT_THAT(report.markdown, HasSubstr("measured read bandwidth 10.0 GB/s, fp32 peak 100 GFLOP/s, bf16 peak 200 GFLOP/s, int8 peak 400 Gop/s (with 4 threads)."));
  EXPECT_THAT(report.markdown, HasSubstr("## Peaks beside timings"));
  EXPECT_THAT(report.markdown, HasSubstr("| ptq | latency | 4 | 10.5 | 100 | 200 | 400 |\n"));
  const nlohmann::json json = JsonOf(report);
  ASSERT_EQ(json["peaks"].size(), 2u);
  EXPECT_EQ(json["peaks"][1]["variant"], "ptq");
  EXPECT_EQ(json["peaks"][1]["machine"]["read_bandwidth_gb_s"], 10.5);
}

TEST(Peaks, ThatDifferAreARange) {
  const SmallRun small = RunWithPeaks(10, 15);
  EXPECT_THAT(MakeReport(small.run, small.results).markdown,
              HasSubstr("measured read bandwidth 10.0 GB/s (10.0 to 15.0 GB/s beside its timings), fp32 peak 100 GFLOP/s, bf16"));
}

TEST(Peaks, OfReplacedAndOlderResultsAreNoneOfTheTables) {
  SmallRun small = RunWithPeaks(10, 15);
  // A timing that was taken again.
  JobResult again = small.results[7];
  again.mutable_machine()->set_read_bandwidth_gb_s(10.2);
  small.results.push_back(again);
  const RunTable table(small.run, small.results);
  ASSERT_EQ(table.timed().size(), 2u);
  EXPECT_EQ(table.timed()[1]->machine().read_bandwidth_gb_s(), 10.2);
  // Results of before have none, and their runs one set in the head.
  const SmallRun older = MakeSmallRun();
  EXPECT_THAT(RunTable(older.run, older.results).timed(), IsEmpty());
  EXPECT_THAT(MakeReport(older.run, older.results).markdown, Not(HasSubstr("Peaks beside timings")));
}

TEST(RunTable, OrdersVariantsWithoutARun) {
  const RunInfo run;
  const std::vector<JobResult> results = {MakeResult("ptq", "size", {Size(1)}), MakeResult("bf16", "size", {Size(2)})};
  const RunTable table(run, results);
  EXPECT_THAT(table.variants(), ElementsAre("bf16", "ptq"));
  EXPECT_EQ(table.baseline(), "bf16");
}

TEST(RunTable, TheLatestResultTellsHowAVariantWasBuilt) {
  SmallRun small = MakeSmallRun();
  TrainingCurve* curve = small.results[4].add_training();
  curve->set_label("qat");
  curve->add_loss(2);
  EXPECT_EQ(&RunTable(small.run, small.results).Build("ptq"), &small.results[7]);
  EXPECT_EQ(RunTable(small.run, small.results).Build("none").job(), "");
  // ptq was trained once; as it was built last, it was not.
  EXPECT_THAT(MakeReport(small.run, small.results).markdown, Not(HasSubstr("## Training")));
  *small.results[7].add_training() = *curve;
  EXPECT_THAT(MakeReport(small.run, small.results).markdown, HasSubstr("| ptq | qat |"));
}

TEST(RunLog, SkipsTornLinesAndKeepsTheLastOfAKey) {
  const JobResult first = MakeResult("ptq", "size", {Size(1)});
  const JobResult second = MakeResult("ptq", "size", {Size(2)});
  const std::string line = ToLine(second);
  RunLog log;
  EXPECT_OK(ParseResultLines(absl::StrCat(ToLine(first), "\n\n", line, "\n", line.substr(0, line.size() / 2)), "log", &log));
  ASSERT_EQ(log.results.size(), 1);
  EXPECT_EQ(log.results[0].metric(0).value(), 2);
  EXPECT_THAT(log.notes, ElementsAre("log:4: skipped a line that is not whole; its job must run again"));
}

// An earlier program may have had another formula; where the blocks are not what the value
// is of, nothing is touched.
TEST(RunLog, StandardErrorsAreOfTheBlocks) {
  const Metric whole = Accuracy({1, 0, 1, 1});
  Metric other = whole;
  other.set_value(0.5);
  RunLog log;
  ASSERT_OK(ParseResultLines(ToLine(MakeResult("ptq", "arc", {whole, other})), "log", &log));
  EXPECT_DOUBLE_EQ(whole.stderr(), 0.25);
  EXPECT_DOUBLE_EQ(log.results[0].metric(1).stderr(), 0.25);
  Metric old = whole;
  old.set_stderr(0.1);
  other.set_stderr(0.1);
  ASSERT_OK(ParseResultLines(ToLine(MakeResult("w4", "arc", {old, other})), "log", &log));
  EXPECT_DOUBLE_EQ(log.results[1].metric(0).stderr(), 0.25);
  EXPECT_DOUBLE_EQ(log.results[1].metric(1).stderr(), 0.1);
}

TEST(RunLog, AWholeLastLineWithoutNewlineCounts) {
  RunLog log;
  EXPECT_OK(ParseResultLines(ToLine(MakeResult("ptq", "size", {Size(1)})), "log", &log));
  EXPECT_EQ(log.results.size(), 1);
  EXPECT_THAT(log.notes, IsEmpty());
}

TEST(RunLog, JsonOfAnotherKindIsAnError) {
  RunLog log;
  const absl::Status status = ParseResultLines("{\"colour\": 3}\n", "log", &log);
  EXPECT_THAT(std::string(status.message()), HasSubstr("log:1: not a nibble.JobResult"));
}

TEST(RunLog, FieldsOfAnotherVersionAreSkippedWithANote) {
  RunLog log;
  ASSERT_OK(ParseResultLines("{\"variant\": \"a\", \"colour\": 3}\n{\"variant\": \"b\", \"colour\": 4}\n", "log", &log));
  ASSERT_EQ(log.results.size(), 2u);
  EXPECT_EQ(log.results[0].variant(), "a");
  EXPECT_THAT(log.notes, ElementsAre("fields of another version's nibble.JobResult were skipped"));
}

TEST(WriteReport, WritesEveryFile) {
  const std::string dir = TestTempDir();
  const SmallRun small = RunWithLayers();
  std::string lines;
  for (const JobResult& result : small.results) absl::StrAppend(&lines, ToLine(result), "\n");
  ASSERT_OK(WriteFile(dir + "/run.json", ToLine(small.run)));
  ASSERT_OK(WriteFile(dir + "/results.jsonl", lines + "{\"key\": \"to"));
  ASSERT_OK(WriteReport(dir));
  ASSERT_OK_AND_ASSIGN(const std::string markdown, ReadFile(dir + "/report.md"));
  EXPECT_THAT(markdown, HasSubstr("results.jsonl:15: skipped a line"));
  ASSERT_OK_AND_ASSIGN(const RunLog log, ReadRunLog(dir));
  const Report report = MakeReport(log.run, log.results);
  ASSERT_OK_AND_ASSIGN(const std::string csv, ReadFile(dir + "/results.csv"));
  EXPECT_EQ(csv, report.csv);
  ASSERT_OK_AND_ASSIGN(const std::string plot, ReadFile(dir + "/pareto.svg"));
  EXPECT_EQ(plot, report.plot);
  ASSERT_OK_AND_ASSIGN(const std::string layers, ReadFile(dir + "/layers.csv"));
  EXPECT_EQ(layers, report.layers);
  for (const char* name : {"/results.json", "/report.html", "/charts.json"}) EXPECT_TRUE(FileExists(dir + name)) << name;
}

TEST(WriteReport, RemovesWhatTheReportHasNoMore) {
  const std::string dir = TestTempDir();
  RunInfo run = MakeSmallRunInfo();
  run.clear_gate();
  ASSERT_OK(WriteFile(dir + "/run.json", ToLine(run)));
  for (const char* name : {"/gates.xml", "/layers.csv", "/pareto.svg", "/charts.json"}) ASSERT_OK(WriteFile(dir + name, "of before"));
  ASSERT_OK(WriteReport(dir));
  for (const char* name : {"/gates.xml", "/layers.csv", "/pareto.svg", "/charts.json"}) EXPECT_FALSE(FileExists(dir + name)) << name;
}

TEST(MakeReport, JunitHasTheJobsThatFailedWhereThereIsNoGate) {
  const SmallRun small = MakeSmallRun();
  ASSERT_EQ(small.run.gate_size(), 0);
  EXPECT_THAT(MakeReport(small.run, small.results).junit, HasSubstr("name=\"broken perplexity wikitext\"><failure message=\"layer 3"));
}

TEST(WriteReport, NamesAMissingRun) {
  EXPECT_THAT(std::string(WriteReport(TestTempDir()).message()), HasSubstr("run.json"));
}

TEST(Pareto, TicksAreRound) {
  EXPECT_THAT(LinearTicks(0, 7), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_THAT(LinearTicks(31, 259), ElementsAre(50, 100, 150, 200, 250));
  EXPECT_THAT(LogTicks(9, 120), ElementsAre(10, 20, 50, 100));
  EXPECT_THAT(LogTicks(11, 19), ElementsAre(12, 14, 16, 18));
}

TEST(Pareto, TicksEndForAnyNumbers) {
  const double infinity = INFINITY, nan = std::nan(""), least = 4.9e-324, most = 1.7e308;
  for (const double low : {0.0, 30.0, least, 1e300, most, -most, -infinity, nan}) {
    for (const double high : {std::nextafter(low, infinity), low, 31.0, 1e300, most, infinity, nan}) {
      EXPECT_LE(LinearTicks(low, high).size(), 24) << low << " " << high;
      EXPECT_LE(LogTicks(low, high).size(), 24) << low << " " << high;
    }
  }
}

TEST(Pareto, ValuesThatAreAlmostEqualOrHugeAreDrawn) {
  for (const double y : {30.000000000000004, 1.7e308, 4.9e-324}) {
    const std::string svg = ParetoSvg({{"a", 1, 30, true}, {"b", 1.0000000000000002, y, false}}, "x", "y");
    EXPECT_THAT(svg, HasSubstr(">b</text>"));
    EXPECT_LT(svg.size(), 10000);
  }
}

TEST(Curve, LossesThatAreNotFiniteAreLeftOut) {
  EXPECT_EQ(CurveSvg({{"a", {std::nan(""), INFINITY}}}), "");
  const std::string svg = CurveSvg({{"a", {3, 2, std::nan("")}}});
  EXPECT_THAT(svg, HasSubstr("<path"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
}

TEST(Pareto, TheFrontIsWhatNoOtherBeats) {
  const std::vector<ParetoPoint> front = ParetoFront({{"c", 3, 1, false}, {"a", 1, 3, false}, {"worse", 2, 4, false}, {"b", 2, 2, false}});
  std::vector<std::string> names;
  for (const ParetoPoint& point : front) names.push_back(point.label);
  EXPECT_THAT(names, ElementsAre("a", "b", "c"));
}

TEST(Labels, TakeTheNearestFreePlace) {
  LabelPlacer placer({0, 0, 200, 100}, 4, /*lines=*/1);
  placer.TakeDot(50, 50);
  placer.TakeDot(64, 50);  // where the label of the first would stand
  const auto first = placer.Place("abc", 50, 50);
  ASSERT_TRUE(first.has_value());
  EXPECT_LT(first->left, 50);
  const auto second = placer.Place("abc", 64, 50);
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second->left, 64 + 8);
  EXPECT_FALSE(placer.Place(std::string(100, 'x'), 50, 50).has_value());  // wider than the plot
}

TEST(Pareto, DrawsADotAndALabelPerVariant) {
  const std::string svg = SmallReport().plot;
  EXPECT_THAT(svg, HasSubstr("<svg xmlns"));
  EXPECT_THAT(svg, HasSubstr(">bf16</text>"));
  EXPECT_THAT(svg, HasSubstr(">w2|sim</text>"));
  EXPECT_THAT(svg, Not(HasSubstr("broken")));
  EXPECT_THAT(svg, HasSubstr("(log scale)"));
  EXPECT_THAT(ParetoSvg({{"a", 1, 2, true}, {"b", 2, 3, false}}, "x", "y"), Not(HasSubstr("log scale")));
  EXPECT_THAT(ParetoSvg({{"only", 1, 2, true}}, "x", "y"), Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace nibble
