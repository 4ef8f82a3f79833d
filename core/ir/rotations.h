// Rotations of a Llama's activations (QuaRot; SpinQuant, Liu et al. 2024,
// section 3.1): an orthogonal matrix is multiplied into what writes a value and
// undone in what reads it, so the function stays and outliers spread.
//
//   R1  the residual stream, [hidden, hidden]: merged into every weight that
//       writes or reads it
//   R2  the values of a layer's attention, [head_dim, head_dim] for all heads:
//       merged into v_proj and o_proj
//   R3  queries and keys after RoPE: a Hadamard transform of each head at run
//       time, which cancels in their product
//   R4  the input of down_proj: a Hadamard transform at run time, undone in
//       down_proj's weight
//
// Merging is done in fp64 and stored as fp32. Weights that are already
// quantized are refused (their grid would be lost), and so are adapters (merge
// or train them afterwards).
#ifndef NIBBLE_CORE_IR_ROTATIONS_H_
#define NIBBLE_CORE_IR_ROTATIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/thread_pool.h"
#include "core/ir/graph.h"

namespace nibble::ir {

// A square matrix, row-major, fp64.
struct SquareMatrix {
  int64_t size = 0;
  std::vector<double> values;
};

// Random signs before a Hadamard transform: diag(s) H. An error where there is
// no Hadamard matrix of that size.
absl::StatusOr<SquareMatrix> RandomHadamard(int64_t size, uint64_t seed);
// The orthogonal factor of a [size, size] matrix's QR factorization, with the
// signs that make R's diagonal positive: the factor of one that is orthogonal
// already is itself.
void Orthogonalize(int64_t size, double* matrix);
// Of Haar's distribution: the orthogonal factor of a normal matrix (Mezzadri
// 2007).
SquareMatrix RandomOrthogonal(int64_t size, uint64_t seed);

// The linears that R1 is merged into, as indices into graph.ops(): `readers`
// take x R1 (W <- W R1), `writers` give it (W <- R1^T W). The embedding, a
// writer whose rows are values, and the head, a reader, are not among them.
struct ResidualLinears {
  std::vector<size_t> readers, writers;
};
// Errors: a norm whose gain is not folded, a residual stream that something
// else touches.
absl::StatusOr<ResidualLinears> FindResidualLinears(const Graph& graph);

// What merging a rotation refuses, before anything else is done.
absl::Status CheckNoAdapters(const Graph& graph);

// R1. The head must not be tied and norms must be folded (core/ir/passes.h).
absl::Status RotateResidual(Graph& graph, const SquareMatrix& r1, ThreadPool& pool);

// The linears around a layer's attention.
struct ValuePath {
  size_t v_proj, o_proj;  // into graph.ops()
  int64_t head_dim;
};
absl::StatusOr<ValuePath> FindValuePath(const Graph& graph, int layer);

// R2 of one layer.
absl::Status RotateValues(Graph& graph, int layer, const SquareMatrix& r2, ThreadPool& pool);

// A Hadamard transform at run time of consecutive blocks of columns: of what a
// linear reads, or of what an attention reads as queries and keys.
struct OnlineRotation {
  std::string module;
  int64_t block = 0;
};

// Puts the transforms in as ops; weights stay as they are. Errors: an unknown
// module, a block that does not divide the width or has no Hadamard matrix, a
// module that is rotated already or has an adapter.
absl::Status AttachOnlineRotations(Graph& graph, const std::vector<OnlineRotation>& rotations);
std::vector<OnlineRotation> OnlineRotationsOf(const Graph& graph);

// R3 of every attention.
absl::Status RotateQueriesAndKeys(Graph& graph);

// R4: transforms the inputs of the named linears in blocks, and merges the
// inverse into their weights.
absl::Status RotateInputs(Graph& graph, const std::vector<OnlineRotation>& rotations, ThreadPool& pool);

}  // namespace nibble::ir

#endif  // NIBBLE_CORE_IR_ROTATIONS_H_
