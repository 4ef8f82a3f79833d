#include "reports/gate.h"

#include <cmath>
#include <limits>

#include "core/base/testing.h"
#include "reports/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

Gate MakeGate(const std::string& variant, const std::string& metric) {
  Gate gate;
  gate.set_variant(variant);
  gate.set_metric(metric);
  return gate;
}

// The outcomes of one gate on the small run, as printed.
std::string Evaluate(const Gate& gate, SmallRun small = MakeSmallRun()) {
  small.run.clear_gate();
  *small.run.add_gate() = gate;
  return FormatGates(EvaluateGates(small.run, small.results));
}

TEST(Gate, EveryBoundPassesAndFails) {
  const auto evaluate = [](const std::string& metric, void (Gate::*set)(double), double limit) {
    Gate gate = MakeGate("ptq", metric);
    (gate.*set)(limit);
    return Evaluate(gate);
  };
  EXPECT_EQ(evaluate("perplexity/wikitext", &Gate::set_max_ratio, 1.2),
            "PASS ptq perplexity/wikitext: ratio 1.105 <= max_ratio 1.2\n");
  EXPECT_EQ(evaluate("perplexity/wikitext", &Gate::set_max_ratio, 1.1),
            "FAIL ptq perplexity/wikitext: ratio 1.105 > max_ratio 1.1\n");
  EXPECT_EQ(evaluate("size_mib", &Gate::set_min_ratio, 0.25), "PASS ptq size_mib: ratio 0.2832 >= min_ratio 0.25\n");
  EXPECT_EQ(evaluate("size_mib", &Gate::set_min_ratio, 0.3), "FAIL ptq size_mib: ratio 0.2832 < min_ratio 0.3\n");
  EXPECT_EQ(evaluate("size_mib", &Gate::set_max_difference, -100),
            "PASS ptq size_mib: difference -183.5 <= max_difference -100\n");
  EXPECT_EQ(evaluate("size_mib", &Gate::set_max_difference, -200),
            "FAIL ptq size_mib: difference -183.5 > max_difference -200\n");
  EXPECT_EQ(evaluate("accuracy/arc", &Gate::set_min_difference, -0.25),
            "PASS ptq accuracy/arc: difference -0.25 >= min_difference -0.25\n");
  EXPECT_EQ(evaluate("accuracy/arc", &Gate::set_min_difference, -0.1),
            "FAIL ptq accuracy/arc: difference -0.25 < min_difference -0.1\n");
  EXPECT_EQ(evaluate("size_mib", &Gate::set_max_value, 80), "PASS ptq size_mib: value 72.5 <= max_value 80\n");
  EXPECT_EQ(evaluate("size_mib", &Gate::set_max_value, 70), "FAIL ptq size_mib: value 72.5 > max_value 70\n");
  EXPECT_EQ(evaluate("decode_tokens_per_s/*", &Gate::set_min_value, 60),
            "PASS ptq decode_tokens_per_s/32: value 64 >= min_value 60\n");
  EXPECT_EQ(evaluate("decode_tokens_per_s/*", &Gate::set_min_value, 65),
            "FAIL ptq decode_tokens_per_s/32: value 64 < min_value 65\n");
}

TEST(Gate, HoldsAgainstEarlierResultsOfTheSameVariant) {
  SmallRun small = MakeSmallRun();
  const auto add = [&](const std::string& variant, const std::string& convention, double value) {
    EarlierResult* earlier = small.run.add_earlier();
    earlier->set_file("old.json");
    earlier->set_variant(variant);
    earlier->set_metric("size_mib");
    earlier->set_convention(convention);
    earlier->set_value(value);
  };
  Gate gate = MakeGate("ptq", "size_mib");
  gate.set_against("old.json");
  gate.set_max_ratio(1.01);
  EXPECT_EQ(Evaluate(gate, small), "FAIL ptq size_mib: old.json has no value for it; max_ratio 1.01\n");
  add("ptq", "", 72.5);
  EXPECT_EQ(Evaluate(gate, small), "PASS ptq size_mib: ratio 1 <= max_ratio 1.01\n");
  small.run.mutable_earlier(0)->set_value(70);
  EXPECT_EQ(Evaluate(gate, small), "FAIL ptq size_mib: ratio 1.036 > max_ratio 1.01\n");
  small.run.mutable_earlier(0)->set_convention("otherwise");
  EXPECT_THAT(Evaluate(gate, small), HasSubstr("in old.json as 'otherwise'"));
  small.run.mutable_earlier(0)->set_convention("");
  small.run.mutable_earlier(0)->set_data_hash("of another text");
  EXPECT_THAT(Evaluate(gate, small), HasSubstr("on other data than in old.json"));
  gate.clear_variant();  // the baseline too
  EXPECT_THAT(Evaluate(gate, small), HasSubstr("FAIL bf16 size_mib: old.json has no value"));
}

