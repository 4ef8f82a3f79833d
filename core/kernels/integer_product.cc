#include "core/kernels/integer_product.h"

#include <algorithm>

namespace nibble::kernels {
namespace {

int64_t MostColumns(const std::vector<IntegerPanel>& panels) {
  int64_t most = 0;
  for (const IntegerPanel& panel : panels) most = std::max(most, panel.columns);
  return most;
}

int64_t MostGroups(const std::vector<IntegerPanel>& panels) {
  int64_t most = 0;
  for (const IntegerPanel& panel : panels) most = std::max(most, panel.groups);
  return most;
}

bool CarriesProducts(const std::vector<IntegerPanel>& panels) {
  return std::any_of(panels.begin(), panels.end(), [](const IntegerPanel& panel) { return !panel.ends; });
}

// `scratch` cut into the parts of a call.
IntegerWork CutScratch(const std::vector<IntegerPanel>& panels, int64_t tokens, void* scratch) {
  IntegerWork work;
  work.codes = static_cast<uint8_t*>(scratch);
  work.scales = reinterpret_cast<float*>(work.codes + kIntegerBlocks * kSpreadBytes * kBlockRows * MostColumns(panels));
  work.sums = work.scales + kIntegerBlocks * kBlockRows * MostGroups(panels);
  work.products = reinterpret_cast<int32_t*>(work.sums + tokens * kSumStride);
  return work;
}

// Tokens [begin, begin + n) of x.
QuantizedRows Part(const QuantizedRows& x, int64_t begin, int64_t n) {
  QuantizedRows part = x;
  part.tokens = n;
  part.codes += begin * x.stride;
  part.scales += begin, part.zeros += begin, part.group_terms += begin;
  return part;
}

}  // namespace

std::vector<IntegerPanel> IntegerPanels(const PackedIntegers& w) {
  std::vector<IntegerPanel> panels;
  const int64_t whole = std::max<int64_t>(1, kIntegerDepth / w.padded_group);  // groups of a panel
  for (int64_t g = 0; g < w.groups; g += whole) {
    const int64_t groups = std::min(whole, w.groups - g);
    const int64_t begin = g * w.padded_group, end = g + groups == w.groups ? w.padded_cols : (g + groups) * w.padded_group;
    // The cuts of a long group fall on whole chunks of every container.
    for (int64_t first = begin; first < end; first += kIntegerDepth) {
      const int64_t columns = std::min(kIntegerDepth, end - first);
      panels.push_back({.group = g, .groups = groups, .first = first, .columns = columns, .starts = first == begin, .ends = first + columns == end});
    }
  }
  return panels;
}

int64_t IntegerScratchBytes(const std::vector<IntegerPanel>& panels, int64_t tokens) {
  const int64_t sums = std::min(tokens, kIntegerTokens) * kSumStride;
  const int64_t codes = kIntegerBlocks * kSpreadBytes * kBlockRows * MostColumns(panels);
  return codes + 4 * (kIntegerBlocks * kBlockRows * MostGroups(panels) + (CarriesProducts(panels) ? 2 : 1) * sums);
}

void MultiplyManyTokens(const KernelFunctions& table, const PackedIntegers& w, const std::vector<IntegerPanel>& panels,
                        int64_t block, int64_t blocks, const QuantizedRows& x, void* scratch, float* y, int64_t ldy) {
  const IntegerWork work = CutScratch(panels, std::min(x.tokens, kIntegerTokens), scratch);
  for (int64_t t = 0; t < x.tokens; t += kIntegerTokens) {
    const QuantizedRows part = Part(x, t, std::min(kIntegerTokens, x.tokens - t));
    for (const IntegerPanel& panel : panels) {
      for (int64_t b = 0; b < blocks; ++b) {
        table.spread_integers(w, block + b, panel, work.codes + b * kSpreadBytes * kBlockRows * panel.columns,
                              work.scales + b * panel.groups * kBlockRows);
      }
      table.multiply_integer_panel(w, block, blocks, panel, part, work);
    }
    table.finish_integers(w, block, blocks, part, work.sums, y + t * ldy, ldy);
  }
}

}  // namespace nibble::kernels
