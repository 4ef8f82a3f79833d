// What a model costs, part by part: the bytes of its weights and, on this machine, the
// time of a decoded token.
#ifndef NIBBLE_EXPERIMENTS_SEARCH_COSTS_H_
#define NIBBLE_EXPERIMENTS_SEARCH_COSTS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "core/base/thread_pool.h"
#include "core/ir/graph.h"

namespace nibble {

struct Cost {
  double bytes = 0;
  double seconds = 0;  // of a decoded token; 0 where nothing was timed
};

struct ModelCost {
  Cost whole;
  // Linears, embedding and head, by name; what a tied head shares counts as the embedding's.
  std::map<std::string, Cost> ops;
};

// How a decode is timed.
struct DecodeTiming {
  int64_t depth = 128;  // tokens of the prompt before it
  int64_t tokens = 32;  // that are decoded
  int rounds = 5;       // after a warm-up; the fastest counts
};

// Times each op within a decode of the whole model, where caches hold what they hold in
// use. Linears of a name in all blocks (q_proj, ...) with the same shape and scheme share
// the mean of their times. Errors: an op that has no native kernel here, whose time would
// say nothing.
absl::StatusOr<ModelCost> MeasureModelCost(const ir::Graph& graph, const std::optional<DecodeTiming>& timing, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_SEARCH_COSTS_H_
