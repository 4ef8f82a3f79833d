#include "reports/layers.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace nibble {
namespace {

void AddLayers(const std::string& variant, const JobResult& result, std::vector<LayerGroup>* groups) {
  for (const QuantizedLayer& layer : result.layer()) {
    auto group = absl::c_find_if(*groups, [&](const LayerGroup& g) { return g.variant == variant && g.method == layer.method(); });
    if (group == groups->end()) group = groups->insert(group, {variant, layer.method(), {}});
    group->layers.push_back(&layer);
  }
}

}  // namespace

std::vector<LayerGroup> LayerGroups(const RunTable& table) {
  std::vector<LayerGroup> groups;
  for (const std::string& variant : table.variants()) AddLayers(variant, table.Build(variant), &groups);
  return groups;
}

LayerPlace PlaceOf(const std::string& layer) {
  const std::vector<std::string> parts = absl::StrSplit(layer, '.');
  int64_t block = 0;
  const auto is_block = [&](const std::string& part) { return absl::c_all_of(part, absl::ascii_isdigit) && absl::SimpleAtoi(part, &block); };
  const auto number = absl::c_find_if(parts, is_block);
  if (number == parts.end()) return {layer, std::nullopt};
  return {absl::StrJoin(number + 1, parts.end(), "."), block};
}

double ErrorRatio(const QuantizedLayer& layer) {
  if (layer.rounding_error() != 0) return layer.error() / layer.rounding_error();
  return layer.error() == 0 ? 1 : std::numeric_limits<double>::infinity();
}

bool IsWorseThanRounding(const QuantizedLayer& layer) { return layer.error() > layer.rounding_error(); }

std::vector<LayerKind> LayerKinds(const LayerGroup& group) {
  std::vector<LayerKind> kinds;
  for (const QuantizedLayer* layer : group.layers) {
    const std::string name = PlaceOf(layer->layer()).kind;
    auto kind = absl::c_find_if(kinds, [&](const LayerKind& k) { return k.name == name; });
    if (kind == kinds.end()) kind = kinds.insert(kind, {.name = name, .worst = layer});
    ++kind->layers;
    if (IsWorseThanRounding(*layer)) ++kind->worse;
    kind->mean_ratio += std::log(ErrorRatio(*layer));
    if (ErrorRatio(*layer) > ErrorRatio(*kind->worst)) kind->worst = layer;
  }
  for (LayerKind& kind : kinds) kind.mean_ratio = std::exp(kind.mean_ratio / static_cast<double>(kind.layers));
  return kinds;
}

std::vector<WeightGroup> WeightGroups(const RunTable& table) {
  std::vector<WeightGroup> groups;
  for (const std::string& variant : table.variants()) {
    const auto& weights = table.Build(variant).weight();
    if (weights.empty()) continue;
    WeightGroup& group = groups.emplace_back(WeightGroup{variant, {}});
    for (const WeightError& weight : weights) group.linears.push_back(&weight);
  }
  return groups;
}

std::vector<WeightKind> WeightKinds(const WeightGroup& group) {
  std::vector<WeightKind> kinds;
  for (const WeightError* linear : group.linears) {
    const std::string name = PlaceOf(linear->linear()).kind;
    auto kind = absl::c_find_if(kinds, [&](const WeightKind& k) { return k.name == name; });
    if (kind == kinds.end()) kind = kinds.insert(kind, {.name = name});
    if (!linear->has_error()) {
      ++kind->left_out;
      continue;
    }
    ++kind->compared;
    kind->mean += linear->error();
    if (kind->worst == nullptr || linear->error() > kind->worst->error()) kind->worst = linear;
  }
  for (WeightKind& kind : kinds) kind.mean /= static_cast<double>(std::max<int64_t>(1, kind.compared));
  return kinds;
}

}  // namespace nibble
