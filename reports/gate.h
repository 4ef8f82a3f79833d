// Gates: bounds that a run must keep, or `nibble gate` and CI fail.
//
// A gate never passes in silence. It fails where it matches no variant or no
// metric, where it sets no bound, where a metric that it names was not measured
// (the job failed, or has not run), where the number is not finite, where
// simulated arithmetic makes a latency meaningless, and where a ratio or a
// difference has no comparable baseline, or the earlier results that it names
// have no comparable value.
//
// Ratios and differences are those that the report shows: point estimates, for
// rates and times the paired ratio of the rounds (statistics.h).
#ifndef NIBBLE_REPORTS_GATE_H_
#define NIBBLE_REPORTS_GATE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "eval/result.pb.h"
#include "reports/run_table.h"

namespace nibble {

// One bound on one metric of one variant, or one reason why a gate cannot pass.
struct GateOutcome {
  Gate gate;
  std::string variant;  // the gate's own where it matched none
  std::string metric;   // likewise
  std::optional<double> measured;  // value, ratio or difference
  std::string bound;               // "max_ratio 1.45"
  bool passed = false;
  std::string message;  // "ratio 1.52 > max_ratio 1.45"
};

// A gate's variant is a name, empty for every variant but the baseline (and for
// it too against earlier results), or a pattern with * for those that match. Outcomes come in the order of
// gates, variants, metrics, bounds.
std::vector<GateOutcome> EvaluateGates(const RunInfo& run, const std::vector<JobResult>& results);
std::vector<GateOutcome> EvaluateGates(const RunTable& table);

// One line each: "FAIL ptq perplexity/wikitext: ratio 1.52 > max_ratio 1.45".
std::string FormatGates(const std::vector<GateOutcome>& outcomes);

// A job that failed. Gates say nothing of a metric that none of them names.
struct FailedJob {
  std::string variant;
  std::string job;    // "perplexity { text: \"wikitext\" }"
  std::string error;
};
std::vector<FailedJob> FailedJobs(const RunTable& table);

// One line each: "FAIL ptq size { }: layer 3: not positive definite".
std::string FormatFailedJobs(const std::vector<FailedJob>& jobs);

// As a JUnit report, which CI systems show: a suite of the run's name, a case for each
// outcome and each failed job. No two cases have one name: CI systems would show one of them.
std::string GatesJunit(const std::string& run, const std::vector<GateOutcome>& outcomes, const std::vector<FailedJob>& failed_jobs);

bool AllPassed(const std::vector<GateOutcome>& outcomes);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_GATE_H_
