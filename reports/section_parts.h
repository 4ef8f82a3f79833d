// The sections of a run's document, and what they share; sections.h puts them together.
#ifndef NIBBLE_REPORTS_SECTION_PARTS_H_
#define NIBBLE_REPORTS_SECTION_PARTS_H_

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "eval/statistics.h"
#include "reports/contrasts.h"
#include "reports/document.h"
#include "reports/gate.h"
#include "reports/layers.h"
#include "reports/records.h"
#include "reports/repetitions.h"
#include "reports/run_table.h"

namespace nibble {

inline constexpr char kNoValue[] = "–";

doc::Text Words(absl::string_view words);
doc::Text Data(absl::string_view data);

template <typename Integer>
doc::Cell CountCell(Integer count) {
  return {Words(absl::StrCat(count)), static_cast<double>(count)};
}

// Any variant's measurement of a metric: unit, direction and kind are the same.
const Metric* AnyMetric(const RunTable& table, const std::string& name);
doc::Text MetricTitleIn(const RunTable& table, const std::string& name);
std::string FailureText(const JobResult& job);
// What a comparison sorts by.
std::optional<double> ComparisonNumber(const Comparison& comparison);
void AddNotes(const doc::Notes& notes, doc::Section* section);
// Makes the cells of a row that have a number figures of the record `id`.
void LinkFigures(const std::string& id, doc::Row* row);

// One of the machine's peaks that timings are read against.
struct Peak {
  const char* name;  // "read bandwidth"
  const char* unit;
  std::optional<double> (*of)(const Machine& machine);
};
const std::array<Peak, 4>& Peaks();
// " (15 to 21 GB/s beside its timings)" where timings with the threads of the first one, on
// its machine, saw it more than a tenth apart, else "".
std::string PeakRange(const RunTable& table, const Peak& peak);

// Each without blocks where the run has nothing to say there. Of measurements:
doc::Section ResultsSection(const RunTable& table, const Records& records, const std::string& plot);
doc::Section GatesSection(const RunTable& table, const std::vector<GateOutcome>& gates);
doc::Section AccuraciesSection(const RunTable& table, const Records& records);
doc::Section ContrastsSection(const RunTable& table, const std::vector<ContrastedMetric>& metrics);
doc::Section SeedsSection(const RunTable& table, const std::vector<RepeatedMetric>& metrics);
doc::Section RecoverySection(const RunTable& table);
// Of how models were built, and of how metrics were measured:
doc::Section TrainingSection(const RunTable& table, const std::string& plot);
doc::Section LayersSection(const RunTable& table, const std::vector<LayerGroup>& groups, const std::string& file);
doc::Section WeightsSection(const std::vector<WeightGroup>& groups, const std::string& file);
doc::Section MethodTablesSection(const RunTable& table);
doc::Section PartsSection(const RunTable& table);
doc::Section PipelinesSection(const RunTable& table);
doc::Section EventsSection(const RunTable& table);
doc::Section MeasuresSection(const RunTable& table);
doc::Section PeaksSection(const RunTable& table);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_SECTION_PARTS_H_
