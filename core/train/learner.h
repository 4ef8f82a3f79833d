// Learner: a graph in training. It owns what the ops multiply by, and turns
// the gradients of that into an update of whatever is learned: the weights
// themselves (weight_learner.h), or rotations that make them
// (rotation_learner.h).
#ifndef NIBBLE_CORE_TRAIN_LEARNER_H_
#define NIBBLE_CORE_TRAIN_LEARNER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/ir/graph.h"
#include "core/train/head.h"
#include "core/train/tape.h"

namespace nibble::io {
class SafetensorsFile;
}

namespace nibble::train {

class Learner {
 public:
  virtual ~Learner() = default;
  Learner(const Learner&) = delete;
  Learner& operator=(const Learner&) = delete;

  Tape<float>& tape() { return *tape_; }
  Head<float>& head() { return *head_; }
  Machine machine() const { return machine_; }
  const ir::Graph& graph() const { return graph_; }
  // Updates so far.
  int64_t step() const { return step_; }

  // Fake quantization of weights and activations from now on; it starts on.
  absl::Status SetFakeQuantization(bool on);

  // Applies the gradients, scaled by `gradient_scale`, and zeroes them. Returns
  // their norm. An error when it is not finite.
  virtual absl::StatusOr<double> Update(double rate, double gradient_scale) = 0;

  // All that an update depends on, as a file that Restore continues from to the
  // bit. `note` comes back as it was. Errors of Restore name the file: another
  // training's.
  virtual absl::Status Save(const std::string& path, const std::string& note) const = 0;
  virtual absl::StatusOr<std::string> Restore(const std::string& path) = 0;

 protected:
  Learner(const ir::Graph& graph, Machine machine) : graph_(graph), machine_(machine) {}

  // The tape and the head over arrays that outlive them; parameters without a
  // value are frozen: loaded and kept here. Errors: a parameter that does not
  // load, an op without a gradient.
  absl::Status Connect(ParameterArrays<float> arrays, const TapeOptions& options);

  // Makes what the ops multiply by from what is learned, with fake quantization
  // or without.
  virtual absl::Status Remake() = 0;
  bool quantizes() const { return quantizes_; }

  // A checkpoint's metadata, and what it says.
  std::map<std::string, std::string> CheckpointMetadata(const std::string& note) const;
  struct Position {
    int64_t step = 0;
    std::string note;
  };
  static absl::StatusOr<Position> ReadPosition(const io::SafetensorsFile& file);

  const ir::Graph& graph_;
  const Machine machine_;
  std::vector<std::vector<float>> frozen_;
  std::unique_ptr<Tape<float>> tape_;
  std::unique_ptr<Head<float>> head_;
  int64_t step_ = 0;

 private:
  bool quantizes_ = true;
};

}  // namespace nibble::train

#endif  // NIBBLE_CORE_TRAIN_LEARNER_H_
