#include "reports/html.h"

#include <google/protobuf/util/json_util.h>

#include <cmath>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/subprocess.h"
#include "core/base/testing.h"
#include "eval/statistics.h"
#include "reports/compare_runs.h"
#include "reports/format.h"
#include "reports/markdown.h"
#include "reports/report.h"
#include "reports/sections.h"
#include "reports/spread.h"
#include "reports/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr char kHostile[] = "a\"><script>alert(1)</script>&'`|";

// What check_page.py finds wrong, "" for nothing.
std::string Problems(const std::string& html) {
  const std::string path = TestTempDir() + "/page.html";
  EXPECT_OK(WriteFile(path, html));
  const auto problems = RunProgram("python3", {"-I", "reports/check_page.py", path}, "check_page.py");
  return problems.ok() ? *problems : problems.status().ToString();
}

// An empty picture of each chart, and a script that only looks dangerous.
absl::StatusOr<RenderedCharts> RenderNothing(const std::string& charts) {
  RenderedCharts rendered{"window.vegaEmbed = function (a, b) { return a < b && a > 1; };", "Vega 0", {}};
  const auto specs = ParseJson(charts, "charts.json");
  EXPECT_OK(specs);
  for (const auto& [name, spec] : specs->items()) rendered.svg[name] = "<svg xmlns=\"http://www.w3.org/2000/svg\"></svg>";
  return rendered;
}

// The small run with everything that gives a chart or a section.
SmallRun FullRun() {
  SmallRun small = MakeSmallRun();
  for (JobResult& result : small.results) {
    for (Metric& metric : *result.mutable_metric()) {
      if (IsTiming(metric)) EXPECT_OK(FillMetric(&metric));
    }
    result.set_measured_at("2026-03-01T12:00:00Z");
  }
  JobResult* built = &small.results[7];
  for (int block = 0; block < 3; ++block) {
    for (const char* kind : {"mlp.up_proj", "mlp.down_proj"}) {
      AddLayer(built, "gptq", absl::StrCat("model.layers.", block, ".", kind), 0.5 * (block + 1), 1);
    }
  }
  AddLayer(built, "gptq", "lm_head", 1, 0);  // an infinite ratio
  for (int block = 0; block < 3; ++block) AddWeight(built, absl::StrCat("model.layers.", block, ".mlp.up_proj"), 0.1 * (block + 1));
  AddWeight(built, "lm_head", std::nullopt);
  TrainingCurve* curve = built->add_training();
  curve->set_label("qat");
  curve->set_updates(400);
  for (int i = 0; i < 40; ++i) curve->add_loss(4 - 0.05 * i);
  Gate* gate = small.run.add_gate();
  gate->set_metric("size_mib");
  gate->set_max_ratio(0.2);
  Contrast* contrast = small.run.add_contrast();
  contrast->set_variant("ptq");
  contrast->set_against("w2|sim");
  return small;
}

Report FullReport(const ChartRenderer& render = RenderNothing) {
  const SmallRun small = FullRun();
  return MakeReport(small.run, small.results, {"a note"}, render);
}

nlohmann::json Specs(const Report& report) {
  const auto json = ParseJson(report.charts, "charts.json");
  EXPECT_OK(json);
  return *json;
}

TEST(Html, IsWellFormedAndLoadsNothing) { EXPECT_EQ(Problems(FullReport().html), ""); }

TEST(Html, ACheckThatPassesEverythingWouldBeNone) {
  const std::string page = FullReport().html;
  EXPECT_THAT(Problems(absl::StrReplaceAll(page, {{"</main>", ""}})), HasSubstr("mismatched tag"));
  EXPECT_THAT(Problems(absl::StrReplaceAll(page, {{"</main>", "<img alt=\"x\" src=\"https://a.b/c.png\"/></main>"}})), HasSubstr("loads https"));
  EXPECT_THAT(Problems(absl::StrReplaceAll(page, {{"id=\"results\"", "id=\"else\""}})), HasSubstr("link to nowhere: #results"));
  EXPECT_THAT(Problems(absl::StrReplaceAll(page, {{"<svg xmlns", "<div data-x"}, {"</svg>", "</div>"}})), HasSubstr("has no still picture"));
}

