#include "core/ir/rotations.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/base/check.h"
#include "core/base/divide.h"
#include "core/base/rng.h"
#include "core/base/status.h"
#include "core/ir/weight_transform.h"
#include "core/tensor/blas.h"
#include "core/tensor/hadamard.h"
#include "eigen3/Eigen/Dense"

namespace nibble::ir {
namespace {

constexpr absl::string_view kInput = ".input_rotation", kQuery = ".query_rotation", kKey = ".key_rotation";

// Rows or columns that one product takes.
constexpr int64_t kStrip = 128;

// W <- W R for each run of R.size columns.
absl::Status MultiplyRight(Parameter& weight, const SquareMatrix& r, ThreadPool& pool) {
  NIBBLE_ASSIGN_OR_RETURN(std::vector<float> values, LoadForTransform(weight));
  NIBBLE_CHECK(weight.shape().back() % r.size == 0);
  const int64_t rows = static_cast<int64_t>(values.size()) / r.size;
  pool.ParallelFor(CeilDiv(rows, kStrip), [&](int64_t strip, int) {
    const int64_t first = strip * kStrip, count = std::min(kStrip, rows - first);
    float* at = values.data() + first * r.size;
    const std::vector<double> x(at, at + count * r.size);
    std::vector<double> y(x.size());
    blas::Dgemm(false, false, count, r.size, r.size, 1, x.data(), r.size, r.values.data(), r.size, 0, y.data(), r.size);
    std::transform(y.begin(), y.end(), at, [](double v) { return static_cast<float>(v); });
  });
  return ReplaceFloats(weight, values);
}

// W <- R^T W for each run of R.size rows.
absl::Status MultiplyLeft(Parameter& weight, const SquareMatrix& r, ThreadPool& pool) {
  NIBBLE_ASSIGN_OR_RETURN(std::vector<float> values, LoadForTransform(weight));
  const int64_t cols = weight.shape().back(), rows = weight.shape()[0];
  NIBBLE_CHECK(rows % r.size == 0);
  const int64_t strips = CeilDiv(cols, kStrip);
  pool.ParallelFor(rows / r.size * strips, [&](int64_t task, int) {
    const int64_t first = task % strips * kStrip, count = std::min(kStrip, cols - first);
    float* at = values.data() + task / strips * r.size * cols + first;
    std::vector<double> x(r.size * count), y(r.size * count);
    for (int64_t i = 0; i < r.size; ++i) std::copy_n(at + i * cols, count, x.data() + i * count);
    blas::Dgemm(true, false, r.size, count, r.size, 1, r.values.data(), r.size, x.data(), count, 0, y.data(), count);
    for (int64_t i = 0; i < r.size; ++i) {
      std::transform(y.data() + i * count, y.data() + (i + 1) * count, at + i * cols, [](double v) { return static_cast<float>(v); });
    }
  });
  return ReplaceFloats(weight, values);
}

absl::Status CheckFolded(const Graph& graph, const Op& norm) {
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<float> gain, graph.parameter(*norm.weight).LoadFloats());
  if (std::all_of(gain.begin(), gain.end(), [](float g) { return g == 1.0f; })) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(norm.name, ": fold its gain into the linears before rotating what they read"));
}

absl::Status CheckSize(const Op& op, int64_t width, const SquareMatrix& r) {
  if (r.size == width && static_cast<int64_t>(r.values.size()) == width * width) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(op.name, ": a rotation of order ", r.size, ", expected ", width));
}

// Follows the residual stream from op to op.
class ResidualFinder {
 public:
  explicit ResidualFinder(const Graph& graph) : graph_(graph) {}

  absl::StatusOr<ResidualLinears> Run() {
    for (size_t i = 0; i < graph_.ops().size(); ++i) {
      const Op& op = graph_.ops()[i];
      const bool reads_stream = std::any_of(op.inputs.begin(), op.inputs.end(), [&](ValueId id) { return stream_.count(id) > 0; });
      const bool reads_norm = std::any_of(op.inputs.begin(), op.inputs.end(), [&](ValueId id) { return normed_.count(id) > 0; });
      if (op.kind == OpKind::kEmbed) {
        stream_.insert(op.output);
      } else if (op.kind == OpKind::kRmsNorm && reads_stream) {
        NIBBLE_RETURN_IF_ERROR(CheckFolded(graph_, op));
        normed_.insert(op.output);
      } else if (op.kind == OpKind::kAdd && reads_stream) {
        NIBBLE_RETURN_IF_ERROR(AddWriter(op));
      } else if (op.is_linear() && reads_norm) {
        if (op.kind == OpKind::kLinear) found_.readers.push_back(i);
      } else if (reads_stream || reads_norm) {
        return absl::UnimplementedError(absl::StrCat(op.name, ": the residual stream is read by an op that does not commute with a rotation"));
      }
    }
    return found_;
  }

