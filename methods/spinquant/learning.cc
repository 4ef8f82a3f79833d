#include "methods/spinquant/learning.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "core/base/file.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "methods/training/training.h"

namespace nibble {
namespace {

// Raised when the same options give other rotations than before.
constexpr int kLearningVersion = 3;

// Writes a line of rotations.csv for each update: how far it went, and how
// orthogonal the matrices are.
class Logged : public train::Objective {
 public:
  Logged(train::Objective& objective, const train::RotationLearner& learner, std::string path)
      : objective_(objective), learner_(learner), path_(std::move(path)) {}

  absl::StatusOr<train::Observation> Accumulate(train::Learner& learner, int64_t step) override {
    NIBBLE_RETURN_IF_ERROR(Log());
    return objective_.Accumulate(learner, step);
  }

  // The last update's line; a restarted learning takes up the lines before it, and has none
  // for an update that was saved but not told.
  absl::Status Log() {
    if (path_.empty()) return absl::OkStatus();
    if (text_.empty()) TakeUp();
    if (learner_.step() == logged_) return absl::OkStatus();
    absl::StrAppendFormat(&text_, "%d,%.6g,%.6g,%.3g\n", learner_.step(), learner_.last_step().alpha, learner_.last_step().skew_norm,
                          learner_.OrthogonalityError());
    logged_ = learner_.step();
    return WriteFile(path_, text_);
  }

 private:
  void TakeUp() {
    text_ = "step,alpha,skew_norm,orthogonality_error\n";
    logged_ = learner_.step();
    const auto before = ReadFile(path_);
    if (!before.ok()) return;
    for (const absl::string_view line : absl::StrSplit(*before, '\n')) {
      const int64_t step = std::atoll(std::string(line).c_str());
      if (step < 1 || step > learner_.step()) continue;
      absl::StrAppend(&text_, line, "\n");
    }
  }

  train::Objective& objective_;
  const train::RotationLearner& learner_;
  const std::string path_;
  std::string text_;
  int64_t logged_ = 0;
};

std::string MatrixHash(const ir::SquareMatrix& matrix) { return Sha256(BytesOf(matrix.values)); }

absl::StatusOr<std::string> IdentityOf(const RotationLearning& options, const ir::Graph& graph, const train::LearnedRotations& start,
                                       const train::Sequences& sequences) {
  RotationLearning deciding = options;
  deciding.clear_checkpoint_seconds();
  NIBBLE_ASSIGN_OR_RETURN(const std::string model, ir::ContentHash(graph));
  std::string parts = absl::StrCat(kLearningVersion, "\n", model, "\n", ProtoToLine(deciding), "\n", HashOf(sequences));
  absl::StrAppend(&parts, "\n", start.r1.has_value() ? MatrixHash(*start.r1) : "");
  for (const ir::SquareMatrix& r2 : start.r2) absl::StrAppend(&parts, "\n", MatrixHash(r2));
  return Sha256(parts);
}

}  // namespace

absl::Status CheckLearning(const SpinquantOptions& options) {
  const RotationLearning& learn = options.learn();
  const auto error = [](auto... parts) { return absl::InvalidArgumentError(absl::StrCat("learn.", parts...)); };
  if (!options.r1() && !options.r2()) return error("steps: there is nothing to learn without r1 and r2");
  if (!learn.has_data()) return error("data is missing: data { text: \"wikitext-2-raw/train-part\" window: 2048 }");
  NIBBLE_RETURN_IF_ERROR(Annotate(CheckData(learn.data()), "learn"));
  if (learn.quantize().empty()) return error("quantize is empty: say what to learn for, quantize { [nibble.activations] { bits: 4 } }");
  if (learn.steps() < 1) return error("steps: ", learn.steps(), " must be 1 or more");
  if (learn.batch() < 1) return error("batch: ", learn.batch(), " must be 1 or more");
  if (learn.micro_tokens() < 1) return error("micro_tokens: ", learn.micro_tokens(), " must be 1 or more");
  if (!(learn.learning_rate() > 0)) return error("learning_rate: ", learn.learning_rate(), " must be above 0");
  if (!(learn.momentum() >= 0 && learn.momentum() < 1)) return error("momentum: ", learn.momentum(), " must be from 0 to below 1");
  return Annotate(CheckQuantizeSteps(learn.quantize()), "learn");
}

absl::StatusOr<train::LearnedRotations> LearnRotations(Context& context, const SpinquantOptions& options, const ir::Graph& graph,
                                                       const train::LearnedRotations& start) {
  const RotationLearning& learn = options.learn();
  NIBBLE_ASSIGN_OR_RETURN(const train::Sequences sequences, ReadTrainingData(context, learn.data()));
  train::LearnedRotations result;
  KeptTraining training;
  training.file = "rotations.safetensors";
  training.options.label = "spinquant";
  NIBBLE_ASSIGN_OR_RETURN(training.options.identity, IdentityOf(learn, graph, start, sequences));
  training.options.checkpoint_seconds = learn.checkpoint_seconds();
  training.options.schedule = {learn.learning_rate(), 0, learn.steps(), DecayOf(learn.decay()), 0};
  training.load = [&](const std::string& path) -> absl::Status {
    NIBBLE_ASSIGN_OR_RETURN(result, train::ReadRotations(path));
    return absl::OkStatus();
  };
  training.save = [&](const std::string& path) { return train::WriteRotations(path, result); };
  training.train = [&](const train::TrainerOptions& trainer) -> absl::StatusOr<train::Training> {
    ir::Graph student = graph;
    Context practice(context.pool(), context.workplace());  // what rounding meets here is not part of the model
    NIBBLE_RETURN_IF_ERROR(ApplyPipeline(practice, learn.quantize(), student));
    for (const ir::ParameterId id : AllParameters(student)) {
      NIBBLE_RETURN_IF_ERROR(Annotate(ValuesBeforeRounding(practice, graph, student, id, "spinquant").status(), "learn"));
    }
    NIBBLE_ASSIGN_OR_RETURN(const train::Machine machine, TrainingMachine(context));
    train::RotationOptions rotation_options;
    rotation_options.cayley.momentum = learn.momentum();
    rotation_options.recompute_blocks = learn.recompute_blocks();
    NIBBLE_ASSIGN_OR_RETURN(const auto learner, train::RotationLearner::Create(student, graph, machine, start, rotation_options));
    NIBBLE_ASSIGN_OR_RETURN(const auto objective,
                            train::LanguageModel::Create(sequences, {learn.batch(), learn.micro_tokens(), learn.seed()}));
    Logged logged(*objective, *learner, trainer.folder.empty() ? "" : trainer.folder + "/rotations.csv");
    NIBBLE_ASSIGN_OR_RETURN(train::Training trained, train::Train(*learner, logged, trainer));
    NIBBLE_RETURN_IF_ERROR(logged.Log());
    result = learner->rotations();
    return trained;
  };
  NIBBLE_RETURN_IF_ERROR(TrainOnce(context, std::move(training)));
  return result;
}

}  // namespace nibble
