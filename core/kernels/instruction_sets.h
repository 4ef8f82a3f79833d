// What each instruction-set file defines: constants, so that nothing runs
// before the choice of a table. Private to this room.
#ifndef NIBBLE_CORE_KERNELS_INSTRUCTION_SETS_H_
#define NIBBLE_CORE_KERNELS_INSTRUCTION_SETS_H_

#include "core/kernels/kernel_types.h"

namespace nibble::kernels {

extern const KernelFunctions kPortableFunctions, kAvx2Functions, kAvxVnniFunctions, kAvx512VlVnniFunctions, kAvx512VnniFunctions,
    kNeonFunctions;
extern const ProbeFunctions kPortableProbes, kAvx2Probes, kAvxVnniProbes, kAvx512VlVnniProbes, kAvx512VnniProbes, kNeonProbes;

}  // namespace nibble::kernels

#endif  // NIBBLE_CORE_KERNELS_INSTRUCTION_SETS_H_
