// The language-model head and its loss, fused: logits are made for a chunk of
// positions, turned into gradients by the loss, multiplied back, and dropped,
// so that memory does not grow with tokens times vocabulary.
#ifndef NIBBLE_CORE_TRAIN_HEAD_H_
#define NIBBLE_CORE_TRAIN_HEAD_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/ir/graph.h"
#include "core/train/tape.h"

namespace nibble::train {

// Replaces logits [count, vocab] of positions[first .. first + count) by the
// gradient of the loss with respect to them; returns their part of the loss.
template <typename T>
using LogitLoss = absl::FunctionRef<absl::StatusOr<double>(int64_t first, int64_t count, T* logits)>;

template <typename T>
class Head {
 public:
  Head(const ir::Graph& graph, Machine machine, ParameterArrays<T> parameters)
      : graph_(graph), machine_(machine), parameters_(std::move(parameters)) {}

  int64_t vocab_size() const { return graph_.vocab_size(); }
  int64_t hidden_size() const { return graph_.values()[graph_.head().inputs[0]].width; }

  // Logits of `positions` (rows of `hidden` [tokens, hidden_size]).
  absl::Status Logits(absl::Span<const T> hidden, absl::Span<const int64_t> positions, T* logits) const;

  // The sum of `loss` over `positions`. Adds the weight's gradient, and adds to
  // `hidden_gradient` [tokens, hidden_size] that of the rows.
  absl::StatusOr<double> Loss(absl::Span<const T> hidden, absl::Span<const int64_t> positions, LogitLoss<T> loss, T* hidden_gradient);

  // log p(targets[i]) at positions[i].
  absl::StatusOr<std::vector<double>> LogProbs(absl::Span<const T> hidden, absl::Span<const int64_t> positions,
                                               absl::Span<const int32_t> targets) const;

  // Sum of weights[i] times -log p(targets[i]) at positions[i], with gradients
  // weights[i] (softmax - onehot).
  absl::StatusOr<double> CrossEntropy(absl::Span<const T> hidden, absl::Span<const int64_t> positions, absl::Span<const int32_t> targets,
                                      absl::Span<const double> weights, T* hidden_gradient);

  // Positions whose logits are held at a time.
  int64_t chunk() const;

  void set_quantize_activations(bool on) { quantize_activations_ = on; }

 private:
  // Rows of a chunk as read, and as the product reads them.
  struct Rows {
    std::vector<T> raw, quantized;
    const std::vector<T>& multiplied() const { return quantized.empty() ? raw : quantized; }
  };
  absl::StatusOr<Rows> Gather(absl::Span<const T> hidden, absl::Span<const int64_t> positions) const;
  void Product(const Rows& rows, int64_t count, T* logits) const;
  absl::Status Scatter(const Rows& rows, absl::Span<const int64_t> positions, std::vector<T> gradient, T* hidden_gradient) const;
  T* LogitsBuffer(int64_t count) const;
  bool quantizes() const { return quantize_activations_ && graph_.head().activation.has_value(); }

  const ir::Graph& graph_;
  const Machine machine_;
  const ParameterArrays<T> parameters_;
  bool quantize_activations_ = true;
  mutable std::unique_ptr<T[]> logits_;  // of a chunk; kept, as its pages cost time to make
};

// Logits of one row become the gradient weight (softmax - onehot(target));
// returns -weight log p(target).
template <typename T>
double CrossEntropyRow(const kernels::KernelTable& table, int64_t vocab, int32_t target, double weight, T* row);

// The gradient of weight * KL(teacher || student) with respect to the student's
// logits, in place of them: weight (softmax(student / tau) - softmax(teacher /
// tau)) tau, with loss weight tau^2 KL (Hinton et al., 2015). Rows of `vocab`.
template <typename T>
double DistillRow(const kernels::KernelTable& table, int64_t vocab, double temperature, double weight, T* teacher, T* student);

extern template class Head<float>;
extern template class Head<double>;

}  // namespace nibble::train

#endif  // NIBBLE_CORE_TRAIN_HEAD_H_