TEST(Html, SaysAllThatTheMarkdownSays) {
  const SmallRun small = FullRun();
  const Report report = FullReport();
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(report.markdown, '\n'))) {
    if (line.rfind("## ", 0) == 0) EXPECT_THAT(report.html, HasSubstr(absl::StrCat(">", line.substr(3), "</h2>"))) << line;
  }
  const RunTable table(small.run, small.results);
  for (const Record& record : MakeRecords(table).records) {
    EXPECT_THAT(report.html, HasSubstr(absl::StrCat("href=\"#", RecordId(table, record.variant, record.metric->name()), "\">",
                                                    FormatMeasured(*record.metric), "</a>")));
    EXPECT_THAT(report.html, HasSubstr(EscapeXml(FormatComparison(*record.metric, record.comparison))));
    EXPECT_THAT(report.html, HasSubstr(EscapeXml(record.metric->convention())));
  }
  for (const char* words : {"smollm2-135m", "Test CPU", "abc1234", "2026-03-01 (UTC)", "nibble sweep configs/small.textproto", "a note",
                            "rtn.ragged_group", "ratio 0.2832 &gt; max_ratio 0.2"}) {
    EXPECT_THAT(report.html, HasSubstr(words));
  }
  EXPECT_THAT(report.markdown, Not(HasSubstr("2026-03-01")));  // the same results give the same text
}

// Variants bf16, ptq, w2|sim; metrics perplexity, accuracy, size.
TEST(Html, FiguresLeadToTheirRecords) {
  const std::string html = FullReport().html;
  for (const char* link : {
           "href=\"#r-1-0\">ptq</a>", "href=\"#r-2-0\">w2|sim</a>", "href=\"#r-1-0\">×0.1496",           // a contrast
           "href=\"#r-1-2\">ratio 0.2832 &gt; max_ratio 0.2</a>",                                      // a gate
           "href=\"#r-1-2\">72.5 (580.00)</a>",                                                        // a part of a size
           "href=\"#r-1-1\">-25.0 pp</a>", "href=\"#r-1-1\">[-75.0, 0.0]</a>", "href=\"#r-1-1\">66.7 %</a>",  // an accuracy
           "href=\"#b-1\">400</a>",                                                                    // updates of a training
           "href=\"#b-1\">1.500</a>",                                                                  // a layer's ratio
       }) {
    EXPECT_THAT(html, HasSubstr(absl::StrCat("<a class=\"record\" ", link)));
  }
  EXPECT_THAT(html, HasSubstr("<tr id=\"b-1\"><th scope=\"row\">ptq</th><td>latency</td>"));
  EXPECT_THAT(html, HasSubstr("<a class=\"record\" title=\"of 4 items 0 gained, 1 lost, McNemar's exact p 1.0; bootstrap interval [-75.0, 0.0]\" "
                              "href=\"#r-1-1\">50.0 ± 25.0</a>"));
}

// What was not measured.
TEST(Html, WhatHasNoRecordLeadsNowhere) {
  SmallRun small = FullRun();
  Gate* gate = small.run.add_gate();
  gate->set_metric("no such metric");
  gate->set_max_value(1);
  *small.run.add_lineage()->mutable_variant() = "broken";
  small.run.mutable_lineage(0)->set_untrained("w2|sim");
  const std::string html = MakeReport(small.run, small.results, {}, RenderNothing).html;
  EXPECT_EQ(Problems(html), "");
  EXPECT_THAT(html, HasSubstr("<td>the gate matches no measured metric"));
}

std::vector<std::string> Split(const std::string& text, const std::string& at) { return absl::StrSplit(text, at); }

size_t Count(const std::string& text, const std::string& part) { return Split(text, part).size() - 1; }

// A section with one row of `columns` cells "c0", "c1", ... that links lead to.
HtmlPage PageWithTable(int columns, bool is_printed) {
  doc::Table table{"Wide", {}, {doc::Row()}};
  for (int i = 0; i < columns; ++i) {
    table.columns.push_back({doc::Text().Words(absl::StrCat("t", i)), i > 0});
    table.rows[0].emplace_back(doc::Text().Words(absl::StrCat("c", i)));
  }
  table.rows[0][0].id = "row";
  HtmlPage page{{}, {}, RenderedCharts(), {}};
  page.document.sections.push_back({"Section", {table}, is_printed});
  return page;
}

