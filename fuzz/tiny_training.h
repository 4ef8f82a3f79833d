// A model of a few hundred weights in training, whose checkpoints are small.
#ifndef NIBBLE_FUZZ_TINY_TRAINING_H_
#define NIBBLE_FUZZ_TINY_TRAINING_H_

#include <memory>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/kernels/kernel_table.h"
#include "core/models/llama.h"
#include "core/train/weight_learner.h"

namespace nibble::fuzz {

// One layer, width 8, two heads, a vocabulary of five.
inline LlamaConfig TinyConfig() {
  LlamaConfig config = ShapePreset("tiny").value();
  config.hidden_size = config.intermediate_size = 8;
  config.num_hidden_layers = config.num_key_value_heads = 1;
  config.num_attention_heads = 2;
  config.head_dim = 4;
  config.vocab_size = 5;
  config.max_position_embeddings = 4;
  return config;
}

// Learns the last norm, a matrix under int4 and another's scales.
class TinyTraining {
 public:
  TinyTraining() {
    for (size_t id = 0; id < graph_.parameters().size(); ++id) {
      const ir::Parameter& parameter = graph_.parameter(static_cast<ir::ParameterId>(id));
      const bool up = parameter.name() == "model.layers.0.mlp.up_proj.weight", down = parameter.name() == "model.layers.0.mlp.down_proj.weight";
      if (!up && !down && parameter.name() != "model.norm.weight") continue;
      train::TrainedParameter& trained = trained_.emplace_back();
      trained.id = static_cast<ir::ParameterId>(id);
      trained.master = parameter.LoadFloats().value();
      if (up || down) trained.scheme = IntegerScheme(4, 4, /*asymmetric=*/false);
      trained.learn_scales = down;
    }
    learner_ = train::WeightLearner::Create(graph_, {pool_, **kernels::ChooseTable()}, trained_, {}).value();
  }

  train::WeightLearner& learner() { return *learner_; }

 private:
  const LlamaConfig config_ = TinyConfig();
  const ir::Graph graph_ = BuildLlama(config_, SyntheticWeights(config_, 0)).value();
  ThreadPool pool_{1};
  std::vector<train::TrainedParameter> trained_;
  std::unique_ptr<train::WeightLearner> learner_;
};

}  // namespace nibble::fuzz

#endif  // NIBBLE_FUZZ_TINY_TRAINING_H_
