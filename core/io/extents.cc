#include "core/io/extents.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace nibble::io {

std::string DescribeOverlap(std::vector<Extent> extents) {
  const auto is_empty = [](const Extent& extent) { return extent.begin >= extent.end; };
  extents.erase(std::remove_if(extents.begin(), extents.end(), is_empty), extents.end());
  std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < extents.size(); ++i) {
    if (extents[i].begin < extents[i - 1].end) return absl::StrCat("tensors '", extents[i - 1].name, "' and '", extents[i].name, "' overlap");
  }
  return "";
}

}  // namespace nibble::io
