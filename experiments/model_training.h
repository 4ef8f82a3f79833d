// Training of a whole model from a config: `nibble train`.
#ifndef NIBBLE_EXPERIMENTS_MODEL_TRAINING_H_
#define NIBBLE_EXPERIMENTS_MODEL_TRAINING_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "eval/result.pb.h"
#include "experiments/model_training.pb.h"
#include "methods/method.h"

namespace nibble {

struct ModelTrainingResult {
  LossCurve curve;
  std::vector<Metric> held_out;  // perplexities
  int64_t parameters = 0;
  std::map<std::string, CountedEvent> events;
};

// Trains as `config` says (relative paths start at `directory`) and writes the
// model as a folder `out`: safetensors in bf16, tokenizer, config.json. Work in
// progress is kept in out/work, so that a killed training goes on. Errors: a
// config that lacks a field, whatever reading data and training can meet.
absl::StatusOr<ModelTrainingResult> TrainModel(const ModelTraining& config, const std::string& directory, const std::string& out, int threads);

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_MODEL_TRAINING_H_
