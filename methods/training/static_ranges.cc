#include "methods/training/static_ranges.h"

#include "core/base/progress.h"
#include "core/base/status.h"
#include "core/calibration/block_runner.h"
#include "core/ir/passes.h"
#include "methods/options.h"

namespace nibble {
namespace {

using calibration::Batch;
using calibration::BlockRunner;
using calibration::RangeObserver;

absl::Status Attach(ir::Graph& graph, const std::vector<size_t>& ops, const RangeObserver& observer, const StaticRanges& ranges) {
  QuantScheme scheme = ranges.scheme;
  NIBBLE_ASSIGN_OR_RETURN(*scheme.mutable_fixed(), ranges.range(observer));
  return ir::AttachActivation(graph, ops, scheme);
}

}  // namespace

absl::Status AttachStaticRanges(Context& context, ir::Graph& graph, const std::vector<size_t>& selected, const StaticRanges& ranges) {
  NIBBLE_ASSIGN_OR_RETURN(std::vector<Batch> batches, CalibrationBatches(context, graph, ranges.data, ranges.samples, ranges.seed));
  NIBBLE_ASSIGN_OR_RETURN(const train::Machine machine, TrainingMachine(context));
  Progress progress("calibrating", graph.num_layers());
  for (int layer = 0; layer < graph.num_layers(); ++layer) {
    NIBBLE_ASSIGN_OR_RETURN(BlockRunner runner, BlockRunner::Create(graph, layer, machine));
    const std::vector<std::vector<size_t>> groups = runner.LinearsByInput();
    std::vector<RangeObserver> observers(groups.size(), RangeObserver(ranges.momentum));
    for (Batch& batch : batches) {
      NIBBLE_RETURN_IF_ERROR(runner.Run(batch.starts, &batch.hidden, [&](size_t op, absl::Span<const float> x) {
        for (size_t g = 0; g < groups.size(); ++g) {
          if (groups[g][0] == op) observers[g].Add(x);
        }
      }));
    }
    for (size_t g = 0; g < groups.size(); ++g) {
      const std::vector<size_t> readers = SelectedOf(groups[g], selected);
      if (!readers.empty()) NIBBLE_RETURN_IF_ERROR(Attach(graph, readers, observers[g], ranges));
    }
    progress.Update(layer + 1);
  }
  return absl::OkStatus();
}

absl::StatusOr<StaticRanges> StaticRangesFrom(const CalibratedRanges& options, absl::string_view name, QuantScheme scheme) {
  NIBBLE_RETURN_IF_ERROR(CheckCalibration(options, name));
  if (!(options.momentum() >= 0 && options.momentum() < 1)) {
    return absl::InvalidArgumentError(absl::StrCat(name, ".momentum: ", options.momentum(), " must be from 0 to below 1"));
  }
  StaticRanges ranges;
  ranges.data = options.data();
  ranges.samples = options.samples();
  ranges.seed = options.seed();
  ranges.momentum = options.momentum();
  ranges.scheme = std::move(scheme);
  const bool average = options.has_momentum();
  ranges.range = [average](const RangeObserver& observer) { return average ? observer.MovingAverage() : observer.AbsMax(); };
  return ranges;
}

}  // namespace nibble
