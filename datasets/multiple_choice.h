// Multiple-choice items: a query and choices of which one is right.
#ifndef NIBBLE_DATASETS_MULTIPLE_CHOICE_H_
#define NIBBLE_DATASETS_MULTIPLE_CHOICE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace nibble::datasets {

struct MultipleChoiceItem {
  std::string query;  // the context as it stands
  std::vector<std::string> choices;
  int gold = 0;  // index of the right choice
};

// JSON Lines: an object a line with "query" (a string), "choices" (two or more
// strings, none empty) and "gold" (an index). Other fields and blank lines are
// ignored. Errors name file:line and the field.
absl::StatusOr<std::vector<MultipleChoiceItem>> ReadMultipleChoiceJsonLines(const std::string& path);

// HellaSwag as text, six lines an item: the context with its activity label,
// the index of the right ending (0-3), four endings. Errors name file:line.
absl::StatusOr<std::vector<MultipleChoiceItem>> ReadHellaSwag(const std::string& path);

// By the file's name: ".jsonl" or ".json" is JSON Lines, ".txt" HellaSwag's form.
absl::StatusOr<std::vector<MultipleChoiceItem>> ReadMultipleChoice(const std::string& path);

}  // namespace nibble::datasets

#endif  // NIBBLE_DATASETS_MULTIPLE_CHOICE_H_
