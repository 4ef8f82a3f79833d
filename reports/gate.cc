#include "reports/gate.h"

#include <cmath>
#include <map>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "core/base/pattern.h"
#include "eval/statistics.h"
#include "reports/format.h"

namespace nibble {
namespace {

enum class Quantity { kRatio, kDifference, kValue };

struct Bound {
  const char* name;
  Quantity quantity;
  bool is_max;
  double limit;
};

// What a bound is held against, or why there is nothing.
struct Measured {
  std::optional<double> number;
  std::string why;
};

std::vector<Bound> BoundsOf(const Gate& gate) {
  std::vector<Bound> bounds;
  if (gate.has_max_ratio()) bounds.push_back({"max_ratio", Quantity::kRatio, true, gate.max_ratio()});
  if (gate.has_min_ratio()) bounds.push_back({"min_ratio", Quantity::kRatio, false, gate.min_ratio()});
  if (gate.has_max_difference()) bounds.push_back({"max_difference", Quantity::kDifference, true, gate.max_difference()});
  if (gate.has_min_difference()) bounds.push_back({"min_difference", Quantity::kDifference, false, gate.min_difference()});
  if (gate.has_max_value()) bounds.push_back({"max_value", Quantity::kValue, true, gate.max_value()});
  if (gate.has_min_value()) bounds.push_back({"min_value", Quantity::kValue, false, gate.min_value()});
  return bounds;
}

const char* QuantityName(Quantity quantity) {
  switch (quantity) {
    case Quantity::kRatio: return "ratio";
    case Quantity::kDifference: return "difference";
    case Quantity::kValue: return "value";
  }
  return "";
}

const char* Relation(const Bound& bound, bool passed) {
  if (std::isnan(bound.limit)) return "cannot be held against";
  if (passed) return bound.is_max ? "<=" : ">=";
  return bound.is_max ? ">" : "<";
}

// Four digits, or as many as it takes to differ from the bound's text.
std::string Digits(double value, const std::string& bound, bool is_equal) {
  std::string text;
  for (int digits = 4; digits <= 17; ++digits) {
    text = absl::StrFormat("%.*g", digits, value);
    if (is_equal || text != bound) break;
  }
  return text;
}

std::string BoundText(double limit) {
  const std::string text = absl::StrFormat("%.6g", limit);
  double read = 0;
  return absl::SimpleAtod(text, &read) && read == limit ? text : absl::StrFormat("%.17g", limit);
}

Measured MeasuredRatio(const Metric& metric, const Metric& baseline, const Comparison& comparison) {
  if (comparison.ratio.has_value()) return {comparison.ratio->value, ""};
  if (baseline.value() == 0) return {std::nullopt, "the baseline's value is 0"};
  return {metric.value() / baseline.value(), ""};
}

Measured MeasureAgainst(const EarlierResult& earlier, const std::string& data_hash, const Metric& metric, Quantity quantity) {
  if (earlier.has_data_hash() && earlier.data_hash() != data_hash) {
    return {std::nullopt, absl::StrCat("measured on other data than in ", earlier.file())};
  }
  if (earlier.convention() != metric.convention()) {
    return {std::nullopt, absl::StrCat("measured as '", metric.convention(), "', in ", earlier.file(), " as '", earlier.convention(), "'")};
  }
  if (quantity == Quantity::kDifference) return {metric.value() - earlier.value(), ""};
  if (earlier.value() == 0) return {std::nullopt, absl::StrCat("the value in ", earlier.file(), " is 0")};
  return {metric.value() / earlier.value(), ""};
}

Measured MeasureAgainstEarlier(const RunTable& table, const Gate& gate, const std::string& variant, const Metric& metric,
                               Quantity quantity) {
  for (const EarlierResult& earlier : table.run().earlier()) {
    if (earlier.file() != gate.against() || earlier.variant() != variant || earlier.metric() != metric.name()) continue;
    return MeasureAgainst(earlier, table.Source(variant, metric.name())->data_hash(), metric, quantity);
  }
  return {std::nullopt, absl::StrCat(gate.against(), " has no value for it")};
}

Measured Measure(const RunTable& table, const Gate& gate, const std::string& variant, const Metric& metric, Quantity quantity) {
  if (IsWithheld(metric)) return {std::nullopt, "the latency is of simulated arithmetic, which measures nothing"};
  if (!std::isfinite(metric.value())) {
    return {std::nullopt, absl::StrCat("the value ", metric.value(), " is not a finite number")};
  }
  if (quantity == Quantity::kValue) return {metric.value(), ""};
  if (gate.has_against()) return MeasureAgainstEarlier(table, gate, variant, metric, quantity);
  const Metric* baseline = table.Baseline(metric.name());
  const Comparison comparison = Compare(metric, baseline);
  if (!comparison.comparable()) return {std::nullopt, comparison.why};
  if (quantity == Quantity::kRatio) return MeasuredRatio(metric, *baseline, comparison);
  return {metric.value() - baseline->value(), ""};
}

GateOutcome Failed(const Gate& gate, const std::string& variant, const std::string& metric, std::string message) {
  GateOutcome outcome;
  outcome.gate = gate;
  outcome.variant = variant;
  outcome.metric = metric;
  outcome.message = std::move(message);
  return outcome;
}

std::string JobFailure(const JobResult& job) { return absl::StrCat("job '", job.job(), "' failed: ", job.error()); }

GateOutcome HoldBound(const RunTable& table, const Gate& gate, const std::string& variant, const Metric& metric,
                      const Bound& bound) {
  const Measured measured = Measure(table, gate, variant, metric, bound.quantity);
  const std::string limit = BoundText(bound.limit);
  GateOutcome outcome = Failed(gate, variant, metric.name(), "");
  outcome.bound = absl::StrCat(bound.name, " ", limit);
  outcome.measured = measured.number;
  if (!measured.number.has_value()) {
    outcome.message = absl::StrCat(measured.why, "; ", outcome.bound);
    return outcome;
  }
  const double number = *measured.number;
  outcome.passed = bound.is_max ? number <= bound.limit : number >= bound.limit;
  outcome.message = absl::StrCat(QuantityName(bound.quantity), " ", Digits(number, limit, number == bound.limit), " ",
                                 Relation(bound, outcome.passed), " ", outcome.bound);
  return outcome;
}

std::vector<std::string> MatchingVariants(const RunTable& table, const Gate& gate) {
  const std::string pattern = gate.variant().empty() ? "*" : gate.variant();
  const bool is_pattern = absl::StrContains(pattern, '*');
  std::vector<std::string> variants;
  for (const std::string& variant : table.variants()) {
    if (is_pattern && variant == table.baseline() && !gate.has_against()) continue;
    if (MatchesPattern(pattern, variant)) variants.push_back(variant);
  }
  return variants;
}

bool IsComplete(const RunTable& table, const std::string& variant) {
  return absl::c_all_of(table.metrics(), [&](const std::string& m) { return table.Find(variant, m) != nullptr; });
}

// A failed job that succeeded nowhere, in a row without an empty cell: nobody
// knows what it would have measured, so a pattern may have meant it.
void AddUnplacedFailures(const RunTable& table, const Gate& gate, const std::string& variant,
                         std::vector<GateOutcome>* outcomes) {
  if (!absl::StrContains(gate.metric(), '*') || !IsComplete(table, variant)) return;
  for (const JobResult* job : table.Failures(variant)) {
    if (table.MetricsAreKnown(*job)) continue;
    outcomes->push_back(Failed(gate, variant, gate.metric(), JobFailure(*job)));
  }
}

GateOutcome NotMeasured(const RunTable& table, const Gate& gate, const std::string& variant,
                        const std::string& metric, absl::string_view message) {
  const JobResult* job = table.FailureBehind(variant, metric);
  if (job == nullptr) return Failed(gate, variant, metric, std::string(message));
  return Failed(gate, variant, metric, absl::StrCat(message, ": ", JobFailure(*job)));
}

void EvaluateVariant(const RunTable& table, const Gate& gate, const std::string& variant,
                     std::vector<GateOutcome>* outcomes) {
  const size_t before = outcomes->size();
  for (const std::string& name : table.metrics()) {
    if (!MatchesPattern(gate.metric(), name)) continue;
    const Metric* metric = table.Find(variant, name);
    if (metric == nullptr) {
      outcomes->push_back(NotMeasured(table, gate, variant, name, "not measured"));
      continue;
    }
    for (const Bound& bound : BoundsOf(gate)) outcomes->push_back(HoldBound(table, gate, variant, *metric, bound));
  }
  if (outcomes->size() == before) {
    outcomes->push_back(NotMeasured(table, gate, variant, gate.metric(), "the gate matches no measured metric"));
    return;
  }
  AddUnplacedFailures(table, gate, variant, outcomes);
}

void EvaluateGate(const RunTable& table, const Gate& gate, std::vector<GateOutcome>* outcomes) {
  const std::string shown = gate.variant().empty() ? "*" : gate.variant();
  if (BoundsOf(gate).empty()) {
    outcomes->push_back(Failed(gate, shown, gate.metric(), "the gate sets no bound"));
    return;
  }
  const std::vector<std::string> variants = MatchingVariants(table, gate);
  if (variants.empty()) outcomes->push_back(Failed(gate, shown, gate.metric(), "the gate matches no variant"));
  for (const std::string& variant : variants) EvaluateVariant(table, gate, variant, outcomes);
}

// How often a name of a class was given.
using CaseNames = std::map<std::pair<std::string, std::string>, int>;

// Gates of one metric with one bound differ in what they are held against.
std::string CaseName(const GateOutcome& outcome) {
  return absl::StrCat(outcome.metric, outcome.bound.empty() ? "" : ": ", outcome.bound, outcome.gate.has_against() ? " against " : "", outcome.gate.against());
}

// `failure`: null where it passed.
void AddCase(const std::string& class_name, const std::string& name, const std::string* failure, CaseNames* names, std::string* xml) {
  const int count = ++(*names)[{class_name, name}];
  absl::StrAppend(xml, "<testcase classname=\"", EscapeXml(class_name), "\" name=\"", EscapeXml(name), count > 1 ? absl::StrCat(" (", count, ")") : "", "\"");
  if (failure == nullptr) absl::StrAppend(xml, "/>\n");
  else absl::StrAppend(xml, "><failure message=\"", EscapeXml(*failure), "\"/></testcase>\n");
}

}  // namespace

std::vector<GateOutcome> EvaluateGates(const RunTable& table) {
  std::vector<GateOutcome> outcomes;
  for (const Gate& gate : table.run().gate()) EvaluateGate(table, gate, &outcomes);
  return outcomes;
}

std::vector<GateOutcome> EvaluateGates(const RunInfo& run, const std::vector<JobResult>& results) {
  return EvaluateGates(RunTable(run, results));
}

std::string FormatGates(const std::vector<GateOutcome>& outcomes) {
  std::string text;
  for (const GateOutcome& outcome : outcomes) {
    absl::StrAppend(&text, outcome.passed ? "PASS " : "FAIL ", outcome.variant, " ", outcome.metric, ": ",
                    absl::StrReplaceAll(outcome.message, {{"\n", " "}}), "\n");
  }
  return text;
}

std::vector<FailedJob> FailedJobs(const RunTable& table) {
  std::vector<FailedJob> jobs;
  for (const std::string& variant : table.variants()) {
    for (const JobResult* failure : table.Failures(variant)) jobs.push_back({variant, failure->job(), failure->error()});
  }
  return jobs;
}

std::string FormatFailedJobs(const std::vector<FailedJob>& jobs) {
  std::string text;
  for (const FailedJob& job : jobs) absl::StrAppend(&text, "FAIL ", job.variant, " ", job.job, ": ", absl::StrReplaceAll(job.error, {{"\n", " "}}), "\n");
  return text;
}

std::string GatesJunit(const std::string& run, const std::vector<GateOutcome>& outcomes, const std::vector<FailedJob>& failed_jobs) {
  const int64_t failures = absl::c_count_if(outcomes, [](const GateOutcome& outcome) { return !outcome.passed; });
  std::string xml = absl::StrFormat("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"%s\" tests=\"%d\" failures=\"%d\">\n",
                                    EscapeXml(run), outcomes.size() + failed_jobs.size(), failures + static_cast<int64_t>(failed_jobs.size()));
  CaseNames names;
  for (const GateOutcome& outcome : outcomes) {
    AddCase(absl::StrCat(run, ".", outcome.variant), CaseName(outcome), outcome.passed ? nullptr : &outcome.message, &names, &xml);
  }
  for (const FailedJob& job : failed_jobs) AddCase(absl::StrCat(run, ".jobs"), absl::StrCat(job.variant, " ", job.job), &job.error, &names, &xml);
  return absl::StrCat(xml, "</testsuite>\n</testsuites>\n");
}

bool AllPassed(const std::vector<GateOutcome>& outcomes) {
  return absl::c_all_of(outcomes, [](const GateOutcome& outcome) { return outcome.passed; });
}

}  // namespace nibble
