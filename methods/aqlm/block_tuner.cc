#include "methods/aqlm/block_tuner.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status.h"
#include "core/train/sequences.h"

namespace nibble {

using additive::AdditiveTensor;
using ir::Op;
using ir::OpKind;
using ir::ParameterId;

namespace {

// Tokens that pass through the block at a time.
constexpr int64_t kMicroTokens = 2048;

constexpr char kDiverged[] = "fine-tuning left the floating-point range; lower fine_tuning.learning_rate";

absl::StatusOr<EncodedTensor> NoSource() { return absl::InternalError("a block in tuning has arrays in place of parameters"); }

// Sequences in runs of about kMicroTokens.
std::vector<std::vector<int64_t>> Runs(const BlockExamples& examples, const std::vector<int64_t>& sequences) {
  std::vector<std::vector<int64_t>> runs;
  int64_t tokens = kMicroTokens;
  for (const int64_t s : sequences) {
    if (tokens >= kMicroTokens) {
      runs.emplace_back();
      tokens = 0;
    }
    runs.back().push_back(s);
    tokens += examples.starts[s + 1] - examples.starts[s];
  }
  return runs;
}

// The tape reads numbers where they lie.
void SetInPlace(const std::vector<float>& values, std::vector<float>* out) { std::copy(values.begin(), values.end(), out->begin()); }

// Of a block's output over the sequences.
double ValuesOf(const BlockExamples& examples, const std::vector<int64_t>& sequences) {
  double tokens = 0;
  for (const int64_t s : sequences) tokens += static_cast<double>(examples.starts[s + 1] - examples.starts[s]);
  return tokens * static_cast<double>(examples.inputs.size()) / static_cast<double>(examples.starts.back());
}

}  // namespace

absl::StatusOr<std::unique_ptr<BlockTuner>> BlockTuner::Create(const ir::Graph& graph, int layer, train::Machine machine, const QuantScheme& scheme,
                                                               std::map<ParameterId, AdditiveTensor> tensors, const BlockExamples& examples,
                                                               const TuningOptions& options) {
  std::unique_ptr<BlockTuner> tuner(new BlockTuner(examples, machine, scheme, std::move(tensors), options));
  NIBBLE_RETURN_IF_ERROR(tuner->Build(graph, layer));
  NIBBLE_RETURN_IF_ERROR(tuner->Connect(graph));
  return tuner;
}

ParameterId BlockTuner::AddParameter(const Op& op, const ir::Graph& graph) {
  const auto found = places_.find(*op.weight);
  if (found != places_.end()) return found->second;
  const ir::Parameter& parameter = graph.parameter(*op.weight);
  return places_[*op.weight] = block_.AddParameter(parameter.name(), parameter.shape(), NoSource);
}

// embed -> the block's ops -> logits, which nobody asks for.
absl::Status BlockTuner::Build(const ir::Graph& graph, int layer) {
  for (const ir::Value& value : graph.values()) block_.AddValue(value.name, value.width);
  std::vector<Op> ops;
  for (const Op& op : graph.ops()) {
    if (op.layer == layer) ops.push_back(op);
  }
  NIBBLE_CHECK(!ops.empty());
  const int64_t tokens = examples_.starts.back(), hidden = graph.values()[ops[0].inputs[0]].width;
  const ParameterId table = block_.AddParameter("inputs", {tokens, hidden}, NoSource);
  NIBBLE_CHECK(table == 0);
  Op embed{.kind = OpKind::kEmbed, .name = "inputs", .output = ops[0].inputs[0]};
  embed.weight = table;
  block_.AddOp(embed);
  for (Op& op : ops) {
    if (op.weight.has_value()) op.weight = AddParameter(op, graph);
    block_.AddOp(op);
  }
  Op head{.kind = OpKind::kLogits, .name = "outputs", .inputs = {ops.back().output}, .output = block_.AddValue("outputs", tokens)};
  head.weight = table;
  block_.AddOp(head);
  return ir::Verify(block_);
}

absl::Status BlockTuner::Connect(const ir::Graph& graph) {
  const size_t count = block_.parameters().size();
  train::ParameterArrays<float> arrays{std::vector<const float*>(count), std::vector<float*>(count)};
  arrays.values[0] = examples_.inputs.data();
  for (const auto& [id, place] : places_) {
    const auto tensor = tensors_.find(id);
    bool gain = false;
    if (tensor != tensors_.end()) {
      weights_[id].resize(tensor->second.rows * tensor->second.cols);
      arrays.values[place] = weights_[id].data();
    } else {
      if (graph.parameter(id).shape().size() == 1) {
        NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor stored, graph.parameter(id).Load());
        gain = IsFloatFormat(stored.scheme);
        if (gain) gain_schemes_[id] = stored.scheme;
      }
      std::vector<float>& values = gain ? gains_[id] : frozen_[id];
      NIBBLE_ASSIGN_OR_RETURN(values, graph.parameter(id).LoadFloats());
      arrays.values[place] = values.data();
      if (!gain) continue;
    }
    std::vector<float>& gradient = gradients_[id];
    gradient.resize(gain ? gains_[id].size() : weights_[id].size());
    arrays.gradients[place] = gradient.data();
  }
  train::TapeOptions options;
  options.quantize_activations = false;
  NIBBLE_ASSIGN_OR_RETURN(tape_, train::Tape<float>::Create(block_, machine_, std::move(arrays), options));
  Decode();
  return absl::OkStatus();
}

