#include "reports/records.h"

#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "nlohmann/json.hpp"
#include "reports/format.h"

namespace nibble {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kSimulatedLatency[] =
    "simulated arithmetic: a scheme of this variant has no packed kernel, so its speed says nothing";

const char* ArithmeticName(const Metric& metric) { return metric.arithmetic() == SIMULATED ? "simulated" : "native"; }

const char* DirectionName(const Metric& metric) { return metric.better() == HIGHER ? "higher" : "lower"; }

Json Number(const std::optional<double>& value) {
  return value.has_value() && std::isfinite(*value) ? Json(*value) : Json(nullptr);
}

std::optional<double> StandardError(const Metric& metric) {
  return metric.has_stderr() ? std::optional<double>(metric.stderr()) : std::nullopt;
}

std::optional<double> Low(const Estimate& estimate) {
  return estimate.interval.has_value() ? std::optional<double>(estimate.interval->low) : std::nullopt;
}

std::optional<double> High(const Estimate& estimate) {
  return estimate.interval.has_value() ? std::optional<double>(estimate.interval->high) : std::nullopt;
}

Json ToJson(const google::protobuf::Message& message) {
  const auto text = ProtoToJson(message);
  NIBBLE_CHECK(text.ok());
  return Json::parse(*text);
}

void AddEstimate(const std::string& name, const std::optional<Estimate>& estimate, Json* record) {
  if (!estimate.has_value()) return;
  (*record)[name] = Number(estimate->value);
  (*record)[name + "_low"] = Number(Low(*estimate));
  (*record)[name + "_high"] = Number(High(*estimate));
}

void AddComparison(const Comparison& comparison, const std::optional<ItemTests>& tests, Json* record) {
  AddEstimate("ratio", comparison.ratio, record);
  AddEstimate("difference", comparison.difference, record);
  if (tests.has_value()) {
    (*record)["gained"] = comparison.items->gained;
    (*record)["lost"] = comparison.items->lost;
    (*record)["mcnemar_p"] = Number(tests->mcnemar_p);
    (*record)["bootstrap_low"] = Number(tests->bootstrap.low);
    (*record)["bootstrap_high"] = Number(tests->bootstrap.high);
  }
  if (comparison.recovery.has_value()) (*record)["recovery"] = Number(comparison.recovery);
  if (!comparison.why.empty()) (*record)["note"] = comparison.why;
}

Json RecordJson(const Record& record) {
  const Metric& metric = *record.metric;
  Json json = {{"variant", record.variant},
               {"metric", metric.name()},
               {"value", Number(metric.value())},
               {"stderr", Number(StandardError(metric))},
               {"count", metric.count()},
               {"unit", metric.unit()},
               {"better", DirectionName(metric)},
               {"baseline_value", Number(record.baseline_value)},
               {"arithmetic", ArithmeticName(metric)},
               {"convention", metric.convention()}};
  if (!record.data_hash.empty()) json["data_hash"] = record.data_hash;
  AddComparison(record.comparison, record.tests, &json);
  return json;
}

Json FailuresJson(const RunTable& table) {
  Json failures = Json::array();
  for (const std::string& variant : table.variants()) {
    for (const JobResult* job : table.Failures(variant)) {
      failures.push_back({{"variant", variant}, {"job", job->job()}, {"error", job->error()}});
    }
  }
  return failures;
}

Json EventsJson(const RunTable& table) {
  Json events = Json::array();
  for (const std::string& variant : table.variants()) {
    for (const JobResult* job : table.Results(variant)) {
      for (const Event& event : job->event()) {
        events.push_back({{"variant", variant},
                          {"job", job->job()},
                          {"what", event.what()},
                          {"count", event.count()},
                          {"detail", event.detail()}});
      }
    }
  }
  return events;
}

Json LayersJson(const std::vector<LayerGroup>& groups) {
  Json layers = Json::array();
  for (const LayerGroup& group : groups) {
    for (const QuantizedLayer* layer : group.layers) {
      layers.push_back({{"variant", group.variant},
                        {"method", group.method},
                        {"layer", layer->layer()},
                        {"error", Number(layer->error())},
                        {"rounding_error", Number(layer->rounding_error())},
                        {"ratio", Number(ErrorRatio(*layer))}});
    }
  }
  return layers;
}

Json WeightsJson(const std::vector<WeightGroup>& groups) {
  Json weights = Json::array();
  for (const WeightGroup& group : groups) {
    for (const WeightError* weight : group.linears) {
      const std::optional<double> error = weight->has_error() ? std::optional<double>(weight->error()) : std::nullopt;
      weights.push_back({{"variant", group.variant}, {"layer", weight->linear()}, {"error", Number(error)}});
    }
  }
  return weights;
}

Json PeaksJson(const RunTable& table) {
  Json peaks = Json::array();
  for (const JobResult* result : table.timed()) {
    peaks.push_back({{"variant", result->variant()}, {"job", result->job()}, {"machine", ToJson(result->machine())}});
  }
  return peaks;
}

Json ContrastsJson(const std::vector<ContrastedMetric>& metrics) {
  Json contrasts = Json::array();
  for (const ContrastedMetric& contrasted : metrics) {
    Json json = {{"variant", contrasted.contrast->variant()}, {"against", contrasted.contrast->against()}, {"metric", contrasted.metric->name()}};
    AddComparison(contrasted.comparison, TestsOf(contrasted.comparison), &json);
    json["verdict"] = contrasted.Verdict();
    contrasts.push_back(std::move(json));
  }
  return contrasts;
}

Json RepeatedValueJson(const RepeatedValue& value) {
  Json json = {{"variant", value.repetition->variant()}, {"label", value.repetition->label()}, {"value", nullptr}};
  if (value.metric != nullptr) {
    json["value"] = Number(value.metric->value());
  } else {
    json["missing"] = value.failure == nullptr ? value.missing : absl::StrCat(value.missing, ": ", value.failure->error());
  }
  return json;
}

Json RepetitionsJson(const std::vector<RepeatedMetric>& metrics) {
  Json all = Json::array();
  for (const RepeatedMetric& repeated : metrics) {
    Json json = {{"of", repeated.variant}, {"metric", repeated.metric}, {"repetitions", repeated.values.size()}, {"counted", repeated.counted}};
    if (const auto& spread = repeated.spread) {
      json.update({{"mean", Number(spread->mean)}, {"deviation", Number(spread->deviation)}, {"min", spread->low}, {"max", spread->high}});
    }
    AddComparison(repeated.comparison, std::nullopt, &json);  // over seeds, not over items
    json["values"] = Json::array();
    for (const RepeatedValue& value : repeated.values) json["values"].push_back(RepeatedValueJson(value));
    all.push_back(std::move(json));
  }
  return all;
}

Json GateJson(const GateOutcome& gate) {
  return {{"variant", gate.variant},           {"metric", gate.metric}, {"bound", gate.bound},
          {"measured", Number(gate.measured)}, {"passed", gate.passed}, {"message", gate.message}};
}

// A record of results.json; nothing where its value is null.
absl::StatusOr<std::optional<EarlierResult>> ParseRecord(const nlohmann::json& record, const std::string& file) {
  for (const char* key : {"variant", "metric", "convention"}) {
    if (!record.is_object() || !record.contains(key) || !record[key].is_string()) {
      return absl::InvalidArgumentError(absl::StrCat("a record has no text '", key, "'"));
    }
  }
  if (!record.contains("value") || !record["value"].is_number()) return std::nullopt;
  EarlierResult earlier;
  earlier.set_file(file);
  earlier.set_variant(record["variant"].get<std::string>());
  earlier.set_metric(record["metric"].get<std::string>());
  earlier.set_value(record["value"].get<double>());
  earlier.set_convention(record["convention"].get<std::string>());
  if (record.contains("data_hash") && record["data_hash"].is_string()) earlier.set_data_hash(record["data_hash"].get<std::string>());
  return earlier;
}

std::string CsvNumber(const std::optional<double>& value) { return value.has_value() ? Exact(*value) : ""; }

std::vector<std::string> EstimateFields(const std::optional<Estimate>& estimate) {
  if (!estimate.has_value()) return {"", "", ""};
  return {CsvNumber(estimate->value), CsvNumber(Low(*estimate)), CsvNumber(High(*estimate))};
}

std::vector<std::string> ItemFields(const Record& record) {
  if (!record.tests.has_value()) return {"", "", "", "", ""};
  const PairedItems& items = *record.comparison.items;
  const ItemTests& tests = *record.tests;
  return {absl::StrCat(items.gained), absl::StrCat(items.lost), Exact(tests.mcnemar_p), Exact(tests.bootstrap.low), Exact(tests.bootstrap.high)};
}

std::string CsvRow(const std::vector<std::string>& fields) {
  const auto append = [](std::string* out, const std::string& field) { absl::StrAppend(out, CsvField(field)); };
  return absl::StrCat(absl::StrJoin(fields, ",", append), "\r\n");
}

std::string CsvRecord(const Record& record) {
  const Metric& metric = *record.metric;
  std::vector<std::string> fields = {record.variant,
                                     metric.name(),
                                     CsvNumber(metric.value()),
                                     CsvNumber(StandardError(metric)),
                                     absl::StrCat(metric.count()),
                                     metric.unit(),
                                     DirectionName(metric),
                                     CsvNumber(record.baseline_value),
                                     ArithmeticName(metric)};
  for (const auto& estimate : {record.comparison.ratio, record.comparison.difference}) {
    for (std::string& field : EstimateFields(estimate)) fields.push_back(std::move(field));
  }
  fields.push_back(CsvNumber(record.comparison.recovery));
  fields.push_back(metric.convention());
  fields.push_back(record.comparison.why);
  for (std::string& field : ItemFields(record)) fields.push_back(std::move(field));
  fields.push_back(record.raw.file);
  fields.push_back(record.raw.missing);
  return CsvRow(fields);
}

// The metrics of a quality measurement follow from its raw records, the others have none.
RawRecordsPlace RawRecordsOf(const JobResult& source, const Metric& metric) {
  if (!IsQuality(metric) && !IsDistance(metric)) return {};
  if (!source.has_records()) return {"", "none were kept"};
  const RecordsFile& file = source.records();
  if (!absl::StartsWith(file.name(), "records/")) return {file.name(), "not a file below records/"};
  return {file.name(), file.missing()};
}

}  // namespace

