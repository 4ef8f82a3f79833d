// No table but the portable one: for compilers that do not know the others' instructions
// and for sanitizers, which do not look into them.
#include "core/kernels/architecture_tables.h"

namespace nibble::kernels {

bool ReadsInOrder() { return false; }

std::vector<std::string> ArchitectureFeatures() { return {}; }

std::vector<const KernelTable*> ArchitectureTables() { return {}; }

}  // namespace nibble::kernels
