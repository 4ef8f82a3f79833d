#include "core/io/strict_json.h"

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/json.h"
#include "core/base/status.h"

namespace nibble::io {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 32;

// Watches a parse for repeated keys and deep nesting.
class Watcher {
 public:
  bool operator()(int depth, json::parse_event_t event, json& value) {
    if (!problem_.empty()) return false;
    if (depth > kMaxDepth) problem_ = absl::StrCat("nested deeper than ", kMaxDepth, " levels");
    if (event == json::parse_event_t::object_start) keys_.emplace_back();
    if (event == json::parse_event_t::object_end) keys_.pop_back();
    if (event == json::parse_event_t::key) NoteKey(value.get_ref<const std::string&>());
    return problem_.empty();
  }
  const std::string& problem() const { return problem_; }

 private:
  void NoteKey(const std::string& key) {
    if (!keys_.back().insert(key).second) problem_ = absl::StrCat("'", key, "' appears twice");
  }

  std::vector<std::set<std::string>> keys_;
  std::string problem_;
};

}  // namespace

absl::StatusOr<json> ParseStrictObject(absl::string_view text, absl::string_view source) {
  Watcher watcher;
  NIBBLE_ASSIGN_OR_RETURN(json parsed, ParseJson(text, source, std::ref(watcher)));
  if (!watcher.problem().empty()) return absl::InvalidArgumentError(absl::StrCat(source, ": ", watcher.problem()));
  if (!parsed.is_object()) return absl::InvalidArgumentError(absl::StrCat(source, ": not a JSON object"));
  return parsed;
}

}  // namespace nibble::io
