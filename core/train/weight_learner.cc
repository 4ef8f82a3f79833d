#include "core/train/weight_learner.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/rng.h"
#include "core/base/status.h"
#include "core/io/safetensors.h"
#include "core/quant/format.h"
#include "core/train/fake_quantize.h"

namespace nibble::train {
namespace {

absl::Status ReadPart(const io::SafetensorsFile& file, const std::string& name, std::vector<float>* values) {
  NIBBLE_ASSIGN_OR_RETURN(const Tensor tensor, file.Get(name));
  if (!IsFloating(tensor.dtype()) || tensor.elements() != static_cast<int64_t>(values->size())) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": ", name, " has ", tensor.elements(), " elements of ", DTypeName(tensor.dtype()),
                                                   ", this training needs ", values->size(), " floating-point numbers"));
  }
  ReadFloats(io::Aligned(tensor), 0, absl::MakeSpan(*values));
  const auto bad = std::find_if(values->begin(), values->end(), [](float v) { return !std::isfinite(v); });
  if (bad == values->end()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(file.path(), ": ", name, "[", bad - values->begin(), "] is ", *bad,
                                                 ", so the file is damaged; remove it and train from the start"));
}

}  // namespace

bool CanLearnScales(const TrainedParameter& parameter) {
  return parameter.scheme.has_value() && CanLearnScales(*parameter.scheme);
}

absl::StatusOr<std::unique_ptr<WeightLearner>> WeightLearner::Create(const ir::Graph& graph, Machine machine, std::vector<TrainedParameter> trained,
                                                         const LearnerOptions& options) {
  std::unique_ptr<WeightLearner> learner(new WeightLearner(graph, machine, options));
  const size_t count = graph.parameters().size();
  ParameterArrays<float> arrays{std::vector<const float*>(count), std::vector<float*>(count)};
  learner->states_.reserve(trained.size());
  for (TrainedParameter& parameter : trained) {
    State state;
    const size_t n = parameter.master.size();
    state.parameter = std::move(parameter);
    state.gradient.resize(n);
    state.moments.first.resize(n);
    state.moments.second.resize(n);
    if (state.parameter.scheme.has_value()) state.decoded.resize(n);
    NIBBLE_RETURN_IF_ERROR(Annotate(learner->PrepareScales(state), graph.parameter(state.parameter.id).name()));
    learner->states_.push_back(std::move(state));
    const State& kept = learner->states_.back();
    arrays.values[kept.parameter.id] = kept.parameter.scheme.has_value() ? kept.decoded.data() : kept.parameter.master.data();
    arrays.gradients[kept.parameter.id] = learner->states_.back().gradient.data();
  }
  TapeOptions tape_options;
  tape_options.recompute_blocks = options.recompute_blocks;
  NIBBLE_RETURN_IF_ERROR(learner->Connect(std::move(arrays), tape_options));
  NIBBLE_RETURN_IF_ERROR(learner->Remake());
  return learner;
}

absl::Status WeightLearner::PrepareScales(State& state) {
  if (!state.learns_scales()) return absl::OkStatus();
  NIBBLE_RETURN_IF_ERROR(ChooseScales(state));
  state.scale_gradient.resize(state.log_scales.size());
  state.scale_moments.first.resize(state.log_scales.size());
  state.scale_moments.second.resize(state.log_scales.size());
  return absl::OkStatus();
}

absl::Status WeightLearner::ChooseScales(State& state) const {
  NIBBLE_ASSIGN_OR_RETURN(state.log_scales, FirstScales(*state.parameter.scheme, Rows(state), Cols(state), state.parameter.master));
  for (float& scale : state.log_scales) scale = std::log(scale);
  return absl::OkStatus();
}

std::vector<float> WeightLearner::ScalesOf(const State& state) {
  std::vector<float> scales;
  for (const float log_scale : state.log_scales) scales.push_back(std::exp(log_scale));
  return scales;
}

absl::Status WeightLearner::Remake() {
  for (State& state : states_) {
    if (!state.parameter.scheme.has_value()) continue;
    NIBBLE_RETURN_IF_ERROR(Annotate(RequantizeOne(state), name(state)));
  }
  return absl::OkStatus();
}

absl::Status WeightLearner::RequantizeOne(State& state) {
  const std::vector<float>& master = state.parameter.master;
  if (!quantizes()) {
    state.decoded = master;
    state.in_range.clear();
    // Learning them begins where the rule puts them when quantization does.
    return state.learns_scales() ? ChooseScales(state) : absl::OkStatus();
  }
  const int64_t cols = Cols(state), rows = Rows(state);
  const QuantScheme& scheme = *state.parameter.scheme;
  if (!state.learns_scales()) {
    return FakeQuantizeWeights(machine_, scheme, rows, cols, master.data(), state.decoded.data(), &state.in_range);
  }
  FakeQuantizeWithScales(machine_, scheme, rows, cols, master.data(), ScalesOf(state), state.decoded.data());
  return absl::OkStatus();
}

// Gradients of decoded weights become those of masters and scales.
void WeightLearner::PassThroughRounding() {
  for (State& state : states_) {
    if (state.learns_scales() && quantizes()) {
      LearnedScaleGradients(machine_, *state.parameter.scheme, Rows(state), Cols(state), state.parameter.master.data(), ScalesOf(state), state.gradient.data(),
                            absl::MakeSpan(state.scale_gradient));
    }
    MaskGradients(machine_, state.in_range, absl::MakeSpan(state.gradient));
  }
}