TEST(Html, PaperHasWideTablesInPieces) {
  const std::string html = ToHtml(PageWithTable(18, /*is_printed=*/true));
  EXPECT_EQ(Problems(html), "");  // such as an id that comes twice
  const std::vector<std::string> halves = Split(html, "<div class=\"on-paper\">");
  ASSERT_EQ(halves.size(), 2);
  EXPECT_THAT(halves[0], HasSubstr("<div class=\"scroll on-screen\""));
  const std::vector<std::string> pieces = Split(halves[1], "<table>");
  ASSERT_EQ(pieces.size(), 4);  // 17 columns in three tables
  for (int i = 1; i < 18; ++i) {
    const std::string& piece = pieces[i <= 5 ? 1 : i <= 11 ? 2 : 3];
    EXPECT_THAT(piece, HasSubstr(absl::StrCat("<th scope=\"col\" class=\"n\">t", i, "</th>")));
    EXPECT_THAT(piece, HasSubstr(absl::StrCat("<td class=\"n\">c", i, "</td>")));
    EXPECT_EQ(Count(html, absl::StrCat(">c", i, "<")), 2) << i;
  }
  EXPECT_EQ(Count(halves[1], "<tr><th scope=\"row\">c0</th>"), 3);
}

TEST(Html, PaperHasNarrowTablesWholeAndNoRecords) {
  EXPECT_THAT(ToHtml(PageWithTable(9, /*is_printed=*/true)), Not(HasSubstr("<div class=\"on-paper\">")));
  const std::string hidden = ToHtml(PageWithTable(18, /*is_printed=*/false));
  EXPECT_THAT(hidden, Not(HasSubstr("<div class=\"on-paper\">")));
  EXPECT_THAT(hidden, HasSubstr("<section class=\"on-screen\" id=\"section\""));
  EXPECT_THAT(FullReport().html, HasSubstr("<section class=\"on-screen\" id=\"records\""));
}

TEST(Html, LongNamesOfRowsBreakBetweenTheirParts) {
  HtmlPage page = PageWithTable(2, /*is_printed=*/true);
  auto& table = std::get<doc::Table>(page.document.sections[0].blocks[0]);
  for (doc::Cell& cell : table.rows[0]) cell.text = doc::Text().Data("accuracy/arc_easy");
  const std::string html = ToHtml(page);
  EXPECT_EQ(Problems(html), "");
  EXPECT_THAT(html, HasSubstr("<th scope=\"row\">accuracy/<wbr/>arc_<wbr/>easy</th><td class=\"n\">accuracy/arc_easy</td>"));
}

TEST(Html, PathsAreWrittenAsUrls) {
  HtmlPage page{{}, {}, RenderedCharts(), {}};
  page.document.sections.push_back({"Section", {doc::Paragraph{doc::Text().Link("a file", "../run #1: 50%/results.jsonl")}}});
  EXPECT_THAT(ToHtml(page), HasSubstr("<a class=\"file\" href=\"../run%20%231%3A%2050%25/results.jsonl\">a file</a>"));
}

TEST(Html, EscapesWhatComesFromOutside) {
  SmallRun small = FullRun();
  small.run.set_name(kHostile);
  small.run.set_model(kHostile);
  small.run.set_model_note(kHostile);
  small.run.set_command(kHostile);
  small.run.set_config(absl::StrCat(kHostile, "\n\x01"));
  small.run.set_config_path(kHostile);
  small.run.mutable_machine()->set_cpu(kHostile);
  small.run.set_variant(1, kHostile);
  for (JobResult& result : small.results) {
    if (result.variant() == "ptq") result.set_variant(kHostile);
    result.set_pipeline(kHostile);
    for (Metric& metric : *result.mutable_metric()) metric.set_convention(kHostile);
    for (QuantizedLayer& layer : *result.mutable_layer()) layer.set_method(kHostile);
    for (WeightError& weight : *result.mutable_weight()) weight.set_linear(kHostile);
    for (TrainingCurve& curve : *result.mutable_training()) curve.set_label(kHostile);
    if (result.has_error()) result.set_error(kHostile);
  }
  const Report report = MakeReport(small.run, small.results, {kHostile}, RenderNothing);
  EXPECT_EQ(Problems(report.html), "");
  EXPECT_THAT(report.html, Not(HasSubstr("<script>alert")));
  EXPECT_THAT(report.html, HasSubstr("&lt;script&gt;alert(1)&lt;/script&gt;"));
  EXPECT_THAT(report.html, Not(HasSubstr("\x01")));
}

