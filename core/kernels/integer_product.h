// Products of integer weights and many quantized tokens, panel by panel: what
// GEMM libraries do (Goto and van de Geijn, 2008), with sums that a group's
// scale closes.
#ifndef NIBBLE_CORE_KERNELS_INTEGER_PRODUCT_H_
#define NIBBLE_CORE_KERNELS_INTEGER_PRODUCT_H_

#include <vector>

#include "core/kernels/kernel_types.h"

namespace nibble::kernels {

// The panels of a weight, in order.
std::vector<IntegerPanel> IntegerPanels(const PackedIntegers& w);

// Bytes of scratch, aligned to 64, that a call with `tokens` tokens needs.
int64_t IntegerScratchBytes(const std::vector<IntegerPanel>& panels, int64_t tokens);

// y[t][16 b + r] for `blocks` (up to kIntegerBlocks) row blocks from b: what
// multiply_integers gives, to the bit.
void MultiplyManyTokens(const KernelFunctions& table, const PackedIntegers& w, const std::vector<IntegerPanel>& panels,
                        int64_t block, int64_t blocks, const QuantizedRows& x, void* scratch, float* y, int64_t ldy);

}  // namespace nibble::kernels

#endif  // NIBBLE_CORE_KERNELS_INTEGER_PRODUCT_H_
