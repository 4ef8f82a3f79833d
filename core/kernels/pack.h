// Codes into kernel order (PackedIntegers says which).
#ifndef NIBBLE_CORE_KERNELS_PACK_H_
#define NIBBLE_CORE_KERNELS_PACK_H_

#include "absl/types/span.h"
#include "core/base/divide.h"
#include "core/kernels/kernel_types.h"
#include "core/quant/code_view.h"
#include "core/tensor/tensor.h"

namespace nibble::kernels {

struct PackedWeights {
  PackedIntegers view;  // into the tensors below
  Tensor codes, scales, scale_codes, zeros, weight_sums, values;

  int64_t blocks() const { return CeilDiv(view.rows, kBlockRows); }
  int64_t byte_size() const;
};

// The blocks from `block` on.
PackedIntegers BlocksFrom(const PackedIntegers& p, int64_t block);

// The container of `bits`-bit codes: 1 bit goes into 2, 3 into 4, 5 to 7 into 8.
int ContainerBits(int bits);

// Without the offsets of groups.
PackedWeights PackCodes(const CodeView& weights);

}  // namespace nibble::kernels

#endif  // NIBBLE_CORE_KERNELS_PACK_H_
