#include "datasets/multiple_choice.h"

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "datasets/json_lines.h"

namespace nibble::datasets {
namespace {

constexpr size_t kHellaSwagLines = 6;
constexpr int kHellaSwagEndings = 4;

absl::Status CheckGold(absl::string_view place, int64_t gold, size_t choices) {
  if (gold >= 0 && gold < static_cast<int64_t>(choices)) return absl::OkStatus();
  return FieldError(place, "gold", absl::StrCat("is ", gold, "; there are ", choices, " choices, counted from 0"));
}

absl::StatusOr<std::vector<std::string>> ParseChoices(const nlohmann::json& object, absl::string_view place) {
  const auto field = object.find("choices");
  if (field == object.end()) return FieldError(place, "choices", "is missing");
  if (!field->is_array() || field->size() < 2)
    return FieldError(place, "choices", "must be a list of two or more strings");
  std::vector<std::string> choices;
  for (const nlohmann::json& choice : *field) {
    if (!choice.is_string() || choice.get_ref<const std::string&>().empty()) {
      return FieldError(place, absl::StrCat("choices[", choices.size(), "]"), "must be a string that is not empty");
    }
    choices.push_back(choice.get<std::string>());
  }
  return choices;
}

absl::StatusOr<MultipleChoiceItem> ParseItem(const nlohmann::json& object, const std::string& place) {
  MultipleChoiceItem item;
  NIBBLE_ASSIGN_OR_RETURN(item.query, StringField(object, "query", place));
  NIBBLE_ASSIGN_OR_RETURN(item.choices, ParseChoices(object, place));
  const auto gold = object.find("gold");
  if (gold == object.end()) return FieldError(place, "gold", "is missing");
  if (!gold->is_number_integer()) return FieldError(place, "gold", "must be an integer");
  NIBBLE_RETURN_IF_ERROR(CheckGold(place, gold->get<int64_t>(), item.choices.size()));
  item.gold = gold->get<int>();
  return item;
}

absl::StatusOr<MultipleChoiceItem> ParseHellaSwagItem(const std::string& path,
                                                      const std::vector<absl::string_view>& lines, size_t first) {
  MultipleChoiceItem item;
  item.query = std::string(lines[first]);
  for (int i = 0; i < kHellaSwagEndings; ++i) {
    const size_t line = first + 2 + i;
    if (lines[line].empty()) return absl::InvalidArgumentError(absl::StrCat(Place(path, line), ": an empty ending"));
    item.choices.emplace_back(lines[line]);
  }
  const std::string place = Place(path, first + 1);
  if (!absl::SimpleAtoi(lines[first + 1], &item.gold)) {
    return FieldError(place, "gold", absl::StrCat("must be an index, not '", lines[first + 1], "'"));
  }
  NIBBLE_RETURN_IF_ERROR(CheckGold(place, item.gold, item.choices.size()));
  return item;
}

}  // namespace

absl::StatusOr<std::vector<MultipleChoiceItem>> ReadMultipleChoiceJsonLines(const std::string& path) {
  std::vector<MultipleChoiceItem> items;
  NIBBLE_RETURN_IF_ERROR(ForJsonLines(path, [&](const nlohmann::json& object, const std::string& place) -> absl::Status {
    NIBBLE_ASSIGN_OR_RETURN(MultipleChoiceItem item, ParseItem(object, place));
    items.push_back(std::move(item));
    return absl::OkStatus();
  }));
  return items;
}

absl::StatusOr<std::vector<MultipleChoiceItem>> ReadHellaSwag(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const std::vector<absl::string_view> lines = Lines(text);
  if (lines.empty()) return absl::InvalidArgumentError(absl::StrCat(path, " holds no items"));
  if (lines.size() % kHellaSwagLines != 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", lines.size(), " lines, not a multiple of ",
                                                   kHellaSwagLines, " (context, gold index, four endings)"));
  }
  std::vector<MultipleChoiceItem> items;
  for (size_t first = 0; first < lines.size(); first += kHellaSwagLines) {
    NIBBLE_ASSIGN_OR_RETURN(MultipleChoiceItem item, ParseHellaSwagItem(path, lines, first));
    items.push_back(std::move(item));
  }
  return items;
}

absl::StatusOr<std::vector<MultipleChoiceItem>> ReadMultipleChoice(const std::string& path) {
  if (absl::EndsWith(path, ".jsonl") || absl::EndsWith(path, ".json")) return ReadMultipleChoiceJsonLines(path);
  if (absl::EndsWith(path, ".txt")) return ReadHellaSwag(path);
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": multiple-choice items are read from .jsonl (query, choices, gold) or .txt (HellaSwag)"));
}

}  // namespace nibble::datasets
