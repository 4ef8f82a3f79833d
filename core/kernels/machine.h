// What this machine is and what it can do at best: figures that latency
// results are read against.
#ifndef NIBBLE_CORE_KERNELS_MACHINE_H_
#define NIBBLE_CORE_KERNELS_MACHINE_H_

#include <string>
#include <vector>

#include "core/base/thread_pool.h"

namespace nibble::kernels {

struct MachineInfo {
  std::string cpu;           // model name
  std::string features;      // "avx2 fma f16c avx512f avx512_vnni", those that kernels use
  std::string kernel_table;  // the table that will run
  int cpus = 1;
};
MachineInfo DescribeMachine();

// The buffer of a BandwidthProbe, far above the last-level cache.
inline constexpr int kBandwidthMegabytes = 512;

// Reads memory as fast as it comes: threads sum disjoint parts of a buffer of
// `megabytes`, which the probe holds.
class BandwidthProbe {
 public:
  explicit BandwidthProbe(int threads, int megabytes = kBandwidthMegabytes);

  // GB/s (1e9 bytes) of one pass over the buffer.
  double Pass();

 private:
  ThreadPool pool_;
  std::vector<std::vector<float>> parts_;  // of each thread
};

// The best of a few passes, GB/s.
double MeasureReadBandwidth(int threads, int megabytes = kBandwidthMegabytes);

// fp32 fused multiply-add peak in GFLOP/s (2 operations each) over `threads`
// threads with the widest vectors that the kernels use.
double MeasureFmaPeak(int threads);

// The same for bf16 products; 0 where the table has none.
double MeasureBf16Peak(int threads);

// The same in Gop/s for products of bytes as the int4 kernel sums them.
double MeasureBytePeak(int threads);

}  // namespace nibble::kernels

#endif  // NIBBLE_CORE_KERNELS_MACHINE_H_
