// What the machine gives at best, measured beside timings that are read against it.
#ifndef NIBBLE_EVAL_PEAKS_H_
#define NIBBLE_EVAL_PEAKS_H_

#include "eval/result.pb.h"

namespace nibble::eval {

struct MachinePeaks {
  double read_gb_s = 0, fma_gflop_s = 0, bf16_gflop_s = 0, byte_gop_s = 0;  // bf16: 0 without such products
};

// Raises each peak to what a measurement over `threads` threads gives, if that is more. It
// takes about a second and, meanwhile, kernels::kBandwidthMegabytes.
void RaisePeaks(int threads, MachinePeaks* peaks);

// Sets the peaks of a record, which were measured over `threads` threads.
void SetPeaks(const MachinePeaks& peaks, int threads, Machine* machine);

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_PEAKS_H_
