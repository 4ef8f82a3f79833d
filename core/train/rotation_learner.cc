#include "core/train/rotation_learner.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status.h"
#include "core/io/safetensors.h"
#include "core/train/fake_quantize.h"

namespace nibble::train {
namespace {

constexpr char kR1[] = "R1";
constexpr char kMomentum[] = ".momentum";

std::string R2Name(size_t layer) { return absl::StrCat("model.layers.", layer, ".self_attn.R2"); }

Tensor MatrixTensor(int64_t size, const std::vector<double>& values) {
  Tensor tensor = Tensor::Zeros(DType::kF64, {size, size});
  std::copy(values.begin(), values.end(), tensor.mutable_as<double>().begin());
  return tensor;
}

absl::Status WriteMatrices(const std::string& path, const std::vector<std::pair<std::string, ir::SquareMatrix>>& matrices,
                           const std::map<std::string, std::string>& metadata) {
  std::vector<io::TensorSpec> specs;
  for (const auto& [name, matrix] : matrices) specs.push_back({name, DType::kF64, {matrix.size, matrix.size}});
  NIBBLE_ASSIGN_OR_RETURN(auto writer, io::SafetensorsWriter::Create(path, specs, metadata));
  for (const auto& [name, matrix] : matrices) NIBBLE_RETURN_IF_ERROR(writer->Write(name, MatrixTensor(matrix.size, matrix.values)));
  return writer->Finish();
}

absl::StatusOr<ir::SquareMatrix> ReadMatrix(const io::SafetensorsFile& file, const std::string& name) {
  NIBBLE_ASSIGN_OR_RETURN(const Tensor stored, file.Get(name));
  const Shape& shape = stored.shape();
  if (shape.size() != 2 || shape[0] != shape[1] || stored.dtype() != DType::kF64) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": ", name, " is ", DTypeName(stored.dtype()), " ", ShapeToString(shape),
                                                   ", expected a square matrix of F64"));
  }
  const Tensor tensor = io::Aligned(stored);
  return ir::SquareMatrix{shape[0], {tensor.as<double>().begin(), tensor.as<double>().end()}};
}

}  // namespace

absl::Status WriteRotations(const std::string& path, const LearnedRotations& rotations) {
  std::vector<std::pair<std::string, ir::SquareMatrix>> matrices;
  if (rotations.r1.has_value()) matrices.emplace_back(kR1, *rotations.r1);
  for (size_t layer = 0; layer < rotations.r2.size(); ++layer) matrices.emplace_back(R2Name(layer), rotations.r2[layer]);
  return WriteMatrices(path, matrices, {});
}

absl::StatusOr<LearnedRotations> ReadRotations(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const auto file, io::SafetensorsFile::Open(path));
  const std::vector<std::string> names = file->names();
  const auto has = [&](const std::string& name) { return std::find(names.begin(), names.end(), name) != names.end(); };
  LearnedRotations rotations;
  if (has(kR1)) {
    NIBBLE_ASSIGN_OR_RETURN(rotations.r1, ReadMatrix(*file, kR1));
  }
  while (has(R2Name(rotations.r2.size()))) {
    NIBBLE_ASSIGN_OR_RETURN(ir::SquareMatrix r2, ReadMatrix(*file, R2Name(rotations.r2.size())));
    rotations.r2.push_back(std::move(r2));
  }
  if (names.size() != rotations.r2.size() + rotations.r1.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": expected R1 and model.layers.<i>.self_attn.R2 of each layer, found other tensors"));
  }
  return rotations;
}

absl::StatusOr<std::unique_ptr<RotationLearner>> RotationLearner::Create(const ir::Graph& graph, const ir::Graph& base, Machine machine,
                                                                         const LearnedRotations& start, const RotationOptions& options) {
  std::unique_ptr<RotationLearner> learner(new RotationLearner(graph, machine, options));
  const auto add = [&](const ir::SquareMatrix& matrix) {
    learner->rotations_.emplace_back(matrix.size, matrix.values);
    learner->gradients_.emplace_back(matrix.values.size());
    return learner->rotations_.size() - 1;
  };
  if (start.r1.has_value()) learner->r1_ = add(*start.r1);
  learner->r2_.resize(graph.num_layers());
  for (size_t layer = 0; layer < start.r2.size(); ++layer) learner->r2_.at(layer) = add(start.r2[layer]);
  learner->TakeFloats();
  NIBBLE_RETURN_IF_ERROR(learner->AddWeights(base));
  ParameterArrays<float> arrays{std::vector<const float*>(graph.parameters().size()), std::vector<float*>(graph.parameters().size())};
  for (Merged& merged : learner->merged_) {
    arrays.values[merged.id] = merged.effective.data();
    arrays.gradients[merged.id] = merged.gradient.data();
  }
  TapeOptions tape_options;
  tape_options.recompute_blocks = options.recompute_blocks;
  NIBBLE_RETURN_IF_ERROR(learner->Connect(std::move(arrays), tape_options));
  NIBBLE_RETURN_IF_ERROR(learner->Remake());
  return learner;
}

