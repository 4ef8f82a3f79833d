// The training loop: objective, schedule, log, checkpoints.
#ifndef NIBBLE_CORE_TRAIN_TRAINER_H_
#define NIBBLE_CORE_TRAIN_TRAINER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/train/adamw.h"
#include "core/train/learner.h"

namespace nibble::train {

// What one update saw.
struct Observation {
  double loss = 0;     // mean over what was learned
  int64_t tokens = 0;  // that passed through the model
  double accuracy = -1;  // of preferences, where the objective has them; -1: none
};

class Objective {
 public:
  virtual ~Objective() = default;

  // Adds the gradients of update `step`, counted from 1, of the mean loss. A
  // function of `step` and the learner's weights alone.
  virtual absl::StatusOr<Observation> Accumulate(Learner& learner, int64_t step) = 0;
};

struct TrainerOptions {
  std::string label = "train";
  Schedule schedule;
  // Fake quantization starts after this many updates.
  int64_t quantize_after = 0;
  // Where steps.csv and checkpoint.safetensors are kept; "" keeps none. A
  // training that finds its own checkpoint goes on from it.
  std::string folder;
  double checkpoint_seconds = 300;
  // Says what is trained, data and options; a checkpoint of another identity
  // is an error.
  std::string identity;
  // Stops after this many updates in this call, as a kill would; for tests.
  int64_t stop_after = 0;
};

struct StepRecord {
  int64_t step = 0;
  double loss = 0, rate = 0, gradient_norm = 0;
  int64_t tokens = 0;
  double seconds = 0;
  double accuracy = -1;
};

struct Training {
  std::vector<StepRecord> steps;  // of the whole training, resumed parts too
  bool finished = false;

  int64_t tokens() const;
  double seconds() const;
  // Mean loss of the first and last tenth of the updates.
  double first_loss() const;
  double last_loss() const;
};

// Trains up to schedule.steps updates. Errors: a loss or gradient that is not
// finite, a folder that cannot be written, a checkpoint that is not this
// training's.
absl::StatusOr<Training> Train(Learner& learner, Objective& objective, const TrainerOptions& options);

// The file in a training's folder that it goes on from.
std::string CheckpointPath(const std::string& folder);
// The file there with a line for each update.
std::string LogPath(const std::string& folder);

// steps.csv: one line an update.
absl::StatusOr<std::vector<StepRecord>> ReadStepLog(const std::string& path);

}  // namespace nibble::train

#endif  // NIBBLE_CORE_TRAIN_TRAINER_H_
