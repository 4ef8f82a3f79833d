// aqlm: block by block through the model. Each linear's codes and codebooks are fitted to
// its outputs on calibration text, then all of a block's codebooks to the block's.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/file.h"
#include "core/base/progress.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "core/calibration/block_walk.h"
#include "core/calibration/second_moment.h"
#include "core/io/safetensors.h"
#include "core/ir/passes.h"
#include "methods/aqlm/aqlm.pb.h"
#include "methods/aqlm/block_tuner.h"
#include "methods/aqlm/solver.h"
#include "methods/encode_ops.h"
#include "methods/method.h"
#include "methods/options.h"
#include "methods/training/training.h"

namespace nibble {
namespace {

using additive::AdditiveTensor;
using calibration::Batch;
using calibration::BlockRunner;
using calibration::BlockWalk;
using calibration::SecondMoment;
using ir::ParameterId;

// Raised when the same options give other weights than before.
constexpr int kVersion = 3;

absl::Status Check(const AqlmOptions& options) {
  const auto error = [](auto... parts) { return absl::InvalidArgumentError(absl::StrCat(parts...)); };
  NIBBLE_RETURN_IF_ERROR(CheckCalibration(options, "aqlm"));
  if (!(options.damping() >= 0 && options.damping() <= 1)) return error("damping: ", options.damping(), " must be from 0 to 1");
  if (options.kmeans_iterations() < 1) return error("kmeans_iterations: ", options.kmeans_iterations(), " must be 1 or more");
  if (options.beam() < 1) return error("beam: ", options.beam(), " must be 1 or more");
  if (!(options.tolerance() >= 0)) return error("tolerance: ", options.tolerance(), " must not be negative");
  if (options.rounds() < 0) return error("rounds: ", options.rounds(), " must not be negative");
  if (options.adam_steps() < 0) return error("adam_steps: ", options.adam_steps(), " must not be negative");
  if (options.least_squares_steps() < 0) return error("least_squares_steps: ", options.least_squares_steps(), " must not be negative");
  if (!(options.learning_rate() > 0)) return error("learning_rate: ", options.learning_rate(), " must be positive");
  const AqlmFineTuning& tuning = options.fine_tuning();
  if (tuning.epochs() < 0) return error("fine_tuning.epochs: ", tuning.epochs(), " must not be negative");
  if (tuning.batch() < 1) return error("fine_tuning.batch: ", tuning.batch(), " must be 1 or more");
  if (!(tuning.learning_rate() > 0)) return error("fine_tuning.learning_rate: ", tuning.learning_rate(), " must be positive");
  for (const double beta : {tuning.beta1(), tuning.beta2()}) {
    if (!(beta >= 0 && beta < 1)) return error("fine_tuning: beta1 and beta2 must be from 0 to below 1, got ", beta);
  }
  if (!(tuning.validation() > 0 && tuning.validation() < 1)) return error("fine_tuning.validation: ", tuning.validation(), " must be between 0 and 1");
  return absl::OkStatus();
}

AqlmSettings SettingsOf(const AqlmOptions& options) {
  AqlmSettings settings;
  settings.kmeans_iterations = options.kmeans_iterations();
  settings.beam = options.beam();
  settings.tolerance = options.tolerance();
  settings.rounds = options.rounds();
  settings.fit = options.fit() == AqlmOptions::ADAM ? AqlmSettings::Fit::kAdam : AqlmSettings::Fit::kLeastSquares;
  settings.adam_steps = options.adam_steps();
  settings.learning_rate = options.learning_rate();
  settings.least_squares_steps = options.least_squares_steps();
  settings.seed = options.seed();
  return settings;
}

TuningOptions TuningOf(const AqlmOptions& options) {
  const AqlmFineTuning& given = options.fine_tuning();
  return {given.epochs(), given.learning_rate(), given.batch(), given.beta1(), given.beta2(), given.validation(), options.seed()};
}

// One pass over the model.
class Pass {
 public:
  Pass(const AqlmOptions& options, const QuantScheme& scheme, Context& context, train::Machine machine, ir::Graph& graph, std::vector<size_t> selected)
      : options_(options), scheme_(scheme), settings_(SettingsOf(options)), context_(context), machine_(machine), graph_(graph),
        selected_(std::move(selected)), epochs_(options.fine_tuning().epochs()),
        progress_("aqlm", static_cast<int64_t>(selected_.size()) + graph.num_layers() * epochs_) {}

