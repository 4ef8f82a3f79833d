// KernelTable: the arithmetic, one table of function pointers for each
// instruction set, chosen once at start-up. One .cc file per instruction set
// (compiled with its own flags) fills a table; nothing else in the tree knows
// about instruction sets. The portable table is the meaning: every other one
// is tested against it over odd shapes on every machine that can run it.
//
// $NIBBLE_ISA forces a table by name and is an error when the machine cannot
// run it.
#ifndef NIBBLE_CORE_KERNELS_KERNEL_TABLE_H_
#define NIBBLE_CORE_KERNELS_KERNEL_TABLE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/kernels/kernel_types.h"

namespace nibble::kernels {

struct KernelTable : KernelFunctions {
  std::string name;  // "portable"; "avx2", "avxvnni", "avx512vl_vnni", "avx512vnni",
                     // "avx512bf16"; "neon_dotprod"
  // The machine's own prefetcher follows one stream of reads best, and prefetch
  // instructions only take its place (AMD's Zen: rows one by one without them read
  // 1.3 times as fast as four at once with them). Intel's stops at pages.
  bool reads_in_order = false;
  ProbeFunctions probes;
};

// The tables that this machine can run, portable first, fastest last.
const std::vector<const KernelTable*>& AvailableTables();

// $NIBBLE_ISA or the fastest available. Unknown or unrunnable: an error that
// lists what is available.
absl::StatusOr<const KernelTable*> ChooseTable();

}  // namespace nibble::kernels

#endif  // NIBBLE_CORE_KERNELS_KERNEL_TABLE_H_
