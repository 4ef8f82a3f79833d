#include "reports/layers.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace nibble {
namespace {

// What follows the block's number in a layer's name; the name where it has none.
std::string KindOf(const std::string& layer) {
  const std::vector<std::string> parts = absl::StrSplit(layer, '.');
  const auto is_number = [](const std::string& part) {
    return !part.empty() && absl::c_all_of(part, [](char c) { return absl::ascii_isdigit(c); });
  };
  const auto number = absl::c_find_if(parts, is_number);
  return number == parts.end() ? layer : absl::StrJoin(number + 1, parts.end(), ".");
}

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

double ErrorRatio(const QuantizedLayer& layer) {
  if (layer.rounding_error() != 0) return layer.error() / layer.rounding_error();
  return layer.error() == 0 ? 1 : std::numeric_limits<double>::infinity();
}

bool IsWorseThanRounding(const QuantizedLayer& layer) { return layer.error() > layer.rounding_error(); }

std::vector<LayerKind> LayerKinds(const LayerGroup& group) {
  std::vector<LayerKind> kinds;
  for (const QuantizedLayer* layer : group.layers) {
    const std::string name = KindOf(layer->layer());
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

}  // namespace nibble
