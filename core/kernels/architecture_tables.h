// The tables of the architecture that this is built for: tables_x86.cc, tables_arm.cc, or
// none in tables_portable.cc. Private to this room.
#ifndef NIBBLE_CORE_KERNELS_ARCHITECTURE_TABLES_H_
#define NIBBLE_CORE_KERNELS_ARCHITECTURE_TABLES_H_

#include <string>
#include <vector>

#include "core/kernels/kernel_table.h"

namespace nibble::kernels {

// KernelTable::reads_in_order of this machine.
bool ReadsInOrder();

KernelTable MakeTable(const char* name, const KernelFunctions& functions, const ProbeFunctions& probes);

// MachineInfo::features of this machine.
std::vector<std::string> ArchitectureFeatures();

// Those that this machine can run, besides the portable one; fastest last.
std::vector<const KernelTable*> ArchitectureTables();

}  // namespace nibble::kernels

#endif  // NIBBLE_CORE_KERNELS_ARCHITECTURE_TABLES_H_