absl::Status RotationLearner::AddWeights(const ir::Graph& base) {
  NIBBLE_ASSIGN_OR_RETURN(const ir::ResidualLinears linears, ir::FindResidualLinears(base));
  std::map<ir::ParameterId, std::pair<std::optional<size_t>, std::optional<size_t>>> sides;  // left and right
  if (r1_.has_value()) {
    sides[*base.embedding().weight].second = r1_;
    sides[*base.head().weight].second = r1_;
    for (const size_t i : linears.readers) sides[*base.ops()[i].weight].second = r1_;
    for (const size_t i : linears.writers) sides[*base.ops()[i].weight].first = r1_;
  }
  for (int layer = 0; layer < base.num_layers(); ++layer) {
    if (!r2_[layer].has_value()) continue;
    NIBBLE_ASSIGN_OR_RETURN(const ir::ValuePath path, ir::FindValuePath(base, layer));
    sides[*base.ops()[path.v_proj].weight].first = r2_[layer];
    sides[*base.ops()[path.o_proj].weight].second = r2_[layer];
  }
  merged_.reserve(sides.size());
  for (const auto& [id, side] : sides) NIBBLE_RETURN_IF_ERROR(AddWeight(base, id, side.first, side.second));
  return absl::OkStatus();
}

absl::Status RotationLearner::AddWeight(const ir::Graph& base, ir::ParameterId id, std::optional<size_t> left, std::optional<size_t> right) {
  Merged merged;
  merged.id = id;
  merged.left = left;
  merged.right = right;
  const ir::Parameter& parameter = base.parameter(id);
  NIBBLE_ASSIGN_OR_RETURN(merged.weight, parameter.LoadFloats());
  merged.rows = parameter.shape()[0];
  merged.cols = parameter.shape()[1];
  NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor student, graph_.parameter(id).Load());
  if (!IsFloatFormat(student.scheme)) merged.scheme = student.scheme;
  merged.effective.resize(merged.weight.size());
  merged.gradient.resize(merged.weight.size());
  for (const auto& [rotation, width] : {std::pair(left, merged.rows), std::pair(right, merged.cols)}) {
    if (!rotation.has_value() || width % rotations_[*rotation].size() == 0) continue;
    return absl::InvalidArgumentError(absl::StrCat(parameter.name(), ": a rotation of order ", rotations_[*rotation].size(), " does not divide ", width));
  }
  merged_.push_back(std::move(merged));
  return absl::OkStatus();
}

void RotationLearner::TakeFloats() {
  floats_.clear();
  for (const RotationParameter& rotation : rotations_) floats_.emplace_back(rotation.value().begin(), rotation.value().end());
}

// W R over runs of columns.
absl::Span<const float> RotationLearner::TimesRight(const Merged& merged, absl::Span<const float> weight, std::vector<float>* product) const {
  if (!merged.right.has_value()) return weight;
  const int64_t size = rotations_[*merged.right].size();
  product->resize(weight.size());
  Multiply(machine_, {false, false, static_cast<int64_t>(weight.size()) / size, size, size}, weight.data(), floats_[*merged.right].data(), false,
           product->data());
  return *product;
}

// L^T W over runs of rows.
absl::Span<const float> RotationLearner::TimesLeft(const Merged& merged, absl::Span<const float> weight, std::vector<float>* product) const {
  if (!merged.left.has_value()) return weight;
  const int64_t size = rotations_[*merged.left].size();
  product->resize(weight.size());
  for (int64_t row = 0; row < merged.rows; row += size) {
    Multiply(machine_, {true, false, size, merged.cols, size}, floats_[*merged.left].data(), weight.data() + row * merged.cols, false,
             product->data() + row * merged.cols);
  }
  return *product;
}

absl::Status RotationLearner::Remake() {
  std::vector<float> right, left;
  for (Merged& merged : merged_) {
    const absl::Span<const float> rotated = TimesLeft(merged, TimesRight(merged, merged.weight, &right), &left);
    merged.in_range.clear();
    if (!quantizes() || !merged.scheme.has_value()) {
      std::copy(rotated.begin(), rotated.end(), merged.effective.begin());
      continue;
    }
    NIBBLE_RETURN_IF_ERROR(Annotate(FakeQuantizeWeights(machine_, *merged.scheme, merged.rows, merged.cols, rotated.data(),
                                                        merged.effective.data(), &merged.in_range),
                                    graph_.parameter(merged.id).name()));
  }
  return absl::OkStatus();
}