 private:
  absl::Status AddWriter(const Op& add) {
    const std::optional<size_t> writer = graph_.ProducerOf(add.inputs[1]);
    if (stream_.count(add.inputs[0]) == 0 || !writer.has_value() || graph_.ops()[*writer].kind != OpKind::kLinear) {
      return absl::UnimplementedError(absl::StrCat(add.name, ": expected the residual stream plus what a linear gives"));
    }
    found_.writers.push_back(*writer);
    stream_.insert(add.output);
    return absl::OkStatus();
  }

  const Graph& graph_;
  std::set<ValueId> stream_, normed_;
  ResidualLinears found_;
};

// An op that transforms `input` in blocks.
Op RotateOp(Graph& graph, std::string name, int layer, ValueId input, int64_t block) {
  const int64_t width = graph.values()[input].width;
  Op op{OpKind::kRotate, std::move(name), {input}};
  op.layer = layer;
  op.block = block;
  op.output = graph.AddValue(op.name, width);
  return op;
}

absl::Status CheckOnline(const Graph& graph, const OnlineRotation& rotation) {
  const Op* op = graph.FindOp(rotation.module);
  if (op == nullptr || (op->kind != OpKind::kLinear && op->kind != OpKind::kAttention)) {
    return absl::InvalidArgumentError(absl::StrCat("rotation for '", rotation.module, "', which is no linear or attention of the model"));
  }
  if (graph.FindOp(absl::StrCat(op->name, op->kind == OpKind::kLinear ? kInput : kQuery)) != nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(op->name, " is rotated already"));
  }
  const int64_t width = op->kind == OpKind::kLinear ? graph.values()[op->inputs[0]].width : op->head_dim;
  if (rotation.block < 1 || width % rotation.block != 0) {
    return absl::InvalidArgumentError(absl::StrCat(op->name, ": a rotation of blocks of ", rotation.block, " columns, which do not divide ", width));
  }
  return Annotate(Hadamard::Create(rotation.block).status(), op->name);
}

std::vector<double> NormalMatrix(int64_t size, uint64_t seed) {
  Rng rng(seed);
  std::vector<double> values(size * size);
  for (double& v : values) v = rng.Normal();
  return values;
}

}  // namespace

absl::Status CheckNoAdapters(const Graph& graph) {
  for (const Op& op : graph.ops()) {
    if (op.adapter) return absl::FailedPreconditionError(absl::StrCat(op.name, ": rotate before adapters are attached, or merge them first"));
  }
  return absl::OkStatus();
}

absl::StatusOr<SquareMatrix> RandomHadamard(int64_t size, uint64_t seed) {
  NIBBLE_ASSIGN_OR_RETURN(const Hadamard hadamard, Hadamard::Create(size));
  Rng rng(seed);
  SquareMatrix r{size, std::vector<double>(size * size, 0.0)};
  for (int64_t i = 0; i < size; ++i) {
    r.values[i * size + i] = rng.Next() >> 63 ? 1 : -1;
    hadamard.Apply(r.values.data() + i * size);
  }
  return r;
}

void Orthogonalize(int64_t size, double* matrix) {
  using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Eigen::Map<Matrix> map(matrix, size, size);
  const Eigen::HouseholderQR<Matrix> qr(map);
  Matrix q = qr.householderQ();
  for (int64_t i = 0; i < size; ++i) {
    if (qr.matrixQR()(i, i) < 0) q.col(i) *= -1;
  }
  map = q;
}

SquareMatrix RandomOrthogonal(int64_t size, uint64_t seed) {
  SquareMatrix r{size, NormalMatrix(size, seed)};
  Orthogonalize(size, r.values.data());
  return r;
}

absl::StatusOr<ResidualLinears> FindResidualLinears(const Graph& graph) { return ResidualFinder(graph).Run(); }

absl::Status RotateResidual(Graph& graph, const SquareMatrix& r1, ThreadPool& pool) {
  NIBBLE_RETURN_IF_ERROR(CheckNoAdapters(graph));
  if (graph.tied()) return absl::FailedPreconditionError("lm_head: untie it from the embedding before rotating the residual stream");
  NIBBLE_RETURN_IF_ERROR(CheckSize(graph.embedding(), graph.hidden_size(), r1));
  NIBBLE_ASSIGN_OR_RETURN(const ResidualLinears linears, FindResidualLinears(graph));
  const auto weight = [&](const Op& op) -> Parameter& { return graph.mutable_parameter(*op.weight); };
  NIBBLE_RETURN_IF_ERROR(MultiplyRight(weight(graph.embedding()), r1, pool));
  NIBBLE_RETURN_IF_ERROR(MultiplyRight(weight(graph.head()), r1, pool));
  for (const size_t i : linears.readers) NIBBLE_RETURN_IF_ERROR(MultiplyRight(weight(graph.ops()[i]), r1, pool));
  for (const size_t i : linears.writers) NIBBLE_RETURN_IF_ERROR(MultiplyLeft(weight(graph.ops()[i]), r1, pool));
  return absl::OkStatus();
}

