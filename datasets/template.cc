#include "datasets/template.h"

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/base/status.h"
#include "datasets/json_lines.h"

namespace nibble::datasets {
namespace {

// "choices.text[2]" as a path into a JSON value.
absl::StatusOr<nlohmann::json::json_pointer> ParsePath(absl::string_view column) {
  nlohmann::json::json_pointer path;
  for (absl::string_view name : absl::StrSplit(column, '.')) {
    const absl::string_view field = name.substr(0, name.find('['));
    if (field.empty()) return absl::InvalidArgumentError(absl::StrCat("'{", column, "}' names no column"));
    // The JSON library throws at such a name in a list.
    if (field.size() > 9 && absl::c_all_of(field, absl::ascii_isdigit)) {
      return absl::InvalidArgumentError(absl::StrCat("'{", column, "}': ", field, " is no place in a list and no name"));
    }
    path.push_back(std::string(field));
    for (name.remove_prefix(field.size()); !name.empty();) {
      const size_t close = name.find(']');
      uint32_t index = 0;
      if (name[0] != '[' || close == absl::string_view::npos || !absl::SimpleAtoi(name.substr(1, close - 1), &index)) {
        return absl::InvalidArgumentError(absl::StrCat("'{", column, "}': an element is written {name[0]}"));
      }
      path.push_back(std::to_string(index));
      name.remove_prefix(close + 1);
    }
  }
  return path;
}

absl::StatusOr<std::string> TextOf(const nlohmann::json& value, const std::string& column, const std::string& place) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number() || value.is_boolean()) return value.dump();
  if (value.is_array()) return FieldError(place, column, absl::StrCat("is a list; an element of it is {", column, "[0]}"));
  if (value.is_object()) return FieldError(place, column, absl::StrCat("is an object; a field of it is {", column, ".name}"));
  return FieldError(place, column, "is null");
}

}  // namespace

absl::StatusOr<Template> Template::Parse(absl::string_view text) {
  const auto error = [&](absl::string_view what) { return absl::InvalidArgumentError(absl::StrCat("'", text, "' ", what)); };
  Template result;
  std::string literal;
  const auto end_literal = [&] {
    if (!literal.empty()) result.pieces_.push_back({std::move(literal), "", nlohmann::json::json_pointer()});
    literal.clear();
  };
  for (absl::string_view rest = text; !rest.empty();) {
    if (absl::ConsumePrefix(&rest, "{{")) {
      literal.push_back('{');
    } else if (absl::ConsumePrefix(&rest, "}}")) {
      literal.push_back('}');
    } else if (rest[0] == '}') {
      return error("has a } without its {; }} stands for the brace");
    } else if (rest[0] == '{') {
      const size_t close = rest.find('}');
      if (close == absl::string_view::npos) return error("has a { without its }; {{ stands for the brace");
      const absl::string_view column = rest.substr(1, close - 1);
      NIBBLE_ASSIGN_OR_RETURN(auto path, ParsePath(column));
      end_literal();
      result.pieces_.push_back({"", std::string(column), std::move(path)});
      rest.remove_prefix(close + 1);
    } else {
      literal.push_back(rest[0]);
      rest.remove_prefix(1);
    }
  }
  end_literal();
  result.name_ = result.pieces_.size() == 1 && !result.pieces_[0].column.empty() ? result.pieces_[0].column : std::string(text);
  return result;
}

absl::StatusOr<const nlohmann::json*> Template::Find(const Piece& piece, const Row& row) const {
  if (row.columns.contains(piece.path)) return &row.columns.at(piece.path);
  return FieldError(row.place, piece.column, "is missing");
}

absl::StatusOr<std::string> Template::Render(const Row& row) const {
  std::string text;
  for (const Piece& piece : pieces_) {
    if (piece.column.empty()) {
      text += piece.literal;
      continue;
    }
    NIBBLE_ASSIGN_OR_RETURN(const nlohmann::json* value, Find(piece, row));
    NIBBLE_ASSIGN_OR_RETURN(const std::string part, TextOf(*value, piece.column, row.place));
    text += part;
  }
  return text;
}

absl::StatusOr<std::vector<std::string>> Template::RenderList(const Row& row) const {
  if (pieces_.size() == 1 && !pieces_[0].column.empty()) {
    NIBBLE_ASSIGN_OR_RETURN(const nlohmann::json* value, Find(pieces_[0], row));
    if (value->is_array()) {
      std::vector<std::string> texts;
      for (const nlohmann::json& element : *value) {
        NIBBLE_ASSIGN_OR_RETURN(std::string text, TextOf(element, absl::StrCat(pieces_[0].column, "[", texts.size(), "]"), row.place));
        texts.push_back(std::move(text));
      }
      return texts;
    }
  }
  NIBBLE_ASSIGN_OR_RETURN(std::string text, Render(row));
  return std::vector<std::string>{std::move(text)};
}

}  // namespace nibble::datasets
