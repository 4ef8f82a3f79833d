// From a config to what will run: includes resolved, sweeps expanded, every
// step, metric, gate and data set checked before anything is built.
#ifndef NIBBLE_EXPERIMENTS_EXPAND_H_
#define NIBBLE_EXPERIMENTS_EXPAND_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "experiments/experiment.pb.h"

namespace nibble {

struct ExpandedVariant {
  std::string name;
  Pipeline pipeline;
  bool is_baseline = false;
  std::string untrained, twin;  // other variants' names, or ""
  std::optional<Repetition> repetition;  // set where the variant is one of several
};

struct ExpandedExperiment {
  Experiment config;    // overrides applied, before expansion
  std::string path;     // of the config
  std::string directory;  // of the config: relative paths start here
  std::vector<ExpandedVariant> variants;  // the baseline first
  std::vector<MetricRequest> metrics;
  std::vector<std::string> metric_names;  // that the metrics will give, no name twice
  std::vector<EarlierResult> earlier;     // of every file that a gate is against
};

// Field path and value of a --set option.
using Override = std::pair<std::string, std::string>;

// Reads, overrides, checks and expands a config. Errors carry file, line and
// column of the step or field at fault where there is one; all of them are
// InvalidArgument or NotFound.
absl::StatusOr<ExpandedExperiment> LoadExperiment(const std::string& path, const std::vector<Override>& overrides);

// The same of a config that no file holds: `path` names it in messages, `directory` is where
// its relative paths start.
absl::StatusOr<ExpandedExperiment> ExpandExperiment(Experiment config, const std::string& path, const std::string& directory);

// Whether a request's fields are in range and its data is there. Relative paths start at
// `directory`.
absl::Status CheckMetric(const MetricRequest& request, const std::string& directory);

// The steps of a pipeline file (message nibble.Pipeline), checked.
absl::StatusOr<Pipeline> LoadPipeline(const std::string& path);

// What a text's request is called in metric names: the config's name for it, else
// the known set's, else the file's. "" for metrics without a text.
absl::StatusOr<std::string> SetLabel(const MetricRequest& request, const std::string& directory);

// The metrics that a request gives: "accuracy/hellaswag", "accuracy_norm/hellaswag".
absl::StatusOr<std::vector<std::string>> MetricNames(const MetricRequest& request, const std::string& directory);

// The text or set that a request reads, as the config spells it; "" for none.
std::string DataOf(const MetricRequest& request);

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_EXPAND_H_
