#include "core/train/head.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <type_traits>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/train/fake_quantize.h"

namespace nibble::train {
namespace {

constexpr int64_t kLogitsHeld = int64_t{1} << 25;
constexpr int64_t kMostPositions = 512;

// log of the sum of exp over a row; the row becomes exp(row - *max).
template <typename T>
double LogSum(const kernels::KernelTable& table, int64_t vocab, T* row, T* max, T* sum) {
  *max = -std::numeric_limits<T>::infinity();
  *sum = SoftmaxStep(table, row, vocab, max);
  return static_cast<double>(*max) + std::log(static_cast<double>(*sum));
}

}  // namespace

template <typename T>
int64_t Head<T>::chunk() const {
  return std::clamp<int64_t>(kLogitsHeld / vocab_size(), 16, kMostPositions);
}

template <typename T>
T* Head<T>::LogitsBuffer(int64_t count) const {
  NIBBLE_CHECK(count <= chunk());
  if (logits_ == nullptr) logits_.reset(new T[chunk() * vocab_size()]);
  return logits_.get();
}

template <typename T>
absl::StatusOr<typename Head<T>::Rows> Head<T>::Gather(absl::Span<const T> hidden, absl::Span<const int64_t> positions) const {
  const int64_t width = hidden_size(), count = static_cast<int64_t>(positions.size());
  Rows rows;
  rows.raw.resize(count * width);
  for (int64_t i = 0; i < count; ++i) {
    NIBBLE_CHECK(positions[i] >= 0 && (positions[i] + 1) * width <= static_cast<int64_t>(hidden.size()));
    std::copy_n(hidden.data() + positions[i] * width, width, rows.raw.data() + i * width);
  }
  if (!quantizes()) return rows;
  if constexpr (std::is_same_v<T, float>) {
    rows.quantized.resize(rows.raw.size());
    NIBBLE_RETURN_IF_ERROR(Annotate(
        FakeQuantizeActivations(machine_, *graph_.head().activation, count, width, rows.raw.data(), rows.quantized.data()), graph_.head().name));
    return rows;
  }
  return absl::UnimplementedError("activation quantization in double");
}

template <typename T>
void Head<T>::Product(const Rows& rows, int64_t count, T* logits) const {
  Multiply(machine_, {false, true, count, vocab_size(), hidden_size()}, rows.multiplied().data(), parameters_.values[*graph_.head().weight],
           false, logits);
}

template <typename T>
absl::Status Head<T>::Scatter(const Rows& rows, absl::Span<const int64_t> positions, std::vector<T> gradient, T* hidden_gradient) const {
  const int64_t width = hidden_size(), count = static_cast<int64_t>(positions.size());
  if constexpr (std::is_same_v<T, float>) {
    if (quantizes()) {
      std::vector<T> passed(gradient.size());
      NIBBLE_RETURN_IF_ERROR(
          StraightThroughActivations(machine_, *graph_.head().activation, count, width, rows.raw.data(), gradient.data(), passed.data()));
      gradient = std::move(passed);
    }
  }
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < width; ++c) hidden_gradient[positions[i] * width + c] += gradient[i * width + c];
  }
  return absl::OkStatus();
}

template <typename T>
absl::Status Head<T>::Logits(absl::Span<const T> hidden, absl::Span<const int64_t> positions, T* logits) const {
  NIBBLE_ASSIGN_OR_RETURN(const Rows rows, Gather(hidden, positions));
  Product(rows, static_cast<int64_t>(positions.size()), logits);
  return absl::OkStatus();
}

template <typename T>
absl::StatusOr<double> Head<T>::Loss(absl::Span<const T> hidden, absl::Span<const int64_t> positions, LogitLoss<T> loss,
                                     T* hidden_gradient) {
  const int64_t total = static_cast<int64_t>(positions.size()), piece = chunk(), width = hidden_size();
  T* logits = LogitsBuffer(std::min(total, piece));
  T* weight_gradient = parameters_.gradients[*graph_.head().weight];
  double sum = 0;
  for (int64_t first = 0; first < total; first += piece) {
    const int64_t count = std::min(piece, total - first);
    const auto here = positions.subspan(first, count);
    NIBBLE_ASSIGN_OR_RETURN(const Rows rows, Gather(hidden, here));
    Product(rows, count, logits);
    NIBBLE_ASSIGN_OR_RETURN(const double part, loss(first, count, logits));
    sum += part;
    if (weight_gradient != nullptr) {
      Multiply(machine_, {true, false, vocab_size(), width, count}, logits, rows.multiplied().data(), true, weight_gradient);
    }
    std::vector<T> gradient(count * width);
    Multiply(machine_, {false, false, count, width, vocab_size()}, logits, parameters_.values[*graph_.head().weight], false,
             gradient.data());
    NIBBLE_RETURN_IF_ERROR(Scatter(rows, here, std::move(gradient), hidden_gradient));
  }
  return sum;
}

