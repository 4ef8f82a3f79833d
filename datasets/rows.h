// Rows of data files: what every task is made of, whatever the file's format.
#ifndef NIBBLE_DATASETS_ROWS_H_
#define NIBBLE_DATASETS_ROWS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/json.h"
#include "datasets/task.pb.h"

namespace nibble::datasets {

struct Row {
  nlohmann::json columns;  // an object; strings alone where the format is CSV
  std::string place;       // "path:line", where the row starts
};

// JSON_LINES: an object a line; blank lines are skipped.
// CSV: RFC 4180 with a header; fields in quotes may hold line breaks.
// HELLASWAG: six lines an item, the context with its activity label, the index of
//   the right ending (0-3), four endings: columns query, choices, gold.
// WIKITEXT_PAGES: WikiText's raw text cut before each heading of the first level,
//   " = Title = ": column page. The lines before the first heading are a page where
//   they hold more than white space.
// Errors name path:line: bytes that are not UTF-8, a row of another form, a file
// without rows, a name that does not tell AUTO the format.
absl::StatusOr<std::vector<Row>> ReadRows(const std::string& path, TaskDescription::Format format);

}  // namespace nibble::datasets

#endif  // NIBBLE_DATASETS_ROWS_H_