void BlockTuner::Decode() {
  for (const auto& [id, tensor] : tensors_) {
    const std::vector<float> decoded = tensor.Decode(true, &machine_.pool);
    std::copy(decoded.begin(), decoded.end(), weights_.at(id).begin());
  }
}

absl::Status BlockTuner::Forward(const std::vector<int64_t>& sequences) {
  train::TokenBatch batch;
  for (const int64_t s : sequences) {
    std::vector<int32_t> rows(examples_.starts[s + 1] - examples_.starts[s]);
    std::iota(rows.begin(), rows.end(), static_cast<int32_t>(examples_.starts[s]));
    batch.Append(rows);
  }
  return tape_->Forward(batch);
}

double BlockTuner::Compare(const std::vector<int64_t>& sequences, double weight, std::vector<float>* gradient) const {
  const absl::Span<const float> outputs = tape_->hidden();
  const int64_t width = static_cast<int64_t>(examples_.inputs.size()) / examples_.starts.back();
  gradient->resize(outputs.size());
  double squares = 0;
  size_t i = 0;
  for (const int64_t s : sequences) {
    for (int64_t at = examples_.starts[s] * width; at < examples_.starts[s + 1] * width; ++at, ++i) {
      const float error = outputs[i] - examples_.targets[at];
      squares += static_cast<double>(error) * static_cast<double>(error);
      (*gradient)[i] = static_cast<float>(2 * weight) * error;
    }
  }
  return squares;
}

absl::StatusOr<double> BlockTuner::Loss(const std::vector<int64_t>& sequences) {
  Decode();
  double squares = 0;
  std::vector<float> unused;
  for (const std::vector<int64_t>& run : Runs(examples_, sequences)) {
    NIBBLE_RETURN_IF_ERROR(Forward(run));
    squares += Compare(run, 0, &unused);
  }
  return squares / ValuesOf(examples_, sequences);
}

absl::StatusOr<std::vector<std::vector<float>>> BlockTuner::Gradients(const std::vector<int64_t>& sequences) {
  Decode();
  for (auto& [id, gradient] : gradients_) std::fill(gradient.begin(), gradient.end(), 0.0f);
  std::vector<float> outputs;
  for (const std::vector<int64_t>& run : Runs(examples_, sequences)) {
    NIBBLE_RETURN_IF_ERROR(Forward(run));
    Compare(run, 1 / ValuesOf(examples_, sequences), &outputs);
    NIBBLE_RETURN_IF_ERROR(tape_->Backward(outputs));
  }
  std::vector<std::vector<float>> gradients;
  for (const auto& [id, tensor] : tensors_) {
    gradients.resize(gradients.size() + 2);
    tensor.Gradients(gradients_.at(id), &machine_.pool, &gradients[gradients.size() - 2], &gradients.back());
  }
  for (const auto& [id, gain] : gains_) gradients.push_back(gradients_.at(id));
  return gradients;
}