TEST(Html, ARunWithoutResultsIsAPage) {
  EXPECT_EQ(Problems(MakeReport(RunInfo(), {}).html), "");
  EXPECT_EQ(Problems(MakeReport(MakeSmallRunInfo(), {}).html), "");
}

TEST(Html, WithoutChartsSaysWhyAndShowsPlainPlots) {
  const auto fail = [](const std::string&) -> absl::StatusOr<RenderedCharts> { return absl::NotFoundError("no <vl-convert>"); };
  const Report report = FullReport(fail);
  EXPECT_EQ(Problems(report.html), "");
  EXPECT_THAT(report.html, HasSubstr("charts are left out of this page: no &lt;vl-convert&gt;. Simple plots stand in"));
  EXPECT_THAT(report.html, HasSubstr("<img alt=\"size against perplexity\" src=\"data:image/svg+xml;base64,"));
  EXPECT_THAT(report.html, HasSubstr("<img alt=\"loss\""));
  EXPECT_THAT(report.html, Not(HasSubstr("data-chart=")));
  EXPECT_THAT(FullReport().html, Not(HasSubstr("left out of this page")));
  EXPECT_THAT(FullReport().html, Not(HasSubstr("<img")));
}

TEST(RenderCharts, SaysHowToInstallWhatIsMissing) {
  const std::string dir = TestTempDir();
  ::setenv("NIBBLE_PYTHON", dir.c_str(), 1);
  const absl::Status missing = RenderCharts(dir + "/charts.json").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr(absl::StrCat("no vl-convert in ", dir, "; `./nibble setup` installs it")));
  // A folder of that name that is no package.
  ASSERT_OK(MakeDirectories(dir + "/vl_convert"));
  ASSERT_OK(WriteFile(dir + "/vl_convert/__init__.py", "raise ImportError('torn')\n"));
  EXPECT_THAT(std::string(RenderCharts(dir + "/charts.json").status().message()), HasSubstr("(torn); `./nibble setup`"));
}

// The package that `./nibble test` found, before a test above hid it.
const std::string& InstalledPackages() {
  static const auto* const kFolder = new std::string(std::getenv("NIBBLE_PYTHON") == nullptr ? "" : std::getenv("NIBBLE_PYTHON"));
  return *kFolder;
}
[[maybe_unused]] const std::string& kReadAtStart = InstalledPackages();

TEST(RenderCharts, DrawsEveryChartOfARun) {
  if (!IsDirectory(InstalledPackages() + "/vl_convert")) GTEST_SKIP() << "needs vl-convert: `./nibble setup`, and NIBBLE_PYTHON names its folder";
  ::setenv("NIBBLE_PYTHON", InstalledPackages().c_str(), 1);
  const std::string path = TestTempDir() + "/charts.json";
  std::string versions;
  const Report report = FullReport([&](const std::string& charts) -> absl::StatusOr<RenderedCharts> {
    auto rendered = RenderThroughFile(path, "report.html")(charts);
    EXPECT_OK(rendered);
    versions = rendered->versions;
    return rendered;
  });
  EXPECT_EQ(Problems(report.html), "");
  EXPECT_THAT(versions, HasSubstr("Vega-Lite 6.4"));
  EXPECT_THAT(report.html, HasSubstr("window.vegaEmbed"));
  EXPECT_THAT(report.html, HasSubstr("University of Washington Interactive Data Lab"));
  ASSERT_OK(WriteFile(path, "{\"broken\": {\"mark\": \"no such mark\"}}"));
  EXPECT_THAT(std::string(RenderCharts(path).status().message()), HasSubstr("chart 'broken': "));
}

TEST(Charts, EveryKindHasItsSpecification) {
  const nlohmann::json specs = Specs(FullReport());
  std::vector<std::string> names;
  for (const auto& [name, spec] : specs.items()) names.push_back(name);
  EXPECT_THAT(names, ::testing::UnorderedElementsAre("perplexity-wikitext-against-size-mib", "perplexity-wikitext-against-decode-tokens-per-s-32",
                                                     "accuracy-arc-against-size-mib", "accuracy-arc-against-decode-tokens-per-s-32",
                                                     "decode-tokens-per-s-32", "loss", "layers-ptq-gptq", "weights-ptq", "parts-size-mib"));
}

