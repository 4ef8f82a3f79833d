// spinquant: rotations merged into the weights, and Hadamard transforms at run
// time where they cannot be; learned where asked (learning.h).

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/rng.h"
#include "core/base/status.h"
#include "core/ir/passes.h"
#include "core/ir/rotations.h"
#include "core/ir/weight_transform.h"
#include "core/tensor/hadamard.h"
#include "methods/method.h"
#include "methods/spinquant/learning.h"
#include "methods/spinquant/spinquant.pb.h"
#include "methods/training/training.h"

namespace nibble {
namespace {

// Weights pass through fp32 while they are folded and rotated; each goes back to
// the float format that it had.
class FloatFormats {
 public:
  static absl::StatusOr<FloatFormats> Of(const ir::Graph& graph) {
    FloatFormats formats;
    for (const ir::Parameter& parameter : graph.parameters()) {
      NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor value, parameter.Load());
      formats.schemes_.push_back(value.scheme);
    }
    return formats;
  }

  absl::Status Restore(ir::Graph& graph, ThreadPool& pool) const {
    for (size_t id = 0; id < graph.parameters().size(); ++id) {
      ir::Parameter& parameter = graph.mutable_parameter(static_cast<ir::ParameterId>(id));
      if (parameter.resident()) NIBBLE_RETURN_IF_ERROR(ir::RestoreFormat(parameter, schemes_[id], &pool));
    }
    return absl::OkStatus();
  }

 private:
  std::vector<QuantScheme> schemes_;  // by ParameterId
};

// Entries of R R^T - I that a rotation may have: the function stays only where it is one.
constexpr double kMostOrthogonalityError = 1e-3;

absl::Status CheckRotation(const ir::SquareMatrix& matrix, const std::string& name) {
  const double error = train::RotationParameter(matrix.size, matrix.values).OrthogonalityError();
  if (error <= kMostOrthogonalityError) return absl::OkStatus();  // and not NaN
  return absl::InvalidArgumentError(absl::StrCat(name, " is no rotation: an entry of R R^T - I is ", error));
}

// The matrices of a file that the options have on: R1, and R2 of every layer.
absl::StatusOr<train::LearnedRotations> ReadRotationsFor(const SpinquantOptions& options, const ir::Graph& graph, const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(train::LearnedRotations rotations, train::ReadRotations(path));
  if (!options.r1()) rotations.r1.reset();
  if (!options.r2()) rotations.r2.clear();
  if (options.r1() && !rotations.r1.has_value()) return absl::InvalidArgumentError(absl::StrCat(path, ": holds no R1; set r1: false"));
  if (options.r2() && static_cast<int>(rotations.r2.size()) != graph.num_layers()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": holds R2 of ", rotations.r2.size(), " layers, the model has ", graph.num_layers(),
                                                   rotations.r2.empty() ? "; set r2: false" : ""));
  }
  if (rotations.r1.has_value()) NIBBLE_RETURN_IF_ERROR(CheckRotation(*rotations.r1, path + ": R1"));
  for (size_t i = 0; i < rotations.r2.size(); ++i) NIBBLE_RETURN_IF_ERROR(CheckRotation(rotations.r2[i], absl::StrCat(path, ": R2 of layer ", i)));
  return rotations;
}

