#include "methods/training/training.h"

#include <cmath>
#include <filesystem>
#include <numeric>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/folder_lock.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "core/ir/passes.h"
#include "methods/training/data.h"

namespace nibble {
namespace {

// Raised when the same lesson gives other weights than before.
constexpr int kTrainingVersion = 3;

train::LearnerOptions LearnerOptionsOf(const TrainingOptions& options) {
  train::LearnerOptions learner;
  learner.adamw.beta1 = options.beta1();
  learner.adamw.beta2 = options.beta2();
  learner.weight_decay = options.weight_decay();
  learner.clip_norm = options.clip_norm();
  learner.recompute_blocks = options.recompute_blocks();
  learner.bf16_masters = options.bf16_masters();
  return learner;
}

absl::StatusOr<std::string> IdentityOf(const Lesson& lesson, const std::vector<train::TrainedParameter>& trained, const ir::Graph& graph) {
  TrainingOptions options = lesson.options;
  options.clear_checkpoint_seconds();  // decides no number
  NIBBLE_ASSIGN_OR_RETURN(const std::string model, ir::ContentHash(graph));
  std::string parts = absl::StrCat(kTrainingVersion, "\n", model, "\n", lesson.label, "\n", ProtoToLine(options), "\n", lesson.specification, "\n",
                                   lesson.quantize_after, "\n", HashOf(*lesson.sequences), "\n");
  for (const train::TrainedParameter& parameter : trained) {
    absl::StrAppend(&parts, graph.parameter(parameter.id).name(), parameter.scheme.has_value() ? parameter.scheme->SerializeAsString() : "", " ",
                    Sha256(BytesOf(parameter.master)), "\n");
  }
  return Sha256(parts);
}

LossCurve CurveOf(const train::TrainerOptions& options, const train::Training& training, bool reused) {
  LossCurve curve;
  curve.label = options.label;
  curve.log = options.folder.empty() ? "" : train::LogPath(options.folder);
  curve.reused = reused;
  curve.tokens = training.tokens();
  curve.seconds = training.seconds();
  for (const train::StepRecord& step : training.steps) {
    curve.loss.push_back(step.loss);
    if (step.accuracy >= 0) curve.accuracy.push_back(step.accuracy);
  }
  return curve;
}

}  // namespace

absl::Status CheckQuantizeSteps(const google::protobuf::RepeatedPtrField<Step>& steps) {
  for (const Step& step : steps) {
    NIBBLE_ASSIGN_OR_RETURN(const auto method, MakeMethod(step));
    if (method->learns()) return absl::InvalidArgumentError("quantize: a step that learns cannot say how the model is quantized");
  }
  return absl::OkStatus();
}

train::Decay DecayOf(TrainingOptions::Decay decay) {
  switch (decay) {
    case TrainingOptions::LINEAR: return train::Decay::kLinear;
    case TrainingOptions::CONSTANT: return train::Decay::kConstant;
    default: return train::Decay::kCosine;
  }
}

absl::Status CheckPreferences(const PreferenceData& data) {
  const auto bad = [](absl::string_view field, auto value, absl::string_view expected) {
    return absl::InvalidArgumentError(absl::StrCat("data.", field, ": ", value, ", expected ", expected));
  };
  if (data.pairs().empty() && !data.has_shuffled()) {
    return absl::InvalidArgumentError("data is empty: name files of pairs, data { pairs: \"preferences.jsonl\" }, or data { shuffled { ... } }");
  }
  if (data.window() < 2) return bad("window", data.window(), "2 or more");
  if (data.shuffled_pairs() < 1) return bad("shuffled_pairs", data.shuffled_pairs(), "1 or more");
  if (!data.has_shuffled()) return absl::OkStatus();
  NIBBLE_RETURN_IF_ERROR(CheckData(data.shuffled()));
  // The second half is what is shuffled.
  if (data.shuffled().window() < 8) return bad("shuffled.window", data.shuffled().window(), "8 or more: half of it is put in another order");
  return absl::OkStatus();
}

std::string HashOf(const train::Sequences& sequences) {
  std::string digests;
  for (int64_t i = 0; i < sequences.size(); ++i) {
    absl::StrAppend(&digests, Sha256(BytesOf(sequences.tokens(i))), Sha256(BytesOf(sequences.learned(i))));
  }
  return Sha256(digests);
}

absl::Status CheckTraining(const TrainingOptions& options) {
  const auto bad = [](absl::string_view field, double value, absl::string_view expected) {
    return absl::InvalidArgumentError(absl::StrCat("training.", field, ": ", value, ", expected ", expected));
  };
  if (options.steps() < 1) return bad("steps", options.steps(), "1 or more");
  if (options.batch() < 1) return bad("batch", options.batch(), "1 or more");
  if (!(options.learning_rate() > 0 && options.learning_rate() < 1)) return bad("learning_rate", options.learning_rate(), "between 0 and 1");
  if (options.warmup() < 0 || options.warmup() >= options.steps() + 1) return bad("warmup", options.warmup(), "0 to steps");
  if (!(options.floor() >= 0 && options.floor() <= 1)) return bad("floor", options.floor(), "0 to 1");
  if (!(options.weight_decay() >= 0 && std::isfinite(options.weight_decay()))) return bad("weight_decay", options.weight_decay(), "0 or more");
  if (!(options.clip_norm() >= 0)) return bad("clip_norm", options.clip_norm(), "0 or more");
  if (!(options.beta1() >= 0 && options.beta1() < 1)) return bad("beta1", options.beta1(), "0 to below 1");
  if (!(options.beta2() >= 0 && options.beta2() < 1)) return bad("beta2", options.beta2(), "0 to below 1");
  if (options.micro_tokens() < 1) return bad("micro_tokens", options.micro_tokens(), "1 or more");
  return absl::OkStatus();
}

absl::StatusOr<train::Machine> TrainingMachine(Context& context) {
  NIBBLE_ASSIGN_OR_RETURN(const auto* table, kernels::ChooseTable());
  return train::Machine{context.pool(), *table};
}

absl::StatusOr<std::vector<train::TrainedParameter>> MastersOf(Context& context, const ir::Graph& graph, const std::vector<ir::ParameterId>& ids,
                                                               bool round_floats) {
  std::vector<train::TrainedParameter> masters;
  for (const ir::ParameterId id : ids) {
    const ir::Parameter& parameter = graph.parameter(id);
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor value, parameter.Load());
    train::TrainedParameter trained{id, Decode(value), std::nullopt};
    const bool quantized = !IsFloatFormat(value.scheme);
    if (quantized || (round_floats && value.scheme.format() != "fp32")) trained.scheme = value.scheme;
    if (quantized) {
      NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor again, Encode(value.scheme, parameter.shape(), trained.master, &context.pool()));
      if (Decode(again) != trained.master) {
        context.CountEvent("training.rounded_anew", 1, "weights on grids that rounding to nearest does not find again: the training starts from them rounded once more");
      }
    }
    masters.push_back(std::move(trained));
  }
  return masters;
}