void RotationLearner::AddGradients(Merged& merged) {
  MaskGradients(machine_, merged.in_range, absl::MakeSpan(merged.gradient));
  std::vector<float> product;
  const auto add = [&](size_t rotation, const std::vector<float>& part) {
    std::vector<double>& sum = gradients_[rotation];
    for (size_t i = 0; i < part.size(); ++i) sum[i] += static_cast<double>(part[i]);
  };
  if (merged.right.has_value()) {
    const int64_t size = rotations_[*merged.right].size();
    const absl::Span<const float> before = TimesLeft(merged, merged.weight, &product);
    std::vector<float> part(size * size);
    Multiply(machine_, {true, false, size, size, static_cast<int64_t>(before.size()) / size}, before.data(), merged.gradient.data(), false, part.data());
    add(*merged.right, part);
  }
  if (merged.left.has_value()) {
    const int64_t size = rotations_[*merged.left].size();
    const absl::Span<const float> before = TimesRight(merged, merged.weight, &product);
    std::vector<float> part(size * size);
    for (int64_t row = 0; row < merged.rows; row += size) {
      const int64_t at = row * merged.cols;
      Multiply(machine_, {false, true, size, size, merged.cols}, before.data() + at, merged.gradient.data() + at, row > 0, part.data());
    }
    add(*merged.left, part);
  }
  std::fill(merged.gradient.begin(), merged.gradient.end(), 0.0f);
}

absl::StatusOr<double> RotationLearner::Update(double rate, double gradient_scale) {
  for (std::vector<double>& gradient : gradients_) std::fill(gradient.begin(), gradient.end(), 0.0);
  for (Merged& merged : merged_) AddGradients(merged);
  double squares = 0;
  for (std::vector<double>& gradient : gradients_) {
    for (double& g : gradient) {
      g *= gradient_scale;
      squares += g * g;
    }
  }
  if (!std::isfinite(squares)) return absl::OutOfRangeError(absl::StrCat("the gradient of step ", step_ + 1, " is not finite"));
  ++step_;
  for (size_t i = 0; i < rotations_.size(); ++i) {
    const CayleyStep step = rotations_[i].Update(gradients_[i], rate, options_.cayley);
    if (i == 0) last_step_ = step;
    if (options_.orthogonalize_every > 0 && step_ % options_.orthogonalize_every == 0) rotations_[i].Orthogonalize();
  }
  TakeFloats();
  NIBBLE_RETURN_IF_ERROR(Remake());
  return std::sqrt(squares);
}

LearnedRotations RotationLearner::rotations() const {
  const auto matrix = [&](size_t i) { return ir::SquareMatrix{rotations_[i].size(), rotations_[i].value()}; };
  LearnedRotations rotations;
  if (r1_.has_value()) rotations.r1 = matrix(*r1_);
  for (const std::optional<size_t>& r2 : r2_) {
    if (r2.has_value()) rotations.r2.push_back(matrix(*r2));
  }
  return rotations;
}

double RotationLearner::OrthogonalityError() const {
  double worst = 0;
  for (const RotationParameter& rotation : rotations_) worst = std::max(worst, rotation.OrthogonalityError());
  return worst;
}

std::string RotationLearner::NameOf(size_t rotation) const {
  if (r1_ == rotation) return kR1;
  return R2Name(std::find(r2_.begin(), r2_.end(), rotation) - r2_.begin());
}

absl::Status RotationLearner::Save(const std::string& path, const std::string& note) const {
  std::vector<std::pair<std::string, ir::SquareMatrix>> matrices;
  for (size_t i = 0; i < rotations_.size(); ++i) {
    matrices.emplace_back(NameOf(i), ir::SquareMatrix{rotations_[i].size(), rotations_[i].value()});
    matrices.emplace_back(NameOf(i) + kMomentum, ir::SquareMatrix{rotations_[i].size(), rotations_[i].momentum()});
  }
  return WriteMatrices(path, matrices, CheckpointMetadata(note));
}

absl::StatusOr<std::string> RotationLearner::Restore(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const auto file, io::SafetensorsFile::Open(path));
  NIBBLE_ASSIGN_OR_RETURN(Position position, ReadPosition(*file));
  for (size_t i = 0; i < rotations_.size(); ++i) {
    NIBBLE_ASSIGN_OR_RETURN(ir::SquareMatrix value, ReadMatrix(*file, NameOf(i)));
    NIBBLE_ASSIGN_OR_RETURN(ir::SquareMatrix momentum, ReadMatrix(*file, NameOf(i) + kMomentum));
    if (value.size != rotations_[i].size() || momentum.size != rotations_[i].size()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", NameOf(i), " is of order ", value.size, ", expected ", rotations_[i].size()));
    }
    rotations_[i].Restore(std::move(value.values), std::move(momentum.values));
  }
  step_ = position.step;
  TakeFloats();
  NIBBLE_RETURN_IF_ERROR(Remake());
  return std::move(position.note);
}

}  // namespace nibble::train