nlohmann::json PointOf(const nlohmann::json& spec, const std::string& variant) {
  for (const auto& point : spec["data"]["values"]) {
    if (point["variant"] == variant) return point;
  }
  return nullptr;
}

TEST(Charts, APointHasThePairedIntervalOfItsQuality) {
  const nlohmann::json spec = Specs(FullReport())["perplexity-wikitext-against-size-mib"];
  const nlohmann::json point = PointOf(spec, "ptq");
  EXPECT_EQ(point["x"], 72.5);
  EXPECT_NEAR(point["y"].get<double>(), std::exp(3.1), 1e-9);
  EXPECT_NEAR(point["y_low"].get<double>(), std::exp(3.1), 1e-6);  // every window differs alike
  EXPECT_EQ(point["kind"], "on the front");
  EXPECT_EQ(point["record"], "#r-1-0");
  EXPECT_EQ(point["y_against"], "×1.105 [1.105, 1.105]");
  EXPECT_FALSE(PointOf(spec, "bf16").contains("y_low"));
  EXPECT_EQ(PointOf(spec, "bf16")["kind"], "baseline");
  EXPECT_EQ(spec["layer"][3]["encoding"]["y"]["scale"]["type"], "log");  // 20 to 148
}

TEST(Charts, HigherIsBetterOnTheFrontOfSpeed) {
  const nlohmann::json spec = Specs(FullReport())["accuracy-arc-against-decode-tokens-per-s-32"];
  // bf16: slow and accurate; ptq: fast and less so; the simulated variant has no speed.
  EXPECT_EQ(spec["data"]["values"].size(), 2);
  EXPECT_TRUE(PointOf(spec, "w2|sim").is_null());
  EXPECT_EQ(spec["layer"][0]["data"]["values"].size(), 2);
  EXPECT_EQ(spec["layer"][0]["mark"]["interpolate"], "step-before");
}

TEST(Charts, TimingsLeaveSimulatedOnesOut) {
  const nlohmann::json spec = Specs(FullReport())["decode-tokens-per-s-32"];
  EXPECT_EQ(spec["data"]["values"].size(), 2);
  const nlohmann::json bar = PointOf(spec, "ptq");
  EXPECT_EQ(bar["value"], 64);
  EXPECT_LT(bar["low"].get<double>(), 64);
  EXPECT_GT(bar["high"].get<double>(), 64);
}

TEST(Charts, LayersKeepTheirBlocksAndInfiniteRatios) {
  const nlohmann::json values = Specs(FullReport())["layers-ptq-gptq"]["data"]["values"];
  ASSERT_EQ(values.size(), 7);
  EXPECT_EQ(values[0]["block"], "0");
  EXPECT_EQ(values[0]["kind"], "mlp.up_proj");
  EXPECT_EQ(values[0]["log2"], -1);
  EXPECT_EQ(values[6]["block"], "–");
  EXPECT_EQ(values[6]["log2"], 1);  // the reddest: of the finite ones the largest is 0.5 to the power of -1
  EXPECT_EQ(values[6]["ratio"], "inf");
}

TEST(Charts, WeightsThatCompareAreAHeatmap) {
  const nlohmann::json spec = Specs(FullReport())["weights-ptq"];
  const nlohmann::json values = spec["data"]["values"];
  ASSERT_EQ(values.size(), 3);  // and not the head
  EXPECT_EQ(values[2]["block"], "2");
  EXPECT_EQ(values[2]["kind"], "mlp.up_proj");
  EXPECT_EQ(values[2]["error"], "0.3000");
  EXPECT_NEAR(spec["layer"][0]["encoding"]["color"]["scale"]["domain"][3].get<double>(), 0.3, 1e-12);
}

TEST(Charts, CurvesAndPartsLeadToRecords) {
  const nlohmann::json specs = Specs(FullReport());
  EXPECT_EQ(specs["loss"]["data"]["values"][0]["record"], "#b-1");
  EXPECT_EQ(specs["loss"]["layer"][1]["encoding"]["href"]["field"], "record");
  EXPECT_EQ(PointOf(specs["parts-size-mib"], "ptq")["record"], "#r-1-2");
  EXPECT_EQ(specs["parts-size-mib"]["layer"][0]["encoding"]["href"]["field"], "record");
}