// The dice of an element are a function of the step and its place.
void WeightLearner::RoundMasters() {
  for (size_t s = 0; s < states_.size(); ++s) {
    std::vector<float>& master = states_[s].parameter.master;
    ForPieces(machine_.pool, static_cast<int64_t>(master.size()), 65536, [&](int64_t first, int64_t last, int) {
      Rng rng(Rng(static_cast<uint64_t>(step_)).Next() ^ Rng(s << 40 ^ static_cast<uint64_t>(first)).Next());
      for (int64_t i = first; i < last; ++i) {
        uint32_t bits;
        std::memcpy(&bits, &master[i], sizeof(bits));
        bits = (bits + static_cast<uint32_t>(rng.Next() & 0xFFFF)) & 0xFFFF0000u;
        std::memcpy(&master[i], &bits, sizeof(bits));
      }
    });
  }
}

absl::StatusOr<double> WeightLearner::Update(double rate, double gradient_scale) {
  PassThroughRounding();
  double squares = 0;
  for (const State& state : states_) squares += SumOfSquares(machine_, state.gradient) + SumOfSquares(machine_, state.scale_gradient);
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
    if (!state.learns_scales()) continue;
    AdamWUpdate(machine_, options_.adamw, step_, rate, 0.0, gradient_scale * clip, state.scale_gradient, &state.scale_moments,
                absl::MakeSpan(state.log_scales));
    std::fill(state.scale_gradient.begin(), state.scale_gradient.end(), 0.0f);
  }
  if (options_.bf16_masters) RoundMasters();
  NIBBLE_RETURN_IF_ERROR(Remake());
  return norm;
}

absl::StatusOr<EncodedTensor> WeightLearner::EncodeState(const State& state, const QuantScheme& scheme, const Shape& shape) const {
  if (!state.learns_scales()) return Encode(scheme, shape, state.parameter.master, &machine_.pool);
  NIBBLE_ASSIGN_OR_RETURN(const Format* format, FindFormat(scheme.format()));
  std::vector<Grid> grids;
  for (const float scale : ScalesOf(state)) grids.push_back(GridForScale(scheme, *format->integer_bits(), scale));
  return format->EncodeOnGrids(scheme, shape, state.parameter.master, grids, &machine_.pool);
}

absl::Status WeightLearner::Store(ir::Graph& target) const {
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
    auto encoded = EncodeState(state, scheme, parameter.shape());
    if (!encoded.ok()) return Annotate(encoded.status(), parameter.name());
    NIBBLE_RETURN_IF_ERROR(parameter.Replace(*std::move(encoded)));
  }
  return absl::OkStatus();
}

template <typename AnyState>
auto WeightLearner::ArraysOf(AnyState& state, bool masters_only) {
  std::vector<std::pair<std::string, decltype(&state.parameter.master)>> arrays = {{"", &state.parameter.master}};
  if (state.learns_scales()) arrays.emplace_back(".log_scales", &state.log_scales);
  if (masters_only) return arrays;
  arrays.emplace_back(".first_moment", &state.moments.first);
  arrays.emplace_back(".second_moment", &state.moments.second);
  if (!state.learns_scales()) return arrays;
  arrays.emplace_back(".log_scales.first_moment", &state.scale_moments.first);
  arrays.emplace_back(".log_scales.second_moment", &state.scale_moments.second);
  return arrays;
}

absl::Status WeightLearner::WriteArrays(const std::string& path, bool masters_only, const std::map<std::string, std::string>& metadata) const {
  std::vector<io::TensorSpec> specs;
  std::vector<const std::vector<float>*> contents;
  for (const State& state : states_) {
    for (const auto& [suffix, values] : ArraysOf(state, masters_only)) {
      // bf16 masters are on that grid, so nothing is lost by storing them so.
      const DType type = options_.bf16_masters && suffix.empty() ? DType::kBF16 : DType::kF32;
      specs.push_back({name(state) + suffix, type, {static_cast<int64_t>(values->size())}});
      contents.push_back(values);
    }
  }
  NIBBLE_ASSIGN_OR_RETURN(auto writer, io::SafetensorsWriter::Create(path, specs, metadata));
  for (size_t i = 0; i < specs.size(); ++i) {
    NIBBLE_RETURN_IF_ERROR(writer->Write(specs[i].name, FloatsToDType(specs[i].dtype, specs[i].shape, *contents[i])));
  }
  return writer->Finish();
}

absl::Status WeightLearner::ReadArrays(const io::SafetensorsFile& file, bool masters_only) {
  size_t expected = 0;
  for (State& state : states_) expected += ArraysOf(state, masters_only).size();
  if (file.names().size() != expected) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": holds ", file.names().size(), " tensors, this training has ", expected));
  }
  for (State& state : states_) {
    for (const auto& [suffix, values] : ArraysOf(state, masters_only)) {
      NIBBLE_RETURN_IF_ERROR(ReadPart(file, name(state) + suffix, values));
    }
  }
  return absl::OkStatus();
}

absl::Status WeightLearner::Save(const std::string& path, const std::string& note) const {
  return WriteArrays(path, /*masters_only=*/false, CheckpointMetadata(note));
}

absl::StatusOr<std::string> WeightLearner::Restore(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const auto file, io::SafetensorsFile::Open(path));
  NIBBLE_ASSIGN_OR_RETURN(Position position, ReadPosition(*file));
  NIBBLE_RETURN_IF_ERROR(ReadArrays(*file, /*masters_only=*/false));
  step_ = position.step;
  NIBBLE_RETURN_IF_ERROR(Remake());
  return std::move(position.note);
}

absl::Status WeightLearner::SaveMasters(const std::string& path) const { return WriteArrays(path, /*masters_only=*/true, {}); }

absl::Status WeightLearner::LoadMasters(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const auto file, io::SafetensorsFile::Open(path));
  NIBBLE_RETURN_IF_ERROR(ReadArrays(*file, /*masters_only=*/true));
  return Remake();
}

}  // namespace nibble::train
