#include "reports/run_log.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "eval/statistics.h"

namespace nibble {
namespace {

// How far two machines' exp() may set one value apart.
constexpr double kSameValue = 1e-12;

// Keeps the last result of each key, in the order in which the keys came.
void KeepLastOfEachKey(std::vector<JobResult>* results) {
  std::map<std::string, size_t> place;
  std::vector<JobResult> kept;
  for (JobResult& result : *results) {
    const auto [it, is_new] = place.emplace(result.key(), kept.size());
    if (is_new || result.key().empty()) {
      kept.push_back(std::move(result));
    } else {
      kept[it->second] = std::move(result);
    }
  }
  *results = std::move(kept);
}

// What follows from the blocks does not stay as an earlier program computed it: a report
// shows one formula throughout. A metric whose blocks are refused is left for what compares
// it, which says why.
void ComputeErrorsAnew(JobResult* result) {
  for (Metric& metric : *result->mutable_metric()) {
    Metric anew = metric;
    if (!FillMetric(&anew).ok() || std::abs(anew.value() - metric.value()) > kSameValue * std::abs(metric.value())) continue;
    metric.Swap(&anew);
  }
}

// A run that another version of the program made may have fields that this one does not
// know; comparing commits is what runs are kept for.
absl::Status ReadRecord(absl::string_view json, google::protobuf::Message* message, RunLog* log) {
  if (JsonToProto(json, message).ok()) return absl::OkStatus();
  message->Clear();
  NIBBLE_RETURN_IF_ERROR(JsonToProto(json, message, UnknownFields::kSkip));
  const std::string note = absl::StrCat("fields of another version's ", message->GetTypeName(), " were skipped");
  if (std::find(log->notes.begin(), log->notes.end(), note) == log->notes.end()) log->notes.push_back(note);
  return absl::OkStatus();
}

}  // namespace

void MarkMissingRecords(const std::string& dir, std::vector<JobResult>* results) {
  for (JobResult& result : *results) {
    if (!result.has_records() || result.records().has_missing()) continue;
    if (!FileExists(absl::StrCat(dir, "/", result.records().name()))) result.mutable_records()->set_missing("no such file");
  }
}

absl::Status ParseResultLines(absl::string_view text, absl::string_view source, RunLog* log) {
  int line = 0;
  for (const absl::string_view json : absl::StrSplit(text, '\n')) {
    const std::string place = absl::StrCat(source, ":", ++line);
    if (absl::StripAsciiWhitespace(json).empty()) continue;
    if (!ParseJson(json, place).ok()) {
      log->notes.push_back(absl::StrCat(place, ": skipped a line that is not whole; its job must run again"));
      continue;
    }
    NIBBLE_RETURN_IF_ERROR(Annotate(ReadRecord(json, &log->results.emplace_back(), log), place));
    if (log->results.back().variant().empty()) return absl::InvalidArgumentError(place + ": not a nibble.JobResult: it names no variant");
  }
  KeepLastOfEachKey(&log->results);
  for (JobResult& result : log->results) ComputeErrorsAnew(&result);
  return absl::OkStatus();
}

absl::StatusOr<RunLog> ReadRunLog(const std::string& dir) {
  RunLog log;
  const std::string run_path = absl::StrCat(dir, "/run.json");
  NIBBLE_ASSIGN_OR_RETURN(const std::string run, ReadFile(run_path));
  NIBBLE_RETURN_IF_ERROR(Annotate(ReadRecord(run, &log.run, &log), run_path));
  const std::string results_path = absl::StrCat(dir, "/results.jsonl");
  if (!FileExists(results_path)) {
    log.notes.push_back("results.jsonl is missing: no job has ended yet");
    return log;
  }
  NIBBLE_ASSIGN_OR_RETURN(const std::string results, ReadFile(results_path));
  NIBBLE_RETURN_IF_ERROR(ParseResultLines(results, "results.jsonl", &log));
  return log;
}

}  // namespace nibble