std::vector<std::vector<float>*> BlockTuner::Parameters() {
  std::vector<std::vector<float>*> parameters;
  for (auto& [id, tensor] : tensors_) parameters.insert(parameters.end(), {&tensor.words, &tensor.scales});
  for (auto& [id, gain] : gains_) parameters.push_back(&gain);
  return parameters;
}

absl::Status BlockTuner::RoundToStored() {
  for (auto& [id, tensor] : tensors_) NIBBLE_RETURN_IF_ERROR(additive::RoundToStored(scheme_, &tensor));
  for (auto& [id, gain] : gains_) {
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor stored, Encode(gain_schemes_.at(id), {static_cast<int64_t>(gain.size())}, gain));
    SetInPlace(nibble::Decode(stored), &gain);
  }
  return absl::OkStatus();
}

std::vector<std::vector<float>> BlockTuner::Values() {
  std::vector<std::vector<float>> values;
  for (const std::vector<float>* parameter : Parameters()) values.push_back(*parameter);
  return values;
}

void BlockTuner::SetValues(const std::vector<std::vector<float>>& values) {
  const std::vector<std::vector<float>*> parameters = Parameters();
  for (size_t i = 0; i < parameters.size(); ++i) SetInPlace(values[i], parameters[i]);
}

// One epoch over the first sequences.
absl::Status BlockTuner::Learn(int epoch, int64_t sequences) {
  const std::vector<std::vector<float>*> parameters = Parameters();
  moments_.resize(parameters.size());
  for (int64_t first = 0; first < sequences; first += options_.batch) {
    std::vector<int64_t> batch;
    for (int64_t i = first; i < std::min(sequences, first + options_.batch); ++i) {
      batch.push_back(train::ShuffledIndex(epoch * sequences + i, sequences, options_.seed));
    }
    NIBBLE_ASSIGN_OR_RETURN(const auto gradients, Gradients(batch));
    ++step_;
    for (size_t i = 0; i < parameters.size(); ++i) {
      train::AdamWUpdate(machine_, {options_.beta1, options_.beta2}, step_, options_.learning_rate, 0, 1, gradients[i], &moments_[i],
                         absl::MakeSpan(*parameters[i]));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<BlockTuner::Result> BlockTuner::Run(absl::FunctionRef<void()> epoch_done) {
  const int64_t count = examples_.size();
  const int64_t held_out = count < 2 ? 0 : std::clamp<int64_t>(std::llround(options_.validation * static_cast<double>(count)), 1, count - 1);
  std::vector<int64_t> judged(held_out > 0 ? held_out : count);
  std::iota(judged.begin(), judged.end(), count - static_cast<int64_t>(judged.size()));
  NIBBLE_RETURN_IF_ERROR(RoundToStored());
  Result result;
  NIBBLE_ASSIGN_OR_RETURN(result.before, Loss(judged));
  result.after = result.before;
  std::vector<std::vector<float>> best = Values(), learned = best;
  for (int epoch = 0; epoch < options_.epochs; ++epoch) {
    SetValues(learned);
    NIBBLE_RETURN_IF_ERROR(Learn(epoch, count - held_out));
    learned = Values();
    NIBBLE_RETURN_IF_ERROR(Annotate(RoundToStored(), kDiverged));
    NIBBLE_ASSIGN_OR_RETURN(const double loss, Loss(judged));
    if (!std::isfinite(loss)) return absl::OutOfRangeError(kDiverged);
    if (loss < result.after) {
      result.after = loss;
      best = Values();
    }
    epoch_done();
  }
  SetValues(best);
  return result;
}

}  // namespace nibble
