#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "reports/format.h"
#include "reports/section_parts.h"

namespace nibble {
namespace {

using doc::Row;
using doc::Section;

// Peaks further apart than this are shown as a range.
constexpr double kMostApart = 1.1;

std::optional<double> If(bool has, double value) { return has ? std::optional<double>(value) : std::nullopt; }

Row PeaksRow(const JobResult& result) {
  const Machine& machine = result.machine();
  Row row = {Data(result.variant()), Data(result.job()), CountCell(machine.has_peak_threads() ? machine.peak_threads() : machine.threads())};
  for (const Peak& peak : Peaks()) {
    const std::optional<double> value = peak.of(machine);
    row.emplace_back(Words(value.has_value() ? Significant(*value, 3) : kNoValue), value);
  }
  return row;
}

}  // namespace

const std::array<Peak, 4>& Peaks() {
  static constexpr std::array<Peak, 4> kPeaks = {{
      {"read bandwidth", "GB/s", [](const Machine& m) { return If(m.has_read_bandwidth_gb_s(), m.read_bandwidth_gb_s()); }},
      {"fp32 peak", "GFLOP/s", [](const Machine& m) { return If(m.has_fma_peak_gflop_s(), m.fma_peak_gflop_s()); }},
      {"bf16 peak", "GFLOP/s", [](const Machine& m) { return If(m.has_bf16_peak_gflop_s(), m.bf16_peak_gflop_s()); }},
      {"int8 peak", "Gop/s", [](const Machine& m) { return If(m.has_int8_peak_gop_s(), m.int8_peak_gop_s()); }},
  }};
  return kPeaks;
}

std::string PeakRange(const RunTable& table, const Peak& peak) {
  const Machine& first = table.machine();
  std::vector<double> values;
  for (const JobResult* result : table.timed()) {
    const Machine& machine = result->machine();
    const std::optional<double> value = peak.of(machine);
    if (value.has_value() && IsSameMachine(machine, first) && machine.peak_threads() == first.peak_threads()) values.push_back(*value);
  }
  if (values.empty()) return "";
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  if (*high <= kMostApart * *low) return "";
  return absl::StrCat(" (", Significant(*low, 3), " to ", Significant(*high, 3), " ", peak.unit, " beside its timings)");
}

Section PeaksSection(const RunTable& table) {
  Section section{"Peaks beside timings", {}};
  if (table.timed().empty()) return section;
  std::vector<std::string> titles = {"variant", "job", "threads"};
  for (const Peak& peak : Peaks()) titles.push_back(absl::StrCat(peak.name, ", ", peak.unit));
  doc::Table rows{section.title, doc::Columns(titles, 2), {}};
  for (const JobResult* result : table.timed()) rows.rows.push_back(PeaksRow(*result));
  section.blocks.push_back(doc::Paragraph{Words("What the machine gave at best when the rounds of a timing were over, with as many threads: a timing is read "
                                                "against its own. Operations count a multiply-add as two.")});
  section.blocks.push_back(std::move(rows));
  return section;
}

}  // namespace nibble
