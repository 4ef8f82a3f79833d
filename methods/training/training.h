// What methods that learn share: data from files, masters from a graph, a
// training that is kept in the cache and taken from there when it is asked for
// again.
#ifndef NIBBLE_METHODS_TRAINING_TRAINING_H_
#define NIBBLE_METHODS_TRAINING_TRAINING_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/calibration/batches.h"
#include "core/train/objectives.h"
#include "core/train/trainer.h"
#include "core/train/weight_learner.h"
#include "methods/method.h"
#include "methods/training/training.pb.h"

namespace nibble {

// Options that are out of range, by field name.
absl::Status CheckTraining(const TrainingOptions& options);

// Data that names nothing to read, or windows without a token to predict.
absl::Status CheckData(const TrainingData& data);

// Preferences that name nothing to read, or say nothing.
absl::Status CheckPreferences(const PreferenceData& data);

// Errors: a file that cannot be read, no tokenizer.
absl::StatusOr<train::Sequences> ReadTrainingData(Context& context, const TrainingData& data);
// Sequence 2 i is preferred to 2 i + 1. Pairs longer than the window are left
// out as a counted event.
absl::StatusOr<train::Sequences> ReadPreferenceData(Context& context, const PreferenceData& data);

// What every method that calibrates on `data` refuses: no data, no samples, CheckData.
template <typename Options>
absl::Status CheckCalibration(const Options& options, absl::string_view method) {
  if (!options.has_data()) return absl::InvalidArgumentError(absl::StrCat("data { text: ... } is missing: ", method, " calibrates on text"));
  if (options.samples() < 1) return absl::InvalidArgumentError(absl::StrCat("samples: ", options.samples(), " must be 1 or more"));
  return CheckData(options.data());
}

// Of a calibration on so many samples that pass through the model so often.
inline LearningCost CalibrationCost(const TrainingData& data, int64_t samples, double passes) {
  const double tokens = static_cast<double>(samples) * static_cast<double>(data.window());
  return {.tokens = passes * tokens, .held_tokens = tokens};
}
template <typename Options>
LearningCost CalibrationCost(const Options& options, double passes) {
  return CalibrationCost(options.data(), options.samples(), passes);
}
// Of a training whose items have so many tokens; Options: TrainingOptions or what has its
// fields.
template <typename Options>
LearningCost TrainingCost(int64_t item_tokens, const Options& options, double copies) {
  const double forward = static_cast<double>(options.steps()) * options.batch() * static_cast<double>(item_tokens);
  return {.tokens = (options.recompute_blocks() ? 4 : 3) * forward, .copies = copies};
}
// LearningCost::copies of a training of all weights: they, their gradients and AdamW's
// two moments.
constexpr double kTrainingCopies = 4;
// Of one that learns something else: the weights.
constexpr double kFrozenCopies = 1;

// What a method calibrates on: `samples` sequences of the data, or all of fewer,
// which is a counted event. An error without data.
absl::StatusOr<std::vector<calibration::Batch>> CalibrationBatches(Context& context, const ir::Graph& graph, const TrainingData& data,
                                                                   int64_t samples, uint64_t seed);
// Of data that has been read.
absl::StatusOr<std::vector<calibration::Batch>> CalibrationBatches(Context& context, const ir::Graph& graph, const train::Sequences& sequences,
                                                                   int64_t samples, uint64_t seed);

// A name for their contents.
std::string HashOf(const train::Sequences& sequences);

train::Decay DecayOf(TrainingOptions::Decay decay);

// Whether `quantize` steps can say how a model in training is quantized: they
// are methods, and none of them learns.
absl::Status CheckQuantizeSteps(const google::protobuf::RepeatedPtrField<Step>& steps);

// The machine that training runs on.
absl::StatusOr<train::Machine> TrainingMachine(Context& context);

// Parameters `ids` of the graph to be trained from their present values: a
// quantized one, and with `round_floats` one that is stored in 16 bits, passes
// through its scheme. Where rounding its values anew gives others (grids that GPTQ or a
// search chose), the training starts from those, which is a counted event.
absl::StatusOr<std::vector<train::TrainedParameter>> MastersOf(Context& context, const ir::Graph& graph, const std::vector<ir::ParameterId>& ids,
                                                               bool round_floats);

// What a parameter of `quantized` was in `graph`, of which it is a copy after steps. Error:
// those did more than round to nearest (a rotation, GPTQ), which training from here would undo.
absl::StatusOr<std::vector<float>> ValuesBeforeRounding(Context& context, const ir::Graph& graph, const ir::Graph& quantized, ir::ParameterId id,
                                                        absl::string_view method);
// Every parameter that an op uses.
std::vector<ir::ParameterId> AllParameters(const ir::Graph& graph);
// Those of the ops that `selectors` select; of norms too where `selectors` is
// empty, which means all.
absl::StatusOr<std::vector<ir::ParameterId>> SelectParameters(const ir::Graph& graph, const std::vector<std::string>& selectors);

// A training of anything, named by its label and identity. Where the cache holds
// it finished, the result is taken from there; where it holds a part, it goes
// on. Its loss is reported either way.
struct KeptTraining {
  train::TrainerOptions options;  // its folder is filled in
  std::string file;               // the result's name, "trained.safetensors"
  std::function<absl::Status(const std::string& path)> load, save;
  std::function<absl::StatusOr<train::Training>(const train::TrainerOptions& options)> train;
};
absl::Status TrainOnce(Context& context, KeptTraining training);

// One training of `graph`'s parameters.
struct Lesson {
  std::string label;            // "qat"
  TrainingOptions options;
  std::string specification;    // everything else that decides the result
  const train::Sequences* sequences = nullptr;
  int64_t quantize_after = 0;
};
using ObjectiveMaker = std::function<absl::StatusOr<std::unique_ptr<train::Objective>>(train::Learner&, const train::BatchOptions&)>;

// Trains once and stores the result in `graph` itself. The work is named by the contents of
// the graph and the first values of what is trained, the lesson and its data.
absl::Status Learn(Context& context, const Lesson& lesson, std::vector<train::TrainedParameter> trained, const ObjectiveMaker& make_objective,
                   ir::Graph& graph);

// The usual objective: the sequences' text, or what `teacher` (may be null)
// makes of it.
ObjectiveMaker LanguageModelOf(const train::Sequences& sequences, train::Learner* teacher = nullptr, const DistillOptions& distill = {});

}  // namespace nibble

#endif  // NIBBLE_METHODS_TRAINING_TRAINING_H_