TEST(Gate, AllBoundsOfAGateAreHeld) {
  Gate gate = MakeGate("ptq", "size_mib");
  gate.set_max_ratio(0.5);
  gate.set_max_value(70);
  EXPECT_EQ(Evaluate(gate), "PASS ptq size_mib: ratio 0.2832 <= max_ratio 0.5\nFAIL ptq size_mib: value 72.5 > max_value 70\n");
}

TEST(Gate, OutcomesCarryTheNumbers) {
  SmallRun small = MakeSmallRun();
  Gate gate = MakeGate("ptq", "size_mib");
  gate.set_max_value(70);
  *small.run.add_gate() = gate;
  const std::vector<GateOutcome> outcomes = EvaluateGates(small.run, small.results);
  ASSERT_EQ(outcomes.size(), 1);
  EXPECT_EQ(outcomes[0].measured, 72.5);
  EXPECT_EQ(outcomes[0].bound, "max_value 70");
  EXPECT_EQ(outcomes[0].gate.max_value(), 70);
  EXPECT_FALSE(AllPassed(outcomes));
}

TEST(Gate, EmptyVariantMeansAllButTheBaseline) {
  Gate gate = MakeGate("", "size_mib");
  gate.set_max_ratio(0.9);
  EXPECT_EQ(Evaluate(gate),
            "PASS ptq size_mib: ratio 0.2832 <= max_ratio 0.9\n"
            "PASS w2|sim size_mib: ratio 0.1562 <= max_ratio 0.9\n"
            "PASS broken size_mib: ratio 0.2832 <= max_ratio 0.9\n");
}

TEST(Gate, NeverPassesInSilence) {
  Gate gate = MakeGate("ptq", "perplexty/*");
  gate.set_max_ratio(2);
  EXPECT_EQ(Evaluate(gate), "FAIL ptq perplexty/*: the gate matches no measured metric\n");
  gate = MakeGate("pqt", "size_mib");
  gate.set_max_ratio(2);
  EXPECT_EQ(Evaluate(gate), "FAIL pqt size_mib: the gate matches no variant\n");
  EXPECT_EQ(Evaluate(MakeGate("ptq", "size_mib")), "FAIL ptq size_mib: the gate sets no bound\n");
  gate.set_variant("broken");
  gate.set_metric("decode_tokens_per_s/32");
  SmallRun small = MakeSmallRun();
  for (auto it = small.results.begin(); it != small.results.end();) {
    it = it->error().empty() ? std::next(it) : small.results.erase(it);
  }
  EXPECT_EQ(Evaluate(gate, small), "FAIL broken decode_tokens_per_s/32: not measured\n");
}

TEST(Gate, AFailedJobFailsItsGates) {
  Gate gate = MakeGate("broken", "perplexity/*");
  gate.set_max_ratio(2);
  EXPECT_EQ(Evaluate(gate),
            "FAIL broken perplexity/wikitext: not measured: job 'perplexity wikitext' failed: "
            "layer 3: not positive definite\n");
}

TEST(Gate, AFailedJobThatSucceededNowhereFailsPatterns) {
  SmallRun small = MakeSmallRun();
  small.results.push_back(MakeFailure("ptq", "perplexity c4", "no data"));
  Gate gate = MakeGate("ptq", "perplexity/*");
  gate.set_max_ratio(2);
  EXPECT_THAT(Evaluate(gate, small), HasSubstr("FAIL ptq perplexity/*: job 'perplexity c4' failed: no data\n"));
  gate.set_metric("perplexity/wikitext");
  EXPECT_EQ(Evaluate(gate, small), "PASS ptq perplexity/wikitext: ratio 1.105 <= max_ratio 2\n");
  small.run.add_metric_order("perplexity/c4");
  gate.set_metric("perplexity/*");
  EXPECT_THAT(Evaluate(gate, small), HasSubstr("FAIL ptq perplexity/c4: not measured: job 'perplexity c4' failed"));
}

