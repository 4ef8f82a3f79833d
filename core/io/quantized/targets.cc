#include "core/io/quantized/targets.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/regex.h"
#include "core/base/status.h"

namespace nibble::io {
namespace {

constexpr size_t kMaxPattern = 1000;

absl::StatusOr<bool> MatchesStart(absl::string_view pattern, absl::string_view module) {
  if (pattern.size() > kMaxPattern) return absl::InvalidArgumentError(absl::StrCat("a regex of ", pattern.size(), " characters; at most ", kMaxPattern));
  NIBBLE_ASSIGN_OR_RETURN(const Regex regex, Regex::Compile(pattern));
  return regex.MatchesStart(module);
}

}  // namespace

absl::StatusOr<int> TargetFit(const std::string& target, const std::string& module) {
  if (target == module) return 3;
  const bool embedding = absl::EndsWith(module, "embed_tokens");
  if (target == (embedding ? "Embedding" : "Linear")) return 1;
  if (!absl::StartsWith(target, "re:")) return 0;
  const auto matches = MatchesStart(absl::string_view(target).substr(3), module);
  if (!matches.ok()) return Annotate(matches.status(), "targets");
  return *matches ? 2 : 0;
}

}  // namespace nibble::io
