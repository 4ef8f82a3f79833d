#include "reports/run_table.h"

#include <algorithm>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace nibble {
namespace {

const std::vector<const JobResult*>& FindOrEmpty(
    const std::map<std::string, std::vector<const JobResult*>>& lists, const std::string& variant) {
  static const auto* const kEmpty = new std::vector<const JobResult*>;
  const auto it = lists.find(variant);
  return it == lists.end() ? *kEmpty : it->second;
}

std::string MachineName(const Machine& machine) {
  return absl::StrCat(machine.cpu(), ", ", machine.kernel_table(), " kernels, ", machine.threads(), " threads");
}

void AppendOnce(const std::string& name, std::vector<std::string>* names) {
  if (!absl::c_linear_search(*names, name)) names->push_back(name);
}

}  // namespace

RunTable::RunTable(const RunInfo& run, const std::vector<JobResult>& results) : run_(run), planned_(run.key().begin(), run.key().end()) {
  ChooseVariants(results);
  for (const std::string& metric : run.metric_order()) AddMetricName(metric);
  std::vector<std::string> strangers, changed;
  for (const JobResult& result : results) {
    if (!absl::c_linear_search(variants_, result.variant())) {
      AppendOnce(result.variant(), &strangers);
    } else if (!IsCurrent(result)) {
      AppendOnce(result.variant(), &changed);
    } else {
      AddResult(result);
    }
  }
  if (!changed.empty()) {
    notes_.push_back(absl::StrCat("earlier results left out, since steps, settings, data or program have changed: of ", absl::StrJoin(changed, ", ")));
  }
  if (!strangers.empty()) {
    notes_.push_back(absl::StrCat("left out, since the run no longer names them: ", absl::StrJoin(strangers, ", ")));
  }
  NoteMixedSources();
  FindTimed();
}

bool RunTable::IsCurrent(const JobResult& result) const { return planned_.empty() || planned_.count(result.key()) > 0; }

void RunTable::ChooseVariants(const std::vector<JobResult>& results) {
  variants_.assign(run_.variant().begin(), run_.variant().end());
  if (variants_.empty()) {
    for (const JobResult& result : results) AppendOnce(result.variant(), &variants_);
  }
  const auto is_baseline = [this](const JobResult& r) {
    return r.is_baseline() && absl::c_linear_search(variants_, r.variant());
  };
  const auto flagged = absl::c_find_if(results, is_baseline);
  if (flagged != results.end()) {
    baseline_ = flagged->variant();
  } else if (!run_.variant().empty()) {
    baseline_ = run_.variant(0);
  }
  const auto place = absl::c_find(variants_, baseline_);
  if (place != variants_.end()) std::rotate(variants_.begin(), place, place + 1);
}

void RunTable::AddMetricName(const std::string& name) { AppendOnce(name, &metrics_); }

void RunTable::AddResult(const JobResult& result) {
  results_[result.variant()].push_back(&result);
  DropJob(result);
  if (!result.error().empty()) {
    failures_[result.variant()].push_back(&result);
    return;
  }
  for (const Metric& metric : result.metric()) AddMetric(result, metric);
}

// Forgets what an earlier result of the same job left behind: its failure, and
// where this one failed its metrics too.
void RunTable::DropJob(const JobResult& result) {
  const auto is_same_job = [&](const JobResult* other) {
    return !result.job().empty() && other->job() == result.job();
  };
  auto& failures = failures_[result.variant()];
  failures.erase(std::remove_if(failures.begin(), failures.end(), is_same_job), failures.end());
  if (result.error().empty()) return;
  auto& row = cells_[result.variant()];
  for (auto it = row.begin(); it != row.end();) {
    it = is_same_job(it->second.result) ? row.erase(it) : std::next(it);
  }
}

