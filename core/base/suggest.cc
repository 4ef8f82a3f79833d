#include "core/base/suggest.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace nibble {
namespace {

size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string DidYouMean(absl::string_view name, const std::vector<std::string>& candidates) {
  // A distance takes the product of the lengths; what is longer is no name.
  constexpr size_t kLongest = 256;
  if (name.size() > kLongest) return "";
  size_t best = std::max<size_t>(2, name.size() / 3) + 1;
  const std::string* nearest = nullptr;
  for (const std::string& candidate : candidates) {
    if (candidate.size() > name.size() + best) continue;
    const size_t distance = EditDistance(name, candidate);
    if (distance < best) {
      best = distance;
      nearest = &candidate;
    }
  }
  return nearest == nullptr ? "" : absl::StrCat("; did you mean '", *nearest, "'?");
}

std::string UnknownName(absl::string_view kind, absl::string_view name, const std::vector<std::string>& candidates) {
  const std::string hint = DidYouMean(name, candidates);
  return absl::StrCat("unknown ", kind, " '", name, "'", hint, hint.empty() ? "; known: " : " Known: ",
                      absl::StrJoin(candidates, ", "));
}

}  // namespace nibble
