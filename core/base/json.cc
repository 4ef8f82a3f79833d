#include "core/base/json.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

constexpr int kMaxDepth = 100;
constexpr size_t kMaxProblem = 300;

// How deep brackets nest outside of quotes.
int Depth(absl::string_view text) {
  int depth = 0, deepest = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') quoted = !quoted;
    if (quoted && c == '\\') ++i;
    if (quoted) continue;
    if (c == '[' || c == '{') deepest = std::max(deepest, ++depth);
    if (c == ']' || c == '}') --depth;
  }
  return deepest;
}

// What the library says of a text, cut short: it quotes the whole of what it could not
// read.
std::string JsonProblem(const nlohmann::json::exception& error) {
  const absl::string_view what = error.what();
  if (what.size() <= kMaxProblem) return std::string(what);
  size_t end = kMaxProblem;
  while (end > 0 && (static_cast<unsigned char>(what[end]) & 0xC0) == 0x80) --end;
  return absl::StrCat(what.substr(0, end), "...");
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, absl::string_view source, const nlohmann::json::parser_callback_t& watch) {
  const size_t nul = text.find('\0');
  if (nul != absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": not valid JSON: a NUL byte at offset ", nul, "; take or write the file again"));
  }
  if (Depth(text) > kMaxDepth) return absl::InvalidArgumentError(absl::StrCat(source, ": nested deeper than ", kMaxDepth, " levels"));
  try {
    return nlohmann::json::parse(text.begin(), text.end(), watch);
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": not valid JSON: ", JsonProblem(error)));
  }
}

}  // namespace nibble
