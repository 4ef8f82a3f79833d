#include "core/kernels/kernel_table.h"

#include <cstdlib>

#include "core/base/status.h"
#include "core/base/suggest.h"
#include "core/kernels/instruction_sets.h"

namespace nibble::kernels {
namespace {

KernelTable MakeTable(const char* name, const KernelFunctions& functions, const ProbeFunctions& probes) {
  KernelTable table;
  static_cast<KernelFunctions&>(table) = functions;
  table.name = name;
  table.probes = probes;
  return table;
}

#if defined(__x86_64__)
// __builtin_cpu_supports also asks whether the operating system saves the
// registers.
bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

bool HasAvxVnni() { return HasAvx2() && __builtin_cpu_supports("avxvnni"); }

bool HasAvx512Vnni() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
}
#endif

std::vector<const KernelTable*> FindTables() {
  static const KernelTable portable = MakeTable("portable", kPortableFunctions, kPortableProbes);
  std::vector<const KernelTable*> tables = {&portable};
#if defined(__x86_64__)
  static const KernelTable avx2 = MakeTable("avx2", kAvx2Functions, kAvx2Probes);
  static const KernelTable avxvnni = MakeTable("avxvnni", kAvxVnniFunctions, kAvxVnniProbes);
  static const KernelTable avx512vl = MakeTable("avx512vl_vnni", kAvx512VlVnniFunctions, kAvx512VlVnniProbes);
  static const KernelTable avx512vnni = MakeTable("avx512vnni", kAvx512VnniFunctions, kAvx512VnniProbes);
  if (HasAvx2()) tables.push_back(&avx2);
  if (HasAvxVnni()) tables.push_back(&avxvnni);
  if (HasAvx512Vnni()) tables.push_back(&avx512vl), tables.push_back(&avx512vnni);
#endif
  return tables;
}

}  // namespace

const std::vector<const KernelTable*>& AvailableTables() {
  static const auto& tables = *new std::vector<const KernelTable*>(FindTables());
  return tables;
}

absl::StatusOr<const KernelTable*> ChooseTable() {
  const char* forced = std::getenv("NIBBLE_ISA");
  if (forced == nullptr || *forced == '\0') return AvailableTables().back();
  std::vector<std::string> names;
  for (const KernelTable* table : AvailableTables()) {
    if (table->name == forced) return table;
    names.push_back(table->name);
  }
  return absl::InvalidArgumentError(absl::StrCat("NIBBLE_ISA: ", UnknownName("kernel table of this machine", forced, names)));
}

}  // namespace nibble::kernels
