#include "reports/run_log.h"

#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/proto.h"
#include "core/base/status.h"

namespace nibble {
namespace {

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

}  // namespace

absl::Status ParseResultLines(absl::string_view text, absl::string_view source, RunLog* log) {
  int line = 0;
  for (const absl::string_view json : absl::StrSplit(text, '\n')) {
    const std::string place = absl::StrCat(source, ":", ++line);
    if (absl::StripAsciiWhitespace(json).empty()) continue;
    if (!ParseJson(json, place).ok()) {
      log->notes.push_back(absl::StrCat(place, ": skipped a line that is not whole; its job must run again"));
      continue;
    }
    NIBBLE_RETURN_IF_ERROR(Annotate(JsonToProto(json, &log->results.emplace_back()), place));
  }
  KeepLastOfEachKey(&log->results);
  return absl::OkStatus();
}

absl::StatusOr<RunLog> ReadRunLog(const std::string& dir) {
  RunLog log;
  const std::string run_path = absl::StrCat(dir, "/run.json");
  NIBBLE_ASSIGN_OR_RETURN(const std::string run, ReadFile(run_path));
  NIBBLE_RETURN_IF_ERROR(Annotate(JsonToProto(run, &log.run), run_path));
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
