#include "experiments/gather.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "core/text/utf8.h"
#include "experiments/job.h"
#include "experiments/result_log.h"

namespace nibble {
namespace {

// Whether a character of a variant's name stands in its files' names.
bool StandsInFileNames(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '=' || c == '_'; }

std::string SlugOf(const PlannedVariant& variant) {
  std::string slug = variant.variant->name;
  std::replace_if(slug.begin(), slug.end(), [](char c) { return !StandsInFileNames(c); }, '_');
  return slug;
}

// Names of jobs and keys of results become names of files, which must not leave their folders.
absl::Status CheckNames(const JobPlan::Row& row) {
  std::vector<std::string> names = {row.build(), row.measurement(), row.result().key()};
  if (row.has_baseline_build()) names.push_back(row.baseline_build());
  for (const std::string& name : names) {
    if (!name.empty() && std::all_of(name.begin(), name.end(), StandsInFileNames)) continue;
    return absl::InvalidArgumentError(absl::StrCat("'", text::WellFormed(name), "' is no name of a job's file; nibble plan writes such plans"));
  }
  return absl::OkStatus();
}

std::string BuildName(const PlannedVariant& variant) { return SlugOf(variant) + ".build"; }

absl::Status WriteJob(const std::string& folder, const std::string& name, const Job& job) {
  return WriteFile(absl::StrCat(folder, "/", name, ".textproto"), ProtoToText(job));
}

std::string Quoted(absl::string_view text) { return absl::StrCat("\"", absl::Utf8SafeCEscape(text), "\""); }

// Reports of one type by the names of their jobs, each read once.
template <typename Report>
class Reports {
 public:
  explicit Reports(std::string folder) : folder_(std::move(folder)) {}

  absl::StatusOr<const Report*> Get(const std::string& name) {
    if (const auto it = reports_.find(name); it != reports_.end()) return &it->second;
    const std::string path = absl::StrCat(folder_, "/", name, ".json");
    NIBBLE_ASSIGN_OR_RETURN(const std::string json, ReadFile(path));
    NIBBLE_RETURN_IF_ERROR(Annotate(JsonToProto(json, &reports_[name]), path));
    return &reports_[name];
  }

 private:
  const std::string folder_;
  std::map<std::string, Report> reports_;
};

}  // namespace

absl::Status WritePlan(const RunPlan& run, const std::string& folder) {
  NIBBLE_RETURN_IF_ERROR(MakeDirectories(folder));
  JobPlan plan;
  *plan.mutable_run() = run.Head();
  std::set<std::string> slugs;
  for (const PlannedVariant& variant : run.variants()) {
    if (!slugs.insert(SlugOf(variant)).second) {
      return absl::InvalidArgumentError(absl::StrCat("two variants have files called ", SlugOf(variant), "; rename '", variant.variant->name, "'"));
    }
    NIBBLE_RETURN_IF_ERROR(WriteJob(folder, BuildName(variant), run.BuildJob(variant, {})));
    for (size_t i = 0; i < variant.measurements.size(); ++i) {
      JobPlan::Row& row = *plan.add_row();
      *row.mutable_result() = run.ResultOf(variant, variant.measurements[i]);
      row.set_build(BuildName(variant));
      if (RunPlan::IsBeside(variant, variant.measurements[i])) row.set_baseline_build(BuildName(run.baseline()));
      row.set_measurement(absl::StrCat(SlugOf(variant), ".", i));
      NIBBLE_RETURN_IF_ERROR(WriteJob(folder, row.measurement(), run.MeasurementJob(variant, variant.measurements[i])));
    }
  }
  NIBBLE_ASSIGN_OR_RETURN(const std::string json, ProtoToJson(plan, /*pretty=*/true));
  return WriteFile(folder + "/plan.json", json);
}

absl::StatusOr<std::string> StarlarkJobs(const std::vector<ExpandedExperiment>& experiments) {
  std::map<std::string, const ExpandedExperiment*> by_name;
  for (const ExpandedExperiment& experiment : experiments) {
    const std::string name = std::filesystem::path(experiment.path).filename().string();
    if (by_name.emplace(name, &experiment).second) continue;
    return absl::InvalidArgumentError(absl::StrCat(experiment.path, ": another experiment's file is called ", name, " too; rename one of them"));
  }
  std::string text = "\"\"\"The jobs of experiments, for nibble_experiment (experiments/defs.bzl). `nibble plan --starlark` writes this file.\"\"\"\n\nJOBS = {\n";
  for (const auto& [name, experiment] : by_name) {
    absl::StrAppend(&text, "    ", Quoted(name), ": struct(\n        metrics = ", experiment->metrics.size(), ",\n        variants = [\n");
    for (const ExpandedVariant& variant : experiment->variants) absl::StrAppend(&text, "            ", Quoted(variant.name), ",\n");
    absl::StrAppend(&text, "        ],\n    ),\n");
  }
  return absl::StrCat(text, "}\n");
}

absl::Status GatherReports(const std::string& folder, const std::string& out) {
  JobPlan plan;
  NIBBLE_ASSIGN_OR_RETURN(const std::string json, ReadFile(folder + "/plan.json"));
  NIBBLE_RETURN_IF_ERROR(Annotate(JsonToProto(json, &plan), folder + "/plan.json"));
  for (const JobPlan::Row& row : plan.row()) NIBBLE_RETURN_IF_ERROR(Annotate(CheckNames(row), folder + "/plan.json"));
  NIBBLE_RETURN_IF_ERROR(MakeDirectories(out));
  NIBBLE_ASSIGN_OR_RETURN(const std::string head, ProtoToJson(plan.run(), /*pretty=*/true));
  NIBBLE_RETURN_IF_ERROR(WriteFile(out + "/run.json", head));
  NIBBLE_ASSIGN_OR_RETURN(ResultLog log, ResultLog::Open(out));
  Reports<BuildReport> builds(folder);
  Reports<MeasurementReport> measurements(folder);
  for (const JobPlan::Row& row : plan.row()) {
    NIBBLE_ASSIGN_OR_RETURN(const BuildReport* build, builds.Get(row.build()));
    NIBBLE_ASSIGN_OR_RETURN(const MeasurementReport* measurement, measurements.Get(row.measurement()));
    const BuildReport* baseline = nullptr;
    if (row.has_baseline_build()) {
      NIBBLE_ASSIGN_OR_RETURN(baseline, builds.Get(row.baseline_build()));
    }
    JobResult result = row.result();
    Complete(*build, baseline, *measurement, &result);
    NIBBLE_RETURN_IF_ERROR(log.Append(result, measurement->records()));
  }
  return absl::OkStatus();
}

}  // namespace nibble
