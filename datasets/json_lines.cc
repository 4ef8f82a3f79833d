#include "datasets/json_lines.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/base/file.h"
#include "core/base/status.h"

namespace nibble::datasets {

std::vector<absl::string_view> Lines(absl::string_view text) {
  std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  if (lines.back().empty()) lines.pop_back();
  for (absl::string_view& line : lines) {
    if (absl::EndsWith(line, "\r")) line.remove_suffix(1);
  }
  return lines;
}

std::string Place(const std::string& path, size_t line) { return absl::StrCat(path, ":", line + 1); }

absl::Status FieldError(absl::string_view place, absl::string_view field, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(place, ": field '", field, "' ", what));
}

absl::StatusOr<std::string> StringField(const nlohmann::json& object, const char* name, absl::string_view place) {
  const auto field = object.find(name);
  if (field == object.end()) return FieldError(place, name, "is missing");
  if (!field->is_string()) return FieldError(place, name, "must be a string");
  return field->get<std::string>();
}

absl::Status ForJsonLines(const std::string& path, const std::function<absl::Status(const nlohmann::json& object, const std::string& place)>& read) {
  NIBBLE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const std::vector<absl::string_view> lines = Lines(text);
  bool any = false;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (absl::StripAsciiWhitespace(lines[i]).empty()) continue;
    const std::string place = Place(path, i);
    NIBBLE_ASSIGN_OR_RETURN(const nlohmann::json object, ParseJson(lines[i], place));
    if (!object.is_object()) return absl::InvalidArgumentError(absl::StrCat(place, ": not a JSON object"));
    NIBBLE_RETURN_IF_ERROR(read(object, place));
    any = true;
  }
  return any ? absl::OkStatus() : absl::InvalidArgumentError(absl::StrCat(path, " holds no items"));
}

}  // namespace nibble::datasets