namespace {

// The parameter of `graph` that became `parameter` of the quantized copy: the
// one of the same name, or the table that its head shared.
const ir::Parameter& OriginOf(const ir::Graph& graph, const ir::Parameter& parameter) {
  for (const ir::Parameter& candidate : graph.parameters()) {
    if (candidate.name() == parameter.name()) return candidate;
  }
  return graph.parameter(*graph.head().weight);
}

}  // namespace

absl::StatusOr<std::vector<float>> ValuesBeforeRounding(Context& context, const ir::Graph& graph, const ir::Graph& quantized, ir::ParameterId id,
                                                        absl::string_view method) {
  const ir::Parameter& parameter = quantized.parameter(id);
  NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor stored, parameter.Load());
  const ir::Parameter& origin = OriginOf(graph, parameter);
  NIBBLE_ASSIGN_OR_RETURN(auto before, origin.LoadUnquantized(absl::StrCat(method, " trains a full-precision model and quantizes it itself")));
  NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor rounded, Encode(stored.scheme, parameter.shape(), before.values, &context.pool()));
  if (origin.shape() == stored.shape && Decode(rounded) == Decode(stored)) return std::move(before.values);
  return absl::FailedPreconditionError(absl::StrCat(parameter.name(), ": the quantize steps do more than round to nearest; put steps that "
                                                    "change weights before ", method));
}

std::vector<ir::ParameterId> AllParameters(const ir::Graph& graph) {
  std::set<ir::ParameterId> ids;
  for (const ir::Op& op : graph.ops()) {
    if (op.weight.has_value()) ids.insert(*op.weight);
  }
  return {ids.begin(), ids.end()};
}

