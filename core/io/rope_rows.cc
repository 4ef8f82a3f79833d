#include "core/io/rope_rows.h"

#include <cstring>
#include <memory>
#include <vector>

#include "core/base/check.h"

namespace nibble::io {
namespace {

// Where the half-split row `row` lies in an interleaved matrix.
int64_t InterleavedRow(int64_t row, int64_t head_dim) {
  const int64_t within = row % head_dim, half = head_dim / 2;
  return row - within + 2 * (within % half) + within / half;
}

// Row `from` becomes row `to`: {to, from} = move(half-split row, interleaved row).
template <typename Move>
Tensor WithRowsMoved(const Tensor& tensor, int64_t head_dim, const Move& move) {
  const int64_t rows = tensor.dim(0), row_bytes = tensor.byte_size() / rows;
  NIBBLE_CHECK(head_dim % 2 == 0 && rows % head_dim == 0);
  auto moved = std::make_shared<std::vector<uint8_t>>(tensor.byte_size());
  for (int64_t r = 0; r < rows; ++r) {
    const auto [to, from] = move(r, InterleavedRow(r, head_dim));
    std::memcpy(moved->data() + to * row_bytes, tensor.bytes().data() + from * row_bytes, row_bytes);
  }
  return Tensor::Borrow(tensor.dtype(), tensor.shape(), *moved, moved).value();
}

}  // namespace

Tensor HalfSplitRows(const Tensor& interleaved, int64_t head_dim) {
  return WithRowsMoved(interleaved, head_dim, [](int64_t half_split, int64_t paired) { return std::pair(half_split, paired); });
}

Tensor InterleavedRows(const Tensor& half_split, int64_t head_dim) {
  return WithRowsMoved(half_split, head_dim, [](int64_t halved, int64_t paired) { return std::pair(paired, halved); });
}

}  // namespace nibble::io
