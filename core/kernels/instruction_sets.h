// What each instruction-set file defines: constants, so that nothing runs
// before the choice of a table. Private to this room.
#ifndef NIBBLE_CORE_KERNELS_INSTRUCTION_SETS_H_
#define NIBBLE_CORE_KERNELS_INSTRUCTION_SETS_H_

#include "core/kernels/kernel_types.h"

namespace nibble::kernels {

extern const KernelFunctions kPortableFunctions, kAvx2Functions, kAvxVnniFunctions, kAvx512VlVnniFunctions, kAvx512VnniFunctions,
    kNeonFunctions;
extern const ProbeFunctions kPortableProbes, kAvx2Probes, kAvxVnniProbes, kAvx512VlVnniProbes, kAvx512VnniProbes, kNeonProbes;

// What the BF16 table has beside the functions of the VNNI table, and the same
// with its instructions emulated, for tests.
inline constexpr int kBf16ProbeChains = 12;
void MultiplyBf16Panels(const float* panels, int64_t panel_step, int64_t rows, int64_t pairs, const float* tile, int64_t tokens,
                        bool accumulate, float* y, int64_t ldy);
void RoundToBf16(const float* x, int64_t n, uint16_t* out);
float ProbeMultiplyBf16(int64_t iterations);
void EmulatedMultiplyBf16Panels(const float* panels, int64_t panel_step, int64_t rows, int64_t pairs, const float* tile, int64_t tokens,
                                bool accumulate, float* y, int64_t ldy);
void EmulatedRoundToBf16(const float* x, int64_t n, uint16_t* out);
float EmulatedProbeMultiplyBf16(int64_t iterations);

}  // namespace nibble::kernels

#endif  // NIBBLE_CORE_KERNELS_INSTRUCTION_SETS_H_
