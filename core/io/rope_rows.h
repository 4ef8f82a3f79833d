// The two orders of a query or key projection's rows. Rotary embedding turns
// pairs of rows of a head: Hugging Face pairs row i with row i + d/2 of the
// head's d rows ("half-split"), llama2.c and GGUF's "llama" architecture pair
// rows 2i and 2i + 1 ("interleaved"). Nibble computes half-split.
#ifndef NIBBLE_CORE_IO_ROPE_ROWS_H_
#define NIBBLE_CORE_IO_ROPE_ROWS_H_

#include <cstdint>

namespace nibble::io {

// Where the half-split row `row` lies in an interleaved matrix.
inline int64_t InterleavedRow(int64_t row, int64_t head_dim) {
  const int64_t within = row % head_dim, half = head_dim / 2;
  return row - within + 2 * (within % half) + within / half;
}

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_ROPE_ROWS_H_