template <typename T>
absl::StatusOr<std::vector<double>> Head<T>::LogProbs(absl::Span<const T> hidden, absl::Span<const int64_t> positions,
                                                      absl::Span<const int32_t> targets) const {
  const int64_t total = static_cast<int64_t>(positions.size()), piece = chunk(), vocab = vocab_size();
  T* logits = LogitsBuffer(std::min(total, piece));
  std::vector<double> log_probs(total);
  for (int64_t first = 0; first < total; first += piece) {
    const int64_t count = std::min(piece, total - first);
    NIBBLE_RETURN_IF_ERROR(Logits(hidden, positions.subspan(first, count), logits));
    machine_.pool.ParallelFor(count, [&](int64_t i, int) {
      T* row = logits + i * vocab;
      const T target = row[targets[first + i]];
      T max, sum;
      log_probs[first + i] = static_cast<double>(target) - LogSum(machine_.table, vocab, row, &max, &sum);
    });
  }
  return log_probs;
}

template <typename T>
absl::StatusOr<double> Head<T>::CrossEntropy(absl::Span<const T> hidden, absl::Span<const int64_t> positions,
                                             absl::Span<const int32_t> targets, absl::Span<const double> weights, T* hidden_gradient) {
  NIBBLE_CHECK(targets.size() == positions.size() && weights.size() == positions.size());
  const int64_t vocab = vocab_size();
  std::vector<double> losses;
  const auto loss = [&](int64_t first, int64_t count, T* logits) -> absl::StatusOr<double> {
    losses.resize(count);
    machine_.pool.ParallelFor(count, [&](int64_t i, int) {
      losses[i] = CrossEntropyRow(machine_.table, vocab, targets[first + i], weights[first + i], logits + i * vocab);
    });
    return std::accumulate(losses.begin(), losses.end(), 0.0);
  };
  return Loss(hidden, positions, loss, hidden_gradient);
}

template <typename T>
double CrossEntropyRow(const kernels::KernelTable& table, int64_t vocab, int32_t target, double weight, T* row) {
  const double score = static_cast<double>(row[target]);
  T max, sum;
  const double log_sum = LogSum(table, vocab, row, &max, &sum);
  const T scale = static_cast<T>(weight) / sum;
  for (int64_t v = 0; v < vocab; ++v) row[v] *= scale;
  row[target] -= static_cast<T>(weight);
  return weight * (log_sum - score);
}

template <typename T>
double DistillRow(const kernels::KernelTable& table, int64_t vocab, double temperature, double weight, T* teacher, T* student) {
  const T inverse = static_cast<T>(1.0 / temperature);
  for (int64_t v = 0; v < vocab; ++v) {
    teacher[v] *= inverse;
    student[v] *= inverse;
  }
  // KL = sum p (teacher - student) - log Z_teacher + log Z_student.
  std::vector<T> difference(vocab);
  for (int64_t v = 0; v < vocab; ++v) difference[v] = teacher[v] - student[v];
  T teacher_max, teacher_sum, student_max, student_sum;
  const double teacher_log = LogSum(table, vocab, teacher, &teacher_max, &teacher_sum);
  const double student_log = LogSum(table, vocab, student, &student_max, &student_sum);
  double expected = 0;
  const T scale = static_cast<T>(weight * temperature);
  for (int64_t v = 0; v < vocab; ++v) {
    const T p = teacher[v] / teacher_sum;
    expected += static_cast<double>(p) * static_cast<double>(difference[v]);
    student[v] = scale * (student[v] / student_sum - p);
  }
  return weight * temperature * temperature * (expected - teacher_log + student_log);
}

template double CrossEntropyRow(const kernels::KernelTable&, int64_t, int32_t, double, float*);
template double CrossEntropyRow(const kernels::KernelTable&, int64_t, int32_t, double, double*);
template double DistillRow(const kernels::KernelTable&, int64_t, double, double, float*, float*);
template double DistillRow(const kernels::KernelTable&, int64_t, double, double, double*, double*);
template class Head<float>;
template class Head<double>;

}  // namespace nibble::train
