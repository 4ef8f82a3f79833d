// BlockTuner: fits codewords, scales and norm gains of one decoder block to given
// outputs (AQLM, section 3.4). The block runs on a train::Tape over a graph of its own,
// whose embedding is the table of hidden states that the block reads: a token is a row.
#ifndef NIBBLE_METHODS_AQLM_BLOCK_TUNER_H_
#define NIBBLE_METHODS_AQLM_BLOCK_TUNER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "core/ir/graph.h"
#include "core/quant/formats/aqlm/additive.h"
#include "core/train/adamw.h"
#include "core/train/tape.h"

namespace nibble {

struct TuningOptions {
  int epochs = 5;
  double learning_rate = 1e-4;
  int64_t batch = 8;  // sequences of an update
  double beta1 = 0.9, beta2 = 0.95;
  double validation = 0.125;
  uint64_t seed = 0;
};

// What a block reads and should give, [tokens, hidden], in sequences.
struct BlockExamples {
  std::vector<int64_t> starts = {0};  // first tokens, then the number of tokens
  std::vector<float> inputs, targets;

  int64_t size() const { return static_cast<int64_t>(starts.size()) - 1; }
};

class BlockTuner {
 public:
  // `tensors`: the quantized weights of the block, under `scheme`. Weights that are not among
  // them stay as they are in `graph`, and so do norm gains that are quantized. Graph, scheme
  // and examples outlive the tuner.
  // Errors: a parameter that does not load, an op without a gradient.
  static absl::StatusOr<std::unique_ptr<BlockTuner>> Create(const ir::Graph& graph, int layer, train::Machine machine, const QuantScheme& scheme,
                                                            std::map<ir::ParameterId, additive::AdditiveTensor> tensors, const BlockExamples& examples,
                                                            const TuningOptions& options);

  // Mean squared errors of the block's output over the sequences that are held out
  // (over all where there is one), before and after, of numbers as they are stored; what is
  // learned keeps its precision in between. Tensors and gains are then those of the least
  // error. `epoch_done` is told of each epoch.
  struct Result {
    double before = 0, after = 0;
  };
  absl::StatusOr<Result> Run(absl::FunctionRef<void()> epoch_done);

  const std::map<ir::ParameterId, additive::AdditiveTensor>& tensors() const { return tensors_; }
  const std::map<ir::ParameterId, std::vector<float>>& gains() const { return gains_; }

  // The mean squared error over sequences, and for tests the gradients with respect to
  // words, scales and gains in the order of tensors() and gains().
  absl::StatusOr<double> Loss(const std::vector<int64_t>& sequences);
  absl::StatusOr<std::vector<std::vector<float>>> Gradients(const std::vector<int64_t>& sequences);
  std::vector<std::vector<float>*> Parameters();

 private:
  BlockTuner(const BlockExamples& examples, train::Machine machine, const QuantScheme& scheme, std::map<ir::ParameterId, additive::AdditiveTensor> tensors,
             const TuningOptions& options)
      : examples_(examples), machine_(machine), scheme_(scheme), options_(options), tensors_(std::move(tensors)) {}

  absl::Status Build(const ir::Graph& graph, int layer);
  ir::ParameterId AddParameter(const ir::Op& op, const ir::Graph& graph);
  absl::Status Connect(const ir::Graph& graph);
  void Decode();
  absl::Status Learn(int epoch, int64_t sequences);
  absl::Status RoundToStored();
  std::vector<std::vector<float>> Values();
  void SetValues(const std::vector<std::vector<float>>& values);
  absl::Status Forward(const std::vector<int64_t>& sequences);
  // The sum of squared errors of what ran last, and 2 `weight` times the errors.
  double Compare(const std::vector<int64_t>& sequences, double weight, std::vector<float>* gradient) const;

  const BlockExamples& examples_;
  const train::Machine machine_;
  const QuantScheme& scheme_;
  const TuningOptions options_;
  ir::Graph block_;
  std::map<ir::ParameterId, ir::ParameterId> places_;  // in block_, by the id in the graph
  std::map<ir::ParameterId, additive::AdditiveTensor> tensors_;
  std::map<ir::ParameterId, std::vector<float>> gains_;
  std::map<ir::ParameterId, QuantScheme> gain_schemes_;
  std::map<ir::ParameterId, std::vector<float>> frozen_;
  std::map<ir::ParameterId, std::vector<float>> weights_, gradients_;  // decoded, and of those and gains
  std::vector<train::Moments> moments_;  // in the order of Parameters()
  int64_t step_ = 0;
  std::unique_ptr<train::Tape<float>> tape_;
};

}  // namespace nibble

#endif  // NIBBLE_METHODS_AQLM_BLOCK_TUNER_H_
