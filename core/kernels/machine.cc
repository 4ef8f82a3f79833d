#include "core/kernels/machine.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/kernels/architecture_tables.h"
#include "core/kernels/kernel_table.h"

namespace nibble::kernels {
namespace {

constexpr int kPasses = 5;

const KernelTable& RunningTable() {
  const auto table = ChooseTable();
  return table.ok() ? **table : *AvailableTables().back();
}

std::string CpuModel() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

// Least wall seconds of kPasses runs of `task` on every thread of the pool.
double BestSeconds(ThreadPool& pool, const std::function<void(int64_t, int)>& task) {
  double best = 1e30;
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    pool.ParallelFor(pool.threads(), task);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

MachineInfo DescribeMachine() {
  return {.cpu = CpuModel(), .features = absl::StrJoin(ArchitectureFeatures(), " "), .kernel_table = RunningTable().name, .cpus = AvailableCpus()};
}

BandwidthProbe::BandwidthProbe(int threads, int megabytes) : pool_(threads), parts_(threads) {
  const int64_t floats = static_cast<int64_t>(megabytes) * 1000000 / 4 / threads;
  // Each thread reads what it wrote, so that pages lie near it.
  pool_.ParallelFor(threads, [&](int64_t i, int) { parts_[i].assign(floats, 1.0f); });
}

double BandwidthProbe::Pass() {
  const auto sum = RunningTable().probes.sum;
  std::vector<float> results(parts_.size());
  const auto start = std::chrono::steady_clock::now();
  pool_.ParallelFor(static_cast<int64_t>(parts_.size()), [&](int64_t i, int) { results[i] = sum(parts_[i].data(), static_cast<int64_t>(parts_[i].size())); });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  volatile float keep = results[0];
  (void)keep;
  return static_cast<double>(parts_.size() * parts_[0].size()) * 4 / seconds * 1e-9;
}

double MeasureReadBandwidth(int threads, int megabytes) {
  BandwidthProbe probe(threads, megabytes);
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) best = std::max(best, probe.Pass());
  return best;
}

namespace {

// 1e9 operations a second of a probe over `threads` threads.
template <typename Result>
double MeasurePeak(int threads, Result (*probe)(int64_t), int64_t ops_per_round) {
  ThreadPool pool(threads);
  constexpr int64_t kIterations = 4000000;
  std::vector<Result> results(pool.threads());
  const double seconds = BestSeconds(pool, [&](int64_t i, int) { results[i] = probe(kIterations); });
  volatile Result keep = results[0];
  (void)keep;
  return static_cast<double>(kIterations * ops_per_round) * pool.threads() / seconds * 1e-9;
}

}  // namespace

double MeasureFmaPeak(int threads) {
  const ProbeFunctions& probes = RunningTable().probes;
  return MeasurePeak(threads, probes.multiply_adds, probes.flops_per_round);
}

double MeasureBf16Peak(int threads) {
  const ProbeFunctions& probes = RunningTable().probes;
  return probes.multiply_bf16 == nullptr ? 0 : MeasurePeak(threads, probes.multiply_bf16, probes.bf16_flops_per_round);
}

double MeasureBytePeak(int threads) {
  const ProbeFunctions& probes = RunningTable().probes;
  return MeasurePeak(threads, probes.multiply_bytes, probes.byte_ops_per_round);
}

}  // namespace nibble::kernels
