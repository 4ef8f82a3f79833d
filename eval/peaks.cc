#include "eval/peaks.h"

#include <algorithm>

#include "core/kernels/machine.h"

namespace nibble::eval {

void RaisePeaks(int threads, MachinePeaks* peaks) {
  peaks->read_gb_s = std::max(peaks->read_gb_s, kernels::MeasureReadBandwidth(threads));
  peaks->fma_gflop_s = std::max(peaks->fma_gflop_s, kernels::MeasureFmaPeak(threads));
  peaks->bf16_gflop_s = std::max(peaks->bf16_gflop_s, kernels::MeasureBf16Peak(threads));
  peaks->byte_gop_s = std::max(peaks->byte_gop_s, kernels::MeasureBytePeak(threads));
}

void SetPeaks(const MachinePeaks& peaks, int threads, Machine* machine) {
  machine->set_read_bandwidth_gb_s(peaks.read_gb_s);
  machine->set_fma_peak_gflop_s(peaks.fma_gflop_s);
  if (peaks.bf16_gflop_s > 0) machine->set_bf16_peak_gflop_s(peaks.bf16_gflop_s);
  machine->set_int8_peak_gop_s(peaks.byte_gop_s);
  machine->set_peak_threads(threads);
}

}  // namespace nibble::eval
