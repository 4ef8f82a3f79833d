#include "experiments/run_display.h"

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "core/base/progress.h"
#include "eval/statistics.h"

namespace nibble {
namespace {

constexpr double kRedrawSeconds = 0.2;

std::vector<std::string> NamesOf(const RunPlan& plan) {
  std::vector<std::string> names;
  for (const PlannedVariant& variant : plan.variants()) names.push_back(variant.variant->name);
  return names;
}

std::string ValueText(const Metric& metric) { return IsWithheld(metric) ? "simulated" : absl::StrFormat("%.5g", metric.value()); }

std::string CurveText(const TrainingCurve& curve) {
  if (curve.loss().empty()) return "";
  return absl::StrFormat("  %s: %d updates, loss %.4f -> %.4f%s", curve.label(), curve.updates(), curve.loss(0), curve.loss(curve.loss_size() - 1),
                         curve.reused() ? ", made before" : "");
}

}  // namespace

RunDisplay::RunDisplay(const RunPlan& plan, bool terminal, int jobs, double estimated_seconds)
    : plan_(plan), terminal_(terminal), jobs_(jobs), time_(estimated_seconds), table_(NamesOf(plan), plan.experiment().metric_names) {}

size_t RunDisplay::RowOf(const PlannedVariant& variant) const { return static_cast<size_t>(&variant - plan_.variants().data()); }

void RunDisplay::Draw(const std::string& line) {
  if (!terminal_) {
    if (!line.empty()) std::fprintf(stderr, "%s\n", line.c_str());
    return;
  }
  drawn_ = Clock::now();
  table_.SetFooter(WithProgress(job_), heard_);
  table_.Draw(stderr, TerminalSize(), line);
}

std::string RunDisplay::WithProgress(const std::string& text) const {
  return absl::StrFormat("[%d/%d, %s left] %s", done_, jobs_, FormatSeconds(time_.At(Now())), text);
}

void RunDisplay::Start(const PlannedVariant& variant, std::optional<size_t> measurement, double estimated_seconds) {
  time_.Start(estimated_seconds, Now());
  if (!terminal_) return;
  table_.SetCurrent(RowOf(variant));
  job_ = absl::StrCat(variant.variant->name, ": ", measurement.has_value() ? plan_.columns()[*measurement].names[0] : "building");
  heard_.clear();
  if (measurement.has_value()) SetCells(variant, *measurement, "...");
  Draw();
}

void RunDisplay::Hear(absl::string_view text) {
  if (!terminal_) {
    PassOn(text);
    return;
  }
  last_line_.Take(text);
  heard_ = std::string(absl::StripPrefix(last_line_.Get(), "\033[K"));
  if (std::chrono::duration<double>(Clock::now() - drawn_).count() >= kRedrawSeconds) Draw();
}

void RunDisplay::Built(const PlannedVariant& variant, const BuildReport& report) {
  time_.End(Now());
  job_.clear();
  heard_.clear();
  if (report.has_error()) return;
  Draw(absl::StrFormat("%s: built in %.1f s", variant.variant->name, report.seconds()));
  for (const TrainingCurve& curve : report.training()) Draw(CurveText(curve));
}

void RunDisplay::SetCells(const PlannedVariant& variant, size_t measurement, const std::string& text) {
  const RunPlan::Columns& columns = plan_.columns()[measurement];
  for (size_t i = 0; i < columns.names.size(); ++i) table_.SetCell(RowOf(variant), columns.first + i, text);
}

void RunDisplay::Measured(const PlannedVariant& variant, size_t measurement, const JobResult& result, double estimated_seconds) {
  ++done_;
  if (time_.is_running()) time_.End(Now());
  else time_.Skip(estimated_seconds);
  const RunPlan::Columns& columns = plan_.columns()[measurement];
  SetCells(variant, measurement, result.has_error() ? "failed" : "");
  std::string text = result.has_error() ? absl::StrCat("FAILED: ", result.error()) : "";
  for (const Metric& metric : result.metric()) {
    const auto at = std::find(columns.names.begin(), columns.names.end(), metric.name()) - columns.names.begin();
    if (at < static_cast<int64_t>(columns.names.size())) table_.SetCell(RowOf(variant), columns.first + static_cast<size_t>(at), ValueText(metric));
    absl::StrAppend(&text, text.empty() ? "" : ", ", metric.name(), " ", ValueText(metric));
  }
  const std::string line = absl::StrFormat("%s: %s (%.1f s)", result.variant(), text, result.seconds());
  job_.clear();
  heard_.clear();
  // The table holds the values; errors need more room.
  if (terminal_) Draw(result.has_error() ? line : "");
  else Draw(WithProgress(line));
}

void RunDisplay::Known(const PlannedVariant& variant, size_t measurement) {
  ++done_;
  SetCells(variant, measurement, "done before");
}

}  // namespace nibble