std::optional<ItemTests> TestsOf(const Comparison& comparison) {
  if (!comparison.items.has_value()) return std::nullopt;
  return ItemTests{McNemarP(*comparison.items), BootstrapInterval(*comparison.items)};
}

Records MakeRecords(const RunTable& table) {
  Records all;
  for (const std::string& variant : table.variants()) {
    for (const std::string& name : table.metrics()) {
      const Metric* metric = table.Find(variant, name);
      if (metric == nullptr) continue;
      if (IsWithheld(*metric)) {
        all.withheld.push_back({variant, name, kSimulatedLatency});
        continue;
      }
      const Metric* baseline = table.Baseline(name);
      const JobResult& source = *table.Source(variant, name);
      Record& record = all.records.emplace_back(Record{variant, metric, std::nullopt, {}, std::nullopt, source.data_hash(), RawRecordsOf(source, *metric)});
      if (baseline != nullptr && !IsWithheld(*baseline)) record.baseline_value = baseline->value();
      if (variant != table.baseline()) record.comparison = Compare(*metric, baseline);
      record.tests = TestsOf(record.comparison);
    }
  }
  return all;
}

RecordIndex::RecordIndex(const Records& records) {
  for (const Record& record : records.records) index_[{record.variant, record.metric->name()}] = &record;
}

