// One metric request on one model: the piece that `run`, `eval` and `bench`
// share. Data sets are read and tokenized once and kept.
#ifndef NIBBLE_EXPERIMENTS_MEASURE_H_
#define NIBBLE_EXPERIMENTS_MEASURE_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/thread_pool.h"
#include "core/runtime/plan.h"
#include "datasets/task.h"
#include "eval/peaks.h"
#include "eval/raw_records.h"
#include "eval/windows.h"
#include "experiments/experiment.pb.h"
#include "experiments/model.h"

namespace nibble {

// A variant in memory.
struct BuiltModel {
  std::string name;
  std::string pipeline;
  ir::Graph graph;
  std::unique_ptr<Plan> plan;
};

// What a measurement gives beside its metrics.
struct MeasuredBeside {
  std::string records;  // the bytes of a quality metric's raw records
  // Of a latency: what the machine gave when its rounds were over, with their threads.
  std::optional<eval::MachinePeaks> peaks;
  int peak_threads = 0;
};

class Measurer {
 public:
  // `directory`: where relative data paths start.
  Measurer(const io::LoadedModel& source, std::string directory, int threads);

  ThreadPool& pool() { return pool_; }
  const io::LoadedModel& source() const { return source_; }

  // Everything but memory. `baseline` is needed by divergence, and by latency
  // where the two alternate; it may be `model` itself. Errors say what the
  // metric needs. `beside`, where not null, gets what else there is; without it peaks are not measured.
  absl::StatusOr<std::vector<Metric>> Measure(const MetricRequest& request, const BuiltModel& model, const BuiltModel* baseline,
                                              MeasuredBeside* beside = nullptr);

 private:
  absl::StatusOr<const eval::TextWindows*> Windows(const std::string& text, const std::string& name, const eval::WindowOptions& options);
  absl::StatusOr<eval::RawRecords> RecordQuality(const MetricRequest& request, const BuiltModel& model, const BuiltModel* baseline);
  absl::StatusOr<eval::RawRecords> RecordDivergence(const Divergence& request, const std::string& name, const BuiltModel& model,
                                                    const BuiltModel* baseline);
  absl::StatusOr<eval::RawRecords> RecordTask(const MetricRequest& request, const BuiltModel& model);
  absl::StatusOr<std::vector<Metric>> MeasureLatency(const Latency& request, const BuiltModel& model, const BuiltModel* baseline, MeasuredBeside* beside);
  absl::StatusOr<const text::Tokenizer*> Tokenizer() const;

  const io::LoadedModel& source_;
  const std::string directory_;
  ThreadPool pool_;
  std::map<std::string, eval::TextWindows> windows_;
  std::map<std::string, datasets::Task> tasks_;
};

// The peak resident size of this process when it has loaded `model`, a path, packed it and
// run one prefill. Meaningful only in a process that did nothing else.
absl::StatusOr<std::vector<Metric>> MeasureMemory(const Memory& request, const std::string& model, int threads);

// The window options of a perplexity request.
eval::WindowOptions WindowOptionsOf(const Perplexity& request);

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_MEASURE_H_
