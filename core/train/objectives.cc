#include "core/train/objectives.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/progress.h"
#include "core/base/status.h"

namespace nibble::train {
namespace {

// Sequences that pass through the model together, and what is predicted where.
struct Packed {
  TokenBatch batch;
  std::vector<int64_t> positions;  // of the tokens before the learned ones
  std::vector<int32_t> targets;
  std::vector<int64_t> ends;       // targets of sequence i end at ends[i]
};

void Pack(const Sequences& sequences, int64_t i, Packed* packed) {
  const auto tokens = sequences.tokens(i);
  const auto learned = sequences.learned(i);
  const int64_t first = packed->batch.size();
  for (size_t t = 1; t < tokens.size(); ++t) {
    if (learned[t] == 0) continue;
    packed->positions.push_back(first + static_cast<int64_t>(t) - 1);
    packed->targets.push_back(tokens[t]);
  }
  packed->batch.Append(tokens);
  packed->ends.push_back(static_cast<int64_t>(packed->targets.size()));
}

// Consecutive groups of `order` whose tokens fit `micro_tokens`.
std::vector<Packed> PackAll(const Sequences& sequences, absl::Span<const int64_t> order, int64_t micro_tokens) {
  std::vector<Packed> parts;
  for (const int64_t i : order) {
    const int64_t length = static_cast<int64_t>(sequences.tokens(i).size());
    if (parts.empty() || parts.back().batch.size() + length > micro_tokens) parts.emplace_back();
    Pack(sequences, i, &parts.back());
  }
  return parts;
}

// The items of update `step`.
std::vector<int64_t> ItemsOf(const BatchOptions& options, int64_t step, int64_t count) {
  std::vector<int64_t> items;
  for (int64_t i = 0; i < options.batch; ++i) items.push_back(ShuffledIndex((step - 1) * options.batch + i, count, options.seed));
  return items;
}

}  // namespace

struct LanguageModel::Part : Packed {};

absl::StatusOr<std::unique_ptr<LanguageModel>> LanguageModel::Create(const Sequences& sequences, const BatchOptions& options,
                                                                     Learner* teacher, const Distillation& distillation) {
  if (sequences.size() == 0) return absl::InvalidArgumentError("there is nothing to train on: the data give no whole sequence");
  return std::unique_ptr<LanguageModel>(new LanguageModel(sequences, options, teacher, distillation));
}

absl::StatusOr<Observation> LanguageModel::Accumulate(Learner& learner, int64_t step) {
  const std::vector<int64_t> items = ItemsOf(options_, step, sequences_.size());
  const std::vector<Packed> parts = PackAll(sequences_, items, options_.micro_tokens);
  int64_t learned = 0;
  Observation observation;
  for (const Packed& part : parts) {
    learned += static_cast<int64_t>(part.targets.size());
    observation.tokens += part.batch.size();
  }
  if (learned == 0) return observation;
  for (const Packed& part : parts) {
    NIBBLE_ASSIGN_OR_RETURN(const double loss, AccumulatePart(learner, Part{part}, 1.0 / static_cast<double>(learned)));
    observation.loss += loss;
  }
  return observation;
}

absl::StatusOr<double> LanguageModel::AccumulatePart(Learner& learner, const Part& part, double weight) {
  NIBBLE_RETURN_IF_ERROR(learner.tape().Forward(part.batch));
  std::vector<float> gradient(learner.tape().hidden().size());
  double loss = 0;
  if (teacher_ == nullptr) {
    const std::vector<double> weights(part.targets.size(), weight);
    NIBBLE_ASSIGN_OR_RETURN(loss, learner.head().CrossEntropy(learner.tape().hidden(), part.positions, part.targets, weights, gradient.data()));
  } else {
    NIBBLE_ASSIGN_OR_RETURN(loss, Distill(learner, part, weight, &gradient));
  }
  NIBBLE_RETURN_IF_ERROR(learner.tape().Backward(gradient));
  return loss;
}

absl::StatusOr<double> LanguageModel::Distill(Learner& learner, const Part& part, double weight, std::vector<float>* gradient) {
  NIBBLE_RETURN_IF_ERROR(teacher_->tape().Forward(part.batch));
  const auto hidden = learner.tape().hidden(), wanted = teacher_->tape().hidden();
  const int64_t vocab = learner.head().vocab_size();
  if (teacher_->head().vocab_size() != vocab || wanted.size() != hidden.size()) {
    return absl::InvalidArgumentError("the teacher has another vocabulary or width than the model");
  }
  const Machine machine = learner.machine();
  std::vector<float> teacher_logits;
  std::vector<double> losses;
  const double text_weight = weight * (1 - distillation_.weight), weight_of_teacher = weight * distillation_.weight;
  const auto loss = [&](int64_t first, int64_t count, float* logits) -> absl::StatusOr<double> {
    teacher_logits.resize(count * vocab);
    losses.assign(count, 0);
    NIBBLE_RETURN_IF_ERROR(
        teacher_->head().Logits(wanted, absl::MakeConstSpan(part.positions).subspan(first, count), teacher_logits.data()));
    machine.pool.ParallelFor(count, [&](int64_t i, int) {
      float* row = logits + i * vocab;
      std::vector<float> text(row, row + vocab);
      losses[i] = DistillRow(machine.table, vocab, distillation_.temperature, weight_of_teacher, teacher_logits.data() + i * vocab, row);
      if (text_weight == 0) return;
      losses[i] += CrossEntropyRow(machine.table, vocab, part.targets[first + i], text_weight, text.data());
      for (int64_t v = 0; v < vocab; ++v) row[v] += text[v];
    });
    return std::accumulate(losses.begin(), losses.end(), 0.0);
  };
  NIBBLE_ASSIGN_OR_RETURN(double total, learner.head().Loss(hidden, part.positions, loss, gradient->data()));
  if (distillation_.hidden_weight == 0) return total;
  const double pull = distillation_.hidden_weight * weight / static_cast<double>(learner.head().hidden_size());
  for (const int64_t position : part.positions) {
    for (int64_t i = position * learner.head().hidden_size(); i < (position + 1) * learner.head().hidden_size(); ++i) {
      const double difference = static_cast<double>(hidden[i]) - static_cast<double>(wanted[i]);
      total += pull * difference * difference;
      (*gradient)[i] += static_cast<float>(2 * pull * difference);
    }
  }
  return total;
}

DpoLoss DpoLossOf(const DpoOptions& options, double z) {
  const double u = options.beta * z, e = options.label_smoothing;
  const auto softplus = [](double x) { return std::max(0.0, x) + std::log1p(std::exp(-std::fabs(x))); };
  const auto sigmoid = [](double x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); };
  return {(1 - e) * softplus(-u) + e * softplus(u), -options.beta * ((1 - e) * sigmoid(-u) - e * sigmoid(u))};
}

