// From a task's description and its files to items: texts to be tokenized and
// scored, examples before them included.
#ifndef NIBBLE_DATASETS_TASK_H_
#define NIBBLE_DATASETS_TASK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "datasets/registry.h"
#include "datasets/task.pb.h"

namespace nibble::datasets {

struct TaskItem {
  std::string place;      // "path:line"
  std::string category;   // "" where the task has none
  size_t preamble = 0;    // index into Task.preambles
  // The context of all continuations, or one for each of them. EXACT_MATCH: the prompt.
  std::vector<std::string> contexts;
  // What is scored, delimiter included. MULTIPLE_CHOICE and PARTIAL: one a choice;
  // MINIMAL_PAIR: the good sentence, the bad one; LAST_WORD, ROLLING: one.
  std::vector<std::string> continuations;
  int gold = 0;
  std::vector<int64_t> characters;  // MULTIPLE_CHOICE: Unicode code points of each choice
  std::string answer;               // EXACT_MATCH
  int64_t words = 0, bytes = 0;     // ROLLING: of the text as it stands in the file

  const std::string& context(size_t c) const { return contexts[contexts.size() == 1 ? 0 : c]; }
};

struct Task {
  std::string label;  // in metric names
  TaskDescription description;
  int shots = 0;
  // Before an item's context: the description's preamble and the examples. Items
  // with equal ones share them.
  std::vector<std::string> preambles;
  std::vector<TaskItem> items;
  std::vector<size_t> part_ends;  // indices into items
};

struct TaskOptions {
  int shots = -1;     // examples before each item; -1: as the description says
  int64_t limit = 0;  // the first items of each part only; 0: all
};

// Checks that the kind has the fields that it needs and no others, and that
// templates and regular expressions are well formed. Errors name the field.
absl::Status CheckDescription(const TaskDescription& description);

// Reads the items. Errors are those of CheckDescription, ReadRows and Template,
// and name path:line and the column: a gold that is no choice, an empty text, a
// text of one word where its last is asked for, fewer examples than shots.
absl::StatusOr<Task> ReadTask(const ResolvedTask& resolved, const TaskOptions& options);

// The categories of a task's items in order of their first item; empty where
// there are none. A task of one category has none either.
std::vector<std::string> Categories(const Task& task);

// A WikiText article as plain text, as lm-evaluation-harness scores it.
std::string DetokenizeWikitext(const std::string& page);

}  // namespace nibble::datasets

#endif  // NIBBLE_DATASETS_TASK_H_
