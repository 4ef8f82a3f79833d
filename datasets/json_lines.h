// JSON Lines: an object a line, errors with file:line and field.
#ifndef NIBBLE_DATASETS_JSON_LINES_H_
#define NIBBLE_DATASETS_JSON_LINES_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/base/json.h"

namespace nibble::datasets {

// A text's lines without their ends ("\n" or "\r\n"); a last empty line is none.
std::vector<absl::string_view> Lines(absl::string_view text);

// "path:line" of the line with this index.
std::string Place(const std::string& path, size_t line);

absl::Status FieldError(absl::string_view place, absl::string_view field, absl::string_view what);

// Field `name` of an object, which must be a string.
absl::StatusOr<std::string> StringField(const nlohmann::json& object, const char* name, absl::string_view place);

// Calls `read` with each object and its place; blank lines are skipped. Errors:
// a line that is no object, a file without any.
absl::Status ForJsonLines(const std::string& path, const std::function<absl::Status(const nlohmann::json& object, const std::string& place)>& read);

}  // namespace nibble::datasets

#endif  // NIBBLE_DATASETS_JSON_LINES_H_