TEST(Gate, NumbersThatAreNotFiniteFail) {
  for (const double value : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    SmallRun small = MakeSmallRun();
    small.results[6].mutable_metric(0)->set_value(value);
    Gate gate = MakeGate("ptq", "size_mib");
    gate.set_min_value(1);
    EXPECT_THAT(Evaluate(gate, small), HasSubstr("FAIL ptq size_mib: the value"));
    gate.clear_min_value();
    gate.set_max_ratio(1);
    EXPECT_THAT(Evaluate(gate, small), HasSubstr("is not a finite number; max_ratio 1"));
  }
  Gate gate = MakeGate("ptq", "size_mib");
  gate.set_max_value(std::nan(""));
  EXPECT_EQ(Evaluate(gate), "FAIL ptq size_mib: value 72.5 cannot be held against max_value nan\n");
}

TEST(Gate, ComparisonsNeedAComparableBaseline) {
  SmallRun small = MakeSmallRun();
  small.results[4].mutable_metric(0)->set_convention("other");
  Gate gate = MakeGate("ptq", "perplexity/*");
  gate.set_max_ratio(9);
  EXPECT_THAT(Evaluate(gate, small), HasSubstr("FAIL ptq perplexity/wikitext: measured as 'other'"));
  gate = MakeGate("w2|sim", "decode*");
  gate.set_min_value(0);
  EXPECT_THAT(Evaluate(gate), HasSubstr("FAIL w2|sim decode_tokens_per_s/32: the latency is of simulated arithmetic"));
}

TEST(Gate, JunitHoldsEachOutcome) {
  const std::vector<GateOutcome> outcomes = {{Gate(), "w4|sim", "size_mib", 72.5, "max_value 80", true, "value 72.5 <= max_value 80"},
                                             {Gate(), "ptq", "perplexity/a\"b", {}, "", false, "not <measured>"}};
  EXPECT_EQ(GatesJunit("a & b", outcomes, {{"w4", "kl", "no <file>"}}),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"a &amp; b\" tests=\"3\" failures=\"2\">\n"
            "<testcase classname=\"a &amp; b.w4|sim\" name=\"size_mib: max_value 80\"/>\n"
            "<testcase classname=\"a &amp; b.ptq\" name=\"perplexity/a&quot;b\"><failure message=\"not &lt;measured&gt;\"/></testcase>\n"
            "<testcase classname=\"a &amp; b.jobs\" name=\"w4 kl\"><failure message=\"no &lt;file&gt;\"/></testcase>\n"
            "</testsuite>\n</testsuites>\n");
}

TEST(Gate, JunitGivesEachCaseANameOfItsOwn) {
  Gate earlier;
  earlier.set_against("w4.json");
  const std::vector<GateOutcome> outcomes = {{Gate(), "w4", "kl/a", 1, "max_ratio 2", true, "ratio 1 <= max_ratio 2"},
                                             {earlier, "w4", "kl/a", 1, "max_ratio 2", true, "ratio 1 <= max_ratio 2"},
                                             {Gate(), "w4", "kl/b", {}, "", false, "not measured"},
                                             {Gate(), "w4", "kl/b", {}, "", false, "not measured"}};
  const std::vector<FailedJob> jobs = {{"w4", "perplexity { text: \"a\" }", "no file: a"}, {"w4", "perplexity { text: \"b\" }", "no file: b"}};
  const std::string xml = GatesJunit("run", outcomes, jobs);
  for (const char* name : {"\"kl/a: max_ratio 2\"", "\"kl/a: max_ratio 2 against w4.json\"", "\"kl/b\"", "\"kl/b (2)\"",
                           "\"w4 perplexity { text: &quot;a&quot; }\"", "\"w4 perplexity { text: &quot;b&quot; }\""}) {
    EXPECT_THAT(xml, HasSubstr(absl::StrCat("name=", name)));
  }
}

TEST(Gate, FailedJobsAreLines) {
  const SmallRun small = MakeSmallRun();
  EXPECT_EQ(FormatFailedJobs(FailedJobs(RunTable(small.run, small.results))), "FAIL broken perplexity wikitext: layer 3: not positive definite\n");
}

TEST(Gate, BoundsMayBeDenormal) {
  Gate gate = MakeGate("ptq", "size_mib");
  gate.set_min_value(4.9e-324);
  EXPECT_THAT(Evaluate(gate), HasSubstr("PASS ptq size_mib: value 72.5 >= min_value 4.94"));
}

TEST(Gate, TextTellsANumberFromItsBound) {
  SmallRun small = MakeSmallRun();
  small.results[6].mutable_metric(0)->set_value(72.500001);
  Gate gate = MakeGate("ptq", "size_mib");
  gate.set_max_value(72.5);
  EXPECT_EQ(Evaluate(gate, small), "FAIL ptq size_mib: value 72.500001 > max_value 72.5\n");
}

}  // namespace
}  // namespace nibble