  // `kept`: a folder for finished blocks, from which a killed pass goes on; "" keeps none.
  absl::Status Run(std::vector<Batch> batches, const std::string& kept) {
    batches_ = std::move(batches);
    for (int layer = 0; layer < graph_.num_layers(); ++layer) NIBBLE_RETURN_IF_ERROR(RunBlock(layer, kept));
    return absl::OkStatus();
  }

 private:
  absl::Status RunBlock(int layer, const std::string& kept) {
    const std::string path = kept.empty() ? "" : absl::StrCat(kept, "/block-", layer, ".safetensors");
    if (!path.empty() && FileExists(path)) {
      NIBBLE_RETURN_IF_ERROR(TakeKept(layer, path));
    } else {
      NIBBLE_RETURN_IF_ERROR(QuantizeBlock(layer));
      if (!path.empty()) NIBBLE_RETURN_IF_ERROR(Keep(layer, path));
    }
    for (const LayerError& error : errors_) context_.AddLayerError(error);
    errors_.clear();
    NIBBLE_ASSIGN_OR_RETURN(BlockRunner runner, BlockRunner::Create(graph_, layer, machine_));
    for (Batch& batch : batches_) NIBBLE_RETURN_IF_ERROR(runner.Run(batch.starts, &batch.hidden, [](size_t, absl::Span<const float>) {}));
    return absl::OkStatus();
  }

  absl::Status QuantizeBlock(int layer) {
    NIBBLE_ASSIGN_OR_RETURN(BlockRunner runner, BlockRunner::Create(graph_, layer, machine_));
    const bool tunes = epochs_ > 0;
    BlockExamples examples;
    if (tunes) {
      NIBBLE_ASSIGN_OR_RETURN(examples, ExamplesOf(runner));
    }
    tensors_.clear();
    BlockWalk walk(runner, batches_);
    std::vector<size_t> done;
    for (const std::vector<size_t>& readers : runner.LinearsByInput()) {
      const std::vector<size_t> group = SelectedOf(readers, selected_);
      if (group.empty()) continue;
      NIBBLE_RETURN_IF_ERROR(QuantizeGroup(walk, readers[0], group));
      done.insert(done.end(), group.begin(), group.end());
      for (const size_t op : group) {
        if (options_.sequential()) NIBBLE_RETURN_IF_ERROR(runner.Reload(op));
      }
    }
    if (tunes && !done.empty()) NIBBLE_RETURN_IF_ERROR(TuneBlock(layer, examples));
    return absl::OkStatus();
  }

  // What the block reads, and gives before it is quantized.
  absl::StatusOr<BlockExamples> ExamplesOf(BlockRunner& runner) const {
    BlockExamples examples;
    for (const Batch& batch : batches_) {
      const int64_t before = examples.starts.back();
      for (size_t i = 1; i < batch.starts.size(); ++i) examples.starts.push_back(before + batch.starts[i]);
      examples.inputs.insert(examples.inputs.end(), batch.hidden.begin(), batch.hidden.end());
      std::vector<float> hidden = batch.hidden;
      NIBBLE_RETURN_IF_ERROR(runner.Run(batch.starts, &hidden, [](size_t, absl::Span<const float>) {}));
      examples.targets.insert(examples.targets.end(), hidden.begin(), hidden.end());
    }
    return examples;
  }

  absl::Status QuantizeGroup(BlockWalk& walk, size_t reader, const std::vector<size_t>& group) {
    const int64_t width = graph_.values()[graph_.ops()[reader].inputs[0]].width;
    SecondMoment moment(width);
    for (size_t b = 0; b < batches_.size(); ++b) moment.Add(machine_, walk.InputOf(reader, b));
    std::vector<double> hessian = moment.TakeMean();
    double mean = 0;
    for (int64_t i = 0; i < width; ++i) mean += hessian[i * width + i] / static_cast<double>(width);
    for (int64_t i = 0; i < width; ++i) hessian[i * width + i] += options_.damping() * mean;
    for (const size_t op : group) NIBBLE_RETURN_IF_ERROR(Annotate(QuantizeLinear(graph_.ops()[op], hessian), graph_.ops()[op].name));
    return absl::OkStatus();
  }

  absl::Status QuantizeLinear(const ir::Op& op, const std::vector<double>& hessian) {
    ir::Parameter& weight = graph_.mutable_parameter(*op.weight);
    NIBBLE_ASSIGN_OR_RETURN(const auto given, weight.LoadUnquantized(kOneMethodALayer));
    NIBBLE_ASSIGN_OR_RETURN(AqlmSolution solution,
                            SolveAqlm(scheme_, weight.shape()[0], given.values, hessian, settings_, context_.pool(), [](double) {}));
    errors_.push_back({"aqlm", op.name, solution.loss, solution.initial_loss});
    NIBBLE_ASSIGN_OR_RETURN(EncodedTensor encoded, additive::Pack(scheme_, weight.shape(), solution.tensor));
    tensors_[*op.weight] = std::move(solution.tensor);
    progress_.Update(++done_, op.name);
    return weight.Replace(std::move(encoded));
  }