TEST(Spread, AWideTimingSaysSo) {
  Metric steady = Decode({1.0, 1.01, 0.99, 1.0, 1.0}), scattered = Decode({1.0, 2.0, 0.7, 1.0, 1.5});
  ASSERT_OK(FillMetric(&steady));
  ASSERT_OK(FillMetric(&scattered));
  EXPECT_FALSE(IsWideValue(steady));
  EXPECT_TRUE(IsWideValue(scattered));
  EXPECT_TRUE(IsWideRatio(scattered, Compare(scattered, &steady)));
  EXPECT_FALSE(IsWideRatio(steady, Compare(steady, &steady)));
  EXPECT_FALSE(IsWideValue(Perplexity(20, {1, 50, 3})));  // timings alone
  SmallRun small = MakeSmallRun();
  *small.results[7].mutable_metric(0) = scattered;
  const Report report = MakeReport(small.run, small.results);
  EXPECT_THAT(report.markdown, HasSubstr("wide: the 95 % interval of this timing is more than ±10 % of it"));
  EXPECT_THAT(report.html, HasSubstr("wide: the 95 % interval of this timing is more than ±10 % of it"));
  EXPECT_THAT(MakeReport(MakeSmallRun().run, MakeSmallRun().results).markdown, Not(HasSubstr("wide:")));
}

// ---- Several runs

std::string FigureRow(const doc::Document& document, const std::string& variant) {
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(ToMarkdown(document), '\n'))) {
    if (line.rfind(absl::StrCat("| ", variant, " | "), 0) == 0) return line;
  }
  return "";
}

// The row of `variant` for a perplexity in two runs, the second changed by `change`.
std::string ComparedRow(const std::function<void(SmallRun*)>& change) {
  const SmallRun first = MakeSmallRun();
  SmallRun second = MakeSmallRun();
  change(&second);
  const RunTable a(first.run, first.results), b(second.run, second.results);
  return FigureRow(ComparisonDocument({{"a", "out/a", &a}, {"b", "out/b", &b}}), "ptq");
}

TEST(ComparedRuns, RatiosPairWithTheFirstRun) {
  const std::string row = ComparedRow([](SmallRun* run) {
    run->results[4] = MakeResult("ptq", "perplexity wikitext", {Perplexity(std::exp(3.2), {31, 32, 33})});
  });
  EXPECT_EQ(row, "| ptq | 22.20 ± 0.44<br>×1.105 [1.105, 1.105] of bf16 | 24.53 ± 0.49<br>×1.221 [1.221, 1.221] of bf16<br>"
                 "×1.105 [1.105, 1.105] of a |");
}

TEST(ComparedRuns, WhatDiffersHasNoRatio) {
  const auto other_model = [](SmallRun* run) { run->run.set_model_hash("ffff"); };
  EXPECT_THAT(ComparedRow(other_model), HasSubstr("of bf16<br>no ratio to a¹ |"));
  const auto other_pipeline = [](SmallRun* run) {
    for (JobResult& result : run->results) result.set_pipeline(result.variant() + " { other }");
  };
  EXPECT_THAT(ComparedRow(other_pipeline), HasSubstr("no ratio to a¹ |"));
  const auto other_data = [](SmallRun* run) {
    for (JobResult& result : run->results) result.set_data_hash("other");
  };
  EXPECT_THAT(ComparedRow(other_data), HasSubstr("no ratio to a¹ |"));
  EXPECT_THAT(ComparedRow([](SmallRun* run) { run->results[4] = MakeFailure("ptq", "perplexity wikitext", "full"); }), HasSubstr("| failed¹ |"));
}

// A divergence is from the baseline's model.
TEST(ComparedRuns, DistancesFromOtherBaselinesDoNotPair) {
  for (const bool same : {true, false}) {
    SmallRun runs[2] = {MakeSmallRun(), MakeSmallRun()};
    for (SmallRun& run : runs) {
      for (const int result : {0, 4}) *run.results[result].add_metric() = MakeMetric("kl/wikitext", Metric::MEAN, 0.5, {5, 5, 5}, {10, 10, 10});
    }
    for (JobResult& result : runs[1].results) {
      if (!same && result.variant() == "bf16") result.set_pipeline("int8 { }");
    }
    const RunTable a(runs[0].run, runs[0].results), b(runs[1].run, runs[1].results);
    const std::string markdown = ToMarkdown(ComparisonDocument({{"a", "out/a", &a}, {"b", "out/b", &b}}));
    EXPECT_EQ(absl::StrContains(markdown, "another baseline than in a"), !same);
  }
}

