// The two orders of a query or key projection's rows. Rotary embedding turns
// pairs of rows of a head: Hugging Face pairs row i with row i + d/2 of the
// head's d rows ("half-split"), Meta's files, llama2.c and GGUF's "llama"
// architecture pair rows 2i and 2i + 1 ("interleaved"). Nibble computes half-split.
#ifndef NIBBLE_CORE_IO_ROPE_ROWS_H_
#define NIBBLE_CORE_IO_ROPE_ROWS_H_

#include <cstdint>

#include "core/tensor/tensor.h"

namespace nibble::io {

// An interleaved tensor [heads * head_dim, ...] with half-split rows, and back:
// rows are moved whole, whatever their bytes mean.
Tensor HalfSplitRows(const Tensor& interleaved, int64_t head_dim);
Tensor InterleavedRows(const Tensor& half_split, int64_t head_dim);

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_ROPE_ROWS_H_
