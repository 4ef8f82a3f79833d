#include "core/train/learner.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/status.h"
#include "core/io/safetensors.h"
#include "core/train/fake_quantize.h"

namespace nibble::train {
namespace {

constexpr char kStepKey[] = "nibble.step";
constexpr char kNoteKey[] = "nibble.note";


absl::Status ReadPart(const io::SafetensorsFile& file, const std::string& name, std::vector<float>* values) {
  NIBBLE_ASSIGN_OR_RETURN(Tensor tensor, file.Get(name));
  if (tensor.dtype() != DType::kF32 || tensor.elements() != static_cast<int64_t>(values->size())) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": ", name, " has ", tensor.elements(), " elements, this training needs ",
                                                   values->size(), " of fp32"));
  }
  tensor = io::Aligned(std::move(tensor));
  std::copy_n(tensor.as<float>().data(), values->size(), values->data());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Learner>> Learner::Create(const ir::Graph& graph, Machine machine, std::vector<TrainedParameter> trained,
                                                         const LearnerOptions& options) {
  std::unique_ptr<Learner> learner(new Learner(graph, machine, options));
  const size_t count = graph.parameters().size();
  ParameterArrays<float> arrays{std::vector<const float*>(count), std::vector<float*>(count)};
  learner->frozen_.resize(count);
  learner->states_.reserve(trained.size());
  for (TrainedParameter& parameter : trained) {
    State state;
    const size_t n = parameter.master.size();
    state.parameter = std::move(parameter);
    state.gradient.resize(n);
    state.moments.first.resize(n);
    state.moments.second.resize(n);
    if (state.parameter.scheme.has_value()) state.decoded.resize(n);
    learner->states_.push_back(std::move(state));
    const State& kept = learner->states_.back();
    arrays.values[kept.parameter.id] = kept.parameter.scheme.has_value() ? kept.decoded.data() : kept.parameter.master.data();
    arrays.gradients[kept.parameter.id] = learner->states_.back().gradient.data();
  }
  for (size_t id = 0; id < count; ++id) {
    const ir::Parameter& parameter = graph.parameter(static_cast<ir::ParameterId>(id));
    if (arrays.values[id] != nullptr || graph.Users(static_cast<ir::ParameterId>(id)).empty()) continue;
    NIBBLE_ASSIGN_OR_RETURN(learner->frozen_[id], parameter.LoadFloats());
    arrays.values[id] = learner->frozen_[id].data();
  }
  TapeOptions tape_options;
  tape_options.recompute_blocks = options.recompute_blocks;
  NIBBLE_ASSIGN_OR_RETURN(learner->tape_, Tape<float>::Create(graph, machine, arrays, tape_options));
  learner->head_ = std::make_unique<Head<float>>(graph, machine, arrays);
  NIBBLE_RETURN_IF_ERROR(learner->Requantize());
  return learner;
}

int64_t Learner::trained_elements() const {
  int64_t count = 0;
  for (const State& state : states_) count += static_cast<int64_t>(state.parameter.master.size());
  return count;
}

absl::Status Learner::SetFakeQuantization(bool on) {
  if (on == quantizes_) return absl::OkStatus();
  quantizes_ = on;
  tape_->set_quantize_activations(on);
  head_->set_quantize_activations(on);
  return Requantize();
}

absl::Status Learner::Requantize() {
  for (State& state : states_) {
    if (!state.parameter.scheme.has_value()) continue;
    const std::vector<float>& master = state.parameter.master;
    if (!quantizes_) {
      state.decoded = master;
      state.in_range.clear();
      continue;
    }
    const Shape& shape = graph_.parameter(state.parameter.id).shape();
    const int64_t cols = shape.back(), rows = static_cast<int64_t>(master.size()) / cols;
    NIBBLE_RETURN_IF_ERROR(Annotate(
        FakeQuantizeWeights(machine_, *state.parameter.scheme, rows, cols, master.data(), state.decoded.data(), &state.in_range), name(state)));
  }
  return absl::OkStatus();
}

void Learner::MaskGradients() {
  for (State& state : states_) {
    if (state.in_range.empty()) continue;
    ForPieces(machine_.pool, static_cast<int64_t>(state.gradient.size()), 65536, [&](int64_t first, int64_t last, int) {
      for (int64_t i = first; i < last; ++i) state.gradient[i] = state.in_range[i] != 0 ? state.gradient[i] : 0.0f;
    });
  }
}