absl::StatusOr<std::vector<ir::ParameterId>> SelectParameters(const ir::Graph& graph, const std::vector<std::string>& selectors) {
  if (selectors.empty()) return AllParameters(graph);
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<size_t> ops, ir::SelectOps(graph, selectors));
  std::set<ir::ParameterId> ids;
  for (const size_t i : ops) ids.insert(*graph.ops()[i].weight);
  return std::vector<ir::ParameterId>(ids.begin(), ids.end());
}

ObjectiveMaker LanguageModelOf(const train::Sequences& sequences, train::Learner* teacher, const DistillOptions& distill) {
  return [&sequences, teacher, distill](train::Learner&, const train::BatchOptions& batch) -> absl::StatusOr<std::unique_ptr<train::Objective>> {
    const train::Distillation distillation = {distill.weight(), distill.temperature(), distill.hidden_weight()};
    NIBBLE_ASSIGN_OR_RETURN(auto objective, train::LanguageModel::Create(sequences, batch, teacher, distillation));
    return std::unique_ptr<train::Objective>(std::move(objective));
  };
}

absl::Status TrainOnce(Context& context, KeptTraining training) {
  train::TrainerOptions& options = training.options;
  const std::string& cache = context.workplace().cache;
  if (!cache.empty()) options.folder = absl::StrCat(cache, "/", options.label, "-", options.identity.substr(0, 16));
  const std::string result = absl::StrCat(options.folder, "/", training.file);
  std::optional<FolderLock> lock;  // variants that begin alike may be built side by side
  if (!options.folder.empty() && !FileExists(result)) {
    NIBBLE_ASSIGN_OR_RETURN(FolderLock taken, FolderLock::Take(options.folder));
    lock.emplace(std::move(taken));
  }
  if (!options.folder.empty() && FileExists(result)) {
    NIBBLE_RETURN_IF_ERROR(training.load(result));
    NIBBLE_ASSIGN_OR_RETURN(auto steps, train::ReadStepLog(train::LogPath(options.folder)));
    context.AddCurve(CurveOf(options, {std::move(steps), true}, /*reused=*/true));
    return absl::OkStatus();
  }
  NIBBLE_ASSIGN_OR_RETURN(const train::Training trained, training.train(options));
  if (!options.folder.empty()) {
    NIBBLE_RETURN_IF_ERROR(training.save(result));
    std::filesystem::remove(train::CheckpointPath(options.folder));
  }
  context.AddCurve(CurveOf(options, trained, /*reused=*/false));
  return absl::OkStatus();
}

absl::Status Learn(Context& context, const Lesson& lesson, std::vector<train::TrainedParameter> trained, const ObjectiveMaker& make_objective,
                   ir::Graph& graph) {
  const TrainingOptions& options = lesson.options;
  KeptTraining training;
  training.file = "trained.safetensors";
  training.options.label = lesson.label;
  NIBBLE_ASSIGN_OR_RETURN(training.options.identity, IdentityOf(lesson, trained, graph));
  training.options.quantize_after = lesson.quantize_after;
  training.options.checkpoint_seconds = options.checkpoint_seconds();
  training.options.schedule = {options.learning_rate(), options.warmup(), options.steps(), DecayOf(options.decay()), options.floor()};
  NIBBLE_ASSIGN_OR_RETURN(const train::Machine machine, TrainingMachine(context));
  NIBBLE_ASSIGN_OR_RETURN(auto learner, train::WeightLearner::Create(graph, machine, std::move(trained), LearnerOptionsOf(options)));
  training.load = [&](const std::string& path) { return learner->LoadMasters(path); };
  training.save = [&](const std::string& path) { return learner->SaveMasters(path); };
  training.train = [&](const train::TrainerOptions& trainer) -> absl::StatusOr<train::Training> {
    NIBBLE_RETURN_IF_ERROR(learner->SetFakeQuantization(true));
    NIBBLE_ASSIGN_OR_RETURN(const auto objective, make_objective(*learner, {options.batch(), options.micro_tokens(), options.seed()}));
    return train::Train(*learner, *objective, trainer);
  };
  NIBBLE_RETURN_IF_ERROR(TrainOnce(context, std::move(training)));
  return learner->Store(graph);
}

}  // namespace nibble