absl::StatusOr<ValuePath> FindValuePath(const Graph& graph, int layer) {
  const auto& ops = graph.ops();
  const auto attention = std::find_if(ops.begin(), ops.end(), [&](const Op& op) { return op.kind == OpKind::kAttention && op.layer == layer; });
  if (attention == ops.end()) return absl::InvalidArgumentError(absl::StrCat("layer ", layer, " has no attention"));
  const std::optional<size_t> v = graph.ProducerOf(attention->inputs[2]);
  const auto o = std::find_if(ops.begin(), ops.end(), [&](const Op& op) { return !op.inputs.empty() && op.inputs[0] == attention->output; });
  if (!v.has_value() || ops[*v].kind != OpKind::kLinear || o == ops.end() || o->kind != OpKind::kLinear) {
    return absl::UnimplementedError(absl::StrCat(attention->name, ": expected linears before its values and after it"));
  }
  return ValuePath{*v, static_cast<size_t>(o - ops.begin()), attention->head_dim};
}

absl::Status RotateValues(Graph& graph, int layer, const SquareMatrix& r2, ThreadPool& pool) {
  NIBBLE_RETURN_IF_ERROR(CheckNoAdapters(graph));
  NIBBLE_ASSIGN_OR_RETURN(const ValuePath path, FindValuePath(graph, layer));
  NIBBLE_RETURN_IF_ERROR(CheckSize(graph.ops()[path.v_proj], path.head_dim, r2));
  NIBBLE_RETURN_IF_ERROR(MultiplyLeft(graph.mutable_parameter(*graph.ops()[path.v_proj].weight), r2, pool));
  return MultiplyRight(graph.mutable_parameter(*graph.ops()[path.o_proj].weight), r2, pool);
}

absl::Status AttachOnlineRotations(Graph& graph, const std::vector<OnlineRotation>& rotations) {
  if (rotations.empty()) return absl::OkStatus();
  NIBBLE_RETURN_IF_ERROR(CheckNoAdapters(graph));
  std::map<std::string, int64_t> blocks;
  for (const OnlineRotation& rotation : rotations) {
    NIBBLE_RETURN_IF_ERROR(CheckOnline(graph, rotation));
    if (!blocks.emplace(rotation.module, rotation.block).second) {
      return absl::InvalidArgumentError(absl::StrCat(rotation.module, " has two rotations"));
    }
  }
  std::vector<Op> placed;
  for (Op op : std::vector<Op>(graph.ops())) {
    const auto found = blocks.find(op.name);
    const auto rotate = [&](int input, absl::string_view suffix) {
      placed.push_back(RotateOp(graph, absl::StrCat(op.name, suffix), op.layer, op.inputs[input], found->second));
      op.inputs[input] = placed.back().output;
    };
    if (found != blocks.end() && op.kind == OpKind::kLinear) rotate(0, kInput);
    if (found != blocks.end() && op.kind == OpKind::kAttention) rotate(0, kQuery), rotate(1, kKey);
    placed.push_back(std::move(op));
  }
  graph.mutable_ops() = std::move(placed);
  return Verify(graph);
}

std::vector<OnlineRotation> OnlineRotationsOf(const Graph& graph) {
  std::vector<OnlineRotation> rotations;
  for (const Op& op : graph.ops()) {
    if (op.kind != OpKind::kRotate || absl::EndsWith(op.name, kKey)) continue;
    rotations.push_back({std::string(absl::StripSuffix(absl::StripSuffix(op.name, kInput), kQuery)), op.block});
  }
  return rotations;
}

absl::Status RotateQueriesAndKeys(Graph& graph) {
  std::vector<OnlineRotation> rotations;
  for (const Op& op : graph.ops()) {
    if (op.kind == OpKind::kAttention) rotations.push_back({op.name, op.head_dim});
  }
  return AttachOnlineRotations(graph, rotations);
}

absl::Status RotateInputs(Graph& graph, const std::vector<OnlineRotation>& rotations, ThreadPool& pool) {
  NIBBLE_RETURN_IF_ERROR(AttachOnlineRotations(graph, rotations));
  for (const OnlineRotation& rotation : rotations) {
    NIBBLE_ASSIGN_OR_RETURN(const Hadamard hadamard, Hadamard::Create(rotation.block));
    const Op& op = *graph.FindOp(rotation.module);
    if (op.kind != OpKind::kLinear) return absl::InvalidArgumentError(absl::StrCat(op.name, ": only a linear's weight can undo a rotation"));
    NIBBLE_RETURN_IF_ERROR(TransformRows(graph.mutable_parameter(*op.weight), &pool, [&](absl::Span<double> row) {
      for (size_t at = 0; at < row.size(); at += rotation.block) hadamard.Apply(row.data() + at);
    }));
  }
  return absl::OkStatus();
}

}  // namespace nibble::ir
