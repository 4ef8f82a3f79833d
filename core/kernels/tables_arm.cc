#include <asm/hwcap.h>
#include <sys/auxv.h>

#include "core/kernels/architecture_tables.h"
#include "core/kernels/instruction_sets.h"

namespace nibble::kernels {

bool ReadsInOrder() { return false; }

std::vector<std::string> ArchitectureFeatures() {
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? std::vector<std::string>{"asimddp"} : std::vector<std::string>{};
}

std::vector<const KernelTable*> ArchitectureTables() {
  static const KernelTable neon = MakeTable("neon_dotprod", kNeonFunctions, kNeonProbes);
  std::vector<const KernelTable*> tables;
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) tables.push_back(&neon);
  return tables;
}

}  // namespace nibble::kernels
