#include "eval/memory.h"

#include <fstream>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "core/base/rng.h"
#include "core/base/status.h"
#include "eval/metric.h"
#include "eval/statistics.h"

namespace nibble::eval {
namespace {

constexpr absl::string_view kStatusFile = "/proc/self/status";
constexpr absl::string_view kPeakField = "VmHWM:";

absl::Status RunPrefill(const Plan& plan, Session& session, int64_t count) {
  Rng rng(1);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(rng.Below(plan.vocab_size())));
  std::vector<float> hidden, logits(plan.vocab_size());
  NIBBLE_RETURN_IF_ERROR(session.Forward({Segment{0, tokens, 1}}, &hidden));
  return session.Logits(hidden.data(), 1, logits.data());
}

}  // namespace

absl::StatusOr<double> ParsePeakResidentMiB(absl::string_view status) {
  for (absl::string_view line : absl::StrSplit(status, '\n')) {
    if (!absl::StartsWith(line, kPeakField)) continue;
    absl::string_view value = absl::StripAsciiWhitespace(line.substr(kPeakField.size()));
    int64_t kib = 0;
    if (!absl::EndsWith(value, " kB") || !absl::SimpleAtoi(value.substr(0, value.size() - 3), &kib)) {
      return absl::InternalError(absl::StrCat("cannot read '", line, "'"));
    }
    return static_cast<double>(kib) / 1024;
  }
  return absl::UnavailableError(absl::StrCat("no ", kPeakField, " field"));
}

absl::StatusOr<double> PeakResidentMiB() {
  std::ifstream file{std::string(kStatusFile)};
  std::stringstream text;
  text << file.rdbuf();
  const auto mib = ParsePeakResidentMiB(text.str());
  if (!mib.ok()) return Annotate(mib.status(), kStatusFile);
  return *mib;
}

absl::StatusOr<std::vector<Metric>> MeasureMemory(const Plan& plan, ThreadPool& pool, const SessionOptions& options,
                                                  int64_t tokens) {
  if (tokens < 1) return absl::InvalidArgumentError("memory is measured over at least one token");
  NIBBLE_ASSIGN_OR_RETURN(const auto session, Session::Create(plan, pool, options));
  NIBBLE_RETURN_IF_ERROR(RunPrefill(plan, *session, tokens));
  Metric metric =
      MakeMetric({.name = "peak_rss_mib",
                  .unit = "MiB",
                  .better = LOWER,
                  .aggregate = Metric::NONE,
                  .convention = absl::StrFormat("VmHWM prefill=%d positions=%d streams=%d threads=%d", tokens,
                                                options.max_positions, options.streams, pool.threads()),
                  .arithmetic = ArithmeticOf(plan)});
  NIBBLE_ASSIGN_OR_RETURN(const double peak, PeakResidentMiB());
  metric.set_value(peak);
  metric.set_count(1);
  AddPart("weights", plan.weight_bytes(), &metric);
  AddPart("kv_cache", session->cache_bytes(), &metric);
  AddPart("arena", session->arena_bytes(), &metric);
  NIBBLE_RETURN_IF_ERROR(FillMetric(&metric));
  return std::vector<Metric>{metric};
}

}  // namespace nibble::eval