void RunTable::AddMetric(const JobResult& result, const Metric& metric) {
  AddMetricName(metric.name());
  job_metrics_[result.job()].insert(metric.name());
  Cell& cell = cells_[result.variant()][metric.name()];
  if (cell.metric != nullptr) {
    notes_.push_back(absl::StrCat(metric.name(), " of ", result.variant(),
                                  " was measured more than once; the last counts"));
  }
  cell = {&metric, &result};
}

void RunTable::NoteMixedSources() {
  std::vector<std::string> machines, versions;
  for (const std::string& variant : variants_) {
    for (const JobResult* result : Results(variant)) {
      if (result->has_machine()) AppendOnce(MachineName(result->machine()), &machines);
      if (result->has_code_version()) AppendOnce(result->code_version(), &versions);
    }
  }
  if (machines.size() > 1) {
    notes_.push_back(absl::StrCat("the jobs ran on different machines: ", absl::StrJoin(machines, "; ")));
  }
  if (versions.size() > 1) {
    notes_.push_back(absl::StrCat("the jobs ran different code: ", absl::StrJoin(versions, ", ")));
  }
}

void RunTable::FindTimed() {
  for (const std::string& variant : variants_) {
    for (const JobResult* result : Results(variant)) {
      const auto is_behind = [&](const Metric& metric) { return Source(variant, metric.name()) == result; };
      if (result->machine().has_read_bandwidth_gb_s() && absl::c_any_of(result->metric(), is_behind)) timed_.push_back(result);
    }
  }
}

const RunTable::Cell* RunTable::FindCell(const std::string& variant, const std::string& metric) const {
  const auto row = cells_.find(variant);
  if (row == cells_.end()) return nullptr;
  const auto cell = row->second.find(metric);
  return cell == row->second.end() ? nullptr : &cell->second;
}

const Metric* RunTable::Find(const std::string& variant, const std::string& metric) const {
  const Cell* cell = FindCell(variant, metric);
  return cell == nullptr ? nullptr : cell->metric;
}

const JobResult* RunTable::Source(const std::string& variant, const std::string& metric) const {
  const Cell* cell = FindCell(variant, metric);
  return cell == nullptr ? nullptr : cell->result;
}

const std::vector<const JobResult*>& RunTable::Results(const std::string& variant) const {
  return FindOrEmpty(results_, variant);
}

const JobResult& RunTable::Build(const std::string& variant) const {
  const std::vector<const JobResult*>& results = Results(variant);
  return results.empty() ? JobResult::default_instance() : *results.back();
}

const std::vector<const JobResult*>& RunTable::Failures(const std::string& variant) const {
  return FindOrEmpty(failures_, variant);
}

const JobResult* RunTable::FailureBehind(const std::string& variant, const std::string& metric) const {
  if (Find(variant, metric) != nullptr) return nullptr;
  const JobResult* suspect = nullptr;
  for (const JobResult* failure : Failures(variant)) {
    const auto known = job_metrics_.find(failure->job());
    if (known == job_metrics_.end()) {
      if (suspect == nullptr) suspect = failure;
    } else if (known->second.count(metric) > 0) {
      return failure;
    }
  }
  return suspect;
}

const Machine& RunTable::machine() const {
  if (!timed_.empty()) return timed_[0]->machine();
  for (const std::string& variant : variants_) {
    for (const JobResult* result : Results(variant)) {
      if (!result->has_machine()) continue;
      return IsSameMachine(run_.machine(), result->machine()) ? run_.machine() : result->machine();
    }
  }
  return run_.machine();
}

bool IsSameMachine(const Machine& a, const Machine& b) { return MachineName(a) == MachineName(b); }

std::vector<std::string> PartNames(const RunTable& table, const std::string& metric_name) {
  std::vector<std::string> names;
  for (const std::string& variant : table.variants()) {
    const Metric* metric = table.Find(variant, metric_name);
    if (metric == nullptr) continue;
    for (const Metric::Part& part : metric->part()) {
      if (!absl::c_linear_search(names, part.name())) names.push_back(part.name());
    }
  }
  return names;
}

}  // namespace nibble
