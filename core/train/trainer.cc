#include "core/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "core/base/file.h"
#include "core/base/progress.h"
#include "core/base/status.h"

namespace nibble::train {
namespace {

using Clock = std::chrono::steady_clock;
constexpr char kHeader[] = "step,loss,learning_rate,gradient_norm,tokens,seconds,accuracy";

double Seconds(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::string ToCsv(const std::vector<StepRecord>& steps) {
  std::string text = absl::StrCat(kHeader, "\n");
  for (const StepRecord& s : steps) {
    absl::StrAppendFormat(&text, "%d,%.17g,%.9g,%.9g,%d,%.3f,%.6g\n", s.step, s.loss, s.rate, s.gradient_norm, s.tokens, s.seconds, s.accuracy);
  }
  return text;
}

absl::StatusOr<StepRecord> ParseLine(absl::string_view line) {
  const std::vector<absl::string_view> fields = absl::StrSplit(line, ',');
  StepRecord s;
  if (fields.size() != 7 || !absl::SimpleAtoi(fields[0], &s.step) || !absl::SimpleAtod(fields[1], &s.loss) ||
      !absl::SimpleAtod(fields[2], &s.rate) || !absl::SimpleAtod(fields[3], &s.gradient_norm) || !absl::SimpleAtoi(fields[4], &s.tokens) ||
      !absl::SimpleAtod(fields[5], &s.seconds) || !absl::SimpleAtod(fields[6], &s.accuracy)) {
    return absl::InvalidArgumentError(absl::StrCat("expected seven numbers (", kHeader, "), got '", line, "'"));
  }
  return s;
}

double MeanLoss(const std::vector<StepRecord>& steps, size_t first, size_t count) {
  double sum = 0;
  for (size_t i = first; i < first + count; ++i) sum += steps[i].loss;
  return count == 0 ? 0 : sum / static_cast<double>(count);
}

class Loop {
 public:
  Loop(Learner& learner, Objective& objective, const TrainerOptions& options) : learner_(learner), objective_(objective), options_(options) {}

  absl::StatusOr<Training> Run() {
    NIBBLE_RETURN_IF_ERROR(Resume());
    const int64_t total = options_.schedule.steps, began = learner_.step();
    Progress progress(options_.label, total, began);
    Clock::time_point saved = Clock::now();
    while (learner_.step() < total) {
      NIBBLE_RETURN_IF_ERROR(Step());
      progress.Update(learner_.step(), Note());
      if (options_.stop_after > 0 && learner_.step() - began >= options_.stop_after) break;
      if (Seconds(saved) < options_.checkpoint_seconds) continue;
      NIBBLE_RETURN_IF_ERROR(Save());
      saved = Clock::now();
    }
    training_.finished = learner_.step() >= total;
    NIBBLE_RETURN_IF_ERROR(Save());
    return std::move(training_);
  }

 private:
  std::string checkpoint() const { return CheckpointPath(options_.folder); }
  std::string log() const { return LogPath(options_.folder); }

  absl::Status Resume() {
    if (options_.folder.empty()) return absl::OkStatus();
    NIBBLE_RETURN_IF_ERROR(MakeDirectories(options_.folder));
    if (!FileExists(checkpoint())) return absl::OkStatus();
    NIBBLE_ASSIGN_OR_RETURN(const std::string identity, learner_.Restore(checkpoint()));
    if (identity != options_.identity) {
      return absl::FailedPreconditionError(absl::StrCat(checkpoint(), " belongs to another training; remove the folder or choose another"));
    }
    NIBBLE_ASSIGN_OR_RETURN(training_.steps, ReadStepLog(log()));
    // The log may be ahead of the checkpoint or, written after it, behind.
    if (static_cast<int64_t>(training_.steps.size()) < learner_.step()) {
      return absl::DataLossError(absl::StrCat(log(), " ends before its checkpoint, which is at step ", learner_.step()));
    }
    training_.steps.resize(learner_.step());
    std::fprintf(stderr, "%s: going on after step %lld of %lld\n", options_.label.c_str(), static_cast<long long>(learner_.step()),
                 static_cast<long long>(options_.schedule.steps));
    return absl::OkStatus();
  }

  absl::Status Step() {
    const Clock::time_point start = Clock::now();
    const int64_t step = learner_.step() + 1;
    NIBBLE_RETURN_IF_ERROR(learner_.SetFakeQuantization(step > options_.quantize_after));
    NIBBLE_ASSIGN_OR_RETURN(const Observation seen, objective_.Accumulate(learner_, step));
    if (!std::isfinite(seen.loss)) {
      return absl::OutOfRangeError(absl::StrCat("the loss of step ", step, " is not finite; lower the learning rate"));
    }
    StepRecord record;
    record.step = step;
    record.loss = seen.loss;
    record.tokens = seen.tokens;
    record.accuracy = seen.accuracy;
    record.rate = options_.schedule.Rate(step);
    NIBBLE_ASSIGN_OR_RETURN(record.gradient_norm, learner_.Update(record.rate, 1.0));
    record.seconds = Seconds(start);
    training_.steps.push_back(record);
    return absl::OkStatus();
  }

  std::string Note() const {
    const StepRecord& last = training_.steps.back();
    std::string note = absl::StrFormat("loss %.4f, %.0f tokens/s", last.loss, static_cast<double>(last.tokens) / last.seconds);
    if (last.accuracy >= 0) absl::StrAppendFormat(&note, ", accuracy %.2f", last.accuracy);
    return note;
  }

  absl::Status Save() const {
    if (options_.folder.empty()) return absl::OkStatus();
    // The log first: a resumed run needs at least the checkpoint's steps.
    NIBBLE_RETURN_IF_ERROR(WriteFile(log(), ToCsv(training_.steps)));
    return learner_.Save(checkpoint(), options_.identity);
  }

  Learner& learner_;
  Objective& objective_;
  const TrainerOptions& options_;
  Training training_;
};

}  // namespace

std::string CheckpointPath(const std::string& folder) { return folder + "/checkpoint.safetensors"; }

std::string LogPath(const std::string& folder) { return folder + "/steps.csv"; }

int64_t Training::tokens() const {
  int64_t sum = 0;
  for (const StepRecord& s : steps) sum += s.tokens;
  return sum;
}

double Training::seconds() const {
  double sum = 0;
  for (const StepRecord& s : steps) sum += s.seconds;
  return sum;
}

double Training::first_loss() const { return MeanLoss(steps, 0, (steps.size() + 9) / 10); }

double Training::last_loss() const {
  const size_t count = (steps.size() + 9) / 10;
  return MeanLoss(steps, steps.size() - count, count);
}

absl::StatusOr<Training> Train(Learner& learner, Objective& objective, const TrainerOptions& options) {
  return Loop(learner, objective, options).Run();
}

absl::StatusOr<std::vector<StepRecord>> ReadStepLog(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  std::vector<StepRecord> steps;
  int64_t number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (line.empty() || number == 1) continue;
    auto record = ParseLine(line);
    if (!record.ok()) return Annotate(record.status(), absl::StrCat(path, ":", number));
    steps.push_back(*record);
  }
  return steps;
}

}  // namespace nibble::train
