// Errors of quantized layers: those that methods told, beside those of rounding to nearest,
// and those of the weights themselves.
#ifndef NIBBLE_REPORTS_LAYERS_H_
#define NIBBLE_REPORTS_LAYERS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "eval/result.pb.h"
#include "reports/run_table.h"

namespace nibble {

// The layers that one method quantized in one variant, in its order. Pointers
// into the table's results.
struct LayerGroup {
  std::string variant;
  std::string method;
  std::vector<const QuantizedLayer*> layers;
};

// By variant, then by method in the order of their first layers.
std::vector<LayerGroup> LayerGroups(const RunTable& table);

// Where a layer stands in its model.
struct LayerPlace {
  std::string kind;              // what follows the block's number: "mlp.down_proj"; the whole name where it has none
  std::optional<int64_t> block;  // "model.layers.3.mlp.down_proj": 3
};
LayerPlace PlaceOf(const std::string& layer);

// error / rounding_error; 1 where both are 0, infinite where only the latter is.
double ErrorRatio(const QuantizedLayer& layer);

bool IsWorseThanRounding(const QuantizedLayer& layer);

// The layers of a group that do the same in every block.
struct LayerKind {
  std::string name;                       // LayerPlace.kind
  int64_t layers = 0;
  int64_t worse = 0;                      // than rounding to nearest
  double mean_ratio = 0;                  // geometric
  const QuantizedLayer* worst = nullptr;  // by its ratio; of equal ones the first
};

// In the order of the kinds' first layers.
std::vector<LayerKind> LayerKinds(const LayerGroup& group);

// The linears whose weights a variant's build quantized, in the model's order. Pointers into
// the table's results.
struct WeightGroup {
  std::string variant;
  std::vector<const WeightError*> linears;
};

// Of the variants that have any.
std::vector<WeightGroup> WeightGroups(const RunTable& table);

// Those of a group that do the same in every block.
struct WeightKind {
  std::string name;                    // LayerPlace.kind
  int64_t compared = 0;                // with the source's weights
  int64_t left_out = 0;                // WeightError without an error
  double mean = 0;                     // of the errors; 0 where none is compared
  const WeightError* worst = nullptr;  // of equal ones the first; null where none is compared
};

// In the order of the kinds' first linears.
std::vector<WeightKind> WeightKinds(const WeightGroup& group);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_LAYERS_H_
