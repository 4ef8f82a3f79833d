#include "core/kernels/kernel_table.h"

#include <cstdlib>

#include "core/base/status.h"
#include "core/base/suggest.h"
#include "core/kernels/architecture_tables.h"
#include "core/kernels/instruction_sets.h"

namespace nibble::kernels {
namespace {

std::vector<const KernelTable*> FindTables() {
  static const KernelTable portable = MakeTable("portable", kPortableFunctions, kPortableProbes);
  std::vector<const KernelTable*> tables = {&portable};
  for (const KernelTable* table : ArchitectureTables()) tables.push_back(table);
  return tables;
}

}  // namespace

KernelTable MakeTable(const char* name, const KernelFunctions& functions, const ProbeFunctions& probes) {
  KernelTable table;
  static_cast<KernelFunctions&>(table) = functions;
  table.name = name;
  table.reads_in_order = ReadsInOrder();
  table.probes = probes;
  return table;
}

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
