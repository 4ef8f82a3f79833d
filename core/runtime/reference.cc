#include "core/runtime/reference.h"

#include <algorithm>
#include <cmath>

#include "eigen3/Eigen/Core"
#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/quant/integer_grid.h"
#include "core/tensor/hadamard.h"

namespace nibble {
namespace {

using ir::Op;
using ir::OpKind;
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ConstMap = Eigen::Map<const Matrix>;

class Interpreter {
 public:
  Interpreter(const ir::Graph& graph, absl::Span<const int32_t> tokens) : graph_(graph), tokens_(tokens), values_(graph.values().size()) {}

  absl::StatusOr<Matrix> Run(const OpObserver& observer) {
    for (const Op& op : graph_.ops()) {
      NIBBLE_ASSIGN_OR_RETURN(values_[op.output], Evaluate(op));
      const Matrix& y = values_[op.output];
      if (observer) observer(op, {y.data(), static_cast<size_t>(y.size())});
    }
    return std::move(values_[graph_.head().output]);
  }

 private:
  const Matrix& In(const Op& op, int i = 0) const { return values_[op.inputs[i]]; }

  absl::StatusOr<Matrix> Evaluate(const Op& op) {
    switch (op.kind) {
      case OpKind::kEmbed: return Embed(op);
      case OpKind::kRmsNorm: return RmsNorm(op);
      case OpKind::kLinear:
      case OpKind::kLogits: return Linear(op);
      case OpKind::kRope: return Rope(op);
      case OpKind::kAttention: return Attention(op);
      case OpKind::kSilu: return Matrix(In(op).unaryExpr([](float x) { return x / (1.0f + std::exp(-x)); }));
      case OpKind::kMul: return Matrix(In(op).cwiseProduct(In(op, 1)));
      case OpKind::kAdd: return Matrix(In(op) + op.scale * In(op, 1));
      case OpKind::kRotate: return Rotate(op);
    }
    return absl::InternalError("unknown op");
  }

  absl::StatusOr<Matrix> Embed(const Op& op) {
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<float> rows, ir::EmbedTokens(graph_, tokens_));
    return Matrix(Eigen::Map<const Matrix>(rows.data(), tokens_.size(), graph_.values()[op.output].width));
  }

  absl::StatusOr<Matrix> RmsNorm(const Op& op) {
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<float> gain, graph_.parameter(*op.weight).LoadFloats());
    Matrix y = In(op);
    for (Eigen::Index t = 0; t < y.rows(); ++t) {
      const double mean = y.row(t).cast<double>().squaredNorm() / static_cast<double>(y.cols());
      const float inverse = static_cast<float>(1.0 / std::sqrt(mean + static_cast<double>(op.eps)));
      for (Eigen::Index i = 0; i < y.cols(); ++i) y(t, i) = y(t, i) * inverse * gain[i];
    }
    return y;
  }

  absl::StatusOr<Matrix> Linear(const Op& op) {
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<float> weight, graph_.parameter(*op.weight).LoadFloats());
    Matrix x = In(op);
    if (op.activation.has_value()) {
      NIBBLE_RETURN_IF_ERROR(Annotate(FakeQuantizeRows(*op.activation, x.rows(), x.cols(), x.data()), op.name));
    }
    const ConstMap w(weight.data(), static_cast<Eigen::Index>(weight.size()) / x.cols(), x.cols());
    return Matrix(x * w.transpose());
  }

  absl::StatusOr<Matrix> Rope(const Op& op) {
    Matrix y = In(op);
    const int64_t half = op.head_dim / 2;
    for (Eigen::Index t = 0; t < y.rows(); ++t) {
      for (int64_t h = 0; h < op.heads; ++h) {
        float* head = y.row(t).data() + h * op.head_dim;
        for (int64_t i = 0; i < half; ++i) {
          const double angle = static_cast<double>(t) * op.inverse_frequencies[i];
          const float c = static_cast<float>(std::cos(angle)), s = static_cast<float>(std::sin(angle));
          const float a = head[i], b = head[i + half];
          head[i] = a * c - b * s;
          head[i + half] = b * c + a * s;
        }
      }
    }
    return y;
  }

  absl::StatusOr<Matrix> Rotate(const Op& op) {
    NIBBLE_ASSIGN_OR_RETURN(const Hadamard hadamard, Hadamard::Create(op.block));
    Matrix y = In(op);
    for (Eigen::Index at = 0; at < y.size(); at += op.block) hadamard.Apply(y.data() + at);
    return y;
  }

  absl::StatusOr<Matrix> Attention(const Op& op) {
    const int64_t d = op.head_dim, share = op.heads / op.kv_heads;
    Matrix q = In(op, 0) / std::sqrt(static_cast<float>(d)), k = In(op, 1), v = In(op, 2);
    if (op.activation.has_value()) NIBBLE_RETURN_IF_ERROR(Annotate(FakeQuantizeRows(*op.activation, q.rows(), q.cols(), q.data()), op.name));
    if (op.keys.has_value()) NIBBLE_RETURN_IF_ERROR(Annotate(FakeQuantizeRows(*op.keys, k.rows(), k.cols(), k.data()), op.name));
    if (op.values.has_value()) NIBBLE_RETURN_IF_ERROR(Annotate(FakeQuantizeRows(*op.values, v.rows(), v.cols(), v.data()), op.name));
    Matrix out(q.rows(), q.cols());
    for (int64_t h = 0; h < op.heads; ++h) {
      const int64_t kv = h / share;
      Matrix scores = q.middleCols(h * d, d) * k.middleCols(kv * d, d).transpose();
      for (Eigen::Index t = 0; t < scores.rows(); ++t) NIBBLE_RETURN_IF_ERROR(MaskedSoftmax(op, t, scores));
      out.middleCols(h * d, d) = scores * v.middleCols(kv * d, d);
    }
    return out;
  }

  // The weights are rounded before they are divided by their sum.
  static absl::Status MaskedSoftmax(const Op& op, Eigen::Index t, Matrix& scores) {
    const Eigen::Index first = op.sliding_window.has_value() ? std::max<Eigen::Index>(0, t + 1 - *op.sliding_window) : 0;
    auto visible = scores.row(t).segment(first, t + 1 - first);
    const float max = visible.maxCoeff();
    visible = (visible.array() - max).exp().matrix();
    const float sum = visible.sum();
    if (op.activation.has_value()) NIBBLE_RETURN_IF_ERROR(FakeQuantizeRows(*op.activation, 1, visible.size(), visible.data()));
    visible /= sum;
    scores.row(t).head(first).setZero();
    scores.row(t).tail(scores.cols() - t - 1).setZero();
    return absl::OkStatus();
  }

  const ir::Graph& graph_;
  const absl::Span<const int32_t> tokens_;
  std::vector<Matrix> values_;
};

}  // namespace

absl::StatusOr<std::vector<float>> RunReference(const ir::Graph& graph, absl::Span<const int32_t> tokens, const OpObserver& observer) {
  NIBBLE_ASSIGN_OR_RETURN(const Matrix logits, Interpreter(graph, tokens).Run(observer));
  return std::vector<float>(logits.data(), logits.data() + logits.size());
}

}  // namespace nibble