absl::StatusOr<double> Learner::Update(double rate, double gradient_scale) {
  MaskGradients();
  double squares = 0;
  for (const State& state : states_) squares += SumOfSquares(machine_, state.gradient);
  const double norm = std::sqrt(squares) * gradient_scale;
  if (!std::isfinite(norm)) {
    return absl::OutOfRangeError(absl::StrCat("the gradient of step ", step_ + 1, " is not finite; lower the learning rate"));
  }
  const double clip = options_.clip_norm > 0 && norm > options_.clip_norm ? options_.clip_norm / norm : 1.0;
  ++step_;
  for (State& state : states_) {
    const bool matrix = graph_.parameter(state.parameter.id).shape().size() > 1;
    AdamWUpdate(machine_, options_.adamw, step_, rate, matrix ? options_.weight_decay : 0.0, gradient_scale * clip, state.gradient,
                &state.moments, absl::MakeSpan(state.parameter.master));
    std::fill(state.gradient.begin(), state.gradient.end(), 0.0f);
  }
  NIBBLE_RETURN_IF_ERROR(Requantize());
  return norm;
}

absl::Status Learner::Store(ir::Graph& target) const {
  for (const State& state : states_) {
    ir::Parameter& parameter = target.mutable_parameter(state.parameter.id);
    NIBBLE_CHECK(parameter.name() == name(state));
    QuantScheme scheme;
    if (state.parameter.scheme.has_value()) {
      scheme = *state.parameter.scheme;
    } else {
      NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor before, parameter.Load());
      scheme = before.scheme;
    }
    auto encoded = Encode(scheme, parameter.shape(), state.parameter.master, &machine_.pool);
    if (!encoded.ok()) return Annotate(encoded.status(), parameter.name());
    NIBBLE_RETURN_IF_ERROR(parameter.Replace(*std::move(encoded)));
  }
  return absl::OkStatus();
}

absl::Status Learner::Save(const std::string& path, const std::string& note) const {
  std::vector<io::TensorSpec> specs;
  for (const State& state : states_) {
    const Shape shape = {static_cast<int64_t>(state.parameter.master.size())};
    for (const char* suffix : {"", ".first_moment", ".second_moment"}) specs.push_back({name(state) + suffix, DType::kF32, shape});
  }
  NIBBLE_ASSIGN_OR_RETURN(auto writer, io::SafetensorsWriter::Create(path, specs, {{kStepKey, absl::StrCat(step_)}, {kNoteKey, note}}));
  for (const State& state : states_) {
    const auto write = [&](const char* suffix, const std::vector<float>& values) {
      return writer->Write(name(state) + suffix, Tensor::FromFloats({static_cast<int64_t>(values.size())}, values));
    };
    NIBBLE_RETURN_IF_ERROR(write("", state.parameter.master));
    NIBBLE_RETURN_IF_ERROR(write(".first_moment", state.moments.first));
    NIBBLE_RETURN_IF_ERROR(write(".second_moment", state.moments.second));
  }
  return writer->Finish();
}

absl::StatusOr<std::string> Learner::Restore(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const auto file, io::SafetensorsFile::Open(path));
  const auto step = file->metadata().find(kStepKey);
  const auto note = file->metadata().find(kNoteKey);
  int64_t at = 0;
  if (step == file->metadata().end() || note == file->metadata().end() || !absl::SimpleAtoi(step->second, &at) || at < 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is no checkpoint of a training (no ", kStepKey, " in its metadata)"));
  }
  if (file->names().size() != 3 * states_.size()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": holds ", file->names().size() / 3, " parameters, this training has ", states_.size()));
  }
  for (State& state : states_) {
    NIBBLE_RETURN_IF_ERROR(ReadPart(*file, name(state), &state.parameter.master));
    NIBBLE_RETURN_IF_ERROR(ReadPart(*file, name(state) + ".first_moment", &state.moments.first));
    NIBBLE_RETURN_IF_ERROR(ReadPart(*file, name(state) + ".second_moment", &state.moments.second));
  }
  step_ = at;
  NIBBLE_RETURN_IF_ERROR(Requantize());
  return note->second;
}

absl::Status Learner::SaveMasters(const std::string& path) const {
  std::vector<io::TensorSpec> specs;
  for (const State& state : states_) specs.push_back({name(state), DType::kF32, graph_.parameter(state.parameter.id).shape()});
  NIBBLE_ASSIGN_OR_RETURN(auto writer, io::SafetensorsWriter::Create(path, specs, {}));
  for (const State& state : states_) {
    const Shape& shape = graph_.parameter(state.parameter.id).shape();
    NIBBLE_RETURN_IF_ERROR(writer->Write(name(state), Tensor::FromFloats(shape, state.parameter.master)));
  }
  return writer->Finish();
}

absl::Status Learner::LoadMasters(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const auto file, io::SafetensorsFile::Open(path));
  for (State& state : states_) NIBBLE_RETURN_IF_ERROR(ReadPart(*file, name(state), &state.parameter.master));
  return Requantize();
}

}  // namespace nibble::train