class SpinquantMethod : public Method {
 public:
  explicit SpinquantMethod(SpinquantOptions options) : options_(std::move(options)) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const SpinquantOptions& options) {
    if (options.has_r4_block() && options.r4_block() < 1) {
      return absl::InvalidArgumentError(absl::StrCat("r4_block: ", options.r4_block(), " must be 1 or more"));
    }
    if (options.has_r4_block() && !options.r4()) return absl::InvalidArgumentError("r4_block needs r4: true");
    if (!options.r1() && !options.r2() && !options.r3() && !options.r4()) {
      return absl::InvalidArgumentError("every rotation is off; leave one of r1, r2, r3, r4 on");
    }
    if (options.has_rotations() && !options.r1() && !options.r2()) {
      return absl::InvalidArgumentError("rotations: the file holds R1 and R2, and both are off");
    }
    if (options.has_rotations() && (options.has_start() || options.has_seed())) {
      return absl::InvalidArgumentError(absl::StrCat(options.has_start() ? "start" : "seed", ": of no use beside rotations, which come from the file"));
    }
    if (options.has_learn()) NIBBLE_RETURN_IF_ERROR(CheckLearning(options));
    return std::make_unique<SpinquantMethod>(options);
  }

  // Weights, what rotating and rounding makes of them, and gradients.
  LearningCost Learning() const override {
    if (!options_.has_learn()) return {};
    return TrainingCost(options_.learn().data().window(), options_.learn(), 3);
  }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    NIBBLE_RETURN_IF_ERROR(CheckGraph(graph));
    NIBBLE_RETURN_IF_ERROR(ir::UntieHead(graph));
    NIBBLE_ASSIGN_OR_RETURN(const FloatFormats formats, FloatFormats::Of(graph));
    NIBBLE_RETURN_IF_ERROR(ir::FoldNorms(graph));
    if (options_.r3()) NIBBLE_RETURN_IF_ERROR(ir::RotateQueriesAndKeys(graph));
    if (options_.r4()) NIBBLE_RETURN_IF_ERROR(RotateDownProjections(context, graph));
    NIBBLE_ASSIGN_OR_RETURN(train::LearnedRotations rotations, FirstRotations(context, graph));
    if (options_.has_learn()) {
      NIBBLE_ASSIGN_OR_RETURN(rotations, LearnRotations(context, options_, graph, rotations));
    }
    if (rotations.r1.has_value()) NIBBLE_RETURN_IF_ERROR(ir::RotateResidual(graph, *rotations.r1, context.pool()));
    for (size_t layer = 0; layer < rotations.r2.size(); ++layer) {
      NIBBLE_RETURN_IF_ERROR(ir::RotateValues(graph, static_cast<int>(layer), rotations.r2[layer], context.pool()));
    }
    return formats.Restore(graph, context.pool());
  }

 private:
  // What merging refuses, before a long learning and not after it.
  absl::Status CheckGraph(const ir::Graph& graph) const {
    NIBBLE_RETURN_IF_ERROR(ir::CheckNoAdapters(graph));
    for (const ir::Op& op : graph.ops()) {
      if (!op.weight.has_value() || !IsTouched(op)) continue;
      NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor weight, graph.parameter(*op.weight).Load());
      if (IsFloatFormat(weight.scheme)) continue;
      return absl::FailedPreconditionError(absl::StrCat(graph.parameter(*op.weight).name(), " is already quantized (", SchemeToString(weight.scheme),
                                                     "); rotate before quantizing"));
    }
    return absl::OkStatus();
  }

  // Norm gains fold into what reads norms; the rest is the rotations'.
  bool IsTouched(const ir::Op& op) const {
    if (options_.r1()) return true;
    if (op.kind == ir::OpKind::kEmbed) return false;
    if (absl::EndsWith(op.name, ".o_proj")) return options_.r2();
    return absl::EndsWith(op.name, ".down_proj") ? options_.r4() : true;
  }

  // Those of the file, or random ones.
  absl::StatusOr<train::LearnedRotations> FirstRotations(const Context& context, const ir::Graph& graph) const {
    if (options_.has_rotations()) return ReadRotationsFor(options_, graph, PathFrom(context.workplace().directory, options_.rotations()));
    train::LearnedRotations rotations;
    Rng seeds(options_.seed());
    const uint64_t first = seeds.Next();
    if (options_.r1()) {
      NIBBLE_ASSIGN_OR_RETURN(rotations.r1, Start(graph.hidden_size(), first, "r1"));
    }
    for (int layer = 0; options_.r2() && layer < graph.num_layers(); ++layer) {
      NIBBLE_ASSIGN_OR_RETURN(const ir::ValuePath path, ir::FindValuePath(graph, layer));
      NIBBLE_ASSIGN_OR_RETURN(ir::SquareMatrix r2, Start(path.head_dim, seeds.Next(), "r2"));
      rotations.r2.push_back(std::move(r2));
    }
    return rotations;
  }

  absl::StatusOr<ir::SquareMatrix> Start(int64_t size, uint64_t seed, const char* which) const {
    if (options_.start() == SpinquantOptions::RANDOM) return ir::RandomOrthogonal(size, seed);
    auto hadamard = ir::RandomHadamard(size, seed);
    if (!hadamard.ok()) return Annotate(hadamard.status(), absl::StrCat(which, " (start: RANDOM takes any size)"));
    return hadamard;
  }

  absl::Status RotateDownProjections(Context& context, ir::Graph& graph) const {
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<size_t> ops, ir::SelectOps(graph, {"*.down_proj"}));
    std::vector<ir::OnlineRotation> rotations;
    for (const size_t i : ops) {
      const ir::Op& op = graph.ops()[i];
      const int64_t width = graph.values()[op.inputs[0]].width, largest = Hadamard::LargestBlock(width);
      rotations.push_back({op.name, options_.has_r4_block() ? options_.r4_block() : largest});
      if (options_.has_r4_block() || largest == width) continue;
      context.CountEvent("spinquant.r4_in_blocks", 1,
                         absl::StrCat(op.name, ": no Hadamard matrix of order ", width, " is known here; blocks of ", largest, " columns instead"));
    }
    return Annotate(ir::RotateInputs(graph, rotations, context.pool()), "r4");
  }

  const SpinquantOptions options_;
};

const MethodRegistrar<SpinquantMethod> kRegistrar(spinquant);

}  // namespace
}  // namespace nibble
