// A run as files, for programs that start its jobs themselves, as Bazel does with an
// action for each: a folder with plan.json (a JobPlan) and a file for each job, and from
// the reports that the jobs leave the folder of a run.
#ifndef NIBBLE_EXPERIMENTS_GATHER_H_
#define NIBBLE_EXPERIMENTS_GATHER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "experiments/expand.h"
#include "experiments/run_plan.h"

namespace nibble {

// Writes into `folder` plan.json, VARIANT.build.textproto for each variant and
// VARIANT.I.textproto for each of its measurements, I from 0 in the config's order.
// Characters of a variant's name other than letters, digits, '.', '-' and '=' become '_';
// two that become equal are an error.
absl::Status WritePlan(const RunPlan& run, const std::string& folder);

// A .bzl file for build files, which say what their actions are before a config can be read:
// JOBS, by the names of the configs' files each one's variants and how many metrics it has.
// An error: two have one name.
absl::StatusOr<std::string> StarlarkJobs(const std::vector<ExpandedExperiment>& experiments);

// Makes run.json and results.jsonl in `out` from a plan's folder with the jobs' reports
// beside the jobs. A job that failed is a result that says why; a report that is not there
// is an error, and a plan whose names are not those of files.
absl::Status GatherReports(const std::string& folder, const std::string& out);

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_GATHER_H_