absl::StatusOr<std::unique_ptr<Preferences>> Preferences::Create(const Sequences& pairs, std::vector<double> references,
                                                                 const BatchOptions& options, const DpoOptions& dpo) {
  if (pairs.size() < 2) return absl::InvalidArgumentError("there is nothing to train on: the data give no pair");
  NIBBLE_CHECK(pairs.size() % 2 == 0 && static_cast<int64_t>(references.size()) == pairs.size());
  return std::unique_ptr<Preferences>(new Preferences(pairs, std::move(references), options, dpo));
}

std::vector<int64_t> Preferences::SequencesSeen(const Sequences& pairs, const BatchOptions& options, int64_t steps) {
  std::set<int64_t> seen;
  for (int64_t step = 1; step <= steps; ++step) {
    for (const int64_t pair : ItemsOf(options, step, pairs.size() / 2)) seen.insert({2 * pair, 2 * pair + 1});
  }
  return {seen.begin(), seen.end()};
}

absl::StatusOr<Observation> Preferences::Accumulate(Learner& learner, int64_t step) {
  Observation observation;
  observation.accuracy = 0;
  const std::vector<int64_t> items = ItemsOf(options_, step, pairs_.size() / 2);
  const double weight = 1.0 / static_cast<double>(items.size());
  for (const int64_t pair : items) NIBBLE_RETURN_IF_ERROR(AccumulatePair(learner, pair, weight, &observation));
  return observation;
}

// The gradient's factor depends on the log-probabilities of both sequences, so
// the head runs twice over what one forward pass gave.
absl::Status Preferences::AccumulatePair(Learner& learner, int64_t pair, double weight, Observation* observation) const {
  Packed packed;
  Pack(pairs_, 2 * pair, &packed);
  Pack(pairs_, 2 * pair + 1, &packed);
  NIBBLE_RETURN_IF_ERROR(learner.tape().Forward(packed.batch));
  const auto hidden = learner.tape().hidden();
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<double> log_probs, learner.head().LogProbs(hidden, packed.positions, packed.targets));
  const auto middle = log_probs.begin() + packed.ends[0];
  const double chosen = std::accumulate(log_probs.begin(), middle, 0.0) - references_[2 * pair];
  const double rejected = std::accumulate(middle, log_probs.end(), 0.0) - references_[2 * pair + 1];
  const DpoLoss loss = DpoLossOf(dpo_, chosen - rejected);
  observation->loss += weight * loss.loss;
  observation->accuracy += weight * (chosen > rejected ? 1.0 : 0.0);
  observation->tokens += packed.batch.size();
  // Cross-entropy with weight w has the gradient -w d(log p).
  std::vector<double> weights(packed.targets.size(), -weight * loss.gradient);
  std::fill(weights.begin() + packed.ends[0], weights.end(), weight * loss.gradient);
  std::vector<float> gradient(hidden.size());
  NIBBLE_RETURN_IF_ERROR(learner.head().CrossEntropy(hidden, packed.positions, packed.targets, weights, gradient.data()).status());
  return learner.tape().Backward(gradient);
}

absl::StatusOr<std::vector<double>> SumLogProbs(Learner& learner, const Sequences& sequences, absl::Span<const int64_t> which,
                                                int64_t micro_tokens) {
  std::vector<double> sums(sequences.size(), std::numeric_limits<double>::quiet_NaN());
  size_t done = 0;
  Progress progress("reference", static_cast<int64_t>(which.size()));
  for (const Packed& part : PackAll(sequences, which, micro_tokens)) {
    NIBBLE_RETURN_IF_ERROR(learner.tape().Forward(part.batch));
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<double> log_probs, learner.head().LogProbs(learner.tape().hidden(), part.positions, part.targets));
    int64_t begin = 0;
    for (const int64_t end : part.ends) {
      sums[which[done++]] = std::accumulate(log_probs.begin() + begin, log_probs.begin() + end, 0.0);
      begin = end;
    }
    progress.Update(static_cast<int64_t>(done));
  }
  return sums;
}

}  // namespace nibble::train