  absl::Status TuneBlock(int layer, const BlockExamples& examples) {
    NIBBLE_ASSIGN_OR_RETURN(const auto tuner, BlockTuner::Create(graph_, layer, machine_, scheme_, tensors_, examples, TuningOf(options_)));
    const std::string name = absl::StrCat("model.layers.", layer);
    const auto epoch_done = [&] { progress_.Update(++done_, name); };
    const auto result = tuner->Run(epoch_done);
    if (!result.ok()) return Annotate(result.status(), name);
    errors_.push_back({"aqlm fine-tuning", name, result->after, result->before});
    for (const auto& [id, tensor] : tuner->tensors()) {
      ir::Parameter& weight = graph_.mutable_parameter(id);
      auto encoded = additive::Pack(scheme_, weight.shape(), tensor);
      if (!encoded.ok()) return Annotate(encoded.status(), weight.name());
      NIBBLE_RETURN_IF_ERROR(weight.Replace(*std::move(encoded)));
    }
    for (const auto& [id, gain] : tuner->gains()) {
      NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor before, graph_.parameter(id).Load());
      NIBBLE_RETURN_IF_ERROR(graph_.mutable_parameter(id).ReplaceEncoded(before.scheme, gain, nullptr));
    }
    return absl::OkStatus();
  }

  // Parameters of the block that the pass changes.
  std::vector<ParameterId> ChangedIn(int layer) const {
    std::vector<ParameterId> ids;
    for (size_t i = 0; i < graph_.ops().size(); ++i) {
      const ir::Op& op = graph_.ops()[i];
      if (op.layer != layer || !op.weight.has_value()) continue;
      const bool quantized = std::find(selected_.begin(), selected_.end(), i) != selected_.end();
      if (quantized || op.kind == ir::OpKind::kRmsNorm) ids.push_back(*op.weight);
    }
    return ids;
  }

  // A finished block: its buffers by "parameter.buffer", its errors in "errors".
  absl::Status Keep(int layer, const std::string& path) const {
    std::vector<std::pair<std::string, Tensor>> tensors;
    for (const ParameterId id : ChangedIn(layer)) {
      NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor value, graph_.parameter(id).Load());
      for (const auto& [name, buffer] : value.buffers) tensors.emplace_back(absl::StrCat(graph_.parameter(id).name(), ".", name), buffer);
    }
    Tensor errors = Tensor::Zeros(DType::kF64, {static_cast<int64_t>(errors_.size()), 2});
    std::map<std::string, std::string> metadata;
    for (size_t i = 0; i < errors_.size(); ++i) {
      errors.mutable_as<double>()[2 * i] = errors_[i].error;
      errors.mutable_as<double>()[2 * i + 1] = errors_[i].rounding_error;
      metadata[absl::StrCat("method.", i)] = errors_[i].method;
      metadata[absl::StrCat("layer.", i)] = errors_[i].layer;
    }
    tensors.emplace_back("errors", errors);
    std::vector<io::TensorSpec> specs;
    for (const auto& [name, tensor] : tensors) specs.push_back({name, tensor.dtype(), tensor.shape()});
    NIBBLE_ASSIGN_OR_RETURN(const auto writer, io::SafetensorsWriter::Create(path, specs, metadata));
    for (const auto& [name, tensor] : tensors) NIBBLE_RETURN_IF_ERROR(writer->Write(name, tensor));
    return writer->Finish();
  }