const Record* RecordIndex::Find(const std::string& variant, const std::string& metric) const {
  const auto it = index_.find({variant, metric});
  return it == index_.end() || !std::isfinite(it->second->metric->value()) ? nullptr : it->second;
}

std::string RecordsJson(const RunTable& table, const Records& records, const Findings& findings) {
  Json json = {{"run", ToJson(table.run())},       {"machine", ToJson(table.machine())},
               {"peaks", PeaksJson(table)},
               {"records", Json::array()},         {"withheld", Json::array()},
               {"failures", FailuresJson(table)},  {"events", EventsJson(table)},
               {"layers", LayersJson(findings.layers)},
               {"weights", WeightsJson(findings.weights)},
               {"repetitions", RepetitionsJson(findings.repetitions)},
               {"contrasts", ContrastsJson(findings.contrasts)},
               {"gates", Json::array()},           {"notes", findings.notes}};
  json["run"].erase("machine");
  for (const Record& record : records.records) json["records"].push_back(RecordJson(record));
  for (const WithheldMetric& w : records.withheld) {
    json["withheld"].push_back({{"variant", w.variant}, {"metric", w.metric}, {"reason", w.reason}});
  }
  for (const GateOutcome& gate : findings.gates) json["gates"].push_back(GateJson(gate));
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::StatusOr<std::vector<EarlierResult>> ReadEarlierResults(const std::string& path, const std::string& file) {
  NIBBLE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  NIBBLE_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, path));
  if (!json.is_object() || !json.contains("records") || !json["records"].is_array()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": no list 'records'; expected the results.json of a run"));
  }
  std::vector<EarlierResult> results;
  for (const nlohmann::json& record : json["records"]) {
    auto parsed = ParseRecord(record, file);
    if (!parsed.ok()) return Annotate(parsed.status(), path);
    if (parsed->has_value()) results.push_back(**std::move(parsed));
  }
  return results;
}

std::string RecordsCsv(const Records& records) {
  std::string csv = CsvRow({"variant", "metric", "value", "stderr", "count", "unit", "better", "baseline_value",
                            "arithmetic", "ratio", "ratio_low", "ratio_high", "difference", "difference_low",
                            "difference_high", "recovery", "convention", "note", "gained", "lost", "mcnemar_p",
                            "bootstrap_low", "bootstrap_high", "raw_records", "raw_records_missing"});
  for (const Record& record : records.records) csv += CsvRecord(record);
  return csv;
}

std::string LayersCsv(const std::vector<LayerGroup>& groups, const std::vector<WeightGroup>& weights) {
  if (groups.empty() && weights.empty()) return "";
  std::string csv = CsvRow({"variant", "method", "layer", "error", "rounding_error", "ratio"});
  for (const LayerGroup& group : groups) {
    for (const QuantizedLayer* layer : group.layers) {
      csv += CsvRow({group.variant, group.method, layer->layer(), Exact(layer->error()), Exact(layer->rounding_error()),
                     Exact(ErrorRatio(*layer))});
    }
  }
  for (const WeightGroup& group : weights) {
    for (const WeightError* weight : group.linears) {
      if (weight->has_error()) csv += CsvRow({group.variant, "weights", weight->linear(), Exact(weight->error()), "", ""});
    }
  }
  return csv;
}

std::string CsvField(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\"", "\"\""}}), "\"");
}

}  // namespace nibble
