#include "core/io/quantized/targets.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace nibble::io {
namespace {

constexpr size_t kMaxPattern = 1000;
constexpr uint32_t kMatchLimit = 100'000, kHeapKilobytes = 1024;

absl::StatusOr<bool> MatchesStart(const std::string& pattern, const std::string& text) {
  const auto bad = [&](const char* problem) { return absl::InvalidArgumentError(absl::StrCat("target 're:", pattern.substr(0, 100), "' ", problem)); };
  if (pattern.size() > kMaxPattern) return bad("is too long");
  int error = 0;
  PCRE2_SIZE offset = 0;
  const std::unique_ptr<pcre2_code, void (*)(pcre2_code*)> code(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), 0, &error, &offset, nullptr), pcre2_code_free);
  if (code == nullptr) return bad("is no regular expression");
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> data(pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, void (*)(pcre2_match_context*)> context(pcre2_match_context_create(nullptr), pcre2_match_context_free);
  if (data == nullptr || context == nullptr) return absl::ResourceExhaustedError("no memory for a regular expression");
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_heap_limit(context.get(), kHeapKilobytes);
  const int found =
      pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, PCRE2_ANCHORED, data.get(), context.get());
  if (found < 0 && found != PCRE2_ERROR_NOMATCH) return bad("takes too long");
  return found >= 0;
}

}  // namespace

absl::StatusOr<int> TargetFit(const std::string& target, const std::string& module) {
  if (target == module) return 3;
  if (target == "Linear") return 1;
  if (!absl::StartsWith(target, "re:")) return 0;
  const auto matches = MatchesStart(target.substr(3), module);
  if (!matches.ok()) return matches.status();
  return *matches ? 2 : 0;
}

}  // namespace nibble::io
