#include "core/kernels/architecture_tables.h"
#include "core/kernels/instruction_sets.h"

namespace nibble::kernels {
namespace {

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

bool HasAvx512Bf16() { return HasAvx512Vnni() && __builtin_cpu_supports("avx512bf16"); }

KernelTable Bf16Table() {
  KernelTable table = MakeTable("avx512bf16", kAvx512VnniFunctions, kAvx512VnniProbes);
  table.multiply_bf16_panels = MultiplyBf16Panels;
  table.round_to_bf16 = RoundToBf16;
  table.probes.multiply_bf16 = ProbeMultiplyBf16;
  table.probes.bf16_flops_per_round = int64_t{4} * 16 * kBf16ProbeChains;
  return table;
}

}  // namespace

bool ReadsInOrder() { return __builtin_cpu_is("amd"); }

std::vector<std::string> ArchitectureFeatures() {
  std::vector<std::string> features;
  if (__builtin_cpu_supports("avx2")) features.push_back("avx2");
  if (__builtin_cpu_supports("fma")) features.push_back("fma");
  if (__builtin_cpu_supports("f16c")) features.push_back("f16c");
  if (__builtin_cpu_supports("avxvnni")) features.push_back("avx_vnni");
  if (__builtin_cpu_supports("avx512f")) features.push_back("avx512f");
  if (__builtin_cpu_supports("avx512bw")) features.push_back("avx512bw");
  if (__builtin_cpu_supports("avx512vl")) features.push_back("avx512vl");
  if (__builtin_cpu_supports("avx512dq")) features.push_back("avx512dq");
  if (__builtin_cpu_supports("avx512vnni")) features.push_back("avx512_vnni");
  if (__builtin_cpu_supports("avx512bf16")) features.push_back("avx512_bf16");
  return features;
}

std::vector<const KernelTable*> ArchitectureTables() {
  static const KernelTable avx2 = MakeTable("avx2", kAvx2Functions, kAvx2Probes);
  static const KernelTable avxvnni = MakeTable("avxvnni", kAvxVnniFunctions, kAvxVnniProbes);
  static const KernelTable avx512vl = MakeTable("avx512vl_vnni", kAvx512VlVnniFunctions, kAvx512VlVnniProbes);
  static const KernelTable avx512vnni = MakeTable("avx512vnni", kAvx512VnniFunctions, kAvx512VnniProbes);
  static const KernelTable avx512bf16 = Bf16Table();
  std::vector<const KernelTable*> tables;
  if (HasAvx2()) tables.push_back(&avx2);
  if (HasAvxVnni()) tables.push_back(&avxvnni);
  if (HasAvx512Vnni()) tables.push_back(&avx512vl), tables.push_back(&avx512vnni);
  if (HasAvx512Bf16()) tables.push_back(&avx512bf16);
  return tables;
}

}  // namespace nibble::kernels
