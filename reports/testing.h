// A small run made by hand, for the tests of this package: a baseline, a native
// variant, a simulated one, and one that fails.
#ifndef NIBBLE_REPORTS_TESTING_H_
#define NIBBLE_REPORTS_TESTING_H_

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "eval/result.pb.h"

namespace nibble {

inline Metric MakeMetric(const std::string& name, Metric::Aggregate aggregate, double value,
                         const std::vector<double>& sums = {}, const std::vector<double>& weights = {}) {
  Metric metric;
  metric.set_name(name);
  metric.set_aggregate(aggregate);
  metric.set_value(value);
  for (const double sum : sums) metric.add_block_sum(sum);
  for (const double weight : weights) metric.add_block_weight(weight);
  return metric;
}

inline JobResult MakeResult(const std::string& variant, const std::string& job, const std::vector<Metric>& metrics) {
  JobResult result;
  result.set_key(variant + "/" + job);
  result.set_variant(variant);
  result.set_is_baseline(variant == "bf16");
  result.set_pipeline(variant + " { }");
  result.set_job(job);
  for (const Metric& metric : metrics) *result.add_metric() = metric;
  return result;
}

inline JobResult MakeFailure(const std::string& variant, const std::string& job, const std::string& error) {
  JobResult result = MakeResult(variant, job, {});
  result.set_error(error);
  return result;
}

inline Metric Perplexity(double value, const std::vector<double>& sums) {
  Metric metric = MakeMetric("perplexity/wikitext", Metric::EXP_MEAN, value, sums,
                             std::vector<double>(sums.size(), 10.0));
  metric.set_better(LOWER);
  metric.set_stderr(value / 50);
  metric.set_count(10 * static_cast<int64_t>(sums.size()));
  metric.set_convention("gptq window=10");
  return metric;
}

inline Metric Accuracy(const std::vector<double>& items) {
  double sum = 0;
  for (const double item : items) sum += item;
  Metric metric = MakeMetric("accuracy/arc", Metric::MEAN, sum / static_cast<double>(items.size()), items,
                             std::vector<double>(items.size(), 1.0));
  metric.set_better(HIGHER);
  metric.set_unit("fraction");
  metric.set_stderr(0.25);
  metric.set_count(static_cast<int64_t>(items.size()));
  metric.set_convention("log-likelihood, \"raw\"");
  return metric;
}

inline Metric Size(double mib) {
  Metric metric = MakeMetric("size_mib", Metric::NONE, mib);
  metric.set_unit("MiB");
  auto* part = metric.add_part();
  part->set_name("linear");
  part->set_bytes(static_cast<int64_t>(mib * 1048576));
  part->set_parameters(1048576);
  return metric;
}

inline Metric Decode(const std::vector<double>& seconds, Arithmetic arithmetic = NATIVE) {
  Metric metric = MakeMetric("decode_tokens_per_s/32", Metric::RATE, 32 / seconds[0], seconds,
                             std::vector<double>(seconds.size(), 32.0));
  metric.set_better(HIGHER);
  metric.set_unit("tokens/s");
  metric.set_count(static_cast<int64_t>(seconds.size()));
  metric.set_arithmetic(arithmetic);
  return metric;
}

inline void AddLayer(JobResult* result, const std::string& method, const std::string& layer, double error, double rounding_error) {
  QuantizedLayer* added = result->add_layer();
  added->set_method(method);
  added->set_layer(layer);
  added->set_error(error);
  added->set_rounding_error(rounding_error);
}

// A linear that was quantized; one without an error does not compare.
inline void AddWeight(JobResult* result, const std::string& linear, std::optional<double> error) {
  WeightError* added = result->add_weight();
  added->set_linear(linear);
  if (error.has_value()) added->set_error(*error);
}

struct SmallRun {
  RunInfo run;
  std::vector<JobResult> results;
};

inline RunInfo MakeSmallRunInfo() {
  RunInfo run;
  run.set_name("small");
  run.set_config_path("configs/small.textproto");
  run.set_config("name: \"small\"\n# ``` a fence\n");
  run.set_command("nibble sweep configs/small.textproto");
  run.set_model("smollm2-135m");
  run.set_model_hash("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
  run.set_model_note("decoded from Q8_0 blocks");
  run.set_commit("abc1234");
  run.mutable_machine()->set_cpu("Test CPU");
  run.mutable_machine()->set_kernel_table("avx2");
  run.mutable_machine()->set_threads(2);
  run.mutable_machine()->set_cpus(4);
  run.mutable_machine()->set_read_bandwidth_gb_s(21.25);
  run.mutable_machine()->set_fma_peak_gflop_s(88.8);
  for (const char* variant : {"bf16", "ptq", "w2|sim", "broken"}) run.add_variant(variant);
  for (const char* metric : {"perplexity/wikitext", "accuracy/arc", "size_mib", "decode_tokens_per_s/32"}) {
    run.add_metric_order(metric);
  }
  return run;
}

inline std::vector<JobResult> MakeVariant(const std::string& name, double log_perplexity, double mib,
                                          const std::vector<double>& items, const Metric& decode) {
  const double s = 10 * log_perplexity;
  return {MakeResult(name, "perplexity wikitext", {Perplexity(std::exp(log_perplexity), {s - 1, s, s + 1})}),
          MakeResult(name, "multiple_choice arc", {Accuracy(items)}), MakeResult(name, "size", {Size(mib)}),
          MakeResult(name, "latency", {decode})};
}

inline SmallRun MakeSmallRun() {
  SmallRun small{MakeSmallRunInfo(), {}};
  const auto add = [&](const std::vector<JobResult>& results) {
    small.results.insert(small.results.end(), results.begin(), results.end());
  };
  add(MakeVariant("bf16", 3.0, 256, {1, 1, 0, 1}, Decode({1.0, 1.1, 0.9})));
  add(MakeVariant("ptq", 3.1, 72.5, {1, 0, 0, 1}, Decode({0.5, 0.55, 0.46})));
  add(MakeVariant("w2|sim", 5.0, 40, {0, 0, 0, 1}, Decode({2.0, 2.2, 2.1}, SIMULATED)));
  add({MakeFailure("broken", "perplexity wikitext", "layer 3: not\npositive definite"),
       MakeResult("broken", "size", {Size(72.5)})});
  Event* event = small.results[4].add_event();
  event->set_what("rtn.ragged_group");
  event->set_count(3);
  event->set_detail("down_proj");
  *small.results[5].add_event() = *event;
  return small;
}

}  // namespace nibble

#endif  // NIBBLE_REPORTS_TESTING_H_