TEST(ComparedRuns, TimingsDoNotPairAcrossRuns) {
  const SmallRun first = MakeSmallRun();
  SmallRun second = MakeSmallRun();
  second.results[7].mutable_metric(0)->set_value(128);
  const RunTable a(first.run, first.results), b(second.run, second.results);
  const std::string text = ToMarkdown(ComparisonDocument({{"a", "out/a", &a}, {"b", "out/b", &b}}));
  EXPECT_THAT(text, HasSubstr("| ptq | 64.0<br>×1.99 [1.92, 2.05] of bf16 | 128<br>×1.99 [1.92, 2.05] of bf16<br>×2.00 of a¹ |"));
  EXPECT_THAT(text, HasSubstr("- ¹ a ratio of medians, since rounds of different runs do not pair\n"));
  EXPECT_THAT(text, HasSubstr("| simulated | simulated |"));
  EXPECT_THAT(text, HasSubstr("alike in model, commit, machine and configuration"));
}

TEST(ComparedRuns, AreWrittenInBothForms) {
  const std::string dir = TestTempDir();
  SmallRun small = FullRun();
  for (const char* name : {"one", "two"}) {
    std::string lines, head;
    small.run.set_commit(name);
    for (const JobResult& result : small.results) {
      std::string line;
      ASSERT_TRUE(google::protobuf::util::MessageToJsonString(result, &line).ok());
      absl::StrAppend(&lines, line, "\n");
    }
    ASSERT_TRUE(google::protobuf::util::MessageToJsonString(small.run, &head).ok());
    ASSERT_OK(MakeDirectories(absl::StrCat(dir, "/", name)));
    ASSERT_OK(WriteFile(absl::StrCat(dir, "/", name, "/run.json"), head));
    ASSERT_OK(WriteFile(absl::StrCat(dir, "/", name, "/results.jsonl"), lines));
  }
  ASSERT_OK(WriteComparison({dir + "/one", dir + "/two/"}, dir + "/out"));
  ASSERT_OK_AND_ASSIGN(const std::string html, ReadFile(dir + "/out/comparison.html"));
  ASSERT_OK_AND_ASSIGN(const std::string markdown, ReadFile(dir + "/out/comparison.md"));
  ASSERT_OK_AND_ASSIGN(const std::string charts, ReadFile(dir + "/out/charts.json"));
  EXPECT_THAT(std::string(WriteComparison({dir + "/one", dir + "/none"}, dir + "/out").message()), HasSubstr("none/run.json"));
  EXPECT_EQ(Problems(html), "");  // empties the folder
  for (const std::string* text : {&html, &markdown}) {
    EXPECT_THAT(*text, HasSubstr("The runs differ in: commit."));
    EXPECT_THAT(*text, HasSubstr("accuracy/arc"));
  }
  EXPECT_THAT(markdown, HasSubstr("| variant | one | two |"));
  EXPECT_THAT(markdown, Not(HasSubstr("Records of")));
  for (const char* text : {">Records of one</h2>", ">Records of two</h2>", "<tr id=\"run-0-r-1-0\">", "<tr id=\"run-1-r-1-0\">",
                           "<a class=\"record\" href=\"#run-0-r-1-0\">22.20", "<a class=\"record\" href=\"#run-1-r-1-0\">22.20",
                           "<a class=\"record\" href=\"#run-1-r-0-0\">bf16</a>",  // the run's own baseline
                           "<a class=\"record\" href=\"#run-0-r-1-0\">one</a>",   // the first run's figure
                           "<a class=\"file\" href=\"../two/results.jsonl\">results.jsonl</a>"}) {
    EXPECT_THAT(html, HasSubstr(text));
  }
  ASSERT_OK_AND_ASSIGN(const nlohmann::json specs, ParseJson(charts, "charts.json"));
  EXPECT_EQ(specs["runs-0"]["data"]["values"][1]["record"], "#run-1-r-0-0");  // bf16's perplexity in the second run
}

}  // namespace
}  // namespace nibble