  absl::Status TakeKept(int layer, const std::string& path) {
    NIBBLE_ASSIGN_OR_RETURN(const auto file, io::SafetensorsFile::Open(path));
    for (const ParameterId id : ChangedIn(layer)) {
      ir::Parameter& parameter = graph_.mutable_parameter(id);
      EncodedTensor value{scheme_, parameter.shape(), {}};
      if (parameter.shape().size() == 1) {
        NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor before, parameter.Load());
        value.scheme = before.scheme;
      }
      NIBBLE_ASSIGN_OR_RETURN(const Format* format, FindFormat(value.scheme.format()));
      for (const BufferSpec& spec : format->Layout(value.scheme, value.shape)) {
        NIBBLE_ASSIGN_OR_RETURN(const Tensor buffer, file->Get(absl::StrCat(parameter.name(), ".", spec.name)));
        value.buffers.emplace(spec.name, io::Aligned(buffer));
      }
      NIBBLE_RETURN_IF_ERROR(Annotate(CheckEncoded(value), absl::StrCat(path, ": ", parameter.name())));
      NIBBLE_RETURN_IF_ERROR(parameter.Replace(std::move(value)));
    }
    NIBBLE_ASSIGN_OR_RETURN(const Tensor stored, file->Get("errors"));
    const Tensor errors = io::Aligned(stored);
    if (errors.dtype() != DType::kF64) return absl::InvalidArgumentError(absl::StrCat(path, ": errors is ", DTypeName(errors.dtype()), ", expected F64"));
    for (int64_t i = 0; 2 * i + 1 < errors.elements(); ++i) {
      const auto text = [&](const char* key) {
        const auto found = file->metadata().find(absl::StrCat(key, i));
        return found == file->metadata().end() ? "" : found->second;
      };
      errors_.push_back({text("method."), text("layer."), errors.as<double>()[2 * i], errors.as<double>()[2 * i + 1]});
    }
    return absl::OkStatus();
  }

  const AqlmOptions& options_;
  const QuantScheme& scheme_;
  const AqlmSettings settings_;
  Context& context_;
  const train::Machine machine_;
  ir::Graph& graph_;
  const std::vector<size_t> selected_;
  const int epochs_;
  Progress progress_;
  int64_t done_ = 0;
  std::vector<Batch> batches_;
  std::map<ParameterId, AdditiveTensor> tensors_;  // of the block at hand
  std::vector<LayerError> errors_;                 // of the block at hand
};

class AqlmMethod : public Method {
 public:
  AqlmMethod(AqlmOptions options, QuantScheme scheme) : options_(std::move(options)), scheme_(std::move(scheme)) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const AqlmOptions& options) {
    NIBBLE_RETURN_IF_ERROR(Check(options));
    QuantScheme scheme = additive::SchemeOf(options.codebooks(), options.bits(), options.in_group());
    scheme.set_scale_type(options.scale_type());
    NIBBLE_RETURN_IF_ERROR(ValidateScheme(scheme));
    return std::make_unique<AqlmMethod>(options, std::move(scheme));
  }

  // Fine-tuning holds what a block shall give, too.
  LearningCost Learning() const override {
    LearningCost cost = CalibrationCost(options_, 6.0 + 3 * options_.fine_tuning().epochs());
    if (options_.fine_tuning().epochs() > 0) cost.held_tokens *= 3;
    return cost;
  }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    NIBBLE_ASSIGN_OR_RETURN(std::vector<size_t> selected, SelectBlockLinears(graph, options_.layers()));
    for (const size_t op : selected) {
      // Before hours of work, not after them.
      const auto given = graph.parameter(*graph.ops()[op].weight).LoadUnquantized(kOneMethodALayer);
      if (!given.ok()) return given.status();
    }
    NIBBLE_ASSIGN_OR_RETURN(const train::Sequences data, ReadTrainingData(context, options_.data()));
    NIBBLE_ASSIGN_OR_RETURN(std::vector<Batch> batches, CalibrationBatches(context, graph, data, options_.samples(), options_.seed()));
    NIBBLE_ASSIGN_OR_RETURN(const train::Machine machine, TrainingMachine(context));
    NIBBLE_ASSIGN_OR_RETURN(const std::string kept, FolderFor(context, graph, data));
    return Pass(options_, scheme_, context, machine, graph, std::move(selected)).Run(std::move(batches), kept);
  }

 private:
  // Of finished blocks: a name for the model as it is, options and data.
  absl::StatusOr<std::string> FolderFor(const Context& context, const ir::Graph& graph, const train::Sequences& data) const {
    const std::string& cache = context.workplace().cache;
    if (cache.empty()) return std::string();
    NIBBLE_ASSIGN_OR_RETURN(const std::string model, ir::ContentHash(graph));
    const std::string identity = Sha256(absl::StrCat(kVersion, "\n", model, "\n", ProtoToLine(options_), "\n", HashOf(data)));
    const std::string folder = absl::StrCat(cache, "/aqlm-", identity.substr(0, 16));
    NIBBLE_RETURN_IF_ERROR(MakeDirectories(folder));
    return folder;
  }

  const AqlmOptions options_;
  const QuantScheme scheme_;
};

const MethodRegistrar<AqlmMethod> kRegistrar(aqlm);

}  // namespace
}  // namespace nibble
