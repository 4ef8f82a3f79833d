// WeightLearner: the parameters of a graph in training. It holds an fp32 master of
// each trained parameter, its gradient and moments, and what the ops multiply
// by: the master itself, or for a parameter with a scheme its decoded encoding
// (fake quantization), so that what training saw is to the bit what encoding
// the result gives.
#ifndef NIBBLE_CORE_TRAIN_WEIGHT_LEARNER_H_
#define NIBBLE_CORE_TRAIN_WEIGHT_LEARNER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/ir/graph.h"
#include "core/train/adamw.h"
#include "core/train/learner.h"

namespace nibble::train {

// A parameter to train.
struct TrainedParameter {
  ir::ParameterId id = -1;
  std::vector<float> master;          // where training starts
  std::optional<QuantScheme> scheme;  // fake quantization
  bool learn_scales = false;          // with the weights, from where the scheme puts them
};

// Whether the parameter's scheme is a symmetric integer grid per row or group.
bool CanLearnScales(const TrainedParameter& parameter);

struct LearnerOptions {
  AdamWOptions adamw;
  double weight_decay = 0;   // of matrices; vectors (norm gains) do not decay
  double clip_norm = 1;      // 0: no clipping
  bool recompute_blocks = false;
  // Masters are rounded to bf16 after each update, up or down at random in
  // proportion (Gupta et al., "Deep Learning with Limited Numerical Precision",
  // 2015): small steps are kept on average. In memory they stay fp32; a
  // checkpoint holds them in 2 bytes of its 10 a weight.
  bool bf16_masters = false;
};

class WeightLearner : public Learner {
 public:
  // `graph` gives the structure, the activation schemes and the frozen
  // parameters, and outlives the learner. Errors: a parameter that does not
  // load, an op without a gradient.
  static absl::StatusOr<std::unique_ptr<WeightLearner>> Create(const ir::Graph& graph, Machine machine, std::vector<TrainedParameter> trained,
                                                         const LearnerOptions& options);

  // Clips and applies the gradients with AdamW; the norm is that before clipping.
  absl::StatusOr<double> Update(double rate, double gradient_scale) override;

  // Encodes each trained parameter into `target`, a graph of the same
  // parameters: under its scheme, or in the float format that it has there.
  absl::Status Store(ir::Graph& target) const;

  // Masters, moments and the step.
  absl::Status Save(const std::string& path, const std::string& note) const override;
  absl::StatusOr<std::string> Restore(const std::string& path) override;

  // The masters alone: what is left of a finished training.
  absl::Status SaveMasters(const std::string& path) const;
  absl::Status LoadMasters(const std::string& path);

 private:
  struct State {
    TrainedParameter parameter;
    std::vector<float> gradient, decoded;
    std::vector<uint8_t> in_range;  // empty: all
    Moments moments;
    std::vector<float> log_scales, scale_gradient;  // where they are learned
    Moments scale_moments;

    bool learns_scales() const { return parameter.learn_scales; }
  };

  WeightLearner(const ir::Graph& graph, Machine machine, const LearnerOptions& options) : Learner(graph, machine), options_(options) {}
  absl::Status PrepareScales(State& state);
  absl::Status ChooseScales(State& state) const;
  absl::Status Remake() override;
  absl::Status RequantizeOne(State& state);
  void PassThroughRounding();
  void RoundMasters();
  static std::vector<float> ScalesOf(const State& state);
  absl::StatusOr<EncodedTensor> EncodeState(const State& state, const QuantScheme& scheme, const Shape& shape) const;
  // The arrays of a state by their suffixes in checkpoints.
  template <typename AnyState>
  static auto ArraysOf(AnyState& state, bool masters_only);
  absl::Status WriteArrays(const std::string& path, bool masters_only, const std::map<std::string, std::string>& metadata) const;
  absl::Status ReadArrays(const io::SafetensorsFile& file, bool masters_only);
  int64_t Cols(const State& state) const { return graph_.parameter(state.parameter.id).shape().back(); }
  int64_t Rows(const State& state) const { return static_cast<int64_t>(state.parameter.master.size()) / Cols(state); }
  const std::string& name(const State& state) const { return graph_.parameter(state.parameter.id).name(); }

  const LearnerOptions options_;
  std::vector<State> states_;
};

}  // namespace nibble::train

#endif  // NIBBLE_CORE_TRAIN_WEIGHT_LEARNER_H_
