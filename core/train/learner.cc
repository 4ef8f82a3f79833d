#include "core/train/learner.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/io/safetensors.h"

namespace nibble::train {
namespace {

constexpr char kStepKey[] = "nibble.step";
constexpr char kNoteKey[] = "nibble.note";

}  // namespace

absl::Status Learner::Connect(ParameterArrays<float> arrays, const TapeOptions& options) {
  frozen_.resize(graph_.parameters().size());
  for (size_t id = 0; id < graph_.parameters().size(); ++id) {
    if (arrays.values[id] != nullptr || graph_.Users(static_cast<ir::ParameterId>(id)).empty()) continue;
    NIBBLE_ASSIGN_OR_RETURN(frozen_[id], graph_.parameter(static_cast<ir::ParameterId>(id)).LoadFloats());
    arrays.values[id] = frozen_[id].data();
  }
  NIBBLE_ASSIGN_OR_RETURN(tape_, Tape<float>::Create(graph_, machine_, arrays, options));
  head_ = std::make_unique<Head<float>>(graph_, machine_, arrays);
  return absl::OkStatus();
}

absl::Status Learner::SetFakeQuantization(bool on) {
  if (on == quantizes_) return absl::OkStatus();
  quantizes_ = on;
  tape_->set_quantize_activations(on);
  head_->set_quantize_activations(on);
  return Remake();
}

std::map<std::string, std::string> Learner::CheckpointMetadata(const std::string& note) const {
  return {{kStepKey, absl::StrCat(step_)}, {kNoteKey, note}};
}

absl::StatusOr<Learner::Position> Learner::ReadPosition(const io::SafetensorsFile& file) {
  const auto step = file.metadata().find(kStepKey);
  const auto note = file.metadata().find(kNoteKey);
  Position position;
  if (step == file.metadata().end() || note == file.metadata().end() || !absl::SimpleAtoi(step->second, &position.step) || position.step < 0) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": is no checkpoint of a training (no ", kStepKey, " in its metadata)"));
  }
  position.note = note->second;
  return position;
}

}  // namespace nibble::train
